// A batch of products alpha * a @ b + beta * c, by strides in elements; what becomes of them (out.cuh) is dense, [batch, m, n].
#pragma once
#include "out.cuh"

struct Problem {
    i64 m, n, k;
    i64 a_batch[2], b_batch[2], c_batch[2], batch1, batches;  // strides of the two batch axes, extents of the second and of both
    i64 a_row, a_col, b_row, b_col, c_row, c_col;    // c's are 0 along axes it is repeated over
    i64 down, across;                                // tiles of y
    float alpha, beta;
};

// What becomes of a sum: c is null where nothing is added.
template <class Added> __device__ __forceinline__ float finished(float sum, const Added* c, i64 row, i64 col, const Problem& p) {
    float value = p.alpha == 1.f ? sum : p.alpha * sum;
    if (c) value = fmaf(p.beta, read(c[row * p.c_row + col * p.c_col]), value);
    return value;
}

// Eight sums of a row, from column col on, a multiple of 8; those outside y are dropped. `even`: n divides by 8. PLAIN: alpha is 1, c null.
template <bool PLAIN = false, class Added> __device__ __forceinline__ void finish(
    float (&values)[8], const Added* c, Spot spot, bool even, const Out& out, const Problem& p) {
    if (spot.row >= p.m || spot.col >= p.n) return;
#pragma unroll
    for (int e = 0; e < 8; ++e)
        if (!PLAIN && (even || spot.col + e < p.n)) values[e] = finished(values[e], c, spot.row, spot.col + e, p);
    if (even) {
        put(out, values, spot);
        return;
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        float one[1] = {values[e]};
        if (spot.col + e < p.n) put(out, one, {spot.at + e, spot.b0, spot.b1, spot.row, spot.col + e});
    }
}
