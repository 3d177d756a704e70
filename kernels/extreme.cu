// y = place of the largest (LEAST 0) or smallest (LEAST 1) element of x along an axis: int64
//   extreme_rows: x TX [rows, cols]; extreme_columns: x TX [outer, cols, inner] along the middle axis. cols fits 31 bits.
// Tactics:
//   extreme_columns   a thread a column: neighbours read neighbours
//   extreme_rows      a group of THREADS threads a row, VEC neighbours an access; several rows a block when THREADS is 32
// Of equal ones the first counts, or (LAST 1) the last. NaN is passed over, but in the first place it is the answer: as in ONNX Runtime.
// NVRTC defines: TX, LEAST, LAST (0 or 1); extreme_rows: THREADS, ROWS, VEC.
#include "common.cuh"

#define INFINITE __int_as_float(0x7f800000)

// The larger the better; `at` of nothing yet loses to every other.
struct Best { float value; int at; };

__device__ __forceinline__ Best nothing() { return {-INFINITE, LAST ? -1 : 0x7fffffff}; }

__device__ __forceinline__ void take(Best& best, float value, int at) {
    if (value > best.value || (value == best.value && (LAST ? at > best.at : at < best.at))) best = {value, at};
}

__device__ __forceinline__ float prepared(float x) { return LEAST ? -x : x; }

#ifdef ENTRY_ROWS
extern "C" __global__ void __launch_bounds__(THREADS * ROWS) extreme_rows(const TX* __restrict__ x, i64* __restrict__ y, i64 rows, int cols) {
    take_turn();
    i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (row >= rows) return;  // whole warps: ROWS > 1 only with THREADS == 32
    x += row * cols;
    Best best = nothing();
#pragma unroll 4
    for (int c = threadIdx.x % THREADS * VEC; c < cols; c += THREADS * VEC) {
        Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) take(best, prepared(read(in.lane[v])), c + v);
    }
#pragma unroll
    for (int lane = 16; lane > 0; lane >>= 1) {
        float value = __shfl_xor_sync(0xffffffffu, best.value, lane);
        int at = __shfl_xor_sync(0xffffffffu, best.at, lane);
        take(best, value, at);
    }
    if constexpr (THREADS > 32) {
        __shared__ float values[THREADS / 32];
        __shared__ int places[THREADS / 32];
        if (threadIdx.x % 32 == 0) {
            values[threadIdx.x / 32] = best.value;
            places[threadIdx.x / 32] = best.at;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < THREADS / 32; ++w) take(best, values[w], places[w]);
        }
    }
    if (threadIdx.x % THREADS == 0) {
        float first = read(x[0]);
        y[row] = first != first ? 0 : best.at;
    }
}
#endif

#ifdef ENTRY_COLUMNS
extern "C" __global__ void __launch_bounds__(256) extreme_columns(const TX* __restrict__ x, i64* __restrict__ y, i64 columns, i64 inner, int cols) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= columns) return;
    x += at / inner * cols * inner + at % inner;
    Best best = nothing();
#pragma unroll 4
    for (int c = 0; c < cols; ++c) take(best, prepared(read(x[c * inner])), c);
    float first = read(x[0]);
    y[at] = first != first ? 0 : best.at;
}
#endif
