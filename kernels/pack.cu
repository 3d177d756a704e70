// Images of few channels for tensor cores, padded with zeros:
//   SQUARE 1   y[n, h, w, c] = x[n, c, h - top, w - left], CHANNELS a pixel
//   SQUARE 2   the same of squares of 2 x 2 pixels, [n, h, w, pixel of the square, c], four channels a pixel: a window that moves by two pixels
//              moves by one square, and holds half as many zeros
//   x TX, dense [images, channels, height, width]; y TY, rounded once where that is not TX, dense [images, out_height, out_width, CHANNELS or 16]
// Tactic:
//   pack_channels   a thread a pixel or square, written by accesses of 16 bytes
// NVRTC defines: TX, TY, SQUARE, INDEX (of elements: unsigned or i64), CHANNELS (4 or 8; left out: 8, of squares 4).
#include "common.cuh"

#ifndef CHANNELS
#define CHANNELS (SQUARE == 2 ? 4 : 8)
#endif

struct Packing { int images, channels, height, width, out_height, out_width, top, left; };

extern "C" __global__ void __launch_bounds__(256) pack_channels(const TX* __restrict__ x, TY* __restrict__ y, Packing p) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= (INDEX)p.images * p.out_height * p.out_width) return;
    INDEX down = at / p.out_width, image = down / p.out_height;  // divisions of 64 bits take longer than all else
    int left = (int)(at - down * p.out_width) * SQUARE - p.left, top = (int)(down - image * p.out_height) * SQUARE - p.top;
    Pack<TY, SQUARE * SQUARE * CHANNELS> packed = {};
#pragma unroll
    for (int i = 0; i < SQUARE * SQUARE; ++i) {
        int row = top + i / SQUARE, col = left + i % SQUARE;
        if (row < 0 || row >= p.height || col < 0 || col >= p.width) continue;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
            if (c < p.channels) write(packed.lane[i * CHANNELS + c], read(x[((image * p.channels + c) * p.height + row) * p.width + col]));
    }
    store(y + (i64)at * (SQUARE * SQUARE * CHANNELS), packed);
}
