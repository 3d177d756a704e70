// Images of few channels for tensor cores: y[n, h, w, c] = x[n, c, h - top, w - left], zero outside and from `channels` on
//   x TX, dense [images, channels, height, width]; y TX, dense [images, out_height, out_width, 8]
// Tactic:
//   pack_channels   a thread a pixel, written by one access
#include "common.cuh"

typedef TX T;

struct Packing { int images, channels, height, width, out_height, out_width, top, left; };

extern "C" __global__ void __launch_bounds__(256) pack_channels(const T* __restrict__ x, T* __restrict__ y, Packing p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= (i64)p.images * p.out_height * p.out_width) return;
    int col = (int)(at % p.out_width) - p.left, row = (int)(at / p.out_width % p.out_height) - p.top;
    i64 image = at / p.out_width / p.out_height;
    Pack<T, 8> pixel = {};
    if (row >= 0 && row < p.height && col >= 0 && col < p.width) {
#pragma unroll
        for (int c = 0; c < 8; ++c)
            if (c < p.channels) pixel.lane[c] = x[((image * p.channels + c) * p.height + row) * p.width + col];
    }
    store(y + at * 8, pixel);
}
