// y[n, c, s] = x[n, c, s] / (bias + alpha / AROUND * sum of x[n, c', s]² over AROUND channels around c)^beta: LRN of x TX [N, channels, inner], y TY
// Tactic: a thread an element; neighbours along inner read neighbours, channels come from the cache.
// NVRTC defines: TX, TY, AROUND (odd).
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) lrn(const TX* __restrict__ x, TY* __restrict__ y, i64 total, i64 channels, i64 inner, float scale, float beta, float bias) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= total) return;
    i64 c = at / inner % channels, first = c < AROUND / 2 ? -c : -(AROUND / 2), last = channels - 1 - c < AROUND / 2 ? channels - 1 - c : AROUND / 2;
    float sum = 0.f;
#pragma unroll 4
    for (i64 d = first; d <= last; ++d) {
        float value = read(x[at + d * inner]);
        sum += value * value;
    }
    write(y[at], read(x[at]) / powf(bias + scale * sum, beta));
}
