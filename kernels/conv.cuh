// A convolution over two axes, NCHW, dense: y[n, g, m, oh, ow] = bias[g, m] + sum_{c, kh, kw} x[n, g, c, ih, iw] * w[g, m, c, kh, kw],
//   ih = oh * stride - pad + kh * dilation, zero outside. One-dimensional ones have a height of 1. AXES 3: volumes, with slices before rows.
// Seen as a product, for every image and group: w [m, k] times what x has under the window [k, pixels], k = c * kh * kw.
#pragma once
#include "out.cuh"

#ifndef AXES
#define AXES 2
#endif

struct Conv {
    int images, groups, channels, outputs;  // channels and outputs: of a group
    int height, width, out_height, out_width, kernel_height, kernel_width;
    int stride_height, stride_width, pad_top, pad_left, dilation_height, dilation_width;
    int down, across;  // tiles of m and of the pixels
#if AXES == 3
    int slices, out_slices, kernel_slices, stride_slices, pad_front, dilation_slices;
#endif
};

// Along the axis of slices, which images do not have
#if AXES == 3
__device__ __forceinline__ int slices_of(const Conv& p) { return p.slices; }
__device__ __forceinline__ int out_slices_of(const Conv& p) { return p.out_slices; }
__device__ __forceinline__ int kernel_slices_of(const Conv& p) { return p.kernel_slices; }
__device__ __forceinline__ int stride_slices_of(const Conv& p) { return p.stride_slices; }
__device__ __forceinline__ int pad_front_of(const Conv& p) { return p.pad_front; }
__device__ __forceinline__ int dilation_slices_of(const Conv& p) { return p.dilation_slices; }
#else
__device__ __forceinline__ int slices_of(const Conv&) { return 1; }
__device__ __forceinline__ int out_slices_of(const Conv&) { return 1; }
__device__ __forceinline__ int kernel_slices_of(const Conv&) { return 1; }
__device__ __forceinline__ int stride_slices_of(const Conv&) { return 1; }
__device__ __forceinline__ int pad_front_of(const Conv&) { return 0; }
__device__ __forceinline__ int dilation_slices_of(const Conv&) { return 1; }
#endif

__device__ __forceinline__ int pixels_of(const Conv& p) { return out_slices_of(p) * p.out_height * p.out_width; }
__device__ __forceinline__ int taps_of(const Conv& p) { return kernel_slices_of(p) * p.kernel_height * p.kernel_width; }
__device__ __forceinline__ int room_of(const Conv& p) { return slices_of(p) * p.height * p.width; }

// An element of an image or volume; it may lie outside
struct Voxel { int slice, row, col; };
__device__ __forceinline__ Voxel voxel_of(int pixel, const Conv& p) {
    if (AXES == 2) return {0, pixel / p.out_width, pixel % p.out_width};
    int plane = p.out_height * p.out_width, slice = pixel / plane, rest = pixel - slice * plane;
    return {slice, rest / p.out_width, rest % p.out_width};
}

// The first corner of a pixel's window, in x
__device__ __forceinline__ Voxel corner_of(int pixel, const Conv& p) {
    Voxel at = voxel_of(pixel, p);
    return {at.slice * stride_slices_of(p) - pad_front_of(p), at.row * p.stride_height - p.pad_top, at.col * p.stride_width - p.pad_left};
}

__device__ __forceinline__ bool is_inside(const Voxel& at, const Conv& p) {
    return (AXES == 2 || (unsigned)at.slice < (unsigned)slices_of(p)) && (unsigned)at.row < (unsigned)p.height && (unsigned)at.col < (unsigned)p.width;
}

// How far tap k lies behind the corner
__device__ __forceinline__ Voxel step_of(int rest, const Conv& p) {
    int slice = 0;
    if (AXES == 3) {
        int plane = p.kernel_height * p.kernel_width;
        slice = rest / plane, rest -= slice * plane;
    }
    return {slice * dilation_slices_of(p), rest / p.kernel_width * p.dilation_height, rest % p.kernel_width * p.dilation_width};
}

// The value of x under tap k of a window: x is that of the image and group
template <class Stored> __device__ __forceinline__ bool tap(Stored& value, const Stored* x, int k, const Voxel& corner, const Conv& p) {
    int taps = taps_of(p), c = k / taps;
    Voxel step = step_of(k % taps, p), at = {corner.slice + step.slice, corner.row + step.row, corner.col + step.col};
    bool in = is_inside(at, p);
    if (in) value = x[(((i64)c * slices_of(p) + at.slice) * p.height + at.row) * p.width + at.col];
    return in;
}

// Of transposed convolutions, where `place` is one of y, its padding added: the first tap along an axis that may reach it, and how many taps further
// the next one is
struct Walk {
    int first, step;
    __device__ __forceinline__ Walk(int place, int stride, int dilation) : first(dilation == 1 ? place % stride : 0), step(dilation == 1 ? stride : 1) {}
};
// The element of x that tap i brings to `place`; -1: none
__device__ __forceinline__ int brought(int place, int i, int stride, int dilation, int extent) {
    int from = place - i * dilation, at = from / stride;
    return from < 0 || at * stride != from || at >= extent ? -1 : at;
}
