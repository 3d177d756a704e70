// What every metric of a pair of tensors is made of, in one walk over both: sums, extremes, counts by class, maxima of items and channels.
//   actual TA, golden float: `n` elements, dense
//   parts [VALUES][BLOCKS] double of one pair, then joined [VALUES] double; classes [CLASSES], maxima: unsigned, zero before
// Compared are elements finite in both and below `threshold` in magnitude in golden; the others are masks and infinities, counted by class.
// Sums are in double, of differences in double. Relative errors are added in float over the VEC elements of a thread before, and good to 4 units in
// the last place of float each, the largest to 2. Squares in float (over eight elements, then folded) brought nothing: 146 and 147 us for 64 M pairs.
// Tactics:
//   pairs_parts   many pairs in one launch: a block a stretch of one of them, VEC elements a thread at a time; what has nothing odd among them needs
//                 one test for all of them, the rest is walked one by one; the place of the largest error is looked for when a warp meets one
//   pairs_join    a block a pair: joins its parts, in order
//   pairs_clear   zeroes what parts add to
// Maxima are those of unsigned bits, so that their order does not matter; the order of every sum is fixed by n and the number of blocks of the pair,
// which depends on nothing but the pair.
// NVRTC defines: TA, VEC, ROWS (maxima are kept), SPLIT (rows may end inside VEC elements), EITHER (of two tolerances suffices), LEAST (blocks a
// multiprocessor), BLOCKS (of one pair, at most), one ENTRY.
#include "common.cuh"

enum { ABS, REL, SQUARED, GOLDEN2, ACTUAL2, DOT, MISMATCHED, ADDED = MISMATCHED, MAX_REL, GOLDEN_MAX, ACTUAL_MAX, GOLDEN_MIN_, ACTUAL_MIN_, MAX_ABS, PLACE, VALUES };  // minima are held negated
enum { ASIDE, NAN_A, INF_A, NAN_G, INF_G, NONFINITE, SENTINELS, SENTINEL_MISMATCH, WRONG, SENTINEL_ERROR, GRID, CLASSES };
enum { THREADS = 256, WARPS = THREADS / 32, TABLE = THREADS * 8 + 2 };

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

#ifdef ENTRY_PARTS
__device__ __forceinline__ float bound(float magnitude, float atol, float rtol) {
    float scaled = __fmul_rn(rtol, magnitude);
    return EITHER ? fmaxf(scaled, atol) : __fadd_rn(scaled, atol);
}

struct Seen {
    double sums[DOT + 1];
    float max_rel, golden_max, actual_max, golden_min, actual_min;
    int mismatched;

    __device__ __forceinline__ void wide(float a, float g) {
        double x = a, y = g, apart = x - y;
        sums[ABS] += fabs(apart);
        sums[SQUARED] += apart * apart;
        sums[GOLDEN2] += y * y;
        sums[ACTUAL2] += x * x;
        sums[DOT] += x * y;
    }

    // Of any class. `error` and `range` grow to its own.
    __device__ __forceinline__ void one(float a, float g, const Measure& m, unsigned* classes, float& error, float& range) {
        float magnitude = fabsf(g);
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
        actual_max = fmaxf(actual_max, a);
        golden_min = fminf(golden_min, g);
        actual_min = fminf(actual_min, a);
        error = fmaxf(error, apart);
        range = fmaxf(range, magnitude);
    }
};

__device__ __forceinline__ void note(unsigned* at, float error, float range) {
    atomicMax(at, __float_as_uint(error));
    atomicMax(at + 1, __float_as_uint(range));
}
__device__ __forceinline__ float most_of_warp(float x) { return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(x))); }

// With as many as on sm_90 other architectures' code would spill
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 != 9
#define RESIDENT (LEAST - 1)
#else
#define RESIDENT LEAST
#endif

// `firsts` [pairs]: the first block of each
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) pairs_parts(
    const Job* __restrict__ jobs, const int* __restrict__ firsts, int pairs, double* __restrict__ parts, unsigned* __restrict__ classes) {
    take_turn();
    __shared__ double held[VALUES][WARPS];
    __shared__ unsigned counted[CLASSES];
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
    const int cols = job.r.cols, span = job.span, block = (int)blockIdx.x - job.first;
    const i64 first = (i64)block * span;
    const int count = (int)(job.n - first < span ? job.n - first : span);
    if (threadIdx.x < CLASSES) counted[threadIdx.x] = 0;
    // A warp walks its own stretch, so that the rows it meets change rarely
    int stretch = span / WARPS, begin = warp * stretch, end = begin + stretch < count ? begin + stretch : count;
#if ROWS
    __shared__ unsigned table[TABLE][2];
    __shared__ i64 first_row;
    __shared__ int rows_, step_rows_, step_cols_;  // looked up when they are needed: registers are few
    volatile int &rows = rows_, &step_rows = step_rows_, &step_cols = step_cols_;
    int within = (int)(first % cols), found = (within + count - 1) / cols + 1;
    if (threadIdx.x == 0) { first_row = first / cols; rows = found; step_rows = 32 * VEC / cols; step_cols = 32 * VEC % cols; }
    for (int row = threadIdx.x; row < found; row += THREADS) table[row][0] = table[row][1] = 0;
    int row = (within + begin) / cols, col = (within + begin) % cols, current = row;  // where the warp is
    float row_error = 0.f, row_range = 0.f;  // of `current`, so far
#endif
    __syncthreads();
    Seen seen = {};
    unsigned most = 0, place = begin;  // of the warp: the largest error, as bits, and its place in this block
    seen.golden_max = seen.actual_max = -INFINITE;
    seen.golden_min = seen.actual_min = INFINITE;
    actual += first;
    golden += first;
    int c = begin + lane * VEC;
    for (int base = begin; base < end; base += 32 * VEC, c += 32 * VEC) {
        Pack<TA, VEC> a = {};
        Pack<float, VEC> g = {};
        if (c + VEC <= end) {
            a = *(const Pack<TA, VEC>*)(actual + c);
            g = *(const Pack<float, VEC>*)(golden + c);
        }
#if ROWS
        bool alone = col + 32 * VEC <= cols;  // the whole warp in one row
        if (current != row || !alone) {
            row_error = most_of_warp(row_error);
            row_range = most_of_warp(row_range);
            if (lane == 0) note(table[current], row_error, row_range);
            row_error = row_range = 0.f;
            current = row;
        }
        int my_col = col + lane * VEC, my_row = row;
        if (!alone) { my_row += my_col / cols; my_col %= cols; }
#endif
        float together = 0.f, golden_max = -INFINITE, golden_min = INFINITE, actual_max = -INFINITE, actual_min = INFINITE, error = 0.f;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float x = read(a.lane[v]), y = g.lane[v], apart = x - y;
            together += apart;
            error = fmaxf(error, fabsf(apart));
            golden_max = fmaxf(golden_max, y);
            golden_min = fminf(golden_min, y);
            actual_max = fmaxf(actual_max, x);
            actual_min = fminf(actual_min, x);
        }
        float range = fmaxf(golden_max, -golden_min), error_2 = 0.f, range_2 = 0.f;
        // NaN or Inf of either side is in the sum of differences, or in golden's range
        bool plain = c + VEC <= end && fabsf(together) < INFINITE && range < threshold;
        if (plain) {
            float relative = 0.f, relative_max = 0.f;
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                float x = read(a.lane[v]), y = g.lane[v], apart = fabsf(x - y), magnitude = fabsf(y);
                float share = apart * reciprocal(fmaxf(magnitude, floor));
                relative += share;
                relative_max = fmaxf(relative_max, share);
                seen.mismatched += (int)(__float_as_uint(bound(magnitude, atol, rtol) - apart) >> 31);
                seen.wide(x, y);
            }
            seen.sums[REL] += relative;
            seen.golden_max = fmaxf(seen.golden_max, golden_max);
            seen.golden_min = fminf(seen.golden_min, golden_min);
            seen.actual_max = fmaxf(seen.actual_max, actual_max);
            seen.actual_min = fminf(seen.actual_min, actual_min);
            seen.max_rel = fmaxf(seen.max_rel, relative_max);
#if ROWS && SPLIT
            if (my_col + VEC > cols) {  // the next row begins among these
                error = range = 0.f;
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    float apart = fabsf(read(a.lane[v]) - g.lane[v]), magnitude = fabsf(g.lane[v]);
                    bool next = my_col + v >= cols;
                    error = fmaxf(error, next ? 0.f : apart);
                    range = fmaxf(range, next ? 0.f : magnitude);
                    error_2 = fmaxf(error_2, next ? apart : 0.f);
                    range_2 = fmaxf(range_2, next ? magnitude : 0.f);
                }
            }
#endif
        } else {
            error = range = 0.f;
            int last = c + VEC < end ? c + VEC : end;
#pragma unroll 1
            for (int at = c; at < last; ++at) {
                float apart = 0.f, magnitude = 0.f;
                seen.one(read(actual[at]), golden[at], m, counted, apart, magnitude);
#if ROWS && SPLIT
                bool next = my_col + (at - c) >= cols;
                error_2 = fmaxf(error_2, next ? apart : 0.f);
                range_2 = fmaxf(range_2, next ? magnitude : 0.f);
                if (next) apart = magnitude = 0.f;
#endif
                error = fmaxf(error, apart);
                range = fmaxf(range, magnitude);
            }
        }
        unsigned highest = __reduce_max_sync(0xffffffffu, __float_as_uint(fmaxf(error, error_2)));
        if (highest > most) {  // a few times a warp
            most = highest;
            unsigned found = 0xffffffffu;
            int last = c + VEC < end ? c + VEC : end;
            if (__float_as_uint(fmaxf(error, error_2)) == highest) {
#pragma unroll 1
                for (int at = last - 1; at >= c; --at) {
                    float x = read(actual[at]), y = golden[at];
                    if (fabsf(y) < threshold && fabsf(x) < INFINITE && __float_as_uint(fabsf(x - y)) == highest) found = at;
                }
            }
            place = __reduce_min_sync(0xffffffffu, found);
        }
#if ROWS
        if (alone) {
            row_error = fmaxf(row_error, error);
            row_range = fmaxf(row_range, range);
        } else if (c < end) {
            note(table[my_row], error, range);
            if (SPLIT && my_col + VEC > cols && my_row + 1 < rows) note(table[my_row + 1], error_2, range_2);
        }
        row += step_rows;
        col += step_cols;
        if (col >= cols) { col -= cols; ++row; }
#endif
    }
#if ROWS
    row_error = most_of_warp(row_error);
    row_range = most_of_warp(row_range);
    if (lane == 0 && begin < end) note(table[current], row_error, row_range);
#endif
#pragma unroll
    for (int which = 0; which <= DOT; ++which) {
        double x = seen.sums[which];
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x += __shfl_xor_sync(0xffffffffu, x, far);
        if (lane == 0) held[which][warp] = x;
    }
    unsigned mismatched = __reduce_add_sync(0xffffffffu, (unsigned)seen.mismatched);
    float extremes[] = {seen.max_rel, seen.golden_max, seen.actual_max, -seen.golden_min, -seen.actual_min};
#pragma unroll
    for (int which = 0; which < 5; ++which) {
        float x = extremes[which];
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, far));
        if (lane == 0) held[MAX_REL + which][warp] = x;
    }
    if (lane == 0) {
        held[MISMATCHED][warp] = mismatched;
        held[MAX_ABS][warp] = __uint_as_float(most);
        held[PLACE][warp] = (double)((i64)((int)blockIdx.x - job.first) * job.span + place);
    }
    __syncthreads();
    parts += (i64)job.place * VALUES * BLOCKS + ((int)blockIdx.x - job.first);
    classes += job.place * CLASSES;
    if (threadIdx.x < MAX_ABS) {
        double x = held[threadIdx.x][0];
        for (int w = 1; w < WARPS; ++w) x = joined(threadIdx.x, x, held[threadIdx.x][w]);
        parts[threadIdx.x * BLOCKS] = x;
    }
    if (threadIdx.x == MAX_ABS) {
        double error = held[MAX_ABS][0], where = held[PLACE][0];
        for (int w = 1; w < WARPS; ++w) further(error, where, held[MAX_ABS][w], held[PLACE][w]);
        parts[MAX_ABS * BLOCKS] = error;
        parts[PLACE * BLOCKS] = where;
    }
    if (threadIdx.x < SENTINEL_ERROR && counted[threadIdx.x]) atomicAdd(classes + threadIdx.x, counted[threadIdx.x]);
    if (threadIdx.x == SENTINEL_ERROR && counted[SENTINEL_ERROR]) atomicMax(classes + SENTINEL_ERROR, counted[SENTINEL_ERROR]);
    if (threadIdx.x == GRID && (int)blockIdx.x == job.first) classes[GRID] = (unsigned)job.blocks;
#if ROWS
    unsigned* __restrict__ maxima = job.maxima;
    const int items = job.r.items, channels = job.r.channels;
    for (int base = warp * 32; base < rows; base += THREADS) {
        bool there = base + lane < rows;
        unsigned error = there ? table[base + lane][0] : 0, range = there ? table[base + lane][1] : 0;
        i64 whole = first_row + base + (there ? lane : 0), item = whole / channels;
        int channel = (int)(whole - item * channels);
        if (channels > 1 && there) {
            atomicMax(maxima + 2 * (i64)items + channel, error);
            atomicMax(maxima + 2 * (i64)items + channels + channel, range);
        }
        if ((first_row + base) / channels == (first_row + base + 31) / channels) {  // of one item
            error = __reduce_max_sync(0xffffffffu, error);
            range = __reduce_max_sync(0xffffffffu, range);
            there = lane == 0;
        }
        if (there) {
            atomicMax(maxima + item, error);
            atomicMax(maxima + items + item, range);
        }
    }
#endif
}
#endif

#ifdef ENTRY_JOIN
// `parts` of pair p at p * VALUES * BLOCKS, its classes at p * CLASSES.
extern "C" __global__ void __launch_bounds__(THREADS) pairs_join(const double* __restrict__ parts, const unsigned* __restrict__ classes, double* __restrict__ all) {
    take_turn();
    parts += (i64)blockIdx.x * VALUES * BLOCKS;
    all += (i64)blockIdx.x * VALUES;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, count = (int)classes[blockIdx.x * CLASSES + GRID];
    for (int which = warp; which < MAX_ABS; which += WARPS) {
        double x = which <= ADDED ? 0.0 : -(double)INFINITE;
        for (int part = lane; part < count; part += 32) x = joined(which, x, parts[which * BLOCKS + part]);
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x = joined(which, x, __shfl_xor_sync(0xffffffffu, x, far));
        if (lane == 0) all[which] = x;
    }
    if (warp == WARPS - 1) {
        double most = -1.0, place = 0.0;
        for (int part = lane; part < count; part += 32) {
            double other = parts[MAX_ABS * BLOCKS + part], there = parts[PLACE * BLOCKS + part];
            further(most, place, other, there);
        }
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) {
            double other = __shfl_xor_sync(0xffffffffu, most, far), there = __shfl_xor_sync(0xffffffffu, place, far);
            further(most, place, other, there);
        }
        if (lane == 0) { all[MAX_ABS] = most; all[PLACE] = place; }
    }
}
#endif

#ifdef ENTRY_CLEAR
extern "C" __global__ void __launch_bounds__(THREADS) pairs_clear(unsigned* __restrict__ to, i64 count) {
    take_turn();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < count; at += (i64)gridDim.x * THREADS) to[at] = 0;
}
#endif
