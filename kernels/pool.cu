// Pooling over windows, NCHW: y[plane, oh, ow] = largest, or mean, of x[plane, ih, iw], ih = oh * stride - pad + kh * dilation
//   x TX, y TY. A mean divides by the elements inside x, or (COUNT_PAD 1) inside x and its padding.
// Tactic:
//   pool_direct   a thread an output element; neighbours read neighbours
//   pool_channels   the same with channels last, x [images, height, width, channels]: a thread computes 8 channels of a pixel
// Sums are float, rows first; a NaN under the window is the largest (ONNX Runtime sometimes drops it). NVRTC defines: TX, TY, MAXIMUM, COUNT_PAD (0 or 1),
// ENTRY_CHANNELS for the second.
#include "common.cuh"

struct Pool {
    i64 planes;
    int height, width, out_height, out_width, kernel_height, kernel_width;
    int stride_height, stride_width, pad_top, pad_left, pad_bottom, pad_right, dilation_height, dilation_width;
};

#ifdef ENTRY_CHANNELS
extern "C" __global__ void __launch_bounds__(256) pool_channels(const TX* __restrict__ x, TY* __restrict__ y, Pool p, int channels) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, pixels = (i64)p.out_height * p.out_width, eights = channels / 8, images = p.planes / channels;
    if (at >= images * pixels * eights) return;
    int c = (int)(at % eights) * 8, pixel = (int)(at / eights % pixels);
    int top = pixel / p.out_width * p.stride_height - p.pad_top, left = pixel % p.out_width * p.stride_width - p.pad_left;
    x += at / eights / pixels * p.height * p.width * channels + c;
    float values[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) values[e] = MAXIMUM ? __int_as_float(0xff800000) : 0.f;
    int count = 0;
    for (int i = 0; i < p.kernel_height; ++i) {
        int row = top + i * p.dilation_height;
        for (int j = 0; j < p.kernel_width; ++j) {
            int col = left + j * p.dilation_width;
            bool in = row >= 0 && row < p.height && col >= 0 && col < p.width;
            count += in || (COUNT_PAD && row < p.height + p.pad_bottom && col < p.width + p.pad_right);
            if (!in) continue;
            Pack<TX, 8> eight = *(const Pack<TX, 8>*)(x + ((i64)row * p.width + col) * channels);
#pragma unroll
            for (int e = 0; e < 8; ++e) values[e] = MAXIMUM ? Max()(values[e], read(eight.lane[e])) : values[e] + read(eight.lane[e]);
        }
    }
    Pack<TY, 8> out;
#pragma unroll
    for (int e = 0; e < 8; ++e) write(out.lane[e], MAXIMUM ? values[e] : values[e] / (float)count);
    store(y + at * 8, out);
}
#else
extern "C" __global__ void __launch_bounds__(256) pool_direct(const TX* __restrict__ x, TY* __restrict__ y, Pool p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, pixels = (i64)p.out_height * p.out_width;
    if (at >= p.planes * pixels) return;
    int pixel = (int)(at % pixels);
    int top = pixel / p.out_width * p.stride_height - p.pad_top, left = pixel % p.out_width * p.stride_width - p.pad_left;
    x += at / pixels * p.height * p.width;
    float value = MAXIMUM ? __int_as_float(0xff800000) : 0.f;
    int count = 0;
    for (int i = 0; i < p.kernel_height; ++i) {
        int row = top + i * p.dilation_height;
        for (int j = 0; j < p.kernel_width; ++j) {
            int col = left + j * p.dilation_width;
            bool in = row >= 0 && row < p.height && col >= 0 && col < p.width;
            if (in) {
                float one = read(x[(i64)row * p.width + col]);
                value = MAXIMUM ? Max()(value, one) : value + one;
            }
            count += in || (COUNT_PAD && row < p.height + p.pad_bottom && col < p.width + p.pad_right);
        }
    }
    write(y[at], MAXIMUM ? value : value / (float)count);
}
#endif
