// The operators of generated pointwise chains (probe/engine/device/cuda/layers/chain.py), on registers: float whatever the storage.
// Compiled without contraction (--fmad=false): a Mul and an Add round twice, as two ONNX nodes do. Add Sub Mul Div Sqrt, comparisons and
// selections are exact or correctly rounded, so they agree with any IEEE machine bit for bit; exp, log, tanh, erf, pow, sin... are CUDA's,
// within 1 to 4 units in the last place of float (CUDA programming guide, mathematical functions).
#pragma once
#include "common.cuh"

#define OP __device__ __forceinline__
#define UNARY(NAME, TYPE, RESULT) OP TYPE NAME(TYPE x) { return RESULT; }
#define BINARY(NAME, RESULT) template <class T> OP T NAME(T x, T y) { return RESULT; }
#define COMPARE(NAME, RESULT) template <class T> OP bool NAME(T x, T y) { return RESULT; }

BINARY(op_add, x + y)
BINARY(op_sub, x - y)
BINARY(op_mul, x * y)
BINARY(op_div, x / y)
// x / y where y is the same for all elements of a loop: correctly rounded, as x / y is, but without the branch of every division that keeps the
// compiler from computing neighbours side by side. In double, whose 53 bits are more than twice 24 (Figueroa, "When is double rounding innocuous?",
// 1995); the remainder makes quotients of few bits exact, so that subnormal results are rounded once, too; it is 0 or NaN for 0, Inf and NaN.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000
struct Divisor { double y, once; };  // 1 / y, a unit off perhaps
OP Divisor divisor(float by) {
    double y = by;
#ifdef __CUDA_ARCH__
    double once;
    asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(once) : "d"(y));
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // 2^-20, then 2^-40
        double off = fma(-y, once, 1.0);
        once = off == off ? fma(fma(off, off, off), once, once) : once;
    }
    return {y, once};
#else
    return {y, 1.0 / y};
#endif
}
OP float op_div_by(float x, const Divisor& by) {
    double q = (double)x * by.once, rest = fma(-q, by.y, (double)x);
    return (float)(rest < 0.0 || rest > 0.0 ? fma(rest, by.once, q) : q);
}
#else  // there double takes 64 times as long
struct Divisor { float y; };
OP Divisor divisor(float y) { return {y}; }
OP float op_div_by(float x, const Divisor& by) { return x / by.y; }
#endif
BINARY(op_max, x > y || x != x ? x : y)
BINARY(op_min, x < y || x != x ? x : y)
COMPARE(op_equal, x == y)
COMPARE(op_less, x < y)
COMPARE(op_less_equal, x <= y)
COMPARE(op_greater, x > y)
COMPARE(op_greater_equal, x >= y)
OP bool op_and(bool x, bool y) { return x && y; }
OP bool op_or(bool x, bool y) { return x || y; }
OP bool op_xor(bool x, bool y) { return x != y; }
OP bool op_not(bool x) { return !x; }
template <class T> OP T op_where(bool c, T x, T y) { return c ? x : y; }
template <class T> OP T op_abs(T x) { return x < T(0) ? T(-x) : x; }
OP float op_abs(float x) { return fabsf(x); }
template <class T> OP T op_neg(T x) { return -x; }
template <class T> OP T op_sign(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }
template <class T> OP T op_relu(T x) { return x < T(0) ? T(0) : x; }
// ONNX: the bounds in this order, so that min > max gives max
template <class T> OP T op_clip(T x, T low, T high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}
// the result has the divisor's sign
template <class T> OP T op_mod(T x, T y) {
    T r = x % y;
    return r != 0 && ((r < 0) != (y < 0)) ? T(r + y) : r;
}
template <class T> OP T op_fmod(T x, T y) { return x % y; }
OP float op_fmod(float x, float y) { return fmodf(x, y); }
// ONNX Runtime squares and cubes by multiplying
OP float op_pow(float x, float y) { return y == 2.f ? x * x : y == 3.f ? x * x * x : powf(x, y); }
OP bool op_is_nan(float x) { return x != x; }
OP bool op_is_inf(float x, bool negative, bool positive) {
    return (positive && x == __int_as_float(0x7f800000)) || (negative && x == __int_as_float(0xff800000));
}
template <class T> OP bool op_to_bool(T x) { return x != T(0); }

UNARY(op_reciprocal, float, 1.f / x)
UNARY(op_sqrt, float, sqrtf(x))
UNARY(op_exp, float, expf(x))
UNARY(op_log, float, logf(x))
UNARY(op_floor, float, floorf(x))
UNARY(op_ceil, float, ceilf(x))
UNARY(op_round, float, rintf(x))
UNARY(op_erf, float, erff(x))
UNARY(op_sin, float, sinf(x))
UNARY(op_cos, float, cosf(x))
UNARY(op_tan, float, tanf(x))
UNARY(op_asin, float, asinf(x))
UNARY(op_acos, float, acosf(x))
UNARY(op_atan, float, atanf(x))
UNARY(op_sinh, float, sinhf(x))
UNARY(op_cosh, float, coshf(x))
UNARY(op_tanh, float, tanhf(x))
UNARY(op_asinh, float, asinhf(x))
UNARY(op_acosh, float, acoshf(x))
UNARY(op_atanh, float, atanhf(x))
UNARY(op_sigmoid, float, 1.f / (1.f + expf(-x)))
UNARY(op_softsign, float, x / (1.f + fabsf(x)))
UNARY(op_softplus, float, x > 0.f ? x + log1pf(expf(-x)) : log1pf(expf(x)))
UNARY(op_gelu, float, 0.5f * x * (1.f + erff(x * 0.70710678118654752f)))
UNARY(op_gelu_tanh, float, 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x))))
OP float op_mish(float x) { return x * tanhf(op_softplus(x)); }
OP float op_swish(float x, float alpha) { return x * op_sigmoid(alpha * x); }
OP float op_leaky_relu(float x, float alpha) { return x < 0.f ? alpha * x : x; }
OP float op_elu(float x, float alpha) { return x < 0.f ? alpha * expm1f(x) : x; }
OP float op_selu(float x, float alpha, float gamma) { return gamma * (x > 0.f ? x : alpha * expm1f(x)); }
OP float op_celu(float x, float alpha) { return x > 0.f || x != x ? x : 0.f + fminf(0.f, alpha * expm1f(x / alpha)); }
OP float op_thresholded_relu(float x, float alpha) { return x > alpha ? x : 0.f; }
OP float op_hard_sigmoid(float x, float alpha, float beta) { return op_clip(alpha * x + beta, 0.f, 1.f); }
OP float op_hard_swish(float x) { return x * op_hard_sigmoid(x, 1.f / 6.f, 0.5f); }
OP float op_shrink(float x, float bias, float lambda) { return x < -lambda ? x + bias : x > lambda ? x - bias : 0.f; }
OP float op_batch_norm(float x, float scale, float bias, float mean, float variance, float epsilon) {
    float factor = scale / sqrtf(variance + epsilon);
    return x * factor + (bias - mean * factor);
}
