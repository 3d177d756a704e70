// y[r, c] = exp(x[r, c] - max) / sum_c exp(x[r, c] - max), or its logarithm x - max - log(sum)
//   x TX, y TY: `rows` rows of `cols`, dense; for softmax_strided [outer, cols, inner], softmax over the middle axis
// Tactics; each is the one above plus one idea:
//   softmax_strided   a thread per row, x read three times         any inner; neighbours read neighbours
//   softmax_looped    a block per row                              any cols
//   softmax_held      the row held in registers: x read once       cols <= THREADS * ITEMS * VEC, cols % VEC == 0
// Sums are float whatever the storage, their order fixed. A row of -Inf alone gives NaN, as the formula does.
// NVRTC defines: TX, TY, LOG (0 or 1), THREADS; for softmax_held: ITEMS, VEC, ROWS (rows of a block; more than 1 when THREADS is 32).
#include "common.cuh"

#define LOWEST __int_as_float(0xff800000)

__device__ __forceinline__ float result(float x, float top, float sum) {
    return LOG ? x - top - logf(sum) : expf(x - top) / sum;
}

#ifdef ENTRY_STRIDED
extern "C" __global__ void __launch_bounds__(THREADS) softmax_strided(
    const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols, i64 inner) {
    i64 row = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (row >= rows) return;
    i64 base = row / inner * cols * inner + row % inner;
    float top = LOWEST, sum = 0.f;
    for (i64 c = 0; c < cols; ++c) top = Max()(top, read(x[base + c * inner]));
    for (i64 c = 0; c < cols; ++c) sum += expf(read(x[base + c * inner]) - top);
    for (i64 c = 0; c < cols; ++c) write(y[base + c * inner], result(read(x[base + c * inner]), top, sum));
}
#endif

#ifdef ENTRY_LOOPED
extern "C" __global__ void __launch_bounds__(THREADS) softmax_looped(
    const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols) {
    i64 base = (i64)blockIdx.x * cols;
    float top = LOWEST, sum = 0.f;
    for (i64 c = threadIdx.x; c < cols; c += THREADS) top = Max()(top, read(x[base + c]));
    top = block_all<THREADS>(top, LOWEST, Max());
    for (i64 c = threadIdx.x; c < cols; c += THREADS) sum += expf(read(x[base + c]) - top);
    sum = block_all<THREADS>(sum, 0.f, Sum());
    for (i64 c = threadIdx.x; c < cols; c += THREADS) write(y[base + c], result(read(x[base + c]), top, sum));
}
#endif

#ifdef ENTRY_HELD
extern "C" __global__ void __launch_bounds__(THREADS * ROWS) softmax_held(
    const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols) {
    i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (row >= rows) return;  // whole warps: ROWS > 1 only with THREADS == 32
    int thread = threadIdx.x % THREADS;
    x += row * cols;
    y += row * cols;
    float held[ITEMS][VEC], top = LOWEST, sum = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        Pack<TX, VEC> in;
        if (c < cols) in = *(const Pack<TX, VEC>*)(x + c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            held[i][v] = c < cols ? read(in.lane[v]) : LOWEST;
            top = Max()(top, held[i][v]);
        }
    }
    top = ROWS > 1 ? warp_all(top, Max()) : block_all<THREADS>(top, LOWEST, Max());
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float part = expf(held[i][v] - top);
            if (!LOG) held[i][v] = part;
            sum += c < cols ? part : 0.f;
        }
    }
    sum = ROWS > 1 ? warp_all(sum, Sum()) : block_all<THREADS>(sum, 0.f, Sum());
    float shift = LOG ? logf(sum) : 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        Pack<TY, VEC> out;
#pragma unroll
        for (int v = 0; v < VEC; ++v) write(out.lane[v], LOG ? held[i][v] - top - shift : held[i][v] / sum);
        if (c < cols) *(Pack<TY, VEC>*)(y + c) = out;
    }
}
#endif
