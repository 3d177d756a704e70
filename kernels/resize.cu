// Resize: y[o, p0, p1, p2, i] = sum over taps a, b, c of w0[p0, a] * w1[p1, b] * w2[p2, c] * x[o, k0[p0, a], k1[p1, b], k2[p2, c], i]
//   x TX, y TY. k and w are tables, made on the host as ONNX Runtime makes them; k of -1: outside of what is cropped, y has a number of its own there.
// Tactics:
//   resize         a thread VEC neighbours: of the last axis (ALONG 1, inner is 1), or of what lies behind it (channels of images that lie so)
//   resize_lines   a warp a stretch of a line of the last axis: first what the line's columns of x sum up to over a and b, each once, into shared
//                  memory, by accesses of LANES columns; then over c from there
// Sums are float, by fused multiply-adds: over a and b first, then over c. One tap everywhere picks elements, bit for bit.
// NVRTC defines: TX, TY, TAPS0 to TAPS2 (of an axis; 0: it stays as it is, -1: as many as taps say), VEC, OUTSIDE (1: there are k of -1), INDEX (of
// elements; unsigned or i64); resize: ALONG; resize_lines: ENTRY_LINES, STRETCH (of a line of y), ROOM (columns of x that it reads at most), LANES.
#include "common.cuh"

struct Sample { int at; float weight; };
struct Resize {
    i64 outer, inner;
    int extents[3], out[3], taps[3];
    float outside;
};

#define PICKS (TAPS0 >= 0 && TAPS0 <= 1 && TAPS1 >= 0 && TAPS1 <= 1 && TAPS2 >= 0 && TAPS2 <= 1)

__device__ __forceinline__ int there(int at) { return OUTSIDE && at < 0 ? 0 : at; }
template <int TAPS> __device__ __forceinline__ int count(int taps) { return TAPS < 0 ? taps : TAPS ? TAPS : 1; }
template <int TAPS> __device__ __forceinline__ Sample sample(const Sample* table, int place, int tap, int taps) {
    if (TAPS == 0) return {place, 1.f};
    return table[place * count<TAPS>(taps) + tap];
}

#ifdef ENTRY_LINES
#define WARPS 8
extern "C" __global__ void __launch_bounds__(32 * WARPS) resize_lines(
    const TX* __restrict__ x, TY* __restrict__ y, const Sample* __restrict__ first, const Sample* __restrict__ second, const Sample* __restrict__ third, Resize p) {
    take_turn();
    __shared__ __align__(16) float columns[WARPS][ROOM];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, wide = p.extents[2], taps = count<TAPS2>(p.taps[2]);
    const int stretches = (p.out[2] + STRETCH - 1) / STRETCH;
    INDEX line = (INDEX)blockIdx.x * WARPS + warp;
    const int begin = (int)(line % stretches) * STRETCH, end = begin + STRETCH < p.out[2] ? begin + STRETCH : p.out[2];
    line /= stretches;
    INDEX rest = line;
    const int p1 = (int)(rest % p.out[1]);
    rest /= p.out[1];
    const int p0 = (int)(rest % p.out[0]);
    const INDEX outer = rest / p.out[0];
    if (outer >= (INDEX)p.outer) return;
    const int from = sample<TAPS2>(third, begin, 0, taps).at / LANES * LANES, to = sample<TAPS2>(third, end - 1, taps - 1, taps).at;
    for (int col = from + lane * LANES; col <= to; col += 32 * LANES) {
        float sums[LANES] = {};
#pragma unroll (TAPS0 < 0 ? 1 : 4)
        for (int i = 0; i < count<TAPS0>(p.taps[0]); ++i) {
            const Sample a = sample<TAPS0>(first, p0, i, p.taps[0]);
#pragma unroll (TAPS1 < 0 ? 1 : 4)
            for (int j = 0; j < count<TAPS1>(p.taps[1]); ++j) {
                const Sample b = sample<TAPS1>(second, p1, j, p.taps[1]);
                const float weight = a.weight * b.weight;
                const Pack<TX, LANES> some = *(const Pack<TX, LANES>*)(x + ((outer * p.extents[0] + a.at) * p.extents[1] + b.at) * wide + col);
#pragma unroll
                for (int v = 0; v < LANES; ++v) sums[v] = fmaf(weight, read(some.lane[v]), sums[v]);
            }
        }
        *(Pack<float, LANES>*)(columns[warp] + col - from) = *(const Pack<float, LANES>*)sums;
    }
    __syncwarp();
    for (int p2 = begin + lane * VEC; p2 < end; p2 += 32 * VEC) {
        float sums[VEC] = {};
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
#pragma unroll (TAPS2 < 0 ? 1 : 4)
            for (int k = 0; k < taps; ++k) {
                const Sample c = sample<TAPS2>(third, p2 + v, k, taps);
                sums[v] = fmaf(c.weight, columns[warp][c.at - from], sums[v]);
            }
        }
        Pack<TY, VEC> made;
#pragma unroll
        for (int v = 0; v < VEC; ++v) write(made.lane[v], sums[v]);
        store(y + line * p.out[2] + p2, made);
    }
}
#else
extern "C" __global__ void __launch_bounds__(256) resize(
    const TX* __restrict__ x, TY* __restrict__ y, const Sample* __restrict__ first, const Sample* __restrict__ second, const Sample* __restrict__ third, Resize p) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, rest = at, inner = (INDEX)p.inner;
    INDEX within = 0;
    if (!ALONG) within = at % (inner / VEC) * VEC, rest = at / (inner / VEC);
    const int steps = ALONG ? p.out[2] / VEC : p.out[2];
    const int p2 = (int)(rest % steps) * (ALONG ? VEC : 1);
    rest /= steps;
    const int p1 = (int)(rest % p.out[1]);
    rest /= p.out[1];
    const int p0 = (int)(rest % p.out[0]);
    const INDEX outer = rest / p.out[0];
    if (outer >= (INDEX)p.outer) return;
    Pack<TY, VEC> made;
#if PICKS
    const Sample a = sample<TAPS0>(first, p0, 0, 1), b = sample<TAPS1>(second, p1, 0, 1);
    const bool beside = a.at < 0 || b.at < 0;
    const INDEX row = (outer * p.extents[0] + there(a.at)) * p.extents[1] + there(b.at);
    if (ALONG) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            const Sample c = sample<TAPS2>(third, p2 + v, 0, 1);
            write(made.lane[v], read(x[row * p.extents[2] + there(c.at)]));
            if (OUTSIDE && (beside || c.at < 0)) write(made.lane[v], p.outside);
        }
    } else {
        const Sample c = sample<TAPS2>(third, p2, 0, 1);
        const Pack<TX, VEC> from = *(const Pack<TX, VEC>*)(x + (row * p.extents[2] + there(c.at)) * inner + within);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            write(made.lane[v], read(from.lane[v]));
            if (OUTSIDE && (beside || c.at < 0)) write(made.lane[v], p.outside);
        }
    }
#else
    float sums[VEC] = {};
    bool outside[VEC] = {};
#pragma unroll (TAPS2 < 0 ? 1 : 4)
    for (int k = 0; k < count<TAPS2>(p.taps[2]); ++k) {
        Sample c[VEC];
        float own[VEC] = {};
#pragma unroll
        for (int v = 0; v < VEC; ++v) c[v] = sample<TAPS2>(third, ALONG ? p2 + v : p2, k, p.taps[2]);
#pragma unroll (TAPS0 < 0 ? 1 : 4)
        for (int i = 0; i < count<TAPS0>(p.taps[0]); ++i) {
            const Sample a = sample<TAPS0>(first, p0, i, p.taps[0]);
#pragma unroll (TAPS1 < 0 ? 1 : 4)
            for (int j = 0; j < count<TAPS1>(p.taps[1]); ++j) {
                const Sample b = sample<TAPS1>(second, p1, j, p.taps[1]);
                const float weight = a.weight * b.weight;
                const INDEX row = ((outer * p.extents[0] + there(a.at)) * p.extents[1] + there(b.at)) * p.extents[2];
                Pack<TX, VEC> from;
                if (!ALONG) from = *(const Pack<TX, VEC>*)(x + (row + there(c[0].at)) * inner + within);
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    own[v] = fmaf(weight, read(ALONG ? x[row + there(c[v].at)] : from.lane[v]), own[v]);
                    outside[v] |= a.at < 0 || b.at < 0 || c[v].at < 0;
                }
            }
        }
#pragma unroll
        for (int v = 0; v < VEC; ++v) sums[v] = fmaf(c[v].weight, own[v], sums[v]);
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) write(made.lane[v], OUTSIDE && outside[v] ? p.outside : sums[v]);
#endif
    store(y + (i64)at * VEC, made);
}
#endif
