// What products of 8-bit integers need besides tensor cores (integer_mma.cu), and the product without them:
//   integer_product   y i32 [batches, M, N] = sum over k of (a - its zero point) (b - its zero point), exact, as in ONNX
//                     a TA [batches of a, M, K], b TB [batches of b, K, N], of which the batches are repeated; TA, TB u8 or i8
//   integer_lines     [lines, cols] -> [lines, line], line a multiple of 16, zeros behind cols
//   integer_patches   [N, channels, H, W] -> [N, channels * KH * KW, line], line the pixels of y and anything behind them, so that a convolution is a
//                     product; the zero point is put around
//   integer_range     the least and the largest of a part of x, a part a block
//   integer_quantise  DynamicQuantizeLinear of x, whose range lies in such parts: y u8, its scale and its zero point
// Tactic of products: a block 64 x 64, a thread 4 x 4, four neighbours along k an instruction (dp4a). u8 is moved by 128 to become i8; zero points
// are taken off at the end: sum (a - p)(b - q) = sum ab - p sum b - q sum a + K p q, modulo 2^32. It needs no lines of 16 bytes: for small ones.
// NVRTC defines: integer_product: TA, TB, ROWS_A, COLS_B (1: a zero point for every row of a batch of a, column of b; 0: one); integer_patches: TX, INDEX
// (of words: unsigned or i64), TAPS, TAPS_ACROSS (of a window); integer_range, integer_quantise: TX, VEC. integer_quantise without contraction.
#include "common.cuh"

#ifdef ENTRY_PRODUCT
#define TILE 64
#define PACKS 16  // of four neighbours along k, that lie in shared memory at once
#define LIE (PACKS + 1)

struct Product { i64 a_batches, b_batches, down, across; int m, n, k; };

template <class T> constexpr int MOVED = T(-1) > T(0) ? 128 : 0;  // u8

template <class T> __device__ __forceinline__ unsigned lane_of(T x, int at) { return (unsigned)(unsigned char)(x - MOVED<T>) << (8 * at); }

extern "C" __global__ void __launch_bounds__(256) integer_product(const TA* __restrict__ a, const TB* __restrict__ b, const TA* __restrict__ a_zero,
                                                                  const TB* __restrict__ b_zero, i32* __restrict__ y, Product p) {
    take_turn();
    __shared__ unsigned rows[TILE * LIE], cols[TILE * LIE];
    i64 batch = blockIdx.x / (p.down * p.across), tile = blockIdx.x % (p.down * p.across);
    int row = (int)(tile / p.across) * TILE, col = (int)(tile % p.across) * TILE, t = threadIdx.x;
    a += batch % p.a_batches * p.m * p.k;
    b += batch % p.b_batches * p.k * p.n;
    int sums[4][4] = {}, of_a[4] = {}, of_b[4] = {};
    for (int first = 0; first < p.k; first += 4 * PACKS) {
        __syncthreads();  // the tile before may still be read
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int m = row + t / 4, at = t % 4 * 4 + i, n = col + t % TILE, down = t / TILE * 4 + i;
            unsigned of_row = 0, of_col = 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                int k = first + 4 * at + j, l = first + 4 * down + j;
                if (m < p.m && k < p.k) of_row |= lane_of(a[(i64)m * p.k + k], j);
                if (n < p.n && l < p.k) of_col |= lane_of(b[(i64)l * p.n + n], j);
            }
            rows[t / 4 * LIE + at] = of_row;
            cols[t % TILE * LIE + down] = of_col;
        }
        __syncthreads();
#pragma unroll 4
        for (int at = 0; at < PACKS; ++at) {
            int x[4], z[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[i] = (int)rows[(t / 16 + 16 * i) * LIE + at];
                z[i] = (int)cols[(t % 16 + 16 * i) * LIE + at];
                of_a[i] = __dp4a(x[i], 0x01010101, of_a[i]);
                of_b[i] = __dp4a(z[i], 0x01010101, of_b[i]);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = __dp4a(x[i], z[j], sums[i][j]);
            }
        }
    }
    y += batch * p.m * p.n;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int m = row + t / 16 + 16 * i;
        if (m >= p.m) continue;
        int zero_a = (a_zero ? (int)a_zero[ROWS_A ? batch % p.a_batches * p.m + m : 0] : 0) - MOVED<TA>;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            int n = col + t % 16 + 16 * j;
            if (n >= p.n) continue;
            int zero_b = (b_zero ? (int)b_zero[COLS_B ? n : 0] : 0) - MOVED<TB>;
            unsigned sum = (unsigned)sums[i][j] - (unsigned)zero_a * (unsigned)of_b[j] - (unsigned)zero_b * (unsigned)of_a[i];
            y[(i64)m * p.n + n] = (i32)(sum + (unsigned)p.k * (unsigned)(zero_a * zero_b));
        }
    }
}
#endif

#ifdef ENTRY_LINES
struct Lines { i64 pieces; int cols, line; };  // pieces of 16 bytes

extern "C" __global__ void __launch_bounds__(256) integer_lines(const u8* __restrict__ x, u8* __restrict__ y, Lines p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= p.pieces) return;
    i64 line = at / (p.line / 16);
    int col = (int)(at - line * (p.line / 16)) * 16;
    Pack<u8, 16> piece;
#pragma unroll
    for (int e = 0; e < 16; ++e) piece.lane[e] = col + e < p.cols ? x[line * p.cols + col + e] : 0;
    store(y + 16 * at, piece);
}
#endif

#ifdef ENTRY_PATCHES
// A thread four pixels of the taps of a row of a window. Of image, strides, dilations, padding before, out: rows and columns each
struct Patches { i64 words; int line, image[2], stride[2], dilation[2], before[2], out[2]; };

extern "C" __global__ void __launch_bounds__(256) integer_patches(const TX* __restrict__ x, const TX* __restrict__ zero, TX* __restrict__ y, Patches p) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= (INDEX)p.words) return;
    INDEX strip = at / (p.line / 4), plane = strip / (TAPS / TAPS_ACROSS);
    int pixel = (int)(at - strip * (p.line / 4)) * 4, down = (int)(strip - plane * (TAPS / TAPS_ACROSS)), row = pixel / p.out[1], col = pixel - row * p.out[1];
    const TX* image = x + (i64)plane * p.image[0] * p.image[1];
    y += (i64)strip * TAPS_ACROSS * p.line + pixel;
    TX around = zero ? *zero : TX(0);
    int from[4], left[4];  // a pixel's line, where it is inside, and its column
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        int v = row * p.stride[0] - p.before[0] + down * p.dilation[0];
        from[e] = v >= 0 && v < p.image[0] ? v * p.image[1] : -1;
        left[e] = col * p.stride[1] - p.before[1];
        if (++col == p.out[1]) col = 0, ++row;
    }
#pragma unroll
    for (int right = 0; right < TAPS_ACROSS; ++right, y += p.line) {
        Pack<TX, 4> word;
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            int u = left[e] + right * p.dilation[1];
            word.lane[e] = from[e] >= 0 && (unsigned)u < (unsigned)p.image[1] ? image[from[e] + u] : around;
        }
        *(Pack<TX, 4>*)y = word;
    }
}
#endif

#ifdef ENTRY_RANGE
// x in vectors of VEC; `begin` of block b is b * span, of the last block there may be less
struct Span { i64 size, span; int parts; };

extern "C" __global__ void __launch_bounds__(256) integer_range(const TX* __restrict__ x, float* __restrict__ low, float* __restrict__ high, Span p) {
    take_turn();
    i64 begin = blockIdx.x * p.span, end = begin + p.span < p.size ? begin + p.span : p.size;
    float least = __uint_as_float(0x7f800000u), most = -least;
    auto look = [&](float one) { least = Min()(least, one), most = Max()(most, one); };
    for (i64 at = begin + threadIdx.x * VEC; at < end; at += 256 * VEC) {
        if (at + VEC <= end) {
            Pack<TX, VEC> some = *(const Pack<TX, VEC>*)(x + at);
#pragma unroll
            for (int e = 0; e < VEC; ++e) look(read(some.lane[e]));
        } else {
            for (i64 one = at; one < end; ++one) look(read(x[one]));
        }
    }
    least = block_all<256>(least, least, Min());
    most = block_all<256>(most, most, Max());
    if (threadIdx.x == 0) low[blockIdx.x] = least, high[blockIdx.x] = most;
}
#endif

#ifdef ENTRY_QUANTISE
#include "pointwise.cuh"

struct Span { i64 size, span; int parts; };

__device__ __forceinline__ u8 quantised(float x, float scale, float zero) { return u8(op_clip<float>(op_round(x / scale) + zero, 0.f, 255.f)); }

extern "C" __global__ void __launch_bounds__(256) integer_quantise(const TX* __restrict__ x, const float* __restrict__ low, const float* __restrict__ high,
                                                                   u8* __restrict__ y, float* __restrict__ y_scale, u8* __restrict__ y_zero, Span p) {
    take_turn();
    float least = low[0], most = high[0];
    for (int part = threadIdx.x; part < p.parts; part += 256) least = Min()(least, low[part]), most = Max()(most, high[part]);
    least = block_all<256>(least, least, Min()), most = block_all<256>(most, most, Max());
    least = op_min(least, 0.f), most = op_max(most, 0.f);
    float scale = least == most ? 1.f : (most - least) / 255.f;
    u8 zero = u8(op_round(op_clip<float>(0.f - least / scale, 0.f, 255.f)));
    if (blockIdx.x == 0 && threadIdx.x == 0) *y_scale = scale, *y_zero = zero;
    i64 begin = blockIdx.x * p.span, end = begin + p.span < p.size ? begin + p.span : p.size;
    for (i64 at = begin + threadIdx.x * VEC; at < end; at += 256 * VEC) {
        if (at + VEC <= end) {
            Pack<TX, VEC> some = *(const Pack<TX, VEC>*)(x + at);
            Pack<u8, VEC> made;
#pragma unroll
            for (int e = 0; e < VEC; ++e) made.lane[e] = quantised(read(some.lane[e]), scale, (float)zero);
            *(Pack<u8, VEC>*)(y + at) = made;
        } else {
            for (i64 one = at; one < end; ++one) y[one] = quantised(read(x[one]), scale, (float)zero);
        }
    }
}
#endif
