// Attention's rows of scores: largest and sum, what warps that share them know together, weights. Macros: attention.cu; Beside: generated.
#pragma once
#include "attention_tiles.cuh"

// exp(x) for x <= 0. Where weights are rounded to 16 bits: two instructions, off by 2^-24 |x| of itself, which is nowhere more than a unit in the last
// place (of float) of the row's largest. Else the function that the softmax kernel calls.
__device__ __forceinline__ float exponential(float x) { return WIDE || TF32 ? expf(x) : exp_quick(x); }

// What a thread knows of a row of scores; four threads of SPLIT warps share a row. NaN among the scores makes the sum NaN, whatever the maximum.
struct Row {
    float top = LOWEST, sum = 0.f, share;
    // part / sum: correctly rounded (the quotient by the reciprocal, and what it leaves over: Markstein 1990, theorem 8.2 of Muller et al., Handbook
    // of Floating-Point Arithmetic), or, where it is rounded to 16 bits, within two units in the last place of float
    __device__ __forceinline__ float over(float part) const {
        float near = part * share;
        return WIDE || TF32 ? fmaf(fmaf(-near, sum, part), share, near) : near;
    }
};

// Of two rows, what all who share them know together. `room`: SPLIT x BQ floats that nobody else uses.
template <class F> __device__ __forceinline__ void join(float (&of)[2], float* room, F combine) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int lane = 1; lane <= 2; lane *= 2) of[half] = combine(of[half], __shfl_xor_sync(0xffffffffu, of[half], lane));
    if constexpr (SPLIT > 1) {
        int part = threadIdx.x / 32 / QUERY_WARPS, row = threadIdx.x / 32 % QUERY_WARPS * 16 + threadIdx.x % 32 / 4;
#pragma unroll
        for (int half = 0; half < 2; ++half)
            if (threadIdx.x % 4 == 0) room[part * BQ + row + half * 8] = of[half];
        __syncthreads();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            of[half] = room[row + half * 8];
#pragma unroll
            for (int other = 1; other < SPLIT; ++other) of[half] = combine(of[half], room[other * BQ + row + half * 8]);
        }
    }
}
struct Larger { __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); } };
__device__ __forceinline__ void join_tops(Row (&rows)[2], float* room) {
    float tops[2] = {rows[0].top, rows[1].top};
    join(tops, room, Larger());
    rows[0].top = tops[0], rows[1].top = tops[1];
}
__device__ __forceinline__ void join_sums(Row (&rows)[2], float* room) {
    float sums[2] = {rows[0].sum, rows[1].sum};
    join(sums, room + SPLIT * BQ, Sum());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        rows[half].sum = sums[half];
        rows[half].share = 1.f / sums[half];
    }
}

#if ONCE
// The exponentials of a tile of scores, beside sums so far, which are scaled where a larger score comes; -Inf adds nothing, even to rows that have
// nothing else
template <int COUNT> __device__ __forceinline__ void scale(float (&sums)[WIDTH / 8][4], float (&s)[COUNT][4], Row (&rows)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Row& row = rows[half];
        float tops[2] = {row.top, LOWEST};
#pragma unroll
        for (int j = 0; j < COUNT; ++j) tops[0] = fmaxf(tops[0], s[j][half * 2]), tops[1] = fmaxf(tops[1], s[j][half * 2 + 1]);
        float higher = fmaxf(tops[0], tops[1]);
#pragma unroll
        for (int lane = 1; lane <= 2; lane *= 2) higher = fmaxf(higher, __shfl_xor_sync(0xffffffffu, higher, lane));
        float by = row.top == higher ? 1.f : expf(row.top - higher), from = higher == LOWEST ? 0.f : higher;
        row.top = higher;
        row.sum *= by;
#pragma unroll
        for (int j = 0; j < COUNT; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) row.sum += s[j][half * 2 + e] = exponential(s[j][half * 2 + e] - from);
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n) sums[n][half * 2] *= by, sums[n][half * 2 + 1] *= by;
    }
}
#endif

// w of 16 keys from the exponentials of their scores: as fragments
__device__ __forceinline__ void weigh(
    unsigned (&w)[FRAGMENTS][4], float (&left)[4], float (&right)[4], const Row (&rows)[2], const Beside& beside, int col) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
        float(&part)[4] = side ? right : left;
#pragma unroll
        for (int i = 0; i < 4; ++i) part[i] = ONCE ? part[i] : rows[i / 2].over(part[i]);
#if !PLAIN_AFTER
        beside.after(part, col + side * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (col + side * 8 + i % 2 >= beside.rows.keys) part[i] = 0.f;  // a row of NaN has no others
#endif
#if TF32
#pragma unroll
        for (int i = 0; i < 4; ++i) w[side][i % 2 * 2 + i / 2] = __float_as_uint(round_tf32(part[i]));  // row, row + 8; the next key of both
#else
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            unsigned both = side_by_side(part[half * 2], part[half * 2 + 1], T());
            w[0][side * 2 + half] = both;
            if (WIDE) w[FRAGMENTS - 1][side * 2 + half] = side_by_side(part[half * 2] - lower(both, T()), part[half * 2 + 1] - higher(both, T()), T());
        }
#endif
    }
}

// steps between, on 16 keys from column col on; those behind the last are no keys
__device__ __forceinline__ void step(float (&left)[4], float (&right)[4], const Beside& beside, int col, bool last) {
    beside.between(left, col);
    beside.between(right, col + 8);
    if (!last) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (col + i % 2 >= beside.rows.keys) left[i] = LOWEST;
        if (col + 8 + i % 2 >= beside.rows.keys) right[i] = LOWEST;
    }
}
