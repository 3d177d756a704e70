// y[o, c, i] = sum (or product, where PRODUCT) of x[o, c', i] over c' <= c (c' < c when EXCLUSIVE; from the end when REVERSE), along the middle of [outer, cols, inner]
//   x TX, y TY, sums TA: float for floats, the integer type for integers
// Tactic:
//   scan_rows   a block a row: each thread adds up a piece of its own, the pieces are scanned in shared memory, a second walk stores
// The order of every sum is fixed by cols alone. NVRTC defines: TX, TY, TA, EXCLUSIVE, REVERSE, PRODUCT (0 or 1).
#include "common.cuh"

#define THREADS 256
#define NEUTRAL TA(PRODUCT)

__device__ __forceinline__ TA with(TA x, TA y) { return PRODUCT ? TA(x * y) : TA(x + y); }

extern "C" __global__ void __launch_bounds__(THREADS) scan_rows(const TX* __restrict__ x, TY* __restrict__ y, i64 cols, i64 inner) {
    take_turn();
    __shared__ TA pieces[2][THREADS];
    i64 row = blockIdx.x, base = row / inner * cols * inner + row % inner;
    i64 each = (cols + THREADS - 1) / THREADS, first = threadIdx.x * each, last = first + each < cols ? first + each : cols;
    TA sum = NEUTRAL;
    for (i64 c = first; c < last; ++c) sum = with(sum, read(x[base + (REVERSE ? cols - 1 - c : c) * inner]));
    int now = 0;
    pieces[0][threadIdx.x] = sum;
    __syncthreads();
    for (int reach = 1; reach < THREADS; reach *= 2) {
        TA mine = pieces[now][threadIdx.x];
        if ((int)threadIdx.x >= reach) mine = with(pieces[now][threadIdx.x - reach], mine);
        pieces[1 - now][threadIdx.x] = mine;
        now = 1 - now;
        __syncthreads();
    }
    sum = threadIdx.x ? pieces[now][threadIdx.x - 1] : NEUTRAL;
    for (i64 c = first; c < last; ++c) {
        i64 at = base + (REVERSE ? cols - 1 - c : c) * inner;
        TA next = with(sum, read(x[at]));
        write(y[at], EXCLUSIVE ? sum : next);
        sum = next;
    }
}
