// What every metric of a pair of tensors is made of, in one walk over both: sums, extremes, counts by class.
//   actual TA, golden float: `rows` rows of `cols` (an item, or an item's channel, a row), dense
//   parts [rows * per_row][VALUES] double, then joined [VALUES] double; row_error, row_range [rows] float
// Compared are elements finite in both and below `threshold` in magnitude in golden; the others (ASIDE) are masks and infinities, counted by
// class. Relative errors are good to 2 units in the last place of float, all else is exact up to the order of float64 sums.
// Tactics:
//   pairs_parts   a block a part of a row: each thread VEC elements at a time, sums in double, warps joined by shuffles
//   pairs_join    one block joins all parts, in order
// The order of every sum is fixed by rows, cols and the number of parts. NVRTC defines: TA, VEC, one ENTRY.
#include "common.cuh"

enum { ABS, REL, SQUARED, GOLDEN2, ACTUAL2, DOT, SUMS_ = DOT, ASIDE, NAN_A, INF_A, NAN_G, INF_G, NONFINITE, SENTINELS, SENTINEL_MISMATCH,
       MISMATCHED, ADDED = MISMATCHED, MAX_REL, GOLDEN_MAX, ACTUAL_MAX, GOLDEN_MIN_, ACTUAL_MIN_, SENTINEL_ERROR, MAXIMA = SENTINEL_ERROR,
       MAX_ABS, PLACE, VALUES };  // minima are held negated

#define INFINITE __int_as_float(0x7f800000)
#ifdef ENTRY_JOIN
#define WARPS 32
#else
#define WARPS 8
#endif

struct Measure { float threshold, boundary, floor, atol, rtol; };

__device__ __forceinline__ double neutral(int value) { return value <= ADDED ? 0.0 : value == MAX_REL || value == SENTINEL_ERROR || value >= MAX_ABS ? 0.0 : -(double)INFINITE; }
__device__ __forceinline__ double joined(int value, double x, double y) { return value <= ADDED ? x + y : y > x ? y : x; }
// a larger error, or the same earlier
__device__ __forceinline__ void further(double& most, double& place, double other, double there) {
    if (other > most || (other == most && there < place)) { most = other; place = there; }
}

#ifdef ENTRY_PARTS
struct Seen {
    double sums[SUMS_ + 1];
    int counts[ADDED - SUMS_];
    float max_rel, golden_max, actual_max, golden_min, actual_min, sentinel_error, max_abs;
    int place;

    __device__ __forceinline__ void aside(float a, float g, const Measure& m) {
        counts[ASIDE - ASIDE] += 1;
        bool nan_a = a != a, nan_g = g != g, inf_a = fabsf(a) == INFINITE, inf_g = fabsf(g) == INFINITE;
        bool masked = g == -INFINITE || (fabsf(g) >= m.threshold && !inf_g && !nan_g);
        bool same = (nan_a && nan_g) || a == g || (masked && !nan_a && !inf_a && fabsf(a) >= m.boundary && (a < 0.f) == (g < 0.f));
        bool odd = nan_a || nan_g || inf_a || inf_g;
        counts[NAN_A - ASIDE] += nan_a;
        counts[INF_A - ASIDE] += inf_a;
        counts[NAN_G - ASIDE] += nan_g;
        counts[INF_G - ASIDE] += inf_g;
        counts[NONFINITE - ASIDE] += odd && !same;
        counts[SENTINELS - ASIDE] += masked;
        counts[SENTINEL_MISMATCH - ASIDE] += masked && !same;
        counts[MISMATCHED - ASIDE] += !same;
        if (masked && !odd && same && fabsf(g) < 1e30f) sentinel_error = fmaxf(sentinel_error, fabsf(a - g) / fabsf(g));
    }
    // Returns the relative error; `at` counts elements of this block.
    __device__ __forceinline__ float add(float a, float g, int at, const Measure& m) {
        float magnitude = fabsf(g);
        if (!(magnitude < m.threshold && fabsf(a) < INFINITE)) {
            aside(a, g, m);
            return 0.f;
        }
        double wide = a, golden = g, apart = wide - golden;
        sums[ABS] += fabs(apart);
        sums[SQUARED] += apart * apart;
        sums[GOLDEN2] += golden * golden;
        sums[ACTUAL2] += wide * wide;
        sums[DOT] += wide * golden;
        float error = fabsf(a - g), relative = error == 0.f ? 0.f : __fdividef(error, fmaxf(magnitude, m.floor));
        counts[MISMATCHED - ASIDE] += error > m.atol + m.rtol * magnitude;
        max_rel = fmaxf(max_rel, relative);
        golden_max = fmaxf(golden_max, g);
        actual_max = fmaxf(actual_max, a);
        golden_min = fminf(golden_min, g);
        actual_min = fminf(actual_min, a);
        if (error > max_abs) { max_abs = error; place = at; }
        return relative;
    }
    __device__ __forceinline__ double value(int which) const {
        if (which <= SUMS_) return sums[which];
        if (which <= ADDED) return counts[which - ASIDE];
        float extremes[] = {max_rel, golden_max, actual_max, -golden_min, -actual_min, sentinel_error, max_abs};
        return extremes[which - MAX_REL];
    }
};

extern "C" __global__ void __launch_bounds__(256) pairs_parts(
    const TA* __restrict__ actual, const float* __restrict__ golden, double* __restrict__ parts, i64 cols, int per_row, i64 span, Measure m) {
    take_turn();
    __shared__ double held[VALUES][WARPS];
    i64 row = blockIdx.x / per_row, first = blockIdx.x % per_row * span, last = first + span < cols ? first + span : cols;
    Seen seen = {};
    seen.golden_max = seen.actual_max = -INFINITE;
    seen.golden_min = seen.actual_min = INFINITE;
    actual += row * cols + first;
    golden += row * cols + first;
    int count = (int)(last - first);
#pragma unroll 2
    for (int c = threadIdx.x * VEC; c < count; c += 256 * VEC) {
        Pack<TA, VEC> a = *(const Pack<TA, VEC>*)(actual + c);
        Pack<float, VEC> g = *(const Pack<float, VEC>*)(golden + c);
        float relative = 0.f;
#pragma unroll
        for (int v = 0; v < VEC; ++v) relative += seen.add(read(a.lane[v]), g.lane[v], c + v, m);
        seen.sums[REL] += relative;
    }
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int which = 0; which < MAX_ABS; ++which) {
        double x = seen.value(which);
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x = joined(which, x, __shfl_xor_sync(0xffffffffu, x, far));
        if (lane == 0) held[which][warp] = x;
    }
    double most = seen.max_abs, place = (double)(row * cols + first + seen.place);
#pragma unroll
    for (int far = 16; far > 0; far >>= 1) {
        double other = __shfl_xor_sync(0xffffffffu, most, far), there = __shfl_xor_sync(0xffffffffu, place, far);
        further(most, place, other, there);
    }
    if (lane == 0) { held[MAX_ABS][warp] = most; held[PLACE][warp] = place; }
    __syncthreads();
    parts += (i64)blockIdx.x * VALUES;
    if (threadIdx.x < MAX_ABS) {
        double x = held[threadIdx.x][0];
        for (int w = 1; w < WARPS; ++w) x = joined(threadIdx.x, x, held[threadIdx.x][w]);
        parts[threadIdx.x] = x;
    }
    if (threadIdx.x == MAX_ABS) {
        most = held[MAX_ABS][0];
        place = held[PLACE][0];
        for (int w = 1; w < WARPS; ++w) further(most, place, held[MAX_ABS][w], held[PLACE][w]);
        parts[MAX_ABS] = most;
        parts[PLACE] = place;
    }
}
#endif

#ifdef ENTRY_JOIN
extern "C" __global__ void __launch_bounds__(32 * WARPS) pairs_join(
    const double* __restrict__ parts, double* __restrict__ all, float* __restrict__ row_error, float* __restrict__ row_range, int rows, int per_row) {
    take_turn();
    __shared__ double held[VALUES][WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, count = rows * per_row;
    for (int which = lane; which < MAX_ABS; which += 32) {  // a value a lane, parts in turn a warp
        double x = neutral(which);
#pragma unroll 4
        for (int part = warp; part < count; part += WARPS) x = joined(which, x, parts[(i64)part * VALUES + which]);
        held[which][warp] = x;
    }
    if (lane == 31) {
        double most = 0.0, place = 0.0;
        for (int part = warp; part < count; part += WARPS) {
            if (parts[(i64)part * VALUES + MAX_ABS] > 0.0) {
                if (most == 0.0) { most = parts[(i64)part * VALUES + MAX_ABS]; place = parts[(i64)part * VALUES + PLACE]; }
                else further(most, place, parts[(i64)part * VALUES + MAX_ABS], parts[(i64)part * VALUES + PLACE]);
            }
        }
        held[MAX_ABS][warp] = most;
        held[PLACE][warp] = place;
    }
    __syncthreads();
    if (threadIdx.x < MAX_ABS) {
        double x = held[threadIdx.x][0];
        for (int w = 1; w < WARPS; ++w) x = joined(threadIdx.x, x, held[threadIdx.x][w]);
        all[threadIdx.x] = x;
    }
    if (threadIdx.x == MAX_ABS) {
        double most = 0.0, place = 0.0;
        for (int w = 0; w < WARPS; ++w) {
            if (held[MAX_ABS][w] > 0.0 && most == 0.0) { most = held[MAX_ABS][w]; place = held[PLACE][w]; }
            else if (held[MAX_ABS][w] > 0.0) further(most, place, held[MAX_ABS][w], held[PLACE][w]);
        }
        all[MAX_ABS] = most;
        all[PLACE] = place;
    }
    for (int row = threadIdx.x; row < rows; row += 32 * WARPS) {
        double error = 0.0, range = 0.0;
        for (int part = row * per_row; part < (row + 1) * per_row; ++part) {
            const double* one = parts + (i64)part * VALUES;
            error = one[MAX_ABS] > error ? one[MAX_ABS] : error;
            range = one[GOLDEN_MAX] > range ? one[GOLDEN_MAX] : range;
            range = one[GOLDEN_MIN_] > range ? one[GOLDEN_MIN_] : range;
        }
        row_error[row] = (float)error;
        row_range[row] = (float)range;
    }
}
#endif
