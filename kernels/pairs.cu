// What every metric of a pair of tensors is made of, in one walk over both: sums, extremes, counts by class, maxima of items and channels.
//   actual TA, golden float: `n` elements, dense
//   parts [VALUES][BLOCKS] double of one pair, then joined [VALUES] double; classes [CLASSES], maxima: unsigned, zero before
// Compared are elements finite in both and below `threshold` in magnitude in golden; the others are masks and infinities, counted by class.
// Sums are in double, of differences in double. Relative errors are added in float over the VEC elements of a thread before, and good to 4 units in
// the last place of float each, the largest to 2. Squares in float (over eight elements, then folded) brought nothing: 146 and 147 us for 64 M pairs.
// Tactics:
//   pairs_parts   a block a stretch of the tensor, VEC elements at a time, the next ones on their way; what has nothing odd among VEC elements
//                 needs one test for all of them, the rest is walked one by one; the place of the largest error is looked for when a warp meets one
//   pairs_join    a block a pair: joins its parts, in order
//   pairs_clear   zeroes what parts add to
// Maxima are those of unsigned bits, so that their order does not matter; the order of every sum is fixed by n and the number of blocks.
// NVRTC defines: TA, VEC, ROWS (maxima are kept), SPLIT (rows may end inside VEC elements), EITHER (of two tolerances suffices), AHEAD (load before working), LEAST (blocks a
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

__device__ __forceinline__ double joined(int value, double x, double y) { return value <= ADDED ? x + y : y > x ? y : x; }
// a larger error, or the same earlier
__device__ __forceinline__ void further(double& most, double& place, double other, double there) {
    if (other > most || (other == most && there < place)) { most = other; place = there; }
}

#ifdef ENTRY_PARTS
struct Seen {
    double sums[DOT + 1];
    float max_rel, golden_max, actual_max, golden_min, actual_min;
    int mismatched;

    __device__ __forceinline__ float bound(float magnitude, const Measure& m) const {
        float scaled = __fmul_rn(m.rtol, magnitude);
        return EITHER ? fmaxf(scaled, m.atol) : __fadd_rn(scaled, m.atol);
    }

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
        mismatched += apart > bound(magnitude, m);
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

extern "C" __global__ void __launch_bounds__(THREADS, LEAST) pairs_parts(
    const TA* __restrict__ actual, const float* __restrict__ golden, double* __restrict__ parts, unsigned* __restrict__ classes,
    unsigned* __restrict__ maxima, i64 n, int span, Measure m, Rows r) {
    take_turn();
    __shared__ double held[VALUES][WARPS];
    __shared__ unsigned counted[CLASSES];
    i64 first = (i64)blockIdx.x * span;
    int count = (int)(n - first < span ? n - first : span), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x < CLASSES) counted[threadIdx.x] = 0;
    // A warp walks its own stretch, so that the rows it meets change rarely
    int stretch = span / WARPS, begin = warp * stretch, end = begin + stretch < count ? begin + stretch : count;
#if ROWS
    __shared__ unsigned table[TABLE][2];
    i64 first_row = first / r.cols;
    int within = (int)(first - first_row * r.cols), rows = (within + count - 1) / r.cols + 1;
    for (int row = threadIdx.x; row < rows; row += THREADS) table[row][0] = table[row][1] = 0;
    int row = (within + begin) / r.cols, col = (within + begin) % r.cols;  // where the warp is
    int step_rows = 32 * VEC / r.cols, step_cols = 32 * VEC % r.cols, current = row;
    float row_error = 0.f, row_range = 0.f;  // of `current`, so far
#endif
    __syncthreads();
    Seen seen = {};
    unsigned most = 0, place = begin;  // of the warp: the largest error, as bits, and its place in this block
    seen.golden_max = seen.actual_max = -INFINITE;
    seen.golden_min = seen.actual_min = INFINITE;
    actual += first;
    golden += first;
    Pack<TA, VEC> a = {}, coming_a = {};
    Pack<float, VEC> g = {}, coming_g = {};
    int c = begin + lane * VEC;
    if (AHEAD && c + VEC <= end) {
        coming_a = *(const Pack<TA, VEC>*)(actual + c);
        coming_g = *(const Pack<float, VEC>*)(golden + c);
    }
    for (int base = begin; base < end; base += 32 * VEC, c += 32 * VEC) {
        a = coming_a;
        g = coming_g;
        if (!AHEAD && c + VEC <= end) {
            a = *(const Pack<TA, VEC>*)(actual + c);
            g = *(const Pack<float, VEC>*)(golden + c);
        }
        if (AHEAD && c + 32 * VEC + VEC <= end) {
            coming_a = *(const Pack<TA, VEC>*)(actual + c + 32 * VEC);
            coming_g = *(const Pack<float, VEC>*)(golden + c + 32 * VEC);
        }
#if ROWS
        bool alone = col + 32 * VEC <= r.cols;  // the whole warp in one row
        if (current != row || !alone) {
            row_error = most_of_warp(row_error);
            row_range = most_of_warp(row_range);
            if (lane == 0) note(table[current], row_error, row_range);
            row_error = row_range = 0.f;
            current = row;
        }
        int my_col = col + lane * VEC, my_row = row;
        if (!alone) { my_row += my_col / r.cols; my_col %= r.cols; }
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
        bool plain = c + VEC <= end && fabsf(together) < INFINITE && range < m.threshold;
        if (plain) {
            float relative = 0.f, relative_max = 0.f;
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                float x = read(a.lane[v]), y = g.lane[v], apart = fabsf(x - y), magnitude = fabsf(y);
                float share = apart * reciprocal(fmaxf(magnitude, m.floor));
                relative += share;
                relative_max = fmaxf(relative_max, share);
                seen.mismatched += (int)(__float_as_uint(seen.bound(magnitude, m) - apart) >> 31);
                seen.wide(x, y);
            }
            seen.sums[REL] += relative;
            seen.golden_max = fmaxf(seen.golden_max, golden_max);
            seen.golden_min = fminf(seen.golden_min, golden_min);
            seen.actual_max = fmaxf(seen.actual_max, actual_max);
            seen.actual_min = fminf(seen.actual_min, actual_min);
            seen.max_rel = fmaxf(seen.max_rel, relative_max);
#if ROWS && SPLIT
            if (my_col + VEC > r.cols) {  // the next row begins among these
                error = range = 0.f;
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    float apart = fabsf(read(a.lane[v]) - g.lane[v]), magnitude = fabsf(g.lane[v]);
                    bool next = my_col + v >= r.cols;
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
                bool next = my_col + (at - c) >= r.cols;
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
                    if (fabsf(y) < m.threshold && fabsf(x) < INFINITE && __float_as_uint(fabsf(x - y)) == highest) found = at;
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
            if (SPLIT && my_col + VEC > r.cols && my_row + 1 < rows) note(table[my_row + 1], error_2, range_2);
        }
        row += step_rows;
        col += step_cols;
        if (col >= r.cols) { col -= r.cols; ++row; }
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
        held[PLACE][warp] = (double)(first + place);
    }
    __syncthreads();
    parts += blockIdx.x;
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
    if (threadIdx.x == GRID && blockIdx.x == 0) classes[GRID] = gridDim.x;
#if ROWS
    for (int base = warp * 32; base < rows; base += THREADS) {
        bool there = base + lane < rows;
        unsigned error = there ? table[base + lane][0] : 0, range = there ? table[base + lane][1] : 0;
        i64 whole = first_row + base + (there ? lane : 0), item = whole / r.channels;
        int channel = (int)(whole - item * r.channels);
        if (r.channels > 1 && there) {
            atomicMax(maxima + 2 * (i64)r.items + channel, error);
            atomicMax(maxima + 2 * (i64)r.items + r.channels + channel, range);
        }
        if ((first_row + base) / r.channels == (first_row + base + 31) / r.channels) {  // of one item
            error = __reduce_max_sync(0xffffffffu, error);
            range = __reduce_max_sync(0xffffffffu, range);
            there = lane == 0;
        }
        if (there) {
            atomicMax(maxima + item, error);
            atomicMax(maxima + r.items + item, range);
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
