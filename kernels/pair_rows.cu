// What is asked of rows and columns of a pair: does the answer stay the same, does the distribution, which channel is worst.
//   actual TA, golden float: [rows, cols], dense
// Tactics:
//   rows_agree    GROUP threads a row. Compares the largest element (top-1; golden's own ties are all right), counts what is ahead of golden's
//                 choice (top-5) and, with KL, sums r ln(r / max(x, 1e-12)) over rows of golden that are distributions. `seen` [4] unsigned
//                 long long, zero before: top-1, top-5, distributions, their divergence in units of 2^-40 nats; `most` [1]: the largest
//                 divergence, as bits of a double. Whole numbers, so that the order in which rows are added does not matter
//   columns_most  a thread a column and a stretch of rows: largest error and largest golden magnitude of each column, `maxima` [2][cols], as
//                 unsigned bits, zero before; elements compared as in pairs.cu
// NVRTC defines: TA, GROUP (32, 256), KL, one ENTRY.
#include "common.cuh"

typedef unsigned long long u64;
#define INFINITE __int_as_float(0x7f800000)
#define THREADS 256

#ifdef ENTRY_ROWS
// The largest, NaN above all, the first of equals
__device__ __forceinline__ bool before(float x, int at, float y, int there) {
    bool odd = x != x, other = y != y;
    if (odd != other) return odd;
    return !odd && x != y ? x > y : at < there;
}

#define WARPS (GROUP / 32)
__shared__ double shared_sum[8];
__shared__ float shared_value[8];
__shared__ int shared_place[8];

__device__ __forceinline__ void first_of(float& x, int& at) {
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) {
        float y = __shfl_xor_sync(0xffffffffu, x, far);
        int there = __shfl_xor_sync(0xffffffffu, at, far);
        if (before(y, there, x, at)) { x = y; at = there; }
    }
#if GROUP > 32
    __syncthreads();
    if (threadIdx.x % 32 == 0) { shared_value[threadIdx.x / 32] = x; shared_place[threadIdx.x / 32] = at; }
    __syncthreads();
    x = shared_value[0];
    at = shared_place[0];
    for (int w = 1; w < WARPS; ++w) {
        if (before(shared_value[w], shared_place[w], x, at)) { x = shared_value[w]; at = shared_place[w]; }
    }
#endif
}

__device__ __forceinline__ double all_of(double x) {
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) x += __shfl_xor_sync(0xffffffffu, x, far);
#if GROUP > 32
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared_sum[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared_sum[0];
    for (int w = 1; w < WARPS; ++w) x += shared_sum[w];
#endif
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS) rows_agree(
    const TA* __restrict__ actual, const float* __restrict__ golden, u64* __restrict__ seen, u64* __restrict__ most, i64 rows, int cols) {
    take_turn();
    int me = threadIdx.x % GROUP;
    i64 groups = (i64)gridDim.x * (THREADS / GROUP);
    // every group makes as many turns as the first, so that barriers and shuffles are met by all
    for (i64 base = 0; base < rows; base += groups) {
        i64 row = base + (i64)blockIdx.x * (THREADS / GROUP) + threadIdx.x / GROUP;
        bool there = row < rows;
        const TA* a = actual + (there ? row : 0) * cols;
        const float* g = golden + (there ? row : 0) * cols;
        float largest = -INFINITE, best = -INFINITE;
        int picked = cols, wanted = cols;
        double total = 0.0, negative = 0.0;
        for (int c = me; c < cols; c += GROUP) {
            float x = read(a[c]), y = g[c];
            if (before(x, c, largest, picked)) { largest = x; picked = c; }
            if (before(y, c, best, wanted)) { best = y; wanted = c; }
            if (KL) { total += y; negative += !(y >= 0.f); }
        }
        first_of(largest, picked);
        first_of(best, wanted);
        float at_golden = read(a[wanted]);
        double ahead = 0.0;
        if (cols > 5) {
            for (int c = me; c < cols; c += GROUP) ahead += read(a[c]) > at_golden;
            ahead = all_of(ahead);
        }
        double divergence = 0.0;
        bool proper = false;
        if (KL) {
            total = all_of(total);
            negative = all_of(negative);
            proper = negative == 0.0 && fabs(total - 1.0) <= 1e-3;
            for (int c = me; c < cols; c += GROUP) {
                double y = g[c], x = read(a[c]);
                if (y > 0.0) divergence += y * log(y / (x > 1e-12 ? x : 1e-12));
            }
            divergence = all_of(divergence);
        }
        if (there && me == 0) {
            if (largest == largest && best == best && g[picked] == best) atomicAdd(seen, (u64)1);
            if (cols > 5 && at_golden == at_golden && ahead < 5.0) atomicAdd(seen + 1, (u64)1);
            if (proper) {
                divergence = divergence > 0.0 ? divergence : 0.0;
                atomicAdd(seen + 2, (u64)1);
                atomicAdd(seen + 3, (u64)(divergence * 1099511627776.0 + 0.5));
                atomicMax(most, (u64)__double_as_longlong(divergence));
            }
        }
    }
}
#endif

#ifdef ENTRY_COLUMNS
extern "C" __global__ void __launch_bounds__(THREADS) columns_most(
    const TA* __restrict__ actual, const float* __restrict__ golden, unsigned* __restrict__ maxima, i64 rows, int cols, int stretch, float threshold) {
    take_turn();
    int across = (cols + THREADS - 1) / THREADS, c = blockIdx.x % across * THREADS + threadIdx.x;
    i64 first = (i64)(blockIdx.x / across) * stretch, last = first + stretch < rows ? first + stretch : rows;
    if (c >= cols) return;
    float error = 0.f, range = 0.f;
#pragma unroll 8
    for (i64 row = first; row < last; ++row) {
        float x = read(actual[row * cols + c]), y = golden[row * cols + c];
        bool there = fabsf(y) < threshold && fabsf(x) < INFINITE;
        error = fmaxf(error, there ? fabsf(x - y) : 0.f);
        range = fmaxf(range, there ? fabsf(y) : 0.f);
    }
    atomicMax(maxima + c, __float_as_uint(error));
    atomicMax(maxima + cols + c, __float_as_uint(range));
}
#endif
