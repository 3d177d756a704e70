// Depthwise convolution, channels last: y[n, oh, ow, c] = bias[c] + sum over kh, kw of x[n, ih, iw, c] * w[kh, kw, c]     (conv.cuh)
//   x, w TX, channels divide by 8; bias TB or null, y TY (or out.cuh)
// Tactic:
//   conv_depthwise   a thread computes 8 channels of COLS neighbouring pixels, so that each row of x is read once for all of them
// Products and sums are float, one fused multiply-add a product, over rows, then columns of the window: what conv_direct computes, bit for bit.
// NVRTC defines: TX, TB, TY, KERNEL_WIDTH, STRIDE_WIDTH, DILATION_WIDTH, COLS.
#include "conv.cuh"

typedef TX T;

#define REACH ((COLS - 1) * STRIDE_WIDTH + (KERNEL_WIDTH - 1) * DILATION_WIDTH + 1)  // columns of x under the windows of a thread

extern "C" __global__ void __launch_bounds__(256) conv_depthwise(
    const T* __restrict__ x, const T* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS, Conv p) {
    take_turn();
    int eights = p.groups / 8, strips = (p.out_width + COLS - 1) / COLS;
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= (i64)p.images * p.out_height * strips * eights) return;
    int c = (int)(at % eights) * 8, strip = (int)(at / eights % strips);
    i64 line = at / eights / strips;  // of all images' output rows
    int oh = (int)(line % p.out_height), image = (int)(line / p.out_height), ow = strip * COLS;
    int top = oh * p.stride_height - p.pad_top, left = ow * STRIDE_WIDTH - p.pad_left;
    float sums[COLS][8] = {};
    for (int i = 0; i < p.kernel_height; ++i) {
        int row = top + i * p.dilation_height;
        if (row < 0 || row >= p.height) continue;
        const T* from = x + (((i64)image * p.height + row) * p.width) * p.groups + c;
        Pack<T, 8> values[REACH];
#pragma unroll
        for (int j = 0; j < REACH; ++j) {
            int col = left + j;
            Pack<T, 8> zeros = {};
            values[j] = col >= 0 && col < p.width ? *(const Pack<T, 8>*)(from + (i64)col * p.groups) : zeros;
        }
#pragma unroll
        for (int j = 0; j < KERNEL_WIDTH; ++j) {
            Pack<T, 8> weight = *(const Pack<T, 8>*)(w + (i * KERNEL_WIDTH + j) * p.groups + c);
#pragma unroll
            for (int o = 0; o < COLS; ++o) {
                int col = left + o * STRIDE_WIDTH + j * DILATION_WIDTH;
                if (col < 0 || col >= p.width) continue;
#pragma unroll
                for (int e = 0; e < 8; ++e)
                    sums[o][e] = fmaf(read(values[o * STRIDE_WIDTH + j * DILATION_WIDTH].lane[e]), read(weight.lane[e]), sums[o][e]);
            }
        }
    }
    Out out = {OUT_ARGUMENTS};
#pragma unroll
    for (int o = 0; o < COLS; ++o) {
        if (ow + o >= p.out_width) continue;
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (bias) sums[o][e] += read(bias[c + e]);
        i64 pixel = line * p.out_width + ow + o;
        put(out, sums[o], {pixel * p.groups + c, 0, 0, pixel, c});
    }
}
