// y[r, c] = (x[r, c] - mean[r]) * rstd[r] * scale[k] + bias[k],  rstd = 1 / sqrt(variance + epsilon); RMS: without mean and bias
//   x TX, y TY: `rows` rows of `cols`, dense     scale, bias TS     mean, rstd [rows] float, written unless null
//   k = c (AFFINE 0, layer norm)    k = (r % period) * channels + c / span (AFFINE 1): instance norm is period C, channels 1, span cols;
//   group norm is period G, channels C / G, span the elements of an image
// Tactics; each is the one above plus one idea:
//   norm_looped   a block per row, x read three times              any cols, cols % VEC == 0
//   norm_held     the row held in registers: x read once           cols <= THREADS * ITEMS * VEC, cols % VEC == 0
// cols stays below 2^31. Sums are float whatever the storage, two-pass (E[x^2] - E[x]^2 cancels when |mean| >> std), their order fixed.
// NVRTC defines: TX, TY, TS, AFFINE, RMS, BIAS (0 or 1), THREADS, VEC; for norm_held: ITEMS, ROWS (of a block; > 1 when THREADS is 32).
#include "common.cuh"

struct Affine {
    const TS* scale;
    const TS* bias;
    i64 first, span;  // AFFINE 1: of this row

    __device__ __forceinline__ float operator()(float x, int c) const {
        i64 k = AFFINE ? first + c / (int)span : c;
        float y = x * read(scale[k]);
        return BIAS ? y + read(bias[k]) : y;
    }
};

#ifdef ENTRY_LOOPED
extern "C" __global__ void __launch_bounds__(THREADS, 1) norm_looped(
    const TX* __restrict__ x, TY* __restrict__ y, const TS* __restrict__ scale, const TS* __restrict__ bias, float* mean_at,
    float* rstd_at, i64 rows, i64 cols, i64 period, i64 channels, i64 span, float epsilon) {
    i64 row = blockIdx.x, base = row * cols;
    float sum = 0.f, square = 0.f, mean = 0.f;
    if (!RMS) {
        for (int c = threadIdx.x * VEC; c < (int)cols; c += THREADS * VEC) {
            Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + base + c);
#pragma unroll
            for (int v = 0; v < VEC; ++v) sum += read(in.lane[v]);
        }
        mean = block_all<THREADS>(sum, 0.f, Sum()) / (float)cols;
    }
    for (int c = threadIdx.x * VEC; c < (int)cols; c += THREADS * VEC) {
        Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + base + c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float centred = read(in.lane[v]) - mean;
            square += centred * centred;
        }
    }
    float rstd = 1.f / sqrtf(block_all<THREADS>(square, 0.f, Sum()) / (float)cols + epsilon);
    Affine affine = {scale, bias, row % period * channels, span};
    for (int c = threadIdx.x * VEC; c < (int)cols; c += THREADS * VEC) {
        Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + base + c);
        Pack<TY, VEC> out;
#pragma unroll
        for (int v = 0; v < VEC; ++v) write(out.lane[v], affine((read(in.lane[v]) - mean) * rstd, c + v));
        *(Pack<TY, VEC>*)(y + base + c) = out;
    }
    if (threadIdx.x == 0) {
        if (mean_at) mean_at[row] = mean;
        if (rstd_at) rstd_at[row] = rstd;
    }
}
#endif

#ifdef ENTRY_HELD
template <class F> __device__ __forceinline__ float row_all(float x, float neutral, F combine) {
    return ROWS > 1 ? warp_all(x, combine) : block_all<THREADS>(x, neutral, combine);
}

extern "C" __global__ void __launch_bounds__(THREADS * ROWS) norm_held(
    const TX* __restrict__ x, TY* __restrict__ y, const TS* __restrict__ scale, const TS* __restrict__ bias, float* mean_at,
    float* rstd_at, i64 rows, i64 cols, i64 period, i64 channels, i64 span, float epsilon) {
    i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (row >= rows) return;  // whole warps: ROWS > 1 only with THREADS == 32
    int thread = threadIdx.x % THREADS;
    x += row * cols;
    y += row * cols;
    float held[ITEMS][VEC], sum = 0.f, square = 0.f, mean = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        Pack<TX, VEC> in;
        if (c < cols) in = *(const Pack<TX, VEC>*)(x + c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            held[i][v] = c < cols ? read(in.lane[v]) : 0.f;
            sum += held[i][v];
        }
    }
    if (!RMS) mean = row_all(sum, 0.f, Sum()) / (float)cols;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            held[i][v] -= mean;
            square += c < cols ? held[i][v] * held[i][v] : 0.f;
        }
    }
    float rstd = 1.f / sqrtf(row_all(square, 0.f, Sum()) / (float)cols + epsilon);
    Affine affine = {scale, bias, row % period * channels, span};
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        if (c < cols) {
            Pack<TY, VEC> out;
#pragma unroll
            for (int v = 0; v < VEC; ++v) write(out.lane[v], affine(held[i][v] * rstd, c + v));
            *(Pack<TY, VEC>*)(y + c) = out;
        }
    }
    if (thread == 0) {
        if (mean_at) mean_at[row] = mean;
        if (rstd_at) rstd_at[row] = rstd;
    }
}
#endif
