// The elements of pairs with the largest errors, from what pairs.cu knows of its blocks.
//   jobs [pairs]: where a pair lies and how pairs_parts cut it; found [pairs][MOST][MOST]
// The MOST largest errors lie in the MOST blocks whose own largest errors are largest: block j of a pair walks the j-th of those again, once for
// each element it finds, and stops below the least of their largest errors. Errors first, then the earlier place.
// NVRTC defines: MOST.
#include "common.cuh"

#define INFINITE __int_as_float(0x7f800000)
enum { THREADS = 256, WARPS = THREADS / 32 };

// `kind`: 0 float, 1 f16, 2 bf16. `errors` of the blocks of pairs_parts, or pairs_last. `channels`: contiguous ones, of images of `pixels`; 0: in order.
struct Job { const void* actual; const float* golden; const double* errors; i64 n; int span, blocks; float threshold; int kind, pixels, channels; };
struct Found { float error, actual, golden; int there; i64 place; };

__device__ __forceinline__ float element(const Job& job, i64 at) {
    if (job.kind == 1) return widen(((const f16*)job.actual)[at]);
    if (job.kind == 2) return widen(((const bf16*)job.actual)[at]);
    return ((const float*)job.actual)[at];
}

// where what lies at `at` would be in order
__device__ __forceinline__ i64 in_order(const Job& job, i64 at) {
    if (!job.channels) return at;
    i64 pixel = at / job.channels;
    return (pixel / job.pixels * job.channels + at % job.channels) * job.pixels + pixel % job.pixels;
}
__device__ __forceinline__ i64 in_memory(const Job& job, i64 place) {
    if (!job.channels) return place;
    i64 channel = place / job.pixels;
    return (channel / job.channels * job.pixels + place % job.pixels) * job.channels + channel % job.channels;
}

// The largest of what the threads of the block have, of equal ones the earlier place: known to all of them
__device__ __forceinline__ void first_of_block(double& most, double& place) {
    __shared__ double of_warp[WARPS], at_warp[WARPS];
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) {
        double other = __shfl_xor_sync(0xffffffffu, most, far), there = __shfl_xor_sync(0xffffffffu, place, far);
        if (other > most || (other == most && there < place)) { most = other; place = there; }
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) { of_warp[threadIdx.x / 32] = most; at_warp[threadIdx.x / 32] = place; }
    __syncthreads();
    most = of_warp[0];
    place = at_warp[0];
    for (int w = 1; w < WARPS; ++w) {
        if (of_warp[w] > most || (of_warp[w] == most && at_warp[w] < place)) { most = of_warp[w]; place = at_warp[w]; }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) pair_worst(const Job* __restrict__ jobs, Found* __restrict__ found) {
    take_turn();
    Job job = jobs[blockIdx.x / MOST];
    const int rank = blockIdx.x % MOST, ranks = job.blocks < MOST ? job.blocks : MOST;
    found += (i64)blockIdx.x * MOST;
    for (int at = threadIdx.x; at < MOST; at += THREADS) found[at] = {0.f, 0.f, 0.f, 0, 0};
    if (rank >= ranks) return;
    int chosen = 0;
    double least = INFINITE, after = -1.0;  // of the last block that has its rank
    for (int k = 0; k < ranks; ++k) {
        double most = -1.0, place = 0.0;
        for (int at = threadIdx.x; at < job.blocks; at += THREADS) {
            double error = job.errors[at];
            if ((error < least || (error == least && at > after)) && error > most) { most = error; place = at; }
        }
        first_of_block(most, place);
        least = most;
        after = place;
        if (k == rank) chosen = (int)place;
    }
    if (job.blocks < MOST) least = 0.0;
    i64 first = (i64)chosen * job.span, last = first + job.span < job.n ? first + job.span : job.n;
    double above = INFINITE, behind = -1.0;  // of the last one found
    for (int k = 0; k < MOST; ++k) {
        double most = 0.0, place = 0.0;
        for (i64 at = first + threadIdx.x; at < last; at += THREADS) {
            float x = element(job, at), y = job.golden[at];
            double error = fabsf(x - y);
            if (!(fabsf(y) < job.threshold && fabsf(x) < INFINITE && error <= above && error >= most && error > 0.0)) continue;
            if (error == above || error == most) {
                double there = (double)in_order(job, at);
                if ((error == above && there <= behind) || (error == most && there >= place)) continue;
                place = there;
            } else {
                place = (double)in_order(job, at);
            }
            most = error;
        }
        first_of_block(most, place);
        if (most <= 0.0 || most < least) return;
        above = most;
        behind = place;
        i64 at = in_memory(job, (i64)place);
        if (threadIdx.x == 0) found[k] = {(float)most, element(job, at), job.golden[at], 1, (i64)place};
    }
}
