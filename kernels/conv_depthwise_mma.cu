// Depthwise convolution, channels last, on tensor cores, sm_90 and later: y[n, oh, ow, c] = bias[c] + sum over kh, kw of x[n, ih, iw, c] * w[kh, kw, c]
//   x, w T (f16, bf16), channels divide by 8; bias TB or null, y TY (or out.cuh)
// Tactic:
//   conv_depthwise_mma   a block brings what HIGH x WIDE pixels of 64 channels (or 32) read by one bulk copy, padding included; a warp computes 16 pixels of 16 channels
// An instruction multiplies 16 pixels under two taps, of eight channels each, by a matrix with the taps' weights on its diagonals: products by zero are
// seven of eight, and cost less than widening what is read. Where x is Inf or NaN they would make NaN of its neighbours: whatever comes out as NaN is
// computed once more, as conv_depthwise.cu does. Products and sums are FP32 (the tensor core's: sums are cut, not rounded, a few bits below), over
// rows, then columns of the window, two taps at a time.
// NVRTC defines: TX, TB, TY, KERNEL_HEIGHT, STRIDE_HEIGHT, DILATION_HEIGHT, the same of WIDTH, HIGH, WIDE (of y, a block's), LINE (bytes
// of a block's channels: 64 or 128), THREADS (128 or 256).
#include "tma.cuh"
#include "out.cuh"

typedef TX T;
#define TAPS (KERNEL_HEIGHT * KERNEL_WIDTH)
#define PAIRS ((TAPS + 1) / 2)
#define REACH(COUNT, AXIS) ((COUNT - 1) * STRIDE_##AXIS + (KERNEL_##AXIS - 1) * DILATION_##AXIS + 1)  // of x under the windows of a block
#define ROWS REACH(HIGH, HEIGHT)
#define COLS REACH(WIDE, WIDTH)
#define SIXTEENS (LINE / 32)  // of channels
#define GROUPS ((HIGH * WIDE + 15) / 16)

// Where 16 bytes of a pixel lie (tma.cuh)
__device__ __forceinline__ int place_at(int pixel, int eight) { return pixel * LINE + ((eight ^ pixel * LINE / 128 % (LINE / 16)) << 4); }

// pixels of y; tiles of an image down and across, chunks of channels
struct Depthwise { int images, channels, height, width, pad_top, pad_left, down, across, chunks; };

extern "C" __global__ void __launch_bounds__(THREADS, 768 / THREADS) conv_depthwise_mma(
    const __grid_constant__ TensorMap x_map, const T* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS,
    const __grid_constant__ Depthwise p) {
    SWIZZLED_SHARED(shared);
    __shared__ Barrier barrier;
    BarrierAt ready = barrier_of(&barrier);
    if (threadIdx.x == 0) {
        barrier_make(ready, 1);
        barriers_made();
        prefetch_map(&x_map);
    }
    int at = blockIdx.x, chunk = at % p.chunks, rest = at / p.chunks, left = rest % p.across * WIDE, band = rest / p.across;
    int top = band % p.down * HIGH, image = band / p.down;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane % 4, line = lane / 4, sixteen = warp % SIXTEENS;
    int first = chunk * (LINE / 2) + sixteen * 16;  // channel of the warp
    __syncthreads();
    take_turn();
    if (threadIdx.x == 0) {
        barrier_expect(ready, ROWS * COLS * LINE);
        copy_tile(shared_of(shared), &x_map, ready, chunk * (LINE / 2), left * STRIDE_WIDTH - p.pad_left, top * STRIDE_HEIGHT - p.pad_top, image);
    }
    unsigned weights[PAIRS][2][2] = {};  // of two taps; of the eights of channels
#pragma unroll
    for (int j = 0; j < TAPS; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int c = first + half * 8 + line;
            if (line / 2 == quad && c < p.channels) weights[j / 2][half][j % 2] = (unsigned)w[j * p.channels + c].bits << line % 2 * 16;
        }
    }
    Out out = {OUT_ARGUMENTS};
    int own = first + quad / 2 * 8;  // of the eight channels that this thread finishes
    float added[8] = {};
#pragma unroll
    for (int e = 0; e < 8; ++e)
        if (bias && own < p.channels) added[e] = read(bias[own + e]);
    // of matrices: pixels 0..7 and 8..15 under a tap, the same under the next
    int row = lane % 16, next = lane / 16;
    barrier_wait(ready, 0);
    if (first >= p.channels) return;
    for (int group = warp / SIXTEENS; group < GROUPS; group += THREADS / 32 / SIXTEENS) {
        int pixel = group * 16 + row;
        if (HIGH * WIDE % 16) pixel = pixel < HIGH * WIDE ? pixel : HIGH * WIDE - 1;  // read again, and dropped
        int corner = pixel / WIDE * STRIDE_HEIGHT * COLS + pixel % WIDE * STRIDE_WIDTH;
        float sums[2][4] = {};
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) {
            constexpr int LAST = TAPS - 1;
            int a = 2 * j, b = 2 * j + 1 < TAPS ? 2 * j + 1 : LAST;
            int tap_a = a / KERNEL_WIDTH * DILATION_HEIGHT * COLS + a % KERNEL_WIDTH * DILATION_WIDTH, tap_b = b / KERNEL_WIDTH * DILATION_HEIGHT * COLS + b % KERNEL_WIDTH * DILATION_WIDTH;
            int there = corner + (next ? tap_b : tap_a);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                unsigned values[4];
                load_matrices(values, place_of(shared) + place_at(there, sixteen * 2 + half));
                mma(sums[half], values, weights[j][half][0], weights[j][half][1], T());
            }
        }
        // blocks: the first eight channels of pixels 0..7, of 8..15, then the others; this thread gets eight values of one of them
        float pair[4][2];
#pragma unroll
        for (int q = 0; q < 4; ++q) pair[q][0] = sums[q / 2][q % 2 * 2], pair[q][1] = sums[q / 2][q % 2 * 2 + 1];
        gather_columns(pair);
        float values[8];
        bool odd = false;
#pragma unroll
        for (int e = 0; e < 8; ++e) values[e] = pair[e / 2][e % 2], odd = odd || values[e] != values[e];
        pixel = group * 16 + quad % 2 * 8 + line;
        int y_row = top + pixel / WIDE, y_col = left + pixel % WIDE;
        bool in = (HIGH * WIDE % 16 == 0 || pixel < HIGH * WIDE) && y_row < p.height && y_col < p.width && own < p.channels;
        if (odd && in) {
            int from = pixel / WIDE * STRIDE_HEIGHT * COLS + pixel % WIDE * STRIDE_WIDTH;
#pragma unroll
            for (int e = 0; e < 8; ++e) values[e] = 0.f;
#pragma unroll 1
            for (int j = 0; j < TAPS; ++j) {
                int there = from + j / KERNEL_WIDTH * DILATION_HEIGHT * COLS + j % KERNEL_WIDTH * DILATION_WIDTH;
                Pack<T, 8> x = *(const Pack<T, 8>*)(shared + place_at(there, sixteen * 2 + quad / 2));
                Pack<T, 8> weight = neighbours<8>(w + j * p.channels + own);
#pragma unroll
                for (int e = 0; e < 8; ++e) values[e] = fmaf(read(x.lane[e]), read(weight.lane[e]), values[e]);
            }
        }
        i64 place = ((i64)image * p.height + y_row) * p.width + y_col;
        Spot spot = {place * p.channels + own, 0, 0, place, own};
#pragma unroll
        for (int e = 0; e < 8; ++e)
            if (bias) values[e] += added[e];
        put(out, values, fetch<8>(out, spot, in), spot, in);
    }
}
