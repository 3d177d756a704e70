// A convolution of single pixels of which there are few, channels last: y[m, n] = c[n] + sum_k x[m, k] * w[n, k]
//   x, w TAB (f16, bf16), channels k and outputs n divide by 8; c TC, y TY (or out.cuh)
// Tactic:
//   conv_few   a block computes 16 * SETS pixels of 32 outputs; its warps share k, everything that one reads is under way at once, weights before the
//              kernel's turn; their sums are added in the order of the warps
// Of 32 channels, a thread has eight neighbours, as in conv_point.cu.
// Products and sums are FP32 (the tensor core's: sums are cut, not rounded, a few bits below); a warp sums every (8 / SETS)-th 32 channels.
// NVRTC defines: TAB, TC, TY, ADDED (0: no c), CHANNELS, OUTPUTS, SETS (1, 2, 4), WEIGHTS (1: w is the same in every run).
#include "mma.cuh"
#include "out.cuh"

typedef TAB T;
#define THREADS 256
#define BLOCKS ((CHANNELS + 31) / 32)
#define RANGES (8 / SETS)  // warps that share k
#define EACH ((BLOCKS + RANGES - 1) / RANGES)
#define PITCH (BLOCKS * 64 + (BLOCKS % 2 ? 0 : 64))  // bytes of a row of weights, so that neighbours lie in different banks
#define SUM_ROW 40  // floats: two rows of sums lie in different banks

extern "C" __global__ void __launch_bounds__(THREADS) conv_few(
    const T* __restrict__ x, const T* __restrict__ w, const TC* __restrict__ c, OUT_PARAMETERS, int pixels) {
    DYNAMIC_SHARED(shared);
    constexpr int ACROSS = (OUTPUTS + 31) / 32;
    int n = blockIdx.x % ACROSS * 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane % 4, line = lane / 4;
    int range = warp / SETS, first = blockIdx.x / ACROSS * (16 * SETS) + warp % SETS * 16;
    if (!WEIGHTS) take_turn();
    for (int i = threadIdx.x; i < 32 * BLOCKS * 4; i += THREADS) {
        int row = i / (BLOCKS * 4), eight = i % (BLOCKS * 4);
        bool in = n + row < OUTPUTS && eight * 8 < CHANNELS;
        copy16(shared + row * PITCH + eight * 16, in ? w + (i64)(n + row) * CHANNELS + eight * 8 : w, in);
    }
    copies_commit();
    if (WEIGHTS) take_turn();
    Pack<unsigned, 4> values[EACH][2];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        int k = (i * RANGES + range) * 32 + quad * 8;
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            int row = first + s * 8 + line;
            bool in = row < pixels && k < CHANNELS;
            load_16(*(unsigned(*)[4])&values[i][s].lane[0], in ? x + (i64)row * CHANNELS + k : x);
        }
    }
    Out out = {OUT_ARGUMENTS};
    // Which eight values this thread finishes: of a row of the block
    int own = threadIdx.x / 4, col = n + quad * 8;
    i64 pixel = (i64)blockIdx.x / ACROSS * (16 * SETS) + own;
    bool finishes = own < 16 * SETS && pixel < pixels && col < OUTPUTS;
    Spot spot = {pixel * OUTPUTS + col, 0, 0, pixel, col};
    Beside<8> beside = fetch<8>(out, spot, finishes);
    float added[8];
#pragma unroll
    for (int e = 0; e < 8; ++e)
        if (ADDED) added[e] = col < OUTPUTS ? read(c[col + e]) : 0.f;
    copies_wait<0>();
    __syncthreads();
    float sums[4][4] = {};
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        int b = i * RANGES + range;
        if (BLOCKS % RANGES && b >= BLOCKS) break;
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            bool in = first + s * 8 + line < pixels && b * 32 + quad * 8 < CHANNELS;
#pragma unroll
            for (int e = 0; e < 4; ++e) values[i][s].lane[e] = in ? values[i][s].lane[e] : 0u;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            Pack<unsigned, 4> weight = *(const Pack<unsigned, 4>*)(shared + (j * 8 + line) * PITCH + b * 64 + quad * 16);
#pragma unroll
            for (int part = 0; part < 4; part += 2) {
                const unsigned a[4] = {values[i][0].lane[part], values[i][1].lane[part], values[i][0].lane[part + 1], values[i][1].lane[part + 1]};
                mma(sums[j], a, weight.lane[part], weight.lane[part + 1], T());
            }
        }
    }
    float* kept = (float*)(shared + (32 * PITCH + 127) / 128 * 128);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int s = 0; s < 2; ++s)
            *(Pack<float, 2>*)(kept + (warp * 16 + s * 8 + line) * SUM_ROW + j * 8 + quad * 2) = {sums[j][s * 2], sums[j][s * 2 + 1]};
    }
    __syncthreads();
    if (!finishes) return;
    float finished[8] = {};
#pragma unroll
    for (int r = 0; r < RANGES; ++r) {
#pragma unroll
        for (int q = 0; q < 8; q += 4) {
            Pack<float, 4> part = *(const Pack<float, 4>*)(kept + (r * 16 * SETS + own) * SUM_ROW + quad * 8 + q);
#pragma unroll
            for (int e = 0; e < 4; ++e) finished[q + e] = r ? finished[q + e] + part.lane[e] : part.lane[e];
        }
    }
#pragma unroll
    for (int e = 0; e < 8; ++e)
        if (ADDED) finished[e] += added[e];
    put(out, finished, beside, spot);
}
