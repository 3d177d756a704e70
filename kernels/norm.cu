// y[r, c] = (x[r, c] - mean[r]) * rstd[r] * scale[k] + bias[k],  rstd = 1 / sqrt(variance + epsilon); RMS: without mean and bias
//   x TX, y TY: `rows` rows of `cols`, dense     scale, bias TS     mean, rstd [rows] float, written unless null
//   k = c (AFFINE 0, layer norm)    k = (r % period) * channels + c / span (AFFINE 1): group norm is period G, channels C / G, span the
//   elements of an image    k = r % period (AFFINE 2): instance norm, period C
// Tactics; each is the one above plus one idea:
//   norm_parts, norm_apply   many blocks a row, x read twice        any cols, cols % VEC == 0; long rows, or few
//   norm_held                the row held in registers, all of it under way at once: x read once    cols <= THREADS * ITEMS * VEC, cols % VEC == 0
// cols stays below 2^31. Sums are float whatever the storage, two-pass (E[x^2] - E[x]^2 cancels when |mean| >> std), their order fixed.
// NVRTC defines: TX, TY, TS (norm_parts: TX), AFFINE, RMS, BIAS (0 or 1), THREADS, VEC; for norm_held and norm_parts: ITEMS; for norm_held ROWS (of a block; > 1 when THREADS is
// 32) and FULL (1: cols is THREADS * ITEMS * VEC).
#include "common.cuh"

struct alignas(8) float2_ { float mean, square; };

// Of a row; `at` moves on to the VEC elements from c on, which share a factor where there is one a channel (VEC divides the span).
struct Affine {
    const TS* scale;
    const TS* bias;
    i64 first, span;
    float factor, shift;

    __device__ __forceinline__ Affine(const TS* scale, const TS* bias, i64 first, i64 span) : scale(scale), bias(bias), first(first), span(span) {
        if (AFFINE == 2) take(first);
    }
    __device__ __forceinline__ void take(i64 k) {
        factor = read(scale[k]);
        shift = BIAS ? read(bias[k]) : 0.f;
    }
    __device__ __forceinline__ void at(int c) {
        if (AFFINE == 1) take(first + c / (int)span);
    }
    __device__ __forceinline__ float operator()(float x, int c) {
        if (AFFINE == 0) take(c);
        return BIAS ? x * factor + shift : x * factor;
    }
};

#ifdef ENTRY_PARTS
// Mean and sum of squares around it of each part: `chunks` times THREADS * ITEMS * VEC elements of a row, each held in registers.
// Joined by the formula of Chan, Golub and LeVeque (1979), which does not cancel.
extern "C" __global__ void __launch_bounds__(THREADS) norm_parts(
    const TX* __restrict__ x, float2_* __restrict__ parts, i64 cols, int per_row, int chunks) {
    take_turn();
    constexpr int CHUNK = THREADS * ITEMS * VEC;
    int part = blockIdx.x % per_row;
    x += (i64)(blockIdx.x / per_row) * cols;
    float all_mean = 0.f, all_square = 0.f, seen = 0.f;
    for (int chunk = 0; chunk < chunks; ++chunk) {
        i64 first = ((i64)part * chunks + chunk) * CHUNK;
        if (first >= cols) break;
        int count = cols - first < CHUNK ? (int)(cols - first) : CHUNK;
        float held[ITEMS][VEC], sum = 0.f, square = 0.f, mean = 0.f;
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            int c = (i * THREADS + threadIdx.x) * VEC;
            Pack<TX, VEC> in;
            if (c < count) in = *(const Pack<TX, VEC>*)(x + first + c);
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                held[i][v] = c < count ? read(in.lane[v]) : 0.f;
                sum += held[i][v];
            }
        }
        if (!RMS) mean = block_all<THREADS>(sum, 0.f, Sum()) / (float)count;
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            int c = (i * THREADS + threadIdx.x) * VEC;
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                float centred = held[i][v] - mean;
                square += c < count ? centred * centred : 0.f;
            }
        }
        square = block_all<THREADS>(square, 0.f, Sum());
        float own = (float)count, both = seen + own, apart = mean - all_mean;
        all_mean += apart * (own / both);
        all_square += square + apart * apart * (seen * (own / both));
        seen = both;
    }
    if (threadIdx.x == 0) parts[blockIdx.x] = {all_mean, all_square};
}
#endif

#ifdef ENTRY_APPLY
// Every block joins the parts of its row, in order, and normalises one of them.
extern "C" __global__ void __launch_bounds__(THREADS) norm_apply(
    const TX* __restrict__ x, TY* __restrict__ y, const TS* __restrict__ scale, const TS* __restrict__ bias, float* mean_at,
    float* rstd_at, const float2_* __restrict__ parts, i64 cols, int per_row, i64 span_of_part, i64 period, i64 channels, i64 span,
    float epsilon) {
    take_turn();
    unsigned at = gridDim.x - 1 - blockIdx.x;  // what norm_parts read last is in the cache still
    i64 row = at / per_row, part = at % per_row, base = row * cols;
    float mean = 0.f, square = 0.f;
    parts += row * per_row;
    for (int i = threadIdx.x; i < per_row; i += THREADS) {
        float own = (float)(cols - i * span_of_part < span_of_part ? cols - i * span_of_part : span_of_part);
        mean += parts[i].mean * (own / (float)cols);
    }
    mean = RMS ? 0.f : block_all<THREADS>(mean, 0.f, Sum());
    for (int i = threadIdx.x; i < per_row; i += THREADS) {
        float own = (float)(cols - i * span_of_part < span_of_part ? cols - i * span_of_part : span_of_part), apart = parts[i].mean - mean;
        square += parts[i].square + (RMS ? 0.f : apart * apart * own);
    }
    float rstd = 1.f / sqrtf(block_all<THREADS>(square, 0.f, Sum()) / (float)cols + epsilon);
    Affine affine(scale, bias, row % period * channels, span);
    i64 first = part * span_of_part, last = first + span_of_part < cols ? first + span_of_part : cols;
#pragma unroll 4
    for (i64 c = first + threadIdx.x * VEC; c < last; c += THREADS * VEC) {
        Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + base + c);
        Pack<TY, VEC> out;
        affine.at((int)c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) write(out.lane[v], affine((read(in.lane[v]) - mean) * rstd, (int)c + v));
        *(Pack<TY, VEC>*)(y + base + c) = out;
    }
    if (threadIdx.x == 0 && part == 0) {
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
    float* rstd_at, i64 rows, i64 cols_, i64 period, i64 channels, i64 span, float epsilon) {
    take_turn();
    i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (row >= rows) return;  // whole warps: ROWS > 1 only with THREADS == 32
    const int cols = FULL ? THREADS * ITEMS * VEC : (int)cols_;
    const float each = 1.f / (float)cols;
    int thread = threadIdx.x % THREADS;
    x += row * cols;
    y += row * cols;
    // All of a row is under way before the first of it is waited for: where there is nothing to read, the beginning is read once more. A scale an
    // element is fetched beside it where registers suffice, so that it is there when the statistics are.
    constexpr bool EARLY = AFFINE == 0 && ITEMS * VEC * (1 + BIAS) * sizeof(TS) <= 96;
    Pack<TX, VEC> in[ITEMS];
    Pack<TS, VEC> scales[EARLY ? ITEMS : 1], shifts[EARLY && BIAS ? ITEMS : 1];
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC, from = FULL || c < cols ? c : 0;
        in[i] = *(const Pack<TX, VEC>*)(x + from);
        if constexpr (EARLY) scales[i] = *(const Pack<TS, VEC>*)(scale + from);
        if constexpr (EARLY && BIAS) shifts[i] = *(const Pack<TS, VEC>*)(bias + from);
    }
    float held[ITEMS][VEC], sum = 0.f, square = 0.f, mean = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        bool has = FULL || (i * THREADS + thread) * VEC < cols;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            held[i][v] = has ? read(in[i].lane[v]) : 0.f;
            sum += held[i][v];
        }
    }
    if (!RMS) mean = row_all(sum, 0.f, Sum()) * each;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        bool has = FULL || (i * THREADS + thread) * VEC < cols;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            held[i][v] -= mean;
            square += has ? held[i][v] * held[i][v] : 0.f;
        }
    }
    float rstd = 1.f / sqrtf(row_all(square, 0.f, Sum()) * each + epsilon);
    Affine affine(scale, bias, row % period * channels, span);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        if (FULL || c < cols) {
            Pack<TY, VEC> out;
            if constexpr (AFFINE == 0) {
                Pack<TS, VEC> factor, shift;
                if constexpr (EARLY) factor = scales[i]; else factor = *(const Pack<TS, VEC>*)(scale + c);
                if constexpr (EARLY && BIAS) shift = shifts[i]; else if constexpr (BIAS) shift = *(const Pack<TS, VEC>*)(bias + c);
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    float one = held[i][v] * rstd;
                    write(out.lane[v], BIAS ? one * read(factor.lane[v]) + read(shift.lane[v]) : one * read(factor.lane[v]));
                }
            } else {
                affine.at(c);
#pragma unroll
                for (int v = 0; v < VEC; ++v) write(out.lane[v], affine(held[i][v] * rstd, c + v));
            }
            store(y + c, out);
        }
    }
    if (thread == 0) {
        if (mean_at) mean_at[row] = mean;
        if (rstd_at) rstd_at[row] = rstd;
    }
}
#endif
