// Where the sums of a product or convolution go: stored as they are, or through a generated tail (probe/engine/device/cuda/ops/products/ending.py), which
// reads, computes and stores what pointwise nodes behind the product would, with their roundings, in registers.
#pragma once
#include "common.cuh"

// Element (row, col) of matrix (b0, b1) of the batch; `at` counts elements of the whole dense result.
struct Spot { i64 at, b0, b1, row, col; };
// Of something read beside it
struct Strides { i64 b0, b1, row, col; };

// N neighbours of what is read beside a row; they begin on a multiple of N elements
template <int N, class Stored> __device__ __forceinline__ Pack<Stored, N> neighbours(const Stored* at) {
    if constexpr (sizeof(Stored) * N % 16) {
        return *(const Pack<Stored, N>*)at;
    } else {
        Pack<Stored, N> x;
#pragma unroll
        for (int n = 0; n < N; n += 16 / sizeof(Stored)) load_16(*(unsigned(*)[4])&x.lane[n], at + n);
        return x;
    }
}

// An Out is made of OUT_ARGUMENTS behind take_turn(): what is the same for all elements is read then.
#ifndef TAIL
#define OUT_PARAMETERS TY* __restrict__ y
#define OUT_ARGUMENTS y
struct Out { TY* y; };
// What a tail reads beside N neighbours of a row, fetched before it is needed
template <int N> struct Beside {};
template <int N> __device__ __forceinline__ Beside<N> fetch(const Out&, const Spot&, bool = true) { return {}; }
// N neighbours of a row; for N > 1 they begin on a multiple of N elements. Nothing is stored where they are not `in` the result.
template <int N> __device__ __forceinline__ void put(const Out& out, const float (&sums)[N], const Beside<N>&, const Spot& spot, bool in = true) {
    Pack<TY, N> y;
#pragma unroll
    for (int n = 0; n < N; ++n) write(y.lane[n], sums[n]);
    store(out.y + spot.at, y, in);
}
template <int N> __device__ __forceinline__ void put(const Out& out, const float (&sums)[N], const Spot& spot) { put(out, sums, fetch<N>(out, spot), spot); }
#endif

// Fragments of tensor cores hold pairs: thread q of four has columns 8 * j + 2 * q and the next of 8-column blocks j = 0..3. Afterwards it has
// the eight columns of block q. All 32 threads of the warp take part.
__device__ __forceinline__ void gather_columns(float (&pair)[4][2]) {
    int q = threadIdx.x % 4;
#pragma unroll
    for (int mask = 1; mask <= 2; mask *= 2) {
        bool upper = q & mask;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j & mask) continue;
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float got = __shfl_xor_sync(0xffffffffu, upper ? pair[j][e] : pair[j + mask][e], mask);
                (upper ? pair[j][e] : pair[j + mask][e]) = got;
            }
        }
    }
}

// Two 8 x 8 matrices of floats that lie along n, as if transposed: instructions transpose 16-bit values only. `step`: four k further
template <class Stored> __device__ __forceinline__ void load_columns(unsigned (&r)[4], const Stored* at, int step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) r[i] = __float_as_uint(read(at[i / 2 * 8 + i % 2 * step]));
}
