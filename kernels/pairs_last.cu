// Sums of pairs as pairs.cu makes them, of images whose channels are contiguous: where they lie, golden in the same order.
//   actual TA, golden float: [items][pixels][channels], channels a multiple of 4 and 2048 at most; a block a stretch of whole pixels of one pair
//   parts, classes, maxima as in pairs.cu, whose pairs_join and pairs_clear do the rest
// A thread keeps to its four channels while it walks over pixels, PIXELS at a time, so that the maxima of channels and of the item are registers until
// the item ends. More channels than 1024 are walked one part after the other.
// NVRTC defines: TA, PIXELS (at a time), EITHER (of two tolerances suffices), LEAST (blocks a multiprocessor), BLOCKS (of one pair, at most).
#include "common.cuh"

enum { ABS, REL, SQUARED, GOLDEN2, ACTUAL2, DOT, MISMATCHED, ADDED = MISMATCHED, MAX_REL, GOLDEN_MAX, ACTUAL_MAX, GOLDEN_MIN_, ACTUAL_MIN_, MAX_ABS, PLACE, VALUES };  // minima are held negated
enum { ASIDE, NAN_A, INF_A, NAN_G, INF_G, NONFINITE, SENTINELS, SENTINEL_MISMATCH, WRONG, SENTINEL_ERROR, GRID, CLASSES };
enum { THREADS = 256, WARPS = THREADS / 32, WIDE = 4, TABLE = 2048 };

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
// a larger error, or the same earlier
__device__ __forceinline__ void further(double& most, double& place, double other, double there) {
    if (other > most || (other == most && there < place)) { most = other; place = there; }
}

__device__ __forceinline__ float bound(float magnitude, float atol, float rtol) {
    float scaled = __fmul_rn(rtol, magnitude);
    return EITHER ? fmaxf(scaled, atol) : __fadd_rn(scaled, atol);
}

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

struct Seen {
    double sums[DOT + 1] = {};
    float max_rel = 0.f, golden_max = -INFINITE, golden_min = INFINITE;
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
        error = fmaxf(error, apart);
        range = fmaxf(range, magnitude);
    }
};

__device__ __forceinline__ void note(unsigned* at, float error, float range) {
    atomicMax(at, __float_as_uint(error));
    atomicMax(at + 1, __float_as_uint(range));
}
__device__ __forceinline__ float most_of_warp(float x) { return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x))); }


// What a thread has seen of its channels in one item
struct Column {
    float error[WIDE], high[WIDE], low[WIDE];
};

// MANY of a thread's channels, `apart` elements one from the next
template <int MANY>
__device__ __forceinline__ void look(
    const TA* __restrict__ actual, const float* __restrict__ golden, int apart, const Measure& m, float threshold, float floor, float atol, float rtol, Seen& seen,
    Column& own, float& most, unsigned* counted, unsigned* table, unsigned* maxima, int items) {
    Pack<TA, WIDE> a[MANY];
    Pack<float, WIDE> g[MANY];
#pragma unroll
    for (int p = 0; p < MANY; ++p) {
        a[p] = *(const Pack<TA, WIDE>*)(actual + p * apart);
        g[p] = *(const Pack<float, WIDE>*)(golden + p * apart);
    }
    float relative = 0.f, relative_max = 0.f, range = 0.f;
#pragma unroll
    for (int p = 0; p < MANY; ++p) {
#pragma unroll
        for (int v = 0; v < WIDE; ++v) {
            float y = g[p].lane[v], share = fabsf(read(a[p].lane[v]) - y) * reciprocal(fmaxf(fabsf(y), floor));
            relative += share;
            relative_max = fmaxf(relative_max, share);
        }
    }
    if (threshold < INFINITE) {  // there are masks
#pragma unroll
        for (int p = 0; p < MANY; ++p) {
#pragma unroll
            for (int v = 0; v < WIDE; ++v) range = fmaxf(range, fabsf(g[p].lane[v]));
        }
    }
    // NaN or Inf of either side is in the sum of relative errors
    if (relative < INFINITE && range < threshold) {
#pragma unroll
        for (int p = 0; p < MANY; ++p) {
            seen.actual.take(a[p]);
#pragma unroll
            for (int v = 0; v < WIDE; ++v) {
                float x = read(a[p].lane[v]), y = g[p].lane[v], apart = fabsf(x - y);
                seen.mismatched += (int)(__float_as_uint(bound(fabsf(y), atol, rtol) - apart) >> 31);
                own.error[v] = fmaxf(own.error[v], apart);
                own.high[v] = fmaxf(own.high[v], y);
                own.low[v] = fminf(own.low[v], y);
                seen.wide(x, y);
            }
        }
        seen.sums[REL] += relative;
        seen.max_rel = fmaxf(seen.max_rel, relative_max);
        return;
    }
#pragma unroll 1
    for (int at = 0; at < MANY * WIDE; ++at) {
        int here = at / WIDE * apart + at % WIDE;
        float error = 0.f, range = 0.f;
        seen.one(actual[here], golden[here], m, counted, error, range);
        atomicMax(table + at % WIDE, __float_as_uint(error));
        atomicMax(table + TABLE + at % WIDE, __float_as_uint(range));
        atomicMax(maxima, __float_as_uint(error));
        atomicMax(maxima + items, __float_as_uint(range));
        most = fmaxf(most, error);
    }
}

// `firsts` [pairs]: the first block of each
extern "C" __global__ void __launch_bounds__(THREADS, LEAST) pairs_last(
    const Job* __restrict__ jobs, const int* __restrict__ firsts, int pairs, double* __restrict__ parts, unsigned* __restrict__ classes) {
    take_turn();
    __shared__ double held[VALUES][WARPS];
    __shared__ unsigned counted[CLASSES], table[2][TABLE];  // errors and ranges of channels
    __shared__ Job job;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, chosen = -1;
    for (int base = 0; base < pairs; base += 32) {
        chosen += __popc(__ballot_sync(0xffffffffu, base + lane < pairs && firsts[base + lane] <= (int)blockIdx.x));
    }
    if (threadIdx.x < sizeof(Job) / 4) ((unsigned*)&job)[threadIdx.x] = ((const unsigned*)(jobs + chosen))[threadIdx.x];
    __syncthreads();
    const TA* __restrict__ actual = (const TA*)job.actual;
    const float* __restrict__ golden = job.golden;
#ifndef PROBE_HOST_SHIM
    __builtin_assume(__isGlobal(actual) && __isGlobal(golden));  // said by a table: the compiler cannot know
#endif
    const Measure& m = job.m;  // in shared memory what is rarely read
    const float threshold = m.threshold, floor = m.floor, atol = m.atol, rtol = m.rtol;
    const int channels = job.r.channels, pixels = job.r.cols, quads = channels / WIDE;
    if (threadIdx.x < CLASSES) counted[threadIdx.x] = 0;
    for (int at = threadIdx.x; at < channels; at += THREADS) table[0][at] = table[1][at] = 0;
    __syncthreads();
    const int stretch = job.span / channels, all = (int)(job.n / channels), first = ((int)blockIdx.x - job.first) * stretch;
    const int last = all - first < stretch ? all : first + stretch;  // pixels of all items, one behind the other
    const int beside = quads < THREADS ? quads : THREADS, across = THREADS / beside;  // threads of a pixel, pixels at once
    const int mine = threadIdx.x % beside, ahead = threadIdx.x / beside, apart = across * channels;
    Seen seen;
    float most = 0.f;
    for (int base = 0; base < quads; base += beside) {
        const bool idle = ahead >= across || base + mine >= quads;
        const int channel = WIDE * (base + mine);
        for (int item = first / pixels, begin = first; begin < last; ++item) {
            const int end = last - begin < (item + 1) * pixels - begin ? last : (item + 1) * pixels;
            Column own;
#pragma unroll
            for (int v = 0; v < WIDE; ++v) { own.error[v] = 0.f; own.high[v] = -INFINITE; own.low[v] = INFINITE; }
            const i64 from = (i64)(begin + ahead) * channels + channel;
            const TA* x = actual + from;
            const float* y = golden + from;
            int left = idle ? 0 : (end - begin - ahead + across - 1) / across;  // pixels of this thread
            for (; left >= PIXELS; left -= PIXELS, x += PIXELS * apart, y += PIXELS * apart) look<PIXELS>(x, y, apart, m, threshold, floor, atol, rtol, seen, own, most, counted, &table[0][channel], job.maxima + item, job.r.items);
            for (; PIXELS > 1 && left > 0; --left, x += apart, y += apart) look<1>(x, y, apart, m, threshold, floor, atol, rtol, seen, own, most, counted, &table[0][channel], job.maxima + item, job.r.items);
            begin = end;
            float error = 0.f, range = 0.f;  // of the item
#pragma unroll
            for (int v = 0; v < WIDE; ++v) {
                seen.golden_max = fmaxf(seen.golden_max, own.high[v]);
                seen.golden_min = fminf(seen.golden_min, own.low[v]);
                float magnitude = fmaxf(fmaxf(own.high[v], -own.low[v]), 0.f);
                error = fmaxf(error, own.error[v]);
                range = fmaxf(range, magnitude);
                if (!idle) {
                    atomicMax(&table[0][channel + v], __float_as_uint(own.error[v]));
                    atomicMax(&table[1][channel + v], __float_as_uint(magnitude));
                }
            }
            most = fmaxf(most, error);
            unsigned highest = __reduce_max_sync(0xffffffffu, __float_as_uint(error)), widest = __reduce_max_sync(0xffffffffu, __float_as_uint(range));
            if (lane == 0) {
                atomicMax(job.maxima + item, highest);
                atomicMax(job.maxima + job.r.items + item, widest);
            }
        }
    }
#pragma unroll
    for (int which = 0; which <= DOT; ++which) {
        double x = seen.sums[which];
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x += __shfl_xor_sync(0xffffffffu, x, far);
        if (lane == 0) held[which][warp] = x;
    }
    unsigned mismatched = __reduce_add_sync(0xffffffffu, (unsigned)seen.mismatched);
    float extremes[] = {seen.max_rel, seen.golden_max, seen.actual.largest(), -seen.golden_min, -seen.actual.smallest(), most};
#pragma unroll
    for (int which = 0; which < 6; ++which) {
        float x = extremes[which];
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, far));
        if (lane == 0) held[MAX_REL + which][warp] = x;
    }
    if (lane == 0) held[MISMATCHED][warp] = mismatched;
    __syncthreads();
    parts += (i64)job.place * VALUES * BLOCKS + ((int)blockIdx.x - job.first);
    classes += job.place * CLASSES;
    if (threadIdx.x <= MAX_ABS) {
        double x = held[threadIdx.x][0];
        for (int w = 1; w < WARPS; ++w) x = joined(threadIdx.x, x, held[threadIdx.x][w]);
        parts[threadIdx.x * BLOCKS] = x;
    }
    if (threadIdx.x == PLACE) parts[PLACE * BLOCKS] = 0.0;
    if (threadIdx.x < SENTINEL_ERROR && counted[threadIdx.x]) atomicAdd(classes + threadIdx.x, counted[threadIdx.x]);
    if (threadIdx.x == SENTINEL_ERROR && counted[SENTINEL_ERROR]) atomicMax(classes + SENTINEL_ERROR, counted[SENTINEL_ERROR]);
    if (threadIdx.x == GRID && (int)blockIdx.x == job.first) classes[GRID] = (unsigned)job.blocks;
    unsigned* __restrict__ maxima = job.maxima + 2 * (i64)job.r.items;
    for (int at = threadIdx.x; at < channels && channels > 1; at += THREADS) {
        atomicMax(maxima + at, table[0][at]);
        atomicMax(maxima + channels + at, table[1][at]);
    }
}
