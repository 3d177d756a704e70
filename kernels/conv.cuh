// A two-dimensional convolution, NCHW, dense: y[n, g, m, oh, ow] = bias[g, m] + sum_{c, kh, kw} x[n, g, c, ih, iw] * w[g, m, c, kh, kw],
//   ih = oh * stride - pad + kh * dilation, zero outside. One-dimensional ones have a height of 1.
// Seen as a product, for every image and group: w [m, k] times what x has under the window [k, pixels], k = c * kh * kw.
#pragma once
#include "out.cuh"

struct Conv {
    int images, groups, channels, outputs;  // channels and outputs: of a group
    int height, width, out_height, out_width, kernel_height, kernel_width;
    int stride_height, stride_width, pad_top, pad_left, dilation_height, dilation_width;
    int down, across;  // tiles of m and of the pixels
};

// The upper left corner of a pixel's window, in x
struct Corner { int row, col; };
__device__ __forceinline__ Corner corner_of(int pixel, const Conv& p) {
    return {pixel / p.out_width * p.stride_height - p.pad_top, pixel % p.out_width * p.stride_width - p.pad_left};
}

// The value of x under tap k of a window: x is that of the image and group
template <class Stored> __device__ __forceinline__ bool tap(Stored& value, const Stored* x, int k, Corner corner, const Conv& p) {
    int taps = p.kernel_height * p.kernel_width, c = k / taps, rest = k % taps;
    int row = corner.row + rest / p.kernel_width * p.dilation_height, col = corner.col + rest % p.kernel_width * p.dilation_width;
    bool in = row >= 0 && row < p.height && col >= 0 && col < p.width;
    if (in) value = x[((i64)c * p.height + row) * p.width + col];
    return in;
}
