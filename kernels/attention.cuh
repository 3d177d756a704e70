// What attention and the code generated for it (probe/engine/device/cuda/ops/attention/attention_code.py) share.
#pragma once
#include "common.cuh"

#ifndef SKIPS
#define SKIPS 0  // 1: keys that no query of a block looks at are not read
#endif

// Strides in elements: of the two batch axes, rows and columns
struct Along { i64 b0, b1, row, col; };

struct Attention {
    Along q, k, v, y;  // their columns are contiguous
    i64 batch1;        // extent of the second batch axis
    int queries, keys, depth, width;  // depth: elements of a query and of a key; width: of a value
    int seen;  // where SKIPS: keys that the first query looks at; each further one looks at one more
};

// Of a block of `rows` queries, the `at`-th of so many: its first one; those that read most come first
__device__ __forceinline__ int first_query(const Attention& p, int at, int down, int rows) { return (SKIPS ? down - 1 - at : at) * rows; }
// Keys that any of them looks at
__device__ __forceinline__ int keys_of(const Attention& p, int first, int rows) {
    i64 most = (i64)p.seen + first + rows - 1;
    return SKIPS && most < p.keys ? (int)most : p.keys;
}

// Of one thread: the two rows of scores that it holds, 8 apart, and what the generated code needs to know of the matrix they are in.
struct Rows {
    int row, queries, keys;
    // the nearest row there is: what is computed for others is dropped
    __device__ __forceinline__ int at(int half) const {
        int wanted = row + half * 8;
        return wanted < queries ? wanted : queries - 1;
    }
    __device__ __forceinline__ int column(int wanted) const { return wanted < keys ? wanted : keys - 1; }
    __device__ __forceinline__ bool has(int half) const { return row + half * 8 < queries; }
};

__device__ __forceinline__ unsigned pair_where(const Pack<b8, 2>& c, unsigned x, unsigned y) {
    unsigned mask = (c.lane[0] ? 0xffffu : 0u) | (c.lane[1] ? 0xffff0000u : 0u);
    return (x & mask) | (y & ~mask);
}
