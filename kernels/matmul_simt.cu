// y[b, m, n] = alpha * sum_k a[b, m, k] * b[b, k, n] + beta * c[b, m, n]
//   a TA, b TB, c TC, y TY (or out.cuh); a, b and c by strides, so that transposes and broadcasts cost no copy; y dense
//   beta is left out where c is null; c's strides are 0 along axes it is repeated over
// Tactics; each is the one above plus one idea:
//   matmul_simt (32 x 32 x 16, 2 x 2 a thread)   a tile of y a block, its strips of a and b in shared memory; any shape
//   matmul_simt (64 x 64 x 16, 4 x 4 a thread)   more products for each value read from shared memory
//   matmul_simt (128 x 128 x 8, 8 x 8 a thread)  the same again, for large y
// Products and sums are float, one fused multiply-add a product, k in order: what the CPU computes up to the order of its sums.
// NVRTC defines: TA, TB, TC, TY, BM, BN, BK, TM, TN.
#include "product.cuh"

#define THREADS ((BM / TM) * (BN / TN))

#define VM (TM < 4 ? TM : 4)  // neighbouring rows of a thread, read from shared memory at once
#define VN (TN < 4 ? TN : 4)
#define A_EACH (BM * BK / THREADS)
#define B_EACH (BN * BK / THREADS)

extern "C" __global__ void __launch_bounds__(THREADS) matmul_simt(
    const TA* __restrict__ a, const TB* __restrict__ b, const TC* __restrict__ c, OUT_PARAMETERS, Problem p) {
    take_turn();
    __shared__ __align__(16) float as[BK][BM + 4];
    __shared__ __align__(16) float bs[BK][BN + 4];
    i64 tile = blockIdx.x % (p.down * p.across), batch = blockIdx.x / (p.down * p.across);
    i64 row = tile / p.across * BM, col = tile % p.across * BN;
    i64 b0 = batch / p.batch1, b1 = batch % p.batch1;
    a += b0 * p.a_batch[0] + b1 * p.a_batch[1];
    b += b0 * p.b_batch[0] + b1 * p.b_batch[1];
    Out out = {OUT_ARGUMENTS};
    int tx = threadIdx.x % (BN / TN) * VN, ty = threadIdx.x / (BN / TN) * VM;
    float sums[TM][TN] = {};
    // Neighbouring threads read neighbours in memory, whichever axis that is. Places are computed once.
    bool a_by_k = p.a_col == 1, b_by_n = p.b_col == 1;
    const TA* a_from[A_EACH];
    const TB* b_from[B_EACH];
    int a_k[A_EACH], b_k[B_EACH], a_to[A_EACH], b_to[B_EACH];
#pragma unroll
    for (int e = 0; e < A_EACH; ++e) {
        int i = threadIdx.x + e * THREADS, mm = a_by_k ? i / BK : i % BM, kk = a_by_k ? i % BK : i / BM;
        a_from[e] = a + (row + mm) * p.a_row + kk * p.a_col;
        a_k[e] = row + mm < p.m ? kk : 1 << 30;
        a_to[e] = kk * (BM + 4) + mm;
    }
#pragma unroll
    for (int e = 0; e < B_EACH; ++e) {
        int i = threadIdx.x + e * THREADS, nn = b_by_n ? i % BN : i / BK, kk = b_by_n ? i / BN : i % BK;
        b_from[e] = b + kk * p.b_row + (col + nn) * p.b_col;
        b_k[e] = col + nn < p.n ? kk : 1 << 30;
        b_to[e] = kk * (BN + 4) + nn;
    }
    i64 a_step = BK * p.a_col, b_step = BK * p.b_row;
    float a_next[A_EACH], b_next[B_EACH];

    auto fetch = [&](int left) {  // what there is of k from here on
#pragma unroll
        for (int e = 0; e < A_EACH; ++e) {
            a_next[e] = a_k[e] < left ? read(*a_from[e]) : 0.f;
            a_from[e] += a_step;
        }
#pragma unroll
        for (int e = 0; e < B_EACH; ++e) {
            b_next[e] = b_k[e] < left ? read(*b_from[e]) : 0.f;
            b_from[e] += b_step;
        }
    };

    int depth = (int)p.k;
    if (depth) fetch(depth);
    for (int k0 = 0; k0 < depth; k0 += BK) {
#pragma unroll
        for (int e = 0; e < A_EACH; ++e) (&as[0][0])[a_to[e]] = a_next[e];
#pragma unroll
        for (int e = 0; e < B_EACH; ++e) (&bs[0][0])[b_to[e]] = b_next[e];
        __syncthreads();
        if (k0 + BK < depth) fetch(depth - k0 - BK);
#pragma unroll
        for (int kk = 0; kk < BK; ++kk) {
            Pack<float, VM> left[TM / VM];
            Pack<float, VN> right[TN / VN];
#pragma unroll
            for (int i = 0; i < TM / VM; ++i) left[i] = *(const Pack<float, VM>*)&as[kk][ty + i * (BM / (TM / VM))];
#pragma unroll
            for (int j = 0; j < TN / VN; ++j) right[j] = *(const Pack<float, VN>*)&bs[kk][tx + j * (BN / (TN / VN))];
#pragma unroll
            for (int i = 0; i < TM; ++i)
#pragma unroll
                for (int j = 0; j < TN; ++j) sums[i][j] = fmaf(left[i / VM].lane[i % VM], right[j / VN].lane[j % VN], sums[i][j]);
        }
        __syncthreads();
    }
    if (c) c += b0 * p.c_batch[0] + b1 * p.c_batch[1];
#pragma unroll
    for (int i = 0; i < TM; ++i) {
#pragma unroll
        for (int j = 0; j < TN; ++j) {
            i64 mm = row + ty + i / VM * (BM / (TM / VM)) + i % VM, nn = col + tx + j / VN * (BN / (TN / VN)) + j % VN;
            if (mm >= p.m || nn >= p.n) continue;
            float one[1] = {finished(sums[i][j], c, mm, nn, p)};
            put(out, one, {(batch * p.m + mm) * p.n + nn, b0, b1, mm, nn});
        }
    }
}
