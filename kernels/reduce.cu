// y = finish(combine over an axis of prepare(x))
//   x TX, y TY. reduce_rows: `rows` rows of `cols`, dense, cut into parts of `span` columns: y has a value a part.
//   reduce_columns: [outer, cols, inner] over the middle axis.
// Tactics:
//   reduce_columns   a block of 32 x 8 threads: 32 times VEC neighbours along inner, 8 walking along cols
//   reduce_rows      a group of THREADS threads per part; several rows a block when THREADS is 32
//   in two stages    FIRST without finish into float, then FINAL without prepare: few long rows or columns fill the machine
// Sums are float whatever the storage, their order fixed. ReduceLogSumExp shifts by the largest element, found in a pass of its own.
// NVRTC defines: TX, TY, OP (one of the names below), FIRST, FINAL (0 or 1), VEC; reduce_rows: THREADS, ROWS.
#include "common.cuh"

#define SUM 0
#define MEAN 1
#define MAX 2
#define MIN 3
#define PROD 4
#define L1 5
#define L2 6
#define SUM_SQUARE 7
#define LOG_SUM 8
#define LOG_SUM_EXP 9

#define INFINITE __int_as_float(0x7f800000)
#define NEUTRAL (OP == MAX ? -INFINITE : OP == MIN ? INFINITE : OP == PROD ? 1.f : 0.f)

__device__ __forceinline__ float combine(float x, float y) {
    return OP == MAX ? Max()(x, y) : OP == MIN ? Min()(x, y) : OP == PROD ? x * y : x + y;
}

struct Combine { __device__ __forceinline__ float operator()(float x, float y) const { return combine(x, y); } };

__device__ __forceinline__ float prepare(float x, float shift) {
    if (!FIRST) return x;
    if (OP == L1) return fabsf(x);
    if (OP == L2 || OP == SUM_SQUARE) return x * x;
    return OP == LOG_SUM_EXP ? expf(x - shift) : x;
}

__device__ __forceinline__ float finish(float x, float shift, i64 count) {
    if (!FINAL) return x;
    if (OP == MEAN) return x / (float)count;
    if (OP == L2) return sqrtf(x);
    if (OP == LOG_SUM) return logf(x);
    return OP == LOG_SUM_EXP ? logf(x) + shift : x;
}

// exp(Inf - Inf) would be NaN
__device__ __forceinline__ float finite(float top) { return top == INFINITE || top == -INFINITE ? 0.f : top; }

#ifdef ENTRY_ROWS
template <class F> __device__ __forceinline__ float group_all(float x, float neutral, F combine) {
    return ROWS > 1 ? warp_all(x, combine) : block_all<THREADS>(x, neutral, combine);
}

// `parts` values of y in all; a row has `per_row` of them. `count`: what a mean divides by.
extern "C" __global__ void __launch_bounds__(THREADS * ROWS) reduce_rows(
    const TX* __restrict__ x, TY* __restrict__ y, i64 parts, i64 per_row, i64 cols, i64 span, i64 count) {
    take_turn();
    i64 part = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (part >= parts) return;  // whole warps: ROWS > 1 only with THREADS == 32
    i64 begin = part % per_row * span, end = begin + span < cols ? begin + span : cols;
    x += part / per_row * cols;
    i64 first = begin + threadIdx.x % THREADS * VEC;
    float shift = 0.f;
    if (OP == LOG_SUM_EXP) {
        float top = -INFINITE;
        for (i64 c = first; c < end; c += THREADS * VEC) {
            Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + c);
#pragma unroll
            for (int v = 0; v < VEC; ++v) top = Max()(top, read(in.lane[v]));
        }
        shift = finite(group_all(top, -INFINITE, Max()));
    }
    float sums[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) sums[v] = NEUTRAL;
#pragma unroll 4
    for (i64 c = first; c < end; c += THREADS * VEC) {
        Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) sums[v] = combine(sums[v], prepare(read(in.lane[v]), shift));
    }
#pragma unroll
    for (int v = 1; v < VEC; ++v) sums[0] = combine(sums[0], sums[v]);
    float all = group_all(sums[0], NEUTRAL, Combine());
    if (threadIdx.x % THREADS == 0) write(y[part], finish(all, shift, count));
}
#endif

#ifdef ENTRY_COLUMNS
// A part is `span` of the cols; y is [outer, parts, inner].
extern "C" __global__ void __launch_bounds__(256) reduce_columns(
    const TX* __restrict__ x, TY* __restrict__ y, i64 cols, i64 inner, i64 parts, i64 span, i64 count) {
    take_turn();
    __shared__ float sums[8][32 * VEC];
    int lane = threadIdx.x % 32, walker = threadIdx.x / 32;
    i64 blocks = (inner + 32 * VEC - 1) / (32 * VEC), at = (blockIdx.x % blocks * 32 + lane) * VEC;
    i64 part = blockIdx.x / blocks % parts, outer = blockIdx.x / blocks / parts;
    i64 begin = part * span + walker, end = part * span + span < cols ? part * span + span : cols;
    bool mine = at < inner;  // all VEC of them: VEC divides inner
    x += outer * cols * inner + at;
    float sum[VEC], shift[VEC] = {};
    if (OP == LOG_SUM_EXP) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) sum[v] = -INFINITE;
        if (mine) {
            for (i64 c = begin; c < end; c += 8) {
                Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + c * inner);
#pragma unroll
                for (int v = 0; v < VEC; ++v) sum[v] = Max()(sum[v], read(in.lane[v]));
            }
        }
#pragma unroll
        for (int v = 0; v < VEC; ++v) sums[walker][lane * VEC + v] = sum[v];
        __syncthreads();
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            for (int w = 0; w < 8; ++w) sum[v] = Max()(sum[v], sums[w][lane * VEC + v]);
            shift[v] = finite(sum[v]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) sum[v] = NEUTRAL;
    if (mine) {
#pragma unroll 4
        for (i64 c = begin; c < end; c += 8) {
            Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + c * inner);
#pragma unroll
            for (int v = 0; v < VEC; ++v) sum[v] = combine(sum[v], prepare(read(in.lane[v]), shift[v]));
        }
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) sums[walker][lane * VEC + v] = sum[v];
    __syncthreads();
    if (walker == 0 && mine) {
        Pack<TY, VEC> out;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            for (int w = 1; w < 8; ++w) sum[v] = combine(sum[v], sums[w][lane * VEC + v]);
            write(out.lane[v], finish(sum[v], shift[v], count));
        }
        *(Pack<TY, VEC>*)(y + (outer * parts + part) * inner + at) = out;
    }
}
#endif
