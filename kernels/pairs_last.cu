// Sums of pairs as pairs.cu makes them, of images whose channels are contiguous: where they lie, golden in the same order.
//   actual TA, golden float: [items][pixels][channels], channels a multiple of 4 and 2048 at most; a block a stretch of whole pixels of one pair
//   parts, classes, maxima as in pairs.cu, whose pairs_join and pairs_clear do the rest
// A thread keeps to its four channels while it walks over pixels, PIXELS at a time, so that the maxima of channels and of the item are registers until
// the item ends. More channels than 1024 are walked one part after the other.
// NVRTC defines: TA, PIXELS (at a time), EITHER (of two tolerances suffices), LEAST (blocks a multiprocessor), BLOCKS (of one pair, at most).
#include "pairs.cuh"

enum { WIDE = 4, CHANNELS = 2048 };

// What a thread has seen of its channels in one item
struct Column {
    float error[WIDE], high[WIDE], low[WIDE];
};

// MANY of a thread's channels, `apart` elements one from the next
template <int MANY>
__device__ __forceinline__ void look(
    const TA* __restrict__ actual, const float* __restrict__ golden, int apart, const Measure& m, float threshold, float floor, float atol, float rtol, Seen& seen,
    Column& own, unsigned* counted, unsigned* table, unsigned* maxima, int items) {
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
        atomicMax(table + CHANNELS + at % WIDE, __float_as_uint(range));
        atomicMax(maxima, __float_as_uint(error));
        atomicMax(maxima + items, __float_as_uint(range));
    }
}

// `firsts` [pairs]: the first block of each
extern "C" __global__ void __launch_bounds__(THREADS, LEAST) pairs_last(
    const Job* __restrict__ jobs, const int* __restrict__ firsts, int pairs, double* __restrict__ parts, unsigned* __restrict__ classes) {
    take_turn();
    __shared__ unsigned counted[CLASSES], table[2][CHANNELS];  // errors and ranges of channels
    __shared__ Job job;
    const int lane = threadIdx.x % 32;
    load(job, jobs, firsts, pairs);
    const TA* __restrict__ actual = global((const TA*)job.actual);
    const float* __restrict__ golden = global(job.golden);
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
            for (; left >= PIXELS; left -= PIXELS, x += PIXELS * apart, y += PIXELS * apart) look<PIXELS>(x, y, apart, m, threshold, floor, atol, rtol, seen, own, counted, &table[0][channel], job.maxima + item, job.r.items);
            for (; PIXELS > 1 && left > 0; --left, x += apart, y += apart) look<1>(x, y, apart, m, threshold, floor, atol, rtol, seen, own, counted, &table[0][channel], job.maxima + item, job.r.items);
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
            seen.max_abs = fmaxf(seen.max_abs, error);
            unsigned highest = __reduce_max_sync(0xffffffffu, __float_as_uint(error)), widest = __reduce_max_sync(0xffffffffu, __float_as_uint(range));
            if (lane == 0) {
                atomicMax(job.maxima + item, highest);
                atomicMax(job.maxima + job.r.items + item, widest);
            }
        }
    }
    hand_in(seen, counted, job, parts, classes);
    unsigned* __restrict__ maxima = job.maxima + 2 * (i64)job.r.items;
    for (int at = threadIdx.x; at < channels && channels > 1; at += THREADS) {
        atomicMax(maxima + at, table[0][at]);
        atomicMax(maxima + channels + at, table[1][at]);
    }
}
