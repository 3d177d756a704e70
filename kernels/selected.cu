// What is selected by its value: how much it is, nobody knows before.
//   nonzero_count     counts i32 [blocks] of what is not 0 among STRETCH elements of x TX each
//   nonzero_place     y i64 [RANK, all]: the index of each of them along every axis, in their order; `before` i32 [blocks]: counted up to and with a block
//   suppress          of the boxes [batches, count, 4] of a batch those of a class that no better one covers, best first; a block a batch and class.
//                     scores, places [batches * classes, count]: best first; gone u8 of the same size: its memory; chosen i32 [batches * classes, most]
//   suppress_place    y i64 [all, 3]: batch, class, box; `before` as above, of batches and classes
// Whether a box covers another is asked in ONNX Runtime's words, without contraction.
// NVRTC defines: PLACES (1: what ends in _place), one ENTRY; nonzero: TX, RANK; suppress: CENTRES (1: centre and extents; 0: two corners), LIMITED (1: scores must be larger than `least`).
#include "common.cuh"

#define THREADS 256
#define EACH 16  // neighbours of a thread
#define STRETCH (THREADS * EACH)

#ifdef ENTRY_NONZERO
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
#endif

#ifdef ENTRY_SUPPRESS
#if !PLACES
struct Box { float x0, x1, y0, y1; };

__device__ __forceinline__ Box box_of(const float* __restrict__ at) {
    if (CENTRES) {
        float half_width = at[2] / 2, half_height = at[3] / 2;
        return {at[0] - half_width, at[0] + half_width, at[1] - half_height, at[1] + half_height};
    }
    bool x = at[1] < at[3], y = at[0] < at[2];
    return {x ? at[1] : at[3], x ? at[3] : at[1], y ? at[0] : at[2], y ? at[2] : at[0]};
}

__device__ __forceinline__ bool covers(const Box& one, const Box& other, float limit) {
    float x0 = fmaxf(one.x0, other.x0), x1 = fminf(one.x1, other.x1), y0 = fmaxf(one.y0, other.y0), y1 = fminf(one.y1, other.y1);
    if (x1 <= x0 || y1 <= y0) return false;
    float both = (x1 - x0) * (y1 - y0);
    if (both <= 0.f) return false;
    float first = (one.x1 - one.x0) * (one.y1 - one.y0), second = (other.x1 - other.x0) * (other.y1 - other.y0), either = first + second - both;
    return first > 0.f && second > 0.f && either > 0.f && both / either > limit;
}

extern "C" __global__ void __launch_bounds__(THREADS) suppress(const float* __restrict__ boxes, const float* __restrict__ scores, const i64* __restrict__ places,
                                                               u8* __restrict__ gone, i32* __restrict__ chosen, i32* __restrict__ counts, int classes, int count,
                                                               int most, float overlap, float least) {
    take_turn();
    __shared__ int left;  // of those that are still there the first, counted from the end
    i64 row = blockIdx.x;
    boxes += row / classes * count * 4;
    scores += row * count;
    places += row * count;
    gone += row * count;
    for (int i = threadIdx.x; i < count; i += THREADS) gone[i] = LIMITED && !(scores[i] > least);
    int selected = 0;
    for (int at = 0; at < count && selected < most;) {
        if (threadIdx.x == 0) left = 0;
        __syncthreads();
        int i = at + threadIdx.x;
        if (i < count && !gone[i]) atomicMax(&left, count - i);
        __syncthreads();
        int found = count - left;
        __syncthreads();  // all have read what the next turn clears
        if (found == count) {
            at += THREADS;
            continue;
        }
        if (threadIdx.x == 0) chosen[row * most + selected] = (i32)places[found];
        ++selected;
        Box best = box_of(boxes + places[found] * 4);
        for (int j = found + 1 + threadIdx.x; j < count; j += THREADS) {
            if (!gone[j] && covers(best, box_of(boxes + places[j] * 4), overlap)) gone[j] = 1;
        }
        at = found + 1;
        __syncthreads();
    }
    if (threadIdx.x == 0) counts[row] = selected;
}

#else
extern "C" __global__ void __launch_bounds__(THREADS) suppress_place(const i32* __restrict__ chosen, const i32* __restrict__ before, i64* __restrict__ y, i64 rows,
                                                                     int classes, int most) {
    take_turn();
    i64 at = (i64)blockIdx.x * THREADS + threadIdx.x, row = at / most, i = at % most;
    if (row >= rows) return;
    i64 first = row ? before[row - 1] : 0;
    if (i >= before[row] - first) return;
    y += (first + i) * 3;
    y[0] = row / classes;
    y[1] = row % classes;
    y[2] = chosen[at];
}
#endif
#endif
