// y = x, the first 2 half elements of each head turned by angles (Su et al., arXiv:2104.09864), pair by pair:
//   y[i] = c[i] x[i] - s[i] x[j],  y[j] = s[i] x[i] + c[i] x[j]      j = i + half; INTERLEAVED: they are elements 2 i and 2 i + 1
//   x TX, elements of a head side by side, its other axes anyhow; y TY, dense, axes in the order in which x lies
//   c, s TC, [rows, half]: row r is p.c0 i0 + p.c1 i1 + p.c2 i2 of head (i0, i1, i2), or, where INDEXED, what `index` (TI) names there
// Tactic:
//   rotary   a thread VEC pairs, or as many elements behind them
// An index out of range sets *fault and is read as 0. NVRTC defines: TX, TY, TC, TI, INDEXED, INTERLEAVED, VEC; WHOLE: accesses may be of all that a
// thread reads; INDEX: of threads, unsigned or i64.
#include "common.cuh"

// e: extents of the axes before the last, slowest first; x: steps of x along them; c: of rows. Threads of a head, those of them that turn pairs; of all
struct Turning { i64 e[3], x[3], c[3], half, size, rows, units, pairs, total; };

// N neighbours
template <int N, class T> __device__ __forceinline__ void fetch(float (&to)[N], const T* from) {
    if constexpr (WHOLE) {
        Pack<T, N> found = *(const Pack<T, N>*)from;
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = read(found.lane[n]);
    } else {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = read(from[n]);
    }
}
template <int N, class T> __device__ __forceinline__ void put(T* to, const float (&from)[N]) {
    Pack<T, N> made;
#pragma unroll
    for (int n = 0; n < N; ++n) write(made.lane[n], from[n]);
    if constexpr (WHOLE) {
        *(Pack<T, N>*)to = made;
    } else {
#pragma unroll
        for (int n = 0; n < N; ++n) to[n] = made.lane[n];
    }
}

extern "C" __global__ void __launch_bounds__(256) rotary(
    const TX* __restrict__ x, const TC* __restrict__ cosines, const TC* __restrict__ sines, const TI* __restrict__ index, TY* __restrict__ y, int* fault,
    Turning p) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= (INDEX)p.total) return;
    INDEX head = at / (INDEX)p.units, outer = head / (INDEX)p.e[2];  // divisions of 64 bits take longer than all else
    i64 unit = at - head * (INDEX)p.units, i2 = head - outer * (INDEX)p.e[2], i0 = outer / (INDEX)p.e[1], i1 = outer - i0 * p.e[1];
    x += i0 * p.x[0] + i1 * p.x[1] + i2 * p.x[2];
    y += head * p.size;
    if (unit >= p.pairs) {
        i64 rest = 2 * p.half + (unit - p.pairs) * VEC;
        float held[VEC];
        fetch(held, x + rest);
        put(y + rest, held);
        return;
    }
    i64 row = i0 * p.c[0] + i1 * p.c[1] + i2 * p.c[2], first = unit * VEC;
    if (INDEXED) {
        row = index[row];
        if (row < 0 || row >= p.rows) *fault = 1, row = 0;
    }
    float c[VEC], s[VEC];
    fetch(c, cosines + row * p.half + first);
    fetch(s, sines + row * p.half + first);
    if constexpr (INTERLEAVED) {
        float both[2 * VEC];
        fetch(both, x + 2 * first);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float real = both[2 * v], imaginary = both[2 * v + 1];
            both[2 * v] = c[v] * real - s[v] * imaginary, both[2 * v + 1] = s[v] * real + c[v] * imaginary;
        }
        put(y + 2 * first, both);
    } else {
        float real[VEC], imaginary[VEC];
        fetch(real, x + first);
        fetch(imaginary, x + p.half + first);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float one = c[v] * real[v] - s[v] * imaginary[v];
            imaginary[v] = s[v] * real[v] + c[v] * imaginary[v], real[v] = one;
        }
        put(y + first, real);
        put(y + p.half + first, imaginary);
    }
}
