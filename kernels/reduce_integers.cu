// y[o, i] = sum, product, largest or smallest of x[o, c, i] over c; integers TX, exact modulo their size
// Tactics:
//   reduce_integer_rows      a block a row, where inner is 1
//   reduce_integer_columns   a thread a column: neighbours read neighbours
// NVRTC defines: TX (i64, i32, u8 or i8), OP (one of the names below).
#include "common.cuh"

#define SUM 0
#define PROD 1
#define MAX 2
#define MIN 3
#define THREADS 128

__device__ __forceinline__ TX combine(TX x, TX y) { return OP == SUM ? TX(x + y) : OP == PROD ? TX(x * y) : OP == MAX ? (x > y ? x : y) : (x < y ? x : y); }

#ifdef ENTRY_ROWS
extern "C" __global__ void __launch_bounds__(THREADS) reduce_integer_rows(const TX* __restrict__ x, TX* __restrict__ y, i64 cols) {
    take_turn();
    __shared__ TX parts[THREADS];
    x += blockIdx.x * cols;
    TX own = OP == SUM ? TX(0) : OP == PROD ? TX(1) : x[0];
    for (i64 c = threadIdx.x; c < cols; c += THREADS) own = combine(own, x[c]);
    parts[threadIdx.x] = own;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) parts[threadIdx.x] = combine(parts[threadIdx.x], parts[threadIdx.x + half]);
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = parts[0];
}
#endif

#ifdef ENTRY_COLUMNS
extern "C" __global__ void __launch_bounds__(THREADS) reduce_integer_columns(const TX* __restrict__ x, TX* __restrict__ y, i64 columns, i64 cols, i64 inner) {
    take_turn();
    i64 at = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (at >= columns) return;
    x += at / inner * cols * inner + at % inner;
    TX own = x[0];
    for (i64 c = 1; c < cols; ++c) own = combine(own, x[c * inner]);
    y[at] = own;
}
#endif
