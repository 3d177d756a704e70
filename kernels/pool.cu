// Pooling over windows, NCHW: y[plane, oh, ow] = largest, or mean, of x[plane, ih, iw], ih = oh * stride - pad + kh * dilation
//   x TX, y TY. A mean divides by the elements inside x, or (COUNT_PAD 1) inside x and its padding.
// Tactic:
//   pool_direct   a thread an output element; neighbours read neighbours
//   pool_channels   the same with channels last, x [images, height, width, channels]: a thread computes 8 channels of a pixel, small windows read at
//                   once: what lies outside is the beginning of the image, and not used
// Sums are float, rows first; a NaN under the window is the largest (ONNX Runtime sometimes drops it). NVRTC defines: TX, TY, MAXIMUM, COUNT_PAD (0 or 1),
// ENTRY_CHANNELS for the second, with INDEX (of elements; unsigned or i64) and WINDOW_HEIGHT, WINDOW_WIDTH (0: a window of any size).
#include "common.cuh"

struct Pool {
    i64 planes;
    int height, width, out_height, out_width, kernel_height, kernel_width;
    int stride_height, stride_width, pad_top, pad_left, pad_bottom, pad_right, dilation_height, dilation_width;
};

#ifdef ENTRY_CHANNELS
template <class To, class From> __device__ __forceinline__ To as(const From& from) { return *(const To*)&from; }
__device__ __forceinline__ unsigned pair_larger(unsigned x, unsigned y, float) { return x; }  // of floats there are no pairs

extern "C" __global__ void __launch_bounds__(256) pool_channels(const TX* __restrict__ x, TY* __restrict__ y, Pool p, int channels) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, pixels = (INDEX)p.out_height * p.out_width, eights = channels / 8;
    if (at >= (INDEX)(p.planes / channels) * pixels * eights) return;
    INDEX place = at / eights, image = place / pixels;
    int pixel = (int)(place - image * pixels), down = pixel / p.out_width;
    int top = down * p.stride_height - p.pad_top, left = (pixel - down * p.out_width) * p.stride_width - p.pad_left;
    x += image * p.height * p.width * channels + (at - place * eights) * 8;
    const int height = WINDOW_HEIGHT ? WINDOW_HEIGHT : p.kernel_height, width = WINDOW_WIDTH ? WINDOW_WIDTH : p.kernel_width;
    constexpr bool PAIRS = MAXIMUM && sizeof(TX) == 2;  // two at once: the largest is none that was not there
    constexpr int WORDS = 2 * sizeof(TX);
    typedef Pack<unsigned, WORDS> Eight;
    float values[8];
    Pack<TX, 8> nothing;
#pragma unroll
    for (int e = 0; e < 8; ++e) values[e] = MAXIMUM ? __int_as_float(0xff800000) : 0.f, write(nothing.lane[e], values[e]);
    Eight outside = as<Eight>(nothing), largest = outside;
    int count = 0;
    // of the window's corner, which may lie outside, and of a step down and to the right
    const INDEX corner = ((INDEX)top * p.width + left) * channels, below = (INDEX)p.dilation_height * p.width * channels, next = (INDEX)p.dilation_width * channels;
    constexpr int DOWN = WINDOW_HEIGHT ? WINDOW_HEIGHT : 1, ACROSS = WINDOW_WIDTH ? WINDOW_WIDTH : 1;  // a small window is under way at once
#pragma unroll DOWN
    for (int i = 0; i < height; ++i) {
        int row = top + i * p.dilation_height;
        bool beside = row >= 0 && row < p.height;
#pragma unroll ACROSS
        for (int j = 0; j < width; ++j) {
            int col = left + j * p.dilation_width;
            bool in = beside && col >= 0 && col < p.width;
            count += in || (COUNT_PAD && row < p.height + p.pad_bottom && col < p.width + p.pad_right);
            Eight eight = *(const Eight*)(x + (in ? corner + i * below + j * next : 0));
#pragma unroll
            for (int e = 0; e < WORDS; ++e) {
                eight.lane[e] = in ? eight.lane[e] : outside.lane[e];
                if (PAIRS) largest.lane[e] = pair_larger(largest.lane[e], eight.lane[e], TX());
            }
            if (PAIRS) continue;
            Pack<TX, 8> own = as<Pack<TX, 8>>(eight);
#pragma unroll
            for (int e = 0; e < 8; ++e) values[e] = MAXIMUM ? larger(values[e], read(own.lane[e])) : values[e] + read(own.lane[e]);
        }
    }
    Pack<TX, 8> found = as<Pack<TX, 8>>(largest);
    Pack<TY, 8> out;
#pragma unroll
    for (int e = 0; e < 8; ++e) write(out.lane[e], PAIRS ? read(found.lane[e]) : MAXIMUM ? values[e] : values[e] / (float)count);
    store(y + (i64)at * 8, out);
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
                value = MAXIMUM ? larger(value, one) : value + one;
            }
            count += in || (COUNT_PAD && row < p.height + p.pad_bottom && col < p.width + p.pad_right);
        }
    }
    write(y[at], MAXIMUM ? value : value / (float)count);
}
#endif
