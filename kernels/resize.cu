// Resize: y[o, p0, p1, p2, i] = sum over taps a, b, c of w0[p0, a] * w1[p1, b] * w2[p2, c] * x[o, k0[p0, a], k1[p1, b], k2[p2, c], i]
//   x TX, y TY. k and w are tables, made on the host as ONNX Runtime makes them; k of -1: outside of what is cropped, y has a number of its own there.
// Tactic:
//   resize   a thread VEC neighbours: of the last axis (ALONG 1, inner is 1), or of what lies behind it (channels of images that lie so)
// Sums are float, by fused multiply-adds: over c first, then over a and b. One tap everywhere picks elements, bit for bit.
// NVRTC defines: TX, TY, TAPS0 to TAPS2 (of an axis; 0: it stays as it is, -1: as many as taps say), VEC, ALONG, OUTSIDE (1: there are k of -1),
// INDEX (of elements; unsigned or i64).
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
#pragma unroll (TAPS0 < 0 ? 1 : 4)
    for (int i = 0; i < count<TAPS0>(p.taps[0]); ++i) {
        const Sample a = sample<TAPS0>(first, p0, i, p.taps[0]);
#pragma unroll (TAPS1 < 0 ? 1 : 4)
        for (int j = 0; j < count<TAPS1>(p.taps[1]); ++j) {
            const Sample b = sample<TAPS1>(second, p1, j, p.taps[1]);
            const float weight = a.weight * b.weight;
            const INDEX row = ((outer * p.extents[0] + there(a.at)) * p.extents[1] + there(b.at)) * p.extents[2];
            float own[VEC] = {};
            if (ALONG) {
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    outside[v] |= a.at < 0 || b.at < 0;
#pragma unroll (TAPS2 < 0 ? 1 : 4)
                    for (int k = 0; k < count<TAPS2>(p.taps[2]); ++k) {
                        const Sample c = sample<TAPS2>(third, p2 + v, k, p.taps[2]);
                        own[v] = fmaf(c.weight, read(x[row + there(c.at)]), own[v]);
                        outside[v] |= c.at < 0;
                    }
                }
            } else {
#pragma unroll (TAPS2 < 0 ? 1 : 4)
                for (int k = 0; k < count<TAPS2>(p.taps[2]); ++k) {
                    const Sample c = sample<TAPS2>(third, p2, k, p.taps[2]);
                    const Pack<TX, VEC> from = *(const Pack<TX, VEC>*)(x + (row + there(c.at)) * inner + within);
#pragma unroll
                    for (int v = 0; v < VEC; ++v) {
                        own[v] = fmaf(c.weight, read(from.lane[v]), own[v]);
                        outside[v] |= a.at < 0 || b.at < 0 || c.at < 0;
                    }
                }
            }
#pragma unroll
            for (int v = 0; v < VEC; ++v) sums[v] = fmaf(weight, own[v], sums[v]);
        }
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) write(made.lane[v], OUTSIDE && outside[v] ? p.outside : sums[v]);
#endif
    store(y + (i64)at * VEC, made);
}
