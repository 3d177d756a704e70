// Depthwise convolution, channels last: y[n, oh, ow, c] = bias[c] + sum over kh, kw of x[n, ih, iw, c] * w[kh, kw, c]     (conv.cuh)
//   x, w TX, channels divide by 8; bias TB or null, y TY (or out.cuh)
// Tactic:
//   conv_depthwise   a thread computes 8 channels of ROWS x COLS neighbouring pixels: what it reads of x serves all their windows
// Products and sums are float, one fused multiply-add a product, over rows, then columns of the window: what conv_direct computes, bit for bit.
// (Padding is multiplied as zeros, so that a weight of Inf makes NaN there.)
// NVRTC defines: TX, TB, TY, ROUNDS (1: x is float, and rounded to TF32 as it is read), KERNEL_HEIGHT, STRIDE_HEIGHT, DILATION_HEIGHT, the same of WIDTH, ROWS, COLS, UNROLLED (0: rows of
// the window come one after the other; then ROWS is 1).
#include "conv.cuh"

typedef TX T;

#define REACH(COUNT, AXIS) ((COUNT - 1) * STRIDE_##AXIS + (KERNEL_##AXIS - 1) * DILATION_##AXIS + 1)  // of x under the windows of a thread

extern "C" __global__ void __launch_bounds__(128, 4) conv_depthwise(
    const T* __restrict__ x, const T* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS, Conv p) {
    take_turn();
    int eights = p.groups / 8, strips = (p.out_width + COLS - 1) / COLS, bands = (p.out_height + ROWS - 1) / ROWS;
    i64 at = (i64)blockIdx.x * 128 + threadIdx.x;
    if (at >= (i64)p.images * bands * strips * eights) return;
    int c = (int)(at % eights) * 8, strip = (int)(at / eights % strips);
    i64 rest = at / eights / strips;
    int band = (int)(rest % bands), image = (int)(rest / bands), oh = band * ROWS, ow = strip * COLS;
    int top = oh * STRIDE_HEIGHT - p.pad_top, left = ow * STRIDE_WIDTH - p.pad_left;
    const T* from = x + (((i64)image * p.height + top) * p.width + left) * p.groups + c;
    float sums[ROWS][COLS][8] = {};
#if UNROLLED
#pragma unroll
#else
#pragma unroll 1
#endif
    for (int r = 0; r < REACH(ROWS, HEIGHT); r += ROWS > 1 ? 1 : DILATION_HEIGHT) {
        bool inside = top + r >= 0 && top + r < p.height;
        Pack<T, 8> values[REACH(COLS, WIDTH)];
#pragma unroll
        for (int j = 0; j < REACH(COLS, WIDTH); ++j) {
            Pack<T, 8> zeros = {};
            values[j] = inside && left + j >= 0 && left + j < p.width ? *(const Pack<T, 8>*)(from + (r * p.width + j) * p.groups) : zeros;
            if constexpr (ROUNDS) {
#pragma unroll
                for (int e = 0; e < 8; ++e) write(values[j].lane[e], round_tf32(read(values[j].lane[e])));
            }
        }
#pragma unroll
        for (int o = 0; o < ROWS; ++o) {
            int down = r - o * STRIDE_HEIGHT, tap = down / DILATION_HEIGHT;
            if (down < 0 || down % DILATION_HEIGHT || tap >= KERNEL_HEIGHT) continue;
#pragma unroll
            for (int j = 0; j < KERNEL_WIDTH; ++j) {
                Pack<T, 8> weight = neighbours<8>(w + (tap * KERNEL_WIDTH + j) * p.groups + c);  // here, and not kept as floats
#pragma unroll
                for (int q = 0; q < COLS; ++q)
#pragma unroll
                    for (int e = 0; e < 8; ++e)
                        sums[o][q][e] = fmaf(read(values[q * STRIDE_WIDTH + j * DILATION_WIDTH].lane[e]), read(weight.lane[e]), sums[o][q][e]);
            }
        }
    }
    Out out = {OUT_ARGUMENTS};
    float added[8] = {};
#pragma unroll
    for (int e = 0; e < 8; ++e)
        if (bias) added[e] = read(bias[c + e]);
#pragma unroll
    for (int o = 0; o < ROWS; ++o) {
#pragma unroll
        for (int q = 0; q < COLS; ++q) {
            if (oh + o >= p.out_height || ow + q >= p.out_width) continue;
#pragma unroll
            for (int e = 0; e < 8; ++e)
                if (bias) sums[o][q][e] += added[e];
            i64 pixel = ((i64)image * p.out_height + oh + o) * p.out_width + ow + q;
            put(out, sums[o][q], {pixel * p.groups + c, 0, 0, pixel, c});
        }
    }
}
