// What generated chains compute of two neighbours at once where tensors are f16 or bf16: values that the format T holds, results that are rounded
// to it. Fewer instructions than float takes one by one, the same bits.
#pragma once
#include "pointwise.cuh"

#ifdef __CUDA_ARCH__
OP float within(float x, float most) {  // NaN stays NaN
    asm("{ .reg .f32 down; min.NaN.f32 down, %0, %1; max.NaN.f32 %0, down, %2; }" : "+f"(x) : "f"(most), "f"(-most));
    return x;
}
#else
OP float within(float x, float most) { return x > most ? most : x < -most ? -most : x; }
#endif

// erf as x + x p(x^2); where it rounds to 1 or -1, as nearest to 0. What it is before it is rounded means nothing: the polynomials lie inside the
// intervals that round to the right value (found by linear programming, as Lim and Nagarakatte do, PLDI 2021; some last bits by trying), for each
// of the 2^16 values of the format. erff, which is a unit or two beside erf in float, rounds to the same.
OP float op_erf(float x, f16) {
    x = within(x, 2.595703125f);
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
OP float op_erf(float x, bf16) {
    x = within(x, 2.203125f);
    float z = x * x, p = __uint_as_float(0x37ff73a4u);
    p = fmaf(p, z, __uint_as_float(0xba13adeeu));
    p = fmaf(p, z, __uint_as_float(0x3b9d8c47u));
    p = fmaf(p, z, __uint_as_float(0xbcdb618bu));
    p = fmaf(p, z, __uint_as_float(0x3de78e0au));
    p = fmaf(p, z, __uint_as_float(0xbec099c4u));
    p = fmaf(p, z, __uint_as_float(0x3e0375ccu));
    return fmaf(p, x, x);
}

// x / y in float, where y is the same for all. Between a quotient of two values of 11 bits and the middle of two neighbours of 11 bits, which it is
// not itself, lie at least 2^-23 of it, of 8 bits 2^-17; x times the rounded reciprocal is nearer than that. Only quotients of few bits, below the
// normal ones, lie in the middle, and those must be exact: in f16 the remainder makes them so (it is 0 or NaN for 0, Inf and NaN, and then unused);
// in bf16 they are subnormal floats, whose steps are wider than the error. There reciprocals are kept among the normal numbers.
template <class T> struct Narrow;
template <> struct Narrow<f16> { float y, once; };
template <> struct Narrow<bf16> { float scale, once; };
OP Narrow<f16> divisor(float y, f16) { return {y, 1.f / y}; }
OP Narrow<bf16> divisor(float y, bf16) {
    float scale = fabsf(y) > 0x1p+126f ? 0x1p-8f : fabsf(y) < 0x1p-126f ? 0x1p+16f : 1.f;
    return {scale, 1.f / (y * scale)};
}
OP float op_div_by(float x, const Narrow<f16>& by) {
    float q = x * by.once, rest = fmaf(-q, by.y, x);
    return fabsf(rest) > 0.f ? fmaf(rest, by.once, q) : q;
}
OP float op_div_by(float x, const Narrow<bf16>& by) { return x * by.scale * by.once; }
