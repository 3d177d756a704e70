// y[b, m, n] = alpha * sum_k a[b, m, k] * b[b, k, n] + beta * c[b, m, n] on tensor cores
//   a, b TAB (f16, bf16, or float that holds TF32), k of a contiguous; b contiguous along n (B_BY_N 1) or along k (0)     c TC, y TY (or out.cuh)     strides as in product.cuh
//   ALIGNED 1: rows of a and b begin on 16 bytes (strides and extents along the contiguous axis divide by 16 bytes)
// Tactics; each is the one above plus one idea:
//   matmul_mma ALIGNED 0   tiles read value by value
//   matmul_mma ALIGNED 1   tiles read by asynchronous copies of 16 bytes, STAGES tiles under way
// exact: products and sums in FP32 (the tensor core's: sums are cut, not rounded, a few bits below). acc16: the running sum in FP16.
// Tiles are padded by 16 bytes a row, so that the eight rows of a matrix lie in different banks.
// NVRTC defines: TAB, TC, TY, ACC16, B_BY_N, ALIGNED, BM, BN, BK (of a block), WM, WN (of a warp), STAGES.
#include "mma.cuh"
#include "product.cuh"

typedef TAB T;

#define THREADS (32 * (BM / WM) * (BN / WN))
#define WIDE (16 / (int)sizeof(T))  // values of 16 bytes
#define A_ROW (BK + WIDE)
#define B_ROW (B_BY_N ? BN + 8 : BK + WIDE)
#define B_ROWS (B_BY_N ? BK : BN)

// The strips of a matrix that this thread fetches, tile after tile along k: EACH of them, STEP rows apart, in the same columns.
// ROWS x COLS values a tile, COLS contiguous in memory; ALONG 1: k runs along the columns, 0: along the rows.
template <int ROWS, int COLS, int PITCH, int ALONG> struct Strips {
    static constexpr int WIDTH = ALIGNED ? WIDE : 1, STEP = THREADS / (COLS / WIDTH), EACH = ROWS / STEP;
    static_assert(THREADS % (COLS / WIDTH) == 0 && ROWS % STEP == 0, "every thread fetches as many strips of its own columns");
    const T* matrix;
    const T* from;
    i64 stride;  // between rows
    int row, col, outside;  // rows or columns from here on lie outside, as far as the axis that is not k says

    // `first` and `extent`: of the axis that is not k
    __device__ __forceinline__ void begin(const T* at, i64 first, i64 extent, i64 between) {
        matrix = at;
        stride = between;
        row = threadIdx.x / (COLS / WIDTH);
        col = threadIdx.x % (COLS / WIDTH) * WIDTH;
        outside = (int)(extent - first < ROWS + COLS ? extent - first : ROWS + COLS);
        from = ALONG ? at + (first + row) * stride + col : at + row * stride + first + col;
    }

    // `left`: what there is of k from here on; `step`: to the next tile
    __device__ __forceinline__ void fetch(T* tile, int left, i64 step) {
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
            int r = row + e * STEP;
            bool in = ALONG ? r < outside && col < left : r < left && col < outside;
            const T* at = in ? from + e * STEP * stride : matrix;
            T* to = tile + r * PITCH + col;
#if ALIGNED
            copy16(to, at, in);
#else
            T zero = {0};
            *to = in ? *at : zero;
#endif
        }
        from += step;
    }
};

#if ACC16
typedef unsigned Sums[2];
__device__ __forceinline__ float sum_of(const Sums& c, int i) { f16 x = {(unsigned short)(c[i / 2] >> (16 * (i % 2)))}; return widen(x); }
#else
typedef float Sums[4];
__device__ __forceinline__ float sum_of(const Sums& c, int i) { return c[i]; }
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 1) matmul_mma(
    const T* __restrict__ a, const T* __restrict__ b, const TC* __restrict__ c, OUT_PARAMETERS, Problem p) {
    take_turn();
    DYNAMIC_SHARED(shared);
    T* as = (T*)shared;
    T* bs = as + STAGES * BM * A_ROW;
    i64 tile = blockIdx.x % (p.down * p.across), batch = blockIdx.x / (p.down * p.across);
    i64 row = tile / p.across * BM, col = tile % p.across * BN;
    i64 b0 = batch / p.batch1, b1 = batch % p.batch1;
    a += b0 * p.a_batch[0] + b1 * p.a_batch[1];
    b += b0 * p.b_batch[0] + b1 * p.b_batch[1];
    Out out = {OUT_ARGUMENTS};
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
    Sums sums[WM / 16][WN / 8] = {};
    int tiles = (int)((p.k + BK - 1) / BK), depth = (int)p.k;
    Strips<BM, BK, A_ROW, 1> left_strips;
    Strips<B_ROWS, B_BY_N ? BN : BK, B_ROW, !B_BY_N> right_strips;
    left_strips.begin(a, row, p.m, p.a_row);
    right_strips.begin(b, col, p.n, B_BY_N ? p.b_row : p.b_col);
    i64 b_step = B_BY_N ? BK * p.b_row : BK;

    auto fetch = [&](int t) {
        if (t < tiles) {
            int stage = t % STAGES;
            left_strips.fetch(as + stage * BM * A_ROW, depth - t * BK, BK);
            right_strips.fetch(bs + stage * B_ROWS * B_ROW, depth - t * BK, b_step);
        }
        copies_commit();  // an empty group too: what is waited for is counted
    };

    for (int s = 0; s < STAGES - 1; ++s) fetch(s);
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        fetch(t + STAGES - 1);
        int stage = t % STAGES;
        const T* at = as + stage * BM * A_ROW;
        const T* bt = bs + stage * B_ROWS * B_ROW;
#pragma unroll
        for (int k = 0; k < BK; k += 2 * WIDE) {
            unsigned left[WM / 16][4], right[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; ++i) load_matrices(left[i], at + (wm + i * 16 + lane % 16) * A_ROW + k + lane / 16 * WIDE);
#pragma unroll
            for (int j = 0; j < WN / 16; ++j) {
                if (B_BY_N && WIDE == 4)
                    load_columns(right[j], bt + (k + lane % 4) * B_ROW + wn + j * 16 + lane / 4, 4 * B_ROW);
                else if (B_BY_N)
                    load_matrices_transposed(right[j], bt + (k + lane % 16) * B_ROW + wn + j * 16 + lane / 16 * 8);
                else
                    load_matrices(right[j], bt + (wn + j * 16 + lane / 16 * 8 + lane % 8) * B_ROW + k + lane / 8 % 2 * WIDE);
            }
#pragma unroll
            for (int i = 0; i < WM / 16; ++i)
#pragma unroll
                for (int j = 0; j < WN / 8; ++j) mma(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1], T());
        }
    }

    if (c) c += b0 * p.c_batch[0] + b1 * p.c_batch[1];
    bool even = p.n % 8 == 0;
#pragma unroll
    for (int i = 0; i < WM / 16; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int j = 0; j < WN / 8; j += 4) {
                float pair[4][2], values[8];
#pragma unroll
                for (int e = 0; e < 8; ++e) pair[e / 2][e % 2] = sum_of(sums[i][j + e / 2], half * 2 + e % 2);
                gather_columns(pair);
#pragma unroll
                for (int e = 0; e < 8; ++e) values[e] = pair[e / 2][e % 2];
                i64 mm = row + wm + i * 16 + half * 8 + lane / 4, nn = col + wn + (j + lane % 4) * 8;
                finish(values, c, {(batch * p.m + mm) * p.n + nn, b0, b1, mm, nn}, even, out, p);
            }
        }
    }
}
