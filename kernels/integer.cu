// Exact sums of products of 8-bit integers, int32 as in ONNX: y i32 [batches, M, N] = sum over k of (a - its zero point) (b - its zero point)
//   integer_product   a TA [batches of a, M, K], b TB [batches of b, K, N], of which the batches are repeated; TA, TB u8 or i8
//   integer_patches   [N, channels, H, W] -> [N, channels * KH * KW, pixels], so that a convolution is a product; the zero point is put around
// Tactic of products: a block 64 x 64, a thread 4 x 4, four neighbours along k an instruction (dp4a). u8 is moved by 128 to become i8; zero points
// are taken off at the end: sum (a - p)(b - q) = sum ab - p sum b - q sum a + K p q, modulo 2^32.
// NVRTC defines: integer_product: TA, TB, ROWS_A, COLS_B (1: a zero point for every row of a batch of a, column of b; 0: one); integer_patches: TX.
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

#ifdef ENTRY_PATCHES
// of image, kernel, strides, dilations, padding before, out: rows and columns each
struct Patches { i64 total; int image[2], kernel[2], stride[2], dilation[2], before[2], out[2]; };

extern "C" __global__ void __launch_bounds__(256) integer_patches(const TX* __restrict__ x, const TX* __restrict__ zero, TX* __restrict__ y, Patches p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, rest = at;
    if (at >= p.total) return;
    int col = rest % p.out[1], row = (rest /= p.out[1]) % p.out[0], right = (rest /= p.out[0]) % p.kernel[1], down = (rest /= p.kernel[1]) % p.kernel[0];
    i64 plane = rest / p.kernel[0];
    int v = row * p.stride[0] - p.before[0] + down * p.dilation[0], u = col * p.stride[1] - p.before[1] + right * p.dilation[1];
    bool inside = v >= 0 && v < p.image[0] && u >= 0 && u < p.image[1];
    y[at] = inside ? x[(plane * p.image[0] + v) * p.image[1] + u] : zero ? *zero : TX(0);
}
#endif
