// What pairs.cu and pairs_last.cu share: what is said of a pair, what a thread keeps of the elements it sees, what a block hands in.
//   Defined before, but for pairs_join and pairs_clear: TA, EITHER, BLOCKS.
#pragma once
#include "common.cuh"

enum { ABS, REL, SQUARED, GOLDEN2, ACTUAL2, DOT, MISMATCHED, ADDED = MISMATCHED, MAX_REL, GOLDEN_MAX, ACTUAL_MAX, GOLDEN_MIN_, ACTUAL_MIN_, MAX_ABS, VALUES };  // minima are held negated
enum { ASIDE, NAN_A, INF_A, NAN_G, INF_G, NONFINITE, SENTINELS, SENTINEL_MISMATCH, WRONG, SENTINEL_ERROR, GRID, CLASSES };
enum { THREADS = 256, WARPS = THREADS / 32 };

#define INFINITE __int_as_float(0x7f800000)

#ifdef PROBE_HOST_SHIM
__device__ __forceinline__ float reciprocal(float x) { return 1.f / x; }
#else
// Of a normal number below 2^126, good to one unit in the last place: one instruction
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

struct Measure { float threshold, boundary, floor, atol, rtol; int equal_nan, equal_inf; };
// Rows are of `cols` elements; row r is of item r / channels and channel r % channels. `maxima`: error and range of each item, then of each channel.
struct Rows { int cols, channels, items; };
// A pair: `blocks` blocks from block `first` on, a stretch of `span` elements each; `place` among the pairs that are joined together.
struct Job { const void* actual; const float* golden; unsigned* maxima; i64 n; int span, first, blocks, place; Measure m; Rows r; };

__device__ __forceinline__ double joined(int value, double x, double y) { return value <= ADDED ? x + y : y > x ? y : x; }

#ifdef TA
// The largest and the least of many; of 16 bits two side by side, by one instruction
template <class T> struct Ends;
template <> struct Ends<float> {
    float most = -INFINITE, least = INFINITE;
    template <int N> __device__ __forceinline__ void take(const Pack<float, N>& x) {
#pragma unroll
        for (int v = 0; v < N; ++v) { most = fmaxf(most, x.lane[v]); least = fminf(least, x.lane[v]); }
    }
    __device__ __forceinline__ float largest() const { return most; }
    __device__ __forceinline__ float smallest() const { return least; }
};
#ifdef PROBE_HOST_SHIM
template <class T> inline unsigned two_max(unsigned x, unsigned y, T t) { return (lower(x, t) > lower(y, t) ? x & 0xffffu : y & 0xffffu) | (higher(x, t) > higher(y, t) ? x & 0xffff0000u : y & 0xffff0000u); }
template <class T> inline unsigned two_min(unsigned x, unsigned y, T t) { return (lower(x, t) < lower(y, t) ? x & 0xffffu : y & 0xffffu) | (higher(x, t) < higher(y, t) ? x & 0xffff0000u : y & 0xffff0000u); }
#else
#define TWO(NAME, TYPE, INSTRUCTION)                                                     \
    __device__ __forceinline__ unsigned NAME(unsigned x, unsigned y, TYPE) {             \
        unsigned z;                                                                      \
        asm(INSTRUCTION " %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));                      \
        return z;                                                                        \
    }
TWO(two_max, f16, "max.f16x2")
TWO(two_min, f16, "min.f16x2")
TWO(two_max, bf16, "max.bf16x2")
TWO(two_min, bf16, "min.bf16x2")
#undef TWO
#endif
template <class T> struct Ends {
    unsigned most = infinite(T()) | 0x80008000u, least = infinite(T());
    static __device__ __forceinline__ unsigned infinite(f16) { return 0x7c007c00u; }
    static __device__ __forceinline__ unsigned infinite(bf16) { return 0x7f807f80u; }
    template <int N> __device__ __forceinline__ void take(const Pack<T, N>& x) {
#pragma unroll
        for (int v = 0; v < N; v += 2) {
            unsigned both = side_by_side(x.lane[v], x.lane[v + 1 < N ? v + 1 : v]);
            most = two_max(most, both, T());
            least = two_min(least, both, T());
        }
    }
    __device__ __forceinline__ float largest() const { return fmaxf(lower(most, T()), higher(most, T())); }
    __device__ __forceinline__ float smallest() const { return fminf(lower(least, T()), higher(least, T())); }
};

__device__ __forceinline__ float bound(float magnitude, float atol, float rtol) {
    float scaled = __fmul_rn(rtol, magnitude);
    return EITHER ? fmaxf(scaled, atol) : __fadd_rn(scaled, atol);
}

struct Seen {
    double sums[DOT + 1] = {};
    float max_abs = 0.f, max_rel = 0.f, golden_max = -INFINITE, golden_min = INFINITE;
    Ends<TA> actual;
    int mismatched = 0;

    __device__ __forceinline__ void wide(float a, float g) {
        double x = a, y = g, apart = x - y;
        sums[ABS] += fabs(apart);
        sums[SQUARED] += apart * apart;
        sums[GOLDEN2] += y * y;
        sums[ACTUAL2] += x * x;
        sums[DOT] += x * y;
    }

    // Of any class. `error` and `range` grow to its own.
    __device__ __forceinline__ void one(TA stored, float g, const Measure& m, unsigned* classes, float& error, float& range) {
        float a = read(stored), magnitude = fabsf(g);
        if (!(magnitude < m.threshold && fabsf(a) < INFINITE)) {
            bool nan_a = a != a, nan_g = g != g, inf_a = fabsf(a) == INFINITE, inf_g = magnitude == INFINITE;
            bool masked = g == -INFINITE || (magnitude >= m.threshold && !inf_g && !nan_g);
            bool same = (nan_a && nan_g) || a == g || (masked && !nan_a && !inf_a && fabsf(a) >= m.boundary && (a < 0.f) == (g < 0.f));
            bool odd = nan_a || nan_g || inf_a || inf_g;
            atomicAdd(classes + ASIDE, 1u);
            if (nan_a) atomicAdd(classes + NAN_A, 1u);
            if (inf_a) atomicAdd(classes + INF_A, 1u);
            if (nan_g) atomicAdd(classes + NAN_G, 1u);
            if (inf_g) atomicAdd(classes + INF_G, 1u);
            if (odd && !same) atomicAdd(classes + NONFINITE, 1u);
            if (masked) atomicAdd(classes + SENTINELS, 1u);
            if (masked && !same) atomicAdd(classes + SENTINEL_MISMATCH, 1u);
            if (!same || (nan_a && nan_g && !m.equal_nan) || (inf_a && inf_g && !m.equal_inf)) atomicAdd(classes + WRONG, 1u);
            if (masked && !odd && same && magnitude < 1e30f) atomicMax(classes + SENTINEL_ERROR, __float_as_uint(__fdiv_rn(fabsf(a - g), magnitude)));
            return;
        }
        float apart = fabsf(a - g), relative = apart * reciprocal(fmaxf(magnitude, m.floor));
        wide(a, g);
        sums[REL] += relative;
        mismatched += apart > bound(magnitude, m.atol, m.rtol);
        max_rel = fmaxf(max_rel, relative);
        golden_max = fmaxf(golden_max, g);
        golden_min = fminf(golden_min, g);
        actual.take(Pack<TA, 1>{stored});
        max_abs = fmaxf(max_abs, apart);
        error = fmaxf(error, apart);
        range = fmaxf(range, magnitude);
    }
};

__device__ __forceinline__ void note(unsigned* at, float error, float range) {
    atomicMax(at, __float_as_uint(error));
    atomicMax(at + 1, __float_as_uint(range));
}
__device__ __forceinline__ float most_of_warp(float x) { return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x))); }

// An address that a table says: the compiler cannot know that it is one of global memory
template <class T> __device__ __forceinline__ const T* global(const T* at) {
#ifndef PROBE_HOST_SHIM
    __builtin_assume(__isGlobal(at));
#endif
    return at;
}

// The pair that this block is at: the last one whose `firsts` is not beyond it
__device__ __forceinline__ void load(Job& job, const Job* __restrict__ jobs, const int* __restrict__ firsts, int pairs) {
    int lane = threadIdx.x % 32, chosen = -1;
    for (int base = 0; base < pairs; base += 32) {
        chosen += __popc(__ballot_sync(0xffffffffu, base + lane < pairs && firsts[base + lane] <= (int)blockIdx.x));
    }
    if (threadIdx.x < sizeof(Job) / 4) ((unsigned*)&job)[threadIdx.x] = ((const unsigned*)(jobs + chosen))[threadIdx.x];
    __syncthreads();
}

// What the threads of a block have seen, in a fixed order: its column of the parts of its pair, and the pair's classes
__device__ __forceinline__ void hand_in(const Seen& seen, const unsigned* counted, const Job& job, double* __restrict__ parts, unsigned* __restrict__ classes) {
    __shared__ double held[VALUES][WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int which = 0; which <= DOT; ++which) {
        double x = seen.sums[which];
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x += __shfl_xor_sync(0xffffffffu, x, far);
        if (lane == 0) held[which][warp] = x;
    }
    unsigned mismatched = __reduce_add_sync(0xffffffffu, (unsigned)seen.mismatched);
    float extremes[] = {seen.max_rel, seen.golden_max, seen.actual.largest(), -seen.golden_min, -seen.actual.smallest(), seen.max_abs};
#pragma unroll
    for (int which = 0; which < VALUES - MAX_REL; ++which) {
        float x = extremes[which];
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, far));
        if (lane == 0) held[MAX_REL + which][warp] = x;
    }
    if (lane == 0) held[MISMATCHED][warp] = mismatched;
    __syncthreads();
    classes += job.place * CLASSES;
    if (threadIdx.x < VALUES) {
        double x = held[threadIdx.x][0];
        for (int w = 1; w < WARPS; ++w) x = joined(threadIdx.x, x, held[threadIdx.x][w]);
        parts[((i64)job.place * VALUES + threadIdx.x) * BLOCKS + ((int)blockIdx.x - job.first)] = x;
    }
    if (threadIdx.x < SENTINEL_ERROR && counted[threadIdx.x]) atomicAdd(classes + threadIdx.x, counted[threadIdx.x]);
    if (threadIdx.x == SENTINEL_ERROR && counted[SENTINEL_ERROR]) atomicMax(classes + SENTINEL_ERROR, counted[SENTINEL_ERROR]);
    if (threadIdx.x == GRID && (int)blockIdx.x == job.first) classes[GRID] = (unsigned)job.blocks;
}
#endif
