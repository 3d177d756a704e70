// A batch of products y = alpha * a @ b + beta * c, by strides in elements; y dense [batch, m, n].
#pragma once
#include "common.cuh"

struct Problem {
    i64 m, n, k;
    i64 a_batch[2], b_batch[2], c_batch[2], batch1;  // strides of the two batch axes, extent of the second
    i64 a_row, a_col, b_row, b_col, c_row, c_col;    // c's are 0 along axes it is repeated over
    i64 down, across;                                // tiles of y
    float alpha, beta;
};

// What becomes of a sum: c is null where nothing is added.
template <class Added> __device__ __forceinline__ float finished(float sum, const Added* c, i64 row, i64 col, const Problem& p) {
    float value = p.alpha == 1.f ? sum : p.alpha * sum;
    if (c) value += p.beta * read(c[row * p.c_row + col * p.c_col]);
    return value;
}
