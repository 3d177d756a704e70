// What is not 0: how much it is, nobody knows before.
//   nonzero_count     counts i32 [blocks] of what is not 0 among STRETCH elements of x TX each
//   nonzero_place     y i64 [RANK, all]: the index of each of them along every axis, in their order; `before` i32 [blocks]: counted up to and with a block
// NVRTC defines: TX, RANK, PLACES (1: what ends in _place).
#include "common.cuh"

#define THREADS 256
#define EACH 16  // neighbours of a thread
#define STRETCH (THREADS * EACH)

// Of the thread's elements those that are not 0, as bits
__device__ __forceinline__ unsigned nonzero(const TX* __restrict__ x, i64 first, i64 total) {
    unsigned found = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) found |= (unsigned)(first + i < total && read(x[first + i]) != 0) << i;
    return found;
}

// Sums up to and with each thread
__device__ __forceinline__ int summed(int mine) {
    __shared__ int sums[2][THREADS];
    int now = 0;
    sums[0][threadIdx.x] = mine;
    __syncthreads();
    for (int reach = 1; reach < THREADS; reach *= 2) {
        sums[1 - now][threadIdx.x] = sums[now][threadIdx.x] + ((int)threadIdx.x >= reach ? sums[now][threadIdx.x - reach] : 0);
        now = 1 - now;
        __syncthreads();
    }
    return sums[now][threadIdx.x];
}

#if !PLACES
extern "C" __global__ void __launch_bounds__(THREADS) nonzero_count(const TX* __restrict__ x, i32* __restrict__ counts, i64 total) {
    take_turn();
    int all = summed(__popc(nonzero(x, (i64)blockIdx.x * STRETCH + threadIdx.x * EACH, total)));
    if (threadIdx.x == THREADS - 1) counts[blockIdx.x] = all;
}

#else
struct Extents { i64 e[RANK]; };

extern "C" __global__ void __launch_bounds__(THREADS) nonzero_place(const TX* __restrict__ x, const i32* __restrict__ before, i64* __restrict__ y, i64 total,
                                                                    i64 all, Extents extents) {
    take_turn();
    i64 first = (i64)blockIdx.x * STRETCH + threadIdx.x * EACH;
    unsigned found = nonzero(x, first, total);
    i64 to = summed(__popc(found)) - __popc(found) + (blockIdx.x ? before[blockIdx.x - 1] : 0);
    for (int i = 0; i < EACH; ++i) {
        if (!(found >> i & 1)) continue;
        i64 rest = first + i;
#pragma unroll
        for (int axis = RANK - 1; axis >= 0; --axis) {
            y[axis * all + to] = rest % extents.e[axis];
            rest /= extents.e[axis];
        }
        ++to;
    }
}
#endif
