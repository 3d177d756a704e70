// Convolution (conv.cuh) on tensor cores. x, w TAB (f16, bf16, or float that holds TF32), bias TB or null, y TY
// Tactic:
//   conv_mma   conv_simt with its products on tensor cores; the next strips are fetched into registers while this one is computed, by a table of
//              where their taps lie, made a strip ahead
// exact: products and sums in FP32 (the tensor core's). acc16: the running sum in FP16, rounded after every 16 products.
// NVRTC defines: TAB, TB, TY, AXES (3 for volumes), ACC16, BM, BN, BK (of a block), WM, WN (of a warp), EVEN (1: rows of w are whole accesses of
// 16 bytes). THREADS is a multiple of BN, or divides it, and no less than BK.
#include "mma.cuh"
#include "conv.cuh"

typedef TAB T;
#define THREADS (32 * (BM / WM) * (BN / WN))
#define WIDE (16 / (int)sizeof(T))  // values of 16 bytes
#define W_ROW (BK + WIDE)
#define X_ROW (BN + 8)
#define TOGETHER (EVEN ? WIDE : 1)
#define W_EACH (BM * BK / TOGETHER / THREADS)
#define ROWS (THREADS * TOGETHER / BK)
#define FAR (1 << 30)  // of no place in x, even when added to another
#define X_EACH (BN * BK / THREADS)

#if ACC16
typedef unsigned Sums[2];
__device__ __forceinline__ float sum_of(const Sums& c, int i) { f16 x = {(unsigned short)(c[i / 2] >> (16 * (i % 2)))}; return widen(x); }
#else
typedef float Sums[4];
__device__ __forceinline__ float sum_of(const Sums& c, int i) { return c[i]; }
#endif

struct alignas(16) Tap { int slice, row, col, offset; };  // behind the corner of a window, and behind its element

extern "C" __global__ void __launch_bounds__(THREADS) conv_mma(
    const T* __restrict__ x, const T* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS, Conv p) {
    take_turn();
    __shared__ __align__(16) T ws[2][BM * W_ROW];
    __shared__ __align__(16) T xs[2][BK * X_ROW];
    __shared__ Tap table[2][BK];
    int pixels = pixels_of(p), taps = taps_of(p), depth = p.channels * taps;
    int tile = (int)(blockIdx.x % (p.down * p.across)), row = tile / p.across * BM, col = tile % p.across * BN;
    i64 batch = blockIdx.x / (p.down * p.across);  // image and group
    int group = (int)(batch % p.groups);
    x += batch * p.channels * room_of(p);
    w += (i64)group * p.outputs * depth;
    Out out = {OUT_ARGUMENTS};
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
    int mine = threadIdx.x % BN;  // the pixel whose windows this thread fetches
    Voxel corner = corner_of(col + mine, p);
    const int first = (corner.slice * p.height + corner.row) * p.width + corner.col;
    if (col + mine >= pixels) corner.col = FAR;
    Sums sums[WM / 16][WN / 8] = {};
    const int own_row = row + threadIdx.x * TOGETHER / BK, own_col = threadIdx.x * TOGETHER % BK;  // what it fetches of w, and every ROWS rows further
    const T* own = w + (i64)own_row * depth + own_col;
    Pack<T, TOGETHER> w_next[W_EACH];
    T x_next[X_EACH], zero = {0};

    auto tabulate = [&](int stage, int k0) {
        if (threadIdx.x >= BK) return;
        int k = k0 + threadIdx.x, c = k / taps;
        Voxel step = step_of(k - c * taps, p);
        int offset = c * room_of(p) + (step.slice * p.height + step.row) * p.width + step.col;
        table[stage][threadIdx.x] = {step.slice, step.row, k < depth ? step.col : FAR, offset};
    };
    auto fetch = [&](int stage, int k0) {
#pragma unroll
        for (int e = 0; e < W_EACH; ++e) {
            w_next[e] = {};
            if (own_row + e * ROWS < p.outputs && k0 + own_col < depth) w_next[e] = *(const Pack<T, TOGETHER>*)(own + k0 + e * (i64)(ROWS * depth));
        }
#pragma unroll
        for (int e = 0; e < X_EACH; ++e) {
            Tap tap = table[stage][threadIdx.x / BN + e * (THREADS / BN)];
            bool in = is_inside({corner.slice + tap.slice, corner.row + tap.row, (int)((unsigned)corner.col + tap.col)}, p);
            x_next[e] = in ? x[first + tap.offset] : zero;
        }
    };
    auto keep = [&](int stage) {
#pragma unroll
        for (int e = 0; e < W_EACH; ++e) {
            int i = (threadIdx.x + e * THREADS) * TOGETHER;
            *(Pack<T, TOGETHER>*)(ws[stage] + i / BK * W_ROW + i % BK) = w_next[e];
        }
#pragma unroll
        for (int e = 0; e < X_EACH; ++e) xs[stage][(threadIdx.x / BN + e * (THREADS / BN)) * X_ROW + mine] = x_next[e];
    };

    tabulate(0, 0);
    tabulate(1, BK);
    __syncthreads();
    fetch(0, 0);
    keep(0);
    __syncthreads();
    for (int k0 = 0, stage = 0; k0 < depth; k0 += BK, stage ^= 1) {
        bool more = k0 + BK < depth;
        if (more) fetch(stage ^ 1, k0 + BK);
#pragma unroll
        for (int k = 0; k < BK; k += 2 * WIDE) {
            unsigned left[WM / 16][4], right[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; ++i) load_matrices(left[i], ws[stage] + (wm + i * 16 + lane % 16) * W_ROW + k + lane / 16 * WIDE);
#pragma unroll
            for (int j = 0; j < WN / 16; ++j)
                if (WIDE == 4) load_columns(right[j], xs[stage] + (k + lane % 4) * X_ROW + wn + j * 16 + lane / 4, 4 * X_ROW);
                else load_matrices_transposed(right[j], xs[stage] + (k + lane % 16) * X_ROW + wn + j * 16 + lane / 16 * 8);
#pragma unroll
            for (int i = 0; i < WM / 16; ++i)
#pragma unroll
                for (int j = 0; j < WN / 8; ++j) mma(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1], T());
        }
        if (more) keep(stage ^ 1);
        tabulate(stage, k0 + 2 * BK);  // who read of this strip did so before the last barrier
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < WM / 16; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int mm = row + wm + i * 16 + half * 8 + lane / 4;
            float added = bias && mm < p.outputs ? read(bias[group * p.outputs + mm]) : 0.f;
#pragma unroll
            for (int j = 0; j < WN / 8; j += 4) {
                float pair[4][2], values[8];
#pragma unroll
                for (int e = 0; e < 8; ++e) pair[e / 2][e % 2] = sum_of(sums[i][j + e / 2], half * 2 + e % 2);
                gather_columns(pair);
                int nn = col + wn + (j + lane % 4) * 8;
                if (mm >= p.outputs || nn >= pixels) continue;
#pragma unroll
                for (int e = 0; e < 8; ++e) values[e] = bias ? pair[e / 2][e % 2] + added : pair[e / 2][e % 2];
                Spot spot = {(batch * p.outputs + mm) * pixels + nn, batch / p.groups, group, mm, nn};
                if (pixels % 8 == 0) {
                    put(out, values, spot);
                    continue;
                }
#pragma unroll
                for (int e = 0; e < 8; ++e) {
                    float one[1] = {values[e]};
                    if (nn + e < pixels) put(out, one, {spot.at + e, spot.b0, spot.b1, spot.row, spot.col + e});
                }
            }
        }
    }
}
