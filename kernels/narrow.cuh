// What generated chains compute of two neighbours at once where tensors are f16 or bf16: values that the format T holds, results that are rounded
// to it. Fewer instructions than float takes one by one, the same bits.
#pragma once
#include "pointwise.cuh"

#ifdef __CUDA_ARCH__
// both within -most and most, which are given twice; NaN stays NaN
OP unsigned pair_within(unsigned x, unsigned most, unsigned least, f16) {
    asm("{ .reg .b32 down; min.NaN.f16x2 down, %0, %1; max.NaN.f16x2 %0, down, %2; }" : "+r"(x) : "r"(most), "r"(least));
    return x;
}
OP unsigned pair_within(unsigned x, unsigned most, unsigned least, bf16) {
    asm("{ .reg .b32 down; min.NaN.bf16x2 down, %0, %1; max.NaN.bf16x2 %0, down, %2; }" : "+r"(x) : "r"(most), "r"(least));
    return x;
}
#else
template <class T> OP unsigned pair_within(unsigned x, unsigned most, unsigned least, T) {
    float high = lower(most, T()), low = lower(least, T()), a = lower(x, T()), b = higher(x, T());
    return side_by_side(a > high ? high : a < low ? low : a, b > high ? high : b < low ? low : b, T());
}
#endif

// Of each of the two, whether x < y: all of its bits or none
#ifdef __CUDA_ARCH__
OP unsigned pair_less(unsigned x, unsigned y, f16) {
    unsigned less;
    asm("set.lt.u32.f16x2 %0, %1, %2;" : "=r"(less) : "r"(x), "r"(y));
    return less;
}
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
OP unsigned pair_less(unsigned x, unsigned y, bf16) {
    unsigned less;
    asm("set.lt.u32.bf16x2 %0, %1, %2;" : "=r"(less) : "r"(x), "r"(y));
    return less;
}
#elif defined(__CUDA_ARCH__)
OP unsigned pair_less(unsigned x, unsigned y, bf16) {
    return (lower(x, bf16()) < lower(y, bf16()) ? 0xffffu : 0u) | (higher(x, bf16()) < higher(y, bf16()) ? 0xffff0000u : 0u);
}
#else
template <class T> OP unsigned pair_less(unsigned x, unsigned y, T) {
    return (lower(x, T()) < lower(y, T()) ? 0xffffu : 0u) | (higher(x, T()) < higher(y, T()) ? 0xffff0000u : 0u);
}
#endif
template <class T> OP unsigned pair_relu(unsigned x, T) { return x & ~pair_less(x, 0u, T()); }  // as op_relu: -0 and NaN stay
template <class T> OP unsigned pair_clip(unsigned x, unsigned low, unsigned high, T) {
    unsigned below = pair_less(x, low, T());
    x = (low & below) | (x & ~below);
    unsigned above = pair_less(high, x, T());
    return (high & above) | (x & ~above);
}

// erf as x + x p(x^2); where it rounds to 1 or -1, as nearest to 0. What it is before it is rounded means nothing: the polynomials lie inside the
// intervals that round to the right value (found by linear programming, as Lim and Nagarakatte do, PLDI 2021; some last bits by trying), for each
// of the 2^16 values of the format. erff, which is a unit or two beside erf in float, rounds to the same.
OP float erf_within(float x, f16) {
    float z = x * x, p = __uint_as_float(0x3427a3b3u);
    p = fmaf(p, z, __uint_as_float(0xb6adf095u));
    p = fmaf(p, z, __uint_as_float(0x38a4cea5u));
    p = fmaf(p, z, __uint_as_float(0xba42946eu));
    p = fmaf(p, z, __uint_as_float(0x3ba56be9u));
    p = fmaf(p, z, __uint_as_float(0xbcdaeca0u));
    p = fmaf(p, z, __uint_as_float(0x3de6fea5u));
    p = fmaf(p, z, __uint_as_float(0xbec09300u));
    p = fmaf(p, z, __uint_as_float(0x3e0375d0u));
    return fmaf(p, x, x);
}
OP float erf_within(float x, bf16) {
    float z = x * x, p = __uint_as_float(0x37ff73a4u);
    p = fmaf(p, z, __uint_as_float(0xba13adeeu));
    p = fmaf(p, z, __uint_as_float(0x3b9d8c47u));
    p = fmaf(p, z, __uint_as_float(0xbcdb618bu));
    p = fmaf(p, z, __uint_as_float(0x3de78e0au));
    p = fmaf(p, z, __uint_as_float(0xbec099c4u));
    p = fmaf(p, z, __uint_as_float(0x3e0375ccu));
    return fmaf(p, x, x);
}
OP unsigned first_of_one(f16) { return 0x41314131u; }   // 2.595703125, twice: the first value whose erf rounds to 1
OP unsigned first_of_one(bf16) { return 0x400d400du; }  // 2.203125
template <class T> OP unsigned pair_erf(unsigned x, T) {
    x = pair_within(x, first_of_one(T()), first_of_one(T()) | 0x80008000u, T());
    return side_by_side(erf_within(lower(x, T()), T()), erf_within(higher(x, T()), T()), T());
}

// x / y in float, where y is the same for all. Between a quotient of two values of 11 bits and the middle of two neighbours of 11 bits, which it is
// not itself, lie at least 2^-23 of it, of 8 bits 2^-17; x times the rounded reciprocal is nearer than that. Only quotients of few bits, below the
// normal ones, lie in the middle, and those must be exact. In f16 a reciprocal of 36 bits makes them so: its first 13 bits times x are exact, and
// neither part is 0, so that Inf stays Inf. In bf16 they are subnormal floats, whose steps are wider than the error; there reciprocals are kept
// among the normal numbers.
template <class T> struct Narrow;
template <> struct Narrow<f16> { float once, rest; };
template <> struct Narrow<bf16> { float scale, once; };
OP Narrow<f16> divisor(float y, f16) {
    float once = 1.f / y, first = __uint_as_float((__float_as_uint(once) - 1u) & 0xfffff800u);
    if (!(fabsf(y) > 0.f)) return {once, copysignf(1.f, y)};
    if (fabsf(once) == 0.f) return {once, once};
    return {first, fmaf(-first, y, 1.f) * once};
}
OP Narrow<bf16> divisor(float y, bf16) {
    float scale = fabsf(y) > 0x1p+126f ? 0x1p-8f : fabsf(y) < 0x1p-126f ? 0x1p+16f : 1.f;
    return {scale, 1.f / (y * scale)};
}
OP float op_div_by(float x, const Narrow<f16>& by) { return fmaf(x, by.rest, x * by.once); }
OP float op_div_by(float x, const Narrow<bf16>& by) { return x * by.scale * by.once; }
