// What every metric of a pair of tensors is made of, in one walk over both: sums, extremes, counts by class, maxima of items and channels.
//   actual TA, golden float: `n` elements, dense, fewer than 2^32
//   parts [VALUES][BLOCKS] double of one pair, then joined [VALUES] double; classes [CLASSES], maxima: unsigned, zero before
// Compared are elements finite in both and below `threshold` in magnitude in golden; the others are masks and infinities, counted by class.
// Sums are in double, of differences in double. Relative errors are added in float over the VEC elements of a thread before, and good to 4 units in
// the last place of float each, the largest to 2. Squares in float (over eight elements, then folded) brought nothing: 146 and 147 us for 64 M pairs.
// Tactics:
//   pairs_parts   many pairs in one launch: a block a stretch of one of them, VEC elements a thread at a time; what has nothing odd among them needs
//                 one test for all of them, the rest is walked one by one
//   pairs_join    a block a pair: joins its parts, in order
//   pairs_clear   zeroes what parts add to
// Maxima are those of unsigned bits, so that their order does not matter; the order of every sum is fixed by n and the number of blocks of the pair,
// which depends on nothing but the pair.
// NVRTC defines: TA, VEC, ROWS (1: maxima of rows are kept, by warps; 2: of rows of which several end in what a warp takes at a time, by threads), SPLIT
// (rows may end inside VEC elements), EITHER (of two tolerances suffices), LEAST (blocks a multiprocessor), STAGES (turns of a warp whose elements are on
// their way to shared memory; 0: elements come straight to registers), BLOCKS (of one pair, at most), one ENTRY.
#include "mma.cuh"
#include "pairs.cuh"

#ifdef ENTRY_PARTS
// With as many as on sm_90 other architectures' code would spill
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 != 9
#define RESIDENT (LEAST - 1)
#else
#define RESIDENT LEAST
#endif

enum { TABLE = THREADS * 8 + 2 };  // rows that a block meets, at most
enum { STEP = 32 * VEC, GOLDEN = STEP * (int)sizeof(float), SLOT = GOLDEN + STEP * (int)sizeof(TA) };  // elements of a warp at a time; their bytes

#if STAGES
// 16 bytes a lane of golden and actual, side by side, on their way to a slot of the ring; what reaches beyond `left` elements comes as zeros
template <class T> __device__ __forceinline__ void bring(Place to, const T* from, int lane, int left) {
    constexpr int MANY = 16 / sizeof(T);
#pragma unroll
    for (int at = 0; at < STEP; at += 32 * MANY) copy16(to + at * (int)sizeof(T), from + at, at + (lane + 1) * MANY <= left);
}
#endif

// `firsts` [pairs]: the first block of each
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) pairs_parts(
    const Job* __restrict__ jobs, const int* __restrict__ firsts, int pairs, double* __restrict__ parts, unsigned* __restrict__ classes) {
    take_turn();
    __shared__ unsigned counted[CLASSES];
    __shared__ Job job;
    int lane = threadIdx.x % 32, warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / 32, 0);  // so that the compiler knows that it is one of a warp
    load(job, jobs, firsts, pairs);
    const TA* __restrict__ actual = global((const TA*)job.actual);
    const float* __restrict__ golden = global(job.golden);
    const Measure& m = job.m;  // in shared memory what is rarely read
    const float threshold = m.threshold, floor = m.floor, atol = m.atol, rtol = m.rtol;
    const int span = job.span, block = (int)blockIdx.x - job.first;
    const i64 first = (i64)block * span;
    const int count = (int)(job.n - first < span ? job.n - first : span);
    if (threadIdx.x < CLASSES) counted[threadIdx.x] = 0;
    // A warp walks its own stretch, so that the rows it meets change rarely
    int stretch = span / WARPS, begin = warp * stretch, end = begin + stretch < count ? begin + stretch : count;
    actual += first;
    golden += first;
#if STAGES
    DYNAMIC_SHARED(ring);
    // of this lane: where it reads, where it writes in the slot whose turn it is
    const float* from_golden = golden + begin + lane * 4;
    const TA* from_actual = actual + begin + lane * (16 / (int)sizeof(TA));
    const unsigned char* mine = ring + warp * (STAGES * SLOT);
    const Place to = place_of(mine) + lane * 16;
    int now = 0;
#pragma unroll
    for (int s = 0; s < STAGES; ++s) {
        bring(to + s * SLOT, from_golden, lane, end - begin - s * STEP);
        bring(to + s * SLOT + GOLDEN, from_actual, lane, end - begin - s * STEP);
        copies_commit();
        from_golden += STEP;
        from_actual += STEP;
    }
#endif
#if ROWS
    const int cols = job.r.cols;
    __shared__ unsigned table[TABLE][2];
    __shared__ int rows_, first_row_;
    volatile int &rows = rows_, &first_row = first_row_;  // looked up when they are needed: registers are few
    const int skipped = (int)((unsigned)first / (unsigned)cols), within = (int)((unsigned)first - (unsigned)skipped * cols), found = (within + count - 1) / cols + 1;
    if (threadIdx.x == 0) { first_row = skipped; rows = found; }
    for (int row = threadIdx.x; row < found; row += THREADS) table[row][0] = table[row][1] = 0;
#if ROWS == 1
    int row = (within + begin) / cols, col = (within + begin) % cols;  // where the warp is
#if SPLIT
    const int step_cols = STEP % cols;
    int edge = cols - (col + lane * VEC) % cols;  // so many elements are left of the thread's row
#endif
    float row_error = 0.f, row_range = 0.f;  // of `row`, so far
#else
    const int step_rows = STEP / cols, step_cols = STEP % cols;
    int row = (within + begin + lane * VEC) / cols, edge = cols - (within + begin + lane * VEC) % cols;  // where the thread is, and how much is left of that
#endif
#endif
    __syncthreads();
    Seen seen;
    const int beyond = (lane + 1) * VEC;
    for (int ahead = end - begin; ahead > 0; ahead -= STEP) {  // elements of the warp from here on
#if STAGES
        copies_wait<STAGES - 1>();
        __syncwarp();
        const Pack<float, VEC> g = *(const Pack<float, VEC>*)(mine + now + lane * (VEC * (int)sizeof(float)));
        const Pack<TA, VEC> a = *(const Pack<TA, VEC>*)(mine + now + GOLDEN + lane * (VEC * (int)sizeof(TA)));
        __syncwarp();
        if (ahead >= (STAGES + 1) * STEP) {
            bring(to + now, from_golden, 0, STEP);
            bring(to + now + GOLDEN, from_actual, 0, STEP);
        } else if (ahead > STAGES * STEP) {
            bring(to + now, from_golden, lane, ahead - STAGES * STEP);
            bring(to + now + GOLDEN, from_actual, lane, ahead - STAGES * STEP);
        }
        copies_commit();
        from_golden += STEP;
        from_actual += STEP;
        now = now == (STAGES - 1) * SLOT ? 0 : now + SLOT;
#else
        Pack<TA, VEC> a = {};
        Pack<float, VEC> g = {};
        if (ahead >= beyond) {
            a = *(const Pack<TA, VEC>*)(actual + (end - ahead + beyond - VEC));
            g = *(const Pack<float, VEC>*)(golden + (end - ahead + beyond - VEC));
        }
#endif
        float relative = 0.f, error = 0.f, error_2 = 0.f, range = 0.f, range_2 = 0.f;
        float max_rel = seen.max_rel, golden_max = ROWS == 1 ? g.lane[0] : seen.golden_max, golden_min = ROWS == 1 ? g.lane[0] : seen.golden_min;
        int mismatched = seen.mismatched;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float x = read(a.lane[v]), y = g.lane[v], apart = fabsf(x - y), magnitude = fabsf(y);
            float share = apart * reciprocal(fmaxf(magnitude, floor));
            relative += share;
            max_rel = fmaxf(max_rel, share);
            golden_max = fmaxf(golden_max, y);
            golden_min = fminf(golden_min, y);
            mismatched += (int)(__float_as_uint(bound(magnitude, atol, rtol) - apart) >> 31);
#if ROWS == 2 && SPLIT
            if (v >= edge) {  // the next row begins among these
                error_2 = fmaxf(error_2, apart);
                range_2 = fmaxf(range_2, magnitude);
            } else {
                error = fmaxf(error, apart);
                range = fmaxf(range, magnitude);
            }
#else
            error = fmaxf(error, apart);
            if (ROWS == 2) range = fmaxf(range, magnitude);
#endif
        }
        const float reach = fmaxf(golden_max, -golden_min);
        if (ROWS == 1) range = reach;
        // NaN or Inf of either side is in the sum of shares, or in golden's range
        if (ahead >= beyond && relative < INFINITE && reach < threshold) {
            seen.sums[REL] += relative;
            seen.max_rel = max_rel;
            seen.golden_max = ROWS == 1 ? fmaxf(seen.golden_max, golden_max) : golden_max;
            seen.golden_min = ROWS == 1 ? fminf(seen.golden_min, golden_min) : golden_min;
            seen.mismatched = mismatched;
#if ROWS == 1 && SPLIT
            if (edge < VEC) {  // the next row begins among these: seldom so
                error = range = 0.f;
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    float apart = fabsf(read(a.lane[v]) - g.lane[v]), magnitude = fabsf(g.lane[v]);
                    if (v >= edge) {
                        error_2 = fmaxf(error_2, apart);
                        range_2 = fmaxf(range_2, magnitude);
                    } else {
                        error = fmaxf(error, apart);
                        range = fmaxf(range, magnitude);
                    }
                }
            }
#endif
            seen.actual.take(a);
#pragma unroll
            for (int v = 0; v < VEC; ++v) seen.wide(read(a.lane[v]), g.lane[v]);
        } else {
            error = range = error_2 = range_2 = 0.f;
#pragma unroll 1
            for (int v = 0; v < VEC && beyond - VEC + v < ahead; ++v) {
                int at = end - ahead + beyond - VEC + v;
                float apart = 0.f, magnitude = 0.f;
                seen.one(actual[at], golden[at], m, counted, apart, magnitude);
#if ROWS && SPLIT
                bool next = v >= edge;
                error_2 = fmaxf(error_2, next ? apart : 0.f);
                range_2 = fmaxf(range_2, next ? magnitude : 0.f);
                if (next) apart = magnitude = 0.f;
#endif
                error = fmaxf(error, apart);
                range = fmaxf(range, magnitude);
            }
        }
        seen.max_abs = fmaxf(seen.max_abs, fmaxf(error, error_2));
#if ROWS == 1
        if (col + STEP < cols) {  // the warp is in one row, which does not end here
            row_error = fmaxf(row_error, error);
            row_range = fmaxf(row_range, range);
        } else {
            int from = col + lane * VEC;  // from the beginning of `row` on
            while (true) {
                if ((unsigned)from < (unsigned)cols) {
                    row_error = fmaxf(row_error, error);
                    row_range = fmaxf(row_range, range);
                }
                if (SPLIT && from < 0 && from + VEC > 0) {
                    row_error = fmaxf(row_error, error_2);
                    row_range = fmaxf(row_range, range_2);
                }
                if (col + STEP < cols) break;
                row_error = most_of_warp(row_error);
                row_range = most_of_warp(row_range);
                if (lane == 0 && row < rows) note(table[row], row_error, row_range);
                row_error = row_range = 0.f;
                ++row;
                col -= cols;
                from -= cols;
            }
        }
        col += STEP;
#if SPLIT
        edge -= step_cols;
        if (edge <= 0) edge += cols;
#endif
#elif ROWS
        if (beyond - VEC < ahead) {
            note(table[row], error, range);
            if (SPLIT && edge < VEC && row + 1 < rows) note(table[row + 1], error_2, range_2);
        }
        row += step_rows;
        edge -= step_cols;
        if (edge <= 0) { edge += cols; ++row; }
#endif
    }
#if ROWS == 1
    row_error = most_of_warp(row_error);
    row_range = most_of_warp(row_range);
    if (lane == 0 && row < rows) note(table[row], row_error, row_range);
#endif
    hand_in(seen, counted, job, parts, classes);
#if ROWS
    unsigned* __restrict__ maxima = job.maxima;
    const int items = job.r.items, channels = job.r.channels;
    for (int base = warp * 32; base < rows; base += THREADS) {
        bool there = base + lane < rows;
        unsigned error = there ? table[base + lane][0] : 0, range = there ? table[base + lane][1] : 0;
        unsigned whole = (unsigned)first_row + base + (there ? lane : 0), item = whole / (unsigned)channels, channel = whole - item * channels;
        if (channels > 1 && there) {
            atomicMax(maxima + 2 * (i64)items + channel, error);
            atomicMax(maxima + 2 * (i64)items + channels + channel, range);
        }
        if (__ballot_sync(0xffffffffu, item == __shfl_sync(0xffffffffu, item, 0)) == 0xffffffffu) {
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
    for (int which = warp; which < VALUES; which += WARPS) {
        double x = which <= ADDED ? 0.0 : -(double)INFINITE;
        for (int part = lane; part < count; part += 32) x = joined(which, x, parts[which * BLOCKS + part]);
#pragma unroll
        for (int far = 16; far > 0; far >>= 1) x = joined(which, x, __shfl_xor_sync(0xffffffffu, x, far));
        if (lane == 0) all[which] = x;
    }
}
#endif

#ifdef ENTRY_CLEAR
extern "C" __global__ void __launch_bounds__(THREADS) pairs_clear(unsigned* __restrict__ to, i64 count) {
    take_turn();
    for (i64 at = (i64)blockIdx.x * THREADS + threadIdx.x; at < count; at += (i64)gridDim.x * THREADS) to[at] = 0;
}
#endif
