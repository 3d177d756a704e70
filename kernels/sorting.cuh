// Items in shared memory, brought into order by a block. Macros: those of items.cuh, THREADS; LOG: a thread has so many neighbours in registers, as a power of
// two: as many steps between two walks through shared memory. Many are least work, few are done soonest.
#pragma once
#include "items.cuh"

#define OWN (1 << LOG)
#define ROOM(COUNT) ((COUNT) + ((COUNT) >> LOG))

// Where an item lies: one is left free behind each line of all banks, so that threads with OWN neighbours each read different banks
__device__ __forceinline__ int lies(int i) { return i + (i >> LOG); }

__device__ __forceinline__ void exchange(Item& x, Item& y, bool down) {
    if (better(y, x) != down) return;
    Item kept = x;
    x = y;
    y = kept;
}

// STEPS neighbouring steps of a merge to lists of `size`, down to 1 << low
template <int COUNT, int PART, int STEPS> __device__ __forceinline__ void merge_steps(Item* items, int size, int low) {
    for (int g = threadIdx.x; g < COUNT >> STEPS; g += THREADS) {
        int base = (g >> low << (low + STEPS)) | (g & ((1 << low) - 1));
        bool down = size == PART || !(base & size);
        Item x[1 << STEPS];
#pragma unroll
        for (int i = 0; i < 1 << STEPS; ++i) x[i] = items[lies(base + (i << low))];
#pragma unroll
        for (int step = 1 << (STEPS - 1); step > 0; step /= 2) {
#pragma unroll
            for (int i = 0; i < 1 << STEPS; ++i) {
                if (!(i & step)) exchange(x[i], x[i | step], down);
            }
        }
#pragma unroll
        for (int i = 0; i < 1 << STEPS; ++i) items[lies(base + (i << low))] = x[i];
    }
    __syncthreads();
}

// COUNT items in shared memory, each PART of them best first: bitonic
template <int COUNT, int PART> __device__ __forceinline__ void sort_items(Item* items) {
    for (int g = threadIdx.x; g < COUNT >> LOG; g += THREADS) {
        Item x[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) x[i] = items[lies(g * OWN + i)];
#pragma unroll
        for (int size = 2; size <= OWN && size <= PART; size *= 2) {
#pragma unroll
            for (int step = size / 2; step > 0; step /= 2) {
#pragma unroll
                for (int i = 0; i < OWN; ++i) {
                    if (!(i & step)) exchange(x[i], x[i | step], size == PART || !((size == OWN ? g * OWN : i) & size));
                }
            }
        }
#pragma unroll
        for (int i = 0; i < OWN; ++i) items[lies(g * OWN + i)] = x[i];
    }
    __syncthreads();
    for (int bits = LOG + 1; 1 << bits <= PART; ++bits) {
        int low = bits - bits % LOG;
        if (bits % LOG == 1) merge_steps<COUNT, PART, 1>(items, 1 << bits, low);
        if (bits % LOG == 2) merge_steps<COUNT, PART, 2>(items, 1 << bits, low);
        if (LOG > 3 && bits % LOG == 3) merge_steps<COUNT, PART, 3>(items, 1 << bits, low);
        while (low) merge_steps<COUNT, PART, LOG>(items, 1 << bits, low -= LOG);
    }
}
