// How often the error of a pair has which magnitude, and how many units in the last place lie between the two: histograms as probe.metrics has them.
//   actual TA, golden float: `n` elements, dense, compared as in pairs.cu
//   counts [WORDS] unsigned of one pair, zero before: errors by the upper half of their float bits; then units in the last place, by the same
//   bins from that of 1 on, behind a bin for none; then the largest such distance, as float bits
// Tactics:
//   counts_of     many pairs in one launch: a block a stretch of one of them, counted in shared memory: all distances, errors from bin `lowest` on. The
//                 most frequent ones (no error, distances 0 and 1) in registers, errors outside the window in global memory
//   counts_pack   a block a pair: the occupied words, [entries] of {word, count} in order of words, wherever there is room; `found` says where and how many
// NVRTC defines: TA, ULPS (type that units are counted in), one ENTRY.
#include "common.cuh"

enum { BINS = 0x7f81, ONE = 0x3f80, DISTANCES = 0x4f81 - ONE + 1, LARGEST = BINS + DISTANCES, WORDS = LARGEST + 1, WINDOW = 7680, THREADS = 512, LANES = 4 };

#define INFINITE __int_as_float(0x7f800000)

#ifdef ENTRY_COUNT
// A pair: blocks from `first` on, a stretch of `span` elements each; its counts
struct Job { const void* actual; const float* golden; unsigned* counts; i64 n, span; int first, lowest; float threshold; int zero; };

__device__ __forceinline__ float apart(int x, int y, int magnitude) {
    if ((x ^ y) < 0) return (float)((double)(x & magnitude) + (double)(y & magnitude));
    int between = x > y ? x - y : y - x;
    return (float)between;
}
__device__ __forceinline__ int signed_bits(f16 x) { return (short)x.bits; }
__device__ __forceinline__ int signed_bits(bf16 x) { return (short)x.bits; }
__device__ __forceinline__ float distance(float a, float g, f16) { return apart(signed_bits(to_f16(a)), signed_bits(to_f16(g)), 0x7fff); }
__device__ __forceinline__ float distance(float a, float g, bf16) { return apart(signed_bits(to_bf16(a)), signed_bits(to_bf16(g)), 0x7fff); }
__device__ __forceinline__ float distance(float a, float g, float) { return apart((int)__float_as_uint(a), (int)__float_as_uint(g), 0x7fffffff); }

// `firsts` [pairs]: the first block of each
extern "C" __global__ void __launch_bounds__(THREADS) counts_of(const Job* __restrict__ jobs, const int* __restrict__ firsts, int pairs) {
    take_turn();
    __shared__ unsigned errors[WINDOW], distances[DISTANCES];
    int chosen = -1;
    for (int base = 0; base < pairs; base += 32) {
        int at = base + threadIdx.x % 32;
        chosen += __popc(__ballot_sync(0xffffffffu, at < pairs && firsts[at] <= (int)blockIdx.x));
    }
    const Job job = jobs[chosen];
    const TA* __restrict__ actual = (const TA*)job.actual;
    const float* __restrict__ golden = job.golden;
    unsigned* __restrict__ counts = job.counts;
    const i64 n = job.n, span = job.span;
    const float threshold = job.threshold;
    const int lowest = job.lowest;
    for (int at = threadIdx.x; at < WINDOW; at += THREADS) errors[at] = 0;
    for (int at = threadIdx.x; at < DISTANCES; at += THREADS) distances[at] = 0;
    __syncthreads();
    i64 first = (i64)((int)blockIdx.x - job.first) * span, last = first + span < n ? first + span : n;
    unsigned equal = 0, same = 0, neighbours = 0;
    float largest = 0.f;
    for (i64 c = first + threadIdx.x * LANES; c < last; c += THREADS * LANES) {
        Pack<TA, LANES> a = {};
        Pack<float, LANES> g = {};
        int here = (int)(last - c < LANES ? last - c : LANES);
        if (here == LANES) {
            a = *(const Pack<TA, LANES>*)(actual + c);
            g = *(const Pack<float, LANES>*)(golden + c);
        } else {
            for (int v = 0; v < LANES; ++v) {
                if (v < here) { a.lane[v] = actual[c + v]; g.lane[v] = golden[c + v]; }
            }
        }
#pragma unroll
        for (int v = 0; v < LANES; ++v) {
            float x = read(a.lane[v]), y = g.lane[v];
            if (v < here && fabsf(y) < threshold && fabsf(x) < INFINITE) {
                float error = fabsf(x - y), between = distance(x, y, ULPS());
                unsigned bin = __float_as_uint(error) >> 16;
                if (error == 0.f) ++equal;
                else if (bin - (unsigned)lowest < (unsigned)WINDOW) atomicAdd(errors + (bin - lowest), 1u);
                else atomicAdd(counts + bin, 1u);
                if (between == 0.f) ++same;
                else if (between == 1.f) ++neighbours;
                else atomicAdd(distances + ((__float_as_uint(between) >> 16) - ONE + 1), 1u);
                largest = fmaxf(largest, between);
            }
        }
    }
    if (equal) atomicAdd(counts, equal);  // a value of its own: errors[0] may stand for any bin
    if (same) atomicAdd(distances, same);
    if (neighbours) atomicAdd(distances + 1, neighbours);
    if (largest > 0.f) atomicMax(counts + LARGEST, __float_as_uint(largest));
    __syncthreads();
    for (int at = threadIdx.x; at < WINDOW; at += THREADS) {
        if (errors[at]) atomicAdd(counts + lowest + at, errors[at]);
    }
    for (int at = threadIdx.x; at < DISTANCES; at += THREADS) {
        if (distances[at]) atomicAdd(counts + BINS + at, distances[at]);
    }
}
#endif

#ifdef ENTRY_PACK
struct Entry { unsigned word, count; };

// `room` [1]: entries taken so far; found [pairs][2]: first entry and how many
extern "C" __global__ void __launch_bounds__(1024) counts_pack(const unsigned* __restrict__ counts, Entry* __restrict__ entries, unsigned* __restrict__ room, unsigned* __restrict__ found) {
    take_turn();
    __shared__ unsigned of_warp[32], begin;
    counts += (i64)blockIdx.x * WORDS;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned mine = 0;
    for (int at = threadIdx.x; at < WORDS; at += 1024) mine += counts[at] != 0;
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) mine += (unsigned)__shfl_xor_sync(0xffffffffu, (int)mine, far);
    if (lane == 0) of_warp[warp] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned all = 0;
        for (int w = 0; w < 32; ++w) all += of_warp[w];
        begin = atomicAdd(room, all);
        found[2 * blockIdx.x] = begin;
        found[2 * blockIdx.x + 1] = all;
    }
    __syncthreads();
    unsigned next = begin;
    for (int base = 0; base < WORDS; base += 1024) {
        int at = base + threadIdx.x;
        unsigned count = at < WORDS ? counts[at] : 0, there = __ballot_sync(0xffffffffu, count != 0);
        if (lane == 0) of_warp[warp] = __popc(there);
        __syncthreads();
        unsigned before = next;
        for (int w = 0; w < 32; ++w) {
            if (w < warp) before += of_warp[w];
            next += of_warp[w];
        }
        if (count) entries[before + __popc(there & ((1u << lane) - 1))] = {(unsigned)at, count};
        __syncthreads();
    }
}
#endif
