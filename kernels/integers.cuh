// What sums of products of 8-bit integers become where they are scaled: round(float(sum) * factor) + zero, cut off at the ends of T.
// Compiled without contraction: the product and the sum round twice, as ONNX Runtime's do.
#pragma once
#include "pointwise.cuh"

template <class T> __device__ __forceinline__ T requantised(int sum, float factor, float zero) {
    constexpr bool SIGNED = T(-1) < T(0);
    return T(op_clip<float>(op_round((float)sum * factor) + zero, SIGNED ? -128.f : 0.f, SIGNED ? 127.f : 255.f));
}
