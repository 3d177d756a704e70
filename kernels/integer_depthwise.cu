// Convolutions of 8-bit integers whose groups have few channels and few outputs, NCHW: exact sums over a window, or what a scale makes of them
//   x TX [images, groups * channels, H, W], around it its zero point     w TW [outputs, channels, taps]     y TY as integer_mma.cu
// Tactic: a thread four pixels of an output channel, as they follow each other; neighbours of a line share what they read, the rest comes from the L1 cache.
// NVRTC defines: TX, TW, TY, INDEX (of words of four pixels: unsigned or i64), TAPS, TAPS_ACROSS (of a window), ZEROS_W, SCALES_W (1: a zero point, a scale for
// every output; 0: one), QUANTISED.
#include "integers.cuh"

// of image, strides, dilations, padding before, out: rows and columns each; `outputs` of all groups, `each` of one, `line` words of an output
struct Depthwise { i64 words; int line, outputs, each, channels, image[2], stride[2], dilation[2], before[2], out[2]; };

extern "C" __global__ void __launch_bounds__(256, 3) integer_depthwise(
    const TX* __restrict__ x, const TW* __restrict__ w, const TX* __restrict__ x_zero, const TW* __restrict__ w_zero, const float* __restrict__ x_scale,
    const float* __restrict__ w_scale, const float* __restrict__ y_scale, const TY* __restrict__ y_zero, const i32* __restrict__ bias, TY* __restrict__ y,
    Depthwise p) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= (INDEX)p.words) return;
    INDEX line = at / p.line, image = line / p.outputs;
    int pixel = (int)(at - line * p.line) * 4, output = (int)(line - image * p.outputs), pixels = p.out[0] * p.out[1];
    int area = p.image[0] * p.image[1], groups = p.outputs / p.each;
    const TX* from = x + ((i64)image * groups + output / p.each) * p.channels * area;
    const TW* weights = w + (i64)output * p.channels * TAPS;
    int zero_x = x_zero ? *x_zero : 0, zero_w = w_zero ? w_zero[ZEROS_W ? output : 0] : 0, row = pixel / p.out[1], col = pixel - row * p.out[1];
    int sums[4] = {}, top[4], left[4];
#pragma unroll
    for (int e = 0, r = row, c = col; e < 4; ++e) {
        top[e] = r * p.stride[0] - p.before[0], left[e] = c * p.stride[1] - p.before[1];
        if (++c == p.out[1]) c = 0, ++r;
    }
    bool neighbours = p.stride[1] == 1 && p.dilation[1] == 1 && col + 4 <= p.out[1];
    for (int channel = 0; channel < p.channels; ++channel, from += area) {
#pragma unroll 1
        for (int down = 0; down < TAPS / TAPS_ACROSS; ++down, weights += TAPS_ACROSS) {
            if (neighbours) {  // read once what several of them read
                int v = top[0] + down * p.dilation[0], values[TAPS_ACROSS + 3];
                if ((unsigned)v >= (unsigned)p.image[0]) continue;
#pragma unroll
                for (int at = 0; at < TAPS_ACROSS + 3; ++at) {
                    bool inside = (unsigned)(left[0] + at) < (unsigned)p.image[1];
                    values[at] = inside ? (int)from[v * p.image[1] + left[0] + at] - zero_x : 0;
                }
#pragma unroll
                for (int right = 0; right < TAPS_ACROSS; ++right)
#pragma unroll
                    for (int e = 0; e < 4; ++e) sums[e] += ((int)weights[right] - zero_w) * values[right + e];
                continue;
            }
#pragma unroll
            for (int right = 0; right < TAPS_ACROSS; ++right) {
                int weight = (int)weights[right] - zero_w;
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    int v = top[e] + down * p.dilation[0], u = left[e] + right * p.dilation[1];
                    bool inside = (unsigned)v < (unsigned)p.image[0] && (unsigned)u < (unsigned)p.image[1];
                    if (inside) sums[e] += weight * ((int)from[v * p.image[1] + u] - zero_x);
                }
            }
        }
    }
    TY* to = y + (i64)line * pixels + pixel;
    Pack<TY, 4> out;
#if QUANTISED
    float factor = *x_scale * w_scale[SCALES_W ? output : 0] / *y_scale, zero_y = (float)*y_zero;
    unsigned added = bias ? bias[output] : 0;
#endif
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#if QUANTISED
        out.lane[e] = requantised<TY>((int)((unsigned)sums[e] + added), factor, zero_y);
#else
        out.lane[e] = sums[e];
#endif
    }
    if (pixels % 4 == 0) {
        *(Pack<TY, 4>*)to = out;
    } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
            if (pixel + e < pixels) to[e] = out.lane[e];
    }
}
