// y[n, c, s] = x[n, c] at the place that grid[n, s] names, between elements: GridSample, as ONNX Runtime computes it
//   x TX [N, C, E0, ...], grid TG [N, S, AXES] in -1..1, the last axis of x first; y TY [N, C, S]. A plane of x fits 31 bits.
// Tactic:
//   grid_sample   a thread a place: what it reads, and with which weights, is found once for CHANNELS channels; neighbours write neighbours
// Computed without contraction, in ONNX Runtime's order: places that lie between two elements round to the same one.
// NVRTC defines: TX, TG, TY, AXES (2 or 3), MODE, PADDING (names below), CORNERS (1: -1 and 1 are the centres of the outer elements), CHANNELS.
#include "common.cuh"

#define LINEAR 0
#define NEAREST 1
#define CUBIC 2
#define ZEROS 0
#define BORDER 1
#define REFLECTION 2
#define TAPS (MODE == CUBIC ? 4 : MODE == LINEAR ? 2 : 1)

// extents of a plane, the last axis of x first; places of an image
struct Sampled { i64 channels, places, chunks; int e[3]; };

__device__ __forceinline__ float reflected(float x, float low, float high) {
    float range = high - low, out = x < low ? low - x : x > high ? x - high : 0.f;
    if (!(x < low || x > high)) return x;
    int times = (int)(out / range);
    float rest = out - times * range;
    return (x < low) == (times % 2 == 0) ? low + rest : high - rest;
}

// Weights of the four elements around a place, `x` behind the second (Keys 1981, with -0.75)
__device__ __forceinline__ void cubic(float x, float (&w)[4]) {
    const float a = -0.75f;
    w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
    w[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    w[3] = ((a * (2 - x) - 5 * a) * (2 - x) + 8 * a) * (2 - x) - 4 * a;
}

// Elements along one axis, -1 for none, and their weights
struct Taps { int at[TAPS]; float weight[4]; };

__device__ __forceinline__ Taps taps_of(float x, int extent, float low, float high) {
    Taps taps;
    float first = MODE == NEAREST ? x : floorf(x) - (MODE == CUBIC ? 1.f : 0.f);
#pragma unroll
    for (int t = 0; t < TAPS; ++t) {
        float at = first + t;
        if (PADDING == REFLECTION) at = truncf(reflected(at, low, high));
        bool inside = at >= 0.f && at < (float)extent;
        if (PADDING == ZEROS) taps.at[t] = inside ? (int)at : -1;
        else taps.at[t] = inside ? (int)at : at > 0.f ? extent - 1 : 0;
    }
    if (MODE == CUBIC) cubic(x - first - 1, taps.weight);
    if (MODE == LINEAR) {
        taps.weight[0] = first + 1 - x;
        taps.weight[1] = x - first;
    }
    return taps;
}

__device__ __forceinline__ float weighed(const float (&p)[TAPS], const Taps& taps) {
    if (MODE == NEAREST) return p[0];
    float sum = taps.weight[0] * p[0];
#pragma unroll
    for (int t = 1; t < TAPS; ++t) sum = sum + taps.weight[t] * p[t];
    return sum;
}

extern "C" __global__ void __launch_bounds__(256) grid_sample(const TX* __restrict__ x, const TG* __restrict__ grid, TY* __restrict__ y, Sampled p) {
    take_turn();
    i64 across = (p.places + 255) / 256, s = blockIdx.x % across * 256 + threadIdx.x, chunk = blockIdx.x / across % p.chunks;
    i64 n = blockIdx.x / across / p.chunks;
    if (s >= p.places) return;
    float place[AXES], low[AXES], high[AXES];
    bool outside = false;
#pragma unroll
    for (int axis = 0; axis < AXES; ++axis) {
        float g = read(grid[(n * p.places + s) * AXES + axis]);
        int extent = p.e[axis];
        low[axis] = CORNERS ? 0.f : -0.5f;
        high[axis] = CORNERS ? extent - 1.f : extent - 0.5f;
        place[axis] = CORNERS ? (g + 1) / 2.f * (extent - 1) : ((g + 1) * extent - 1) / 2.f;
        if (MODE == NEAREST) place[axis] = rintf(place[axis]);
        outside |= place[axis] < low[axis] || place[axis] > high[axis];
    }
    Taps taps[AXES];
#pragma unroll
    for (int axis = 0; axis < AXES; ++axis) {
        // as soon as one axis is outside, all are moved inside; for a cubic only what it reads is
        if (outside && PADDING == BORDER && MODE != CUBIC) place[axis] = fminf(fmaxf(place[axis], 0.f), p.e[axis] - 1.f);
        if (outside && PADDING == REFLECTION && MODE != CUBIC) place[axis] = reflected(place[axis], low[axis], high[axis]);
        taps[axis] = taps_of(place[axis], p.e[axis], low[axis], high[axis]);
    }
    i64 plane = (i64)p.e[0] * p.e[1] * (AXES == 3 ? p.e[AXES - 1] : 1), first = chunk * CHANNELS;
    int count = p.channels - first < CHANNELS ? (int)(p.channels - first) : CHANNELS;
    x += (n * p.channels + first) * plane;
    y += (n * p.channels + first) * p.places + s;
#pragma unroll 2
    for (int c = 0; c < count; ++c, x += plane, y += p.places) {
        float slices[TAPS];
#pragma unroll
        for (int k = 0; k < (AXES == 3 ? TAPS : 1); ++k) {
            int slice = AXES == 3 ? taps[AXES - 1].at[k] : 0;
            float rows[TAPS];
#pragma unroll
            for (int j = 0; j < TAPS; ++j) {
                float row[TAPS];
#pragma unroll
                for (int i = 0; i < TAPS; ++i) {
                    bool there = taps[0].at[i] >= 0 && taps[1].at[j] >= 0 && slice >= 0;
                    row[i] = there ? read(x[(slice * p.e[1] + taps[1].at[j]) * p.e[0] + taps[0].at[i]]) : 0.f;
                }
                rows[j] = weighed(row, taps[0]);
            }
            slices[k] = weighed(rows, taps[1]);
        }
        write(*y, AXES == 3 ? weighed(slices, taps[AXES - 1]) : slices[0]);
    }
}
