// Resize: y[o, p0, p1, p2, i] = sum over taps a, b, c of w0[p0, a] * w1[p1, b] * w2[p2, c] * x[o, k0[p0, a], k1[p1, b], k2[p2, c], i]
//   x TX, y TY. k and w are tables, made on the host as ONNX Runtime makes them; k of -1: outside of what is cropped, y has a number of its own there.
// Tactics:
//   resize         a thread VEC neighbours: of the last axis (ALONG 1, inner is 1), or of what lies behind it (channels of images that lie so)
//   resize_picks   of the last axis with one tap: a thread VEC neighbours of LINES lines, for which it reads the table once
//   resize_lines   a warp a stretch of LINES lines of the last axis: first which lines of x they are made of; then what the columns of these sum up to
//                  over a and b, each once, into shared memory, SPAN lanes a line, by accesses of WIDE columns; then over c from there, ACROSS lanes a
//                  line, each with a table's weights for all of its lines
// Sums are float, by fused multiply-adds: over a and b first, then over c. One tap everywhere picks elements, bit for bit.
// NVRTC defines: TX, TY, TAPS0 to TAPS2 (of an axis; 0: it stays as it is, -1: as many as taps say), VEC, OUTSIDE (1: there are k of -1), INDEX (of
// elements; unsigned or i64); resize: ALONG; resize_picks: ENTRY_PICKS, LINES; resize_lines: ENTRY_LINES, STRETCH (of a line of y), LINES, ROOM (columns
// of x for each), WIDE, SPAN, PASSES (of its lanes over a line), ACROSS, SHIFT (of two neighbours, by which the second's k are those of the first; -1: by
// none), BLOCK (threads).
#include "common.cuh"

struct alignas(8) Sample { int at; float weight; };
// lines: of y, along the last axis
struct Resize {
    i64 lines, inner;
    int extents[3], out[3], taps[3];
    float outside;
};

#define PICKS (TAPS0 >= 0 && TAPS0 <= 1 && TAPS1 >= 0 && TAPS1 <= 1 && TAPS2 >= 0 && TAPS2 <= 1)

__device__ __forceinline__ int there(int at) { return OUTSIDE && at < 0 ? 0 : at; }
template <int TAPS> __device__ __forceinline__ int count(int taps) { return TAPS < 0 ? taps : TAPS ? TAPS : 1; }
template <int TAPS> __device__ __forceinline__ Sample sample(const Sample* table, int place, int tap, int taps) {
    if (TAPS == 0) return {place, 1.f};
    return table[place * count<TAPS>(taps) + tap];
}

// Where a line of y is along the first two axes, and which one it is of those before them. An axis that stays as it is is not told from them.
struct Line { INDEX outer; int p0, p1; };
__device__ __forceinline__ Line line_of(INDEX line, const Resize& p) {
    Line found = {line, 0, 0};
    if (TAPS0 || TAPS1) found.p1 = (int)(line % p.out[1]), found.outer = line / p.out[1];
    if (TAPS0) found.p0 = (int)(found.outer % p.out[0]), found.outer /= p.out[0];
    return found;
}
__device__ __forceinline__ void advance(Line& line, const Resize& p) {
    if ((TAPS0 || TAPS1) && ++line.p1 < p.out[1]) return;
    line.p1 = 0;
    if (TAPS0 && ++line.p0 < p.out[0]) return;
    line.p0 = 0;
    ++line.outer;
}
// The line of x at two places along them
__device__ __forceinline__ INDEX row_at(const Line& line, int a, int b, const Resize& p) {
    const INDEX slice = TAPS0 ? line.outer * p.extents[0] + a : line.outer;
    return TAPS0 || TAPS1 ? slice * p.extents[1] + b : slice;
}

#ifdef ENTRY_LINES
#define BESIDE (TAPS1 ? TAPS1 : 1)
#define ROWS ((TAPS0 ? TAPS0 : 1) * BESIDE)  // of x, for a line of y
#define READS (LINES * SPAN / 32)  // lines that a lane reads
#define TURNS (LINES * ACROSS / 32)  // lines that it computes at each place
#define TOGETHER (TURNS < 4 ? TURNS : 4)
#define HELD (SHIFT < 0 ? VEC * TAPS2 : TAPS2 + SHIFT)  // columns that a lane reads of a line at once
#if TAPS2 == 4
#define BOUNDS __launch_bounds__(BLOCK, 1280 / BLOCK)  // so many blocks a multiprocessor; with the registers that cubic weights would take they are fewer
#else
#define BOUNDS __launch_bounds__(BLOCK)
#endif
struct Row { INDEX at; float weight; };  // a line of x

extern "C" __global__ void BOUNDS resize_lines(
    const TX* __restrict__ x, TY* __restrict__ y, const Sample* __restrict__ first, const Sample* __restrict__ second, const Sample* __restrict__ third, Resize p) {
    take_turn();
    __shared__ __align__(16) float all_columns[BLOCK / 32][LINES][ROOM];
    __shared__ Row all_rows[BLOCK / 32][LINES][ROWS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, taps = count<TAPS2>(p.taps[2]);
    float(*columns)[ROOM] = all_columns[warp];
    Row(*rows)[ROWS] = all_rows[warp];

    const INDEX stretches = (p.out[2] + STRETCH - 1) / STRETCH, lines = (INDEX)p.lines, task = (INDEX)blockIdx.x * (BLOCK / 32) + warp;
    const INDEX group = stretches == 1 ? task : task / stretches, top = group * LINES;
    if (top >= lines) return;
    const int begin = (int)(task - group * stretches) * STRETCH, end = begin + STRETCH < p.out[2] ? begin + STRETCH : p.out[2];
    // In place of what lies beyond the last line, or beyond what is read of one, the last is read; what is computed from it is not stored.
    if (lane < LINES) {
        const Line line = line_of(top + lane < lines ? top + lane : lines - 1, p);
#pragma unroll
        for (int t = 0; t < ROWS; ++t) {
            const Sample a = sample<TAPS0>(first, line.p0, t / BESIDE, TAPS0), b = sample<TAPS1>(second, line.p1, t % BESIDE, TAPS1);
            rows[lane][t] = {row_at(line, a.at, b.at, p) * p.extents[2], a.weight * b.weight};
        }
    }
    const int from = sample<TAPS2>(third, begin, 0, taps).at / WIDE * WIDE, last = sample<TAPS2>(third, end - 1, taps - 1, taps).at / WIDE * WIDE;
    __syncwarp();

#pragma unroll (READS * PASSES < 4 ? READS : PASSES < 4 ? 4 / PASSES : 1)
    for (int turn = 0; turn < READS; ++turn) {
        const int l = turn * (32 / SPAN) + lane / SPAN;
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            const int own = (pass * SPAN + lane % SPAN) * WIDE, col = from + own < last ? from + own : last;
            float sums[WIDE] = {};
#pragma unroll
            for (int t = 0; t < ROWS; ++t) {
                const Row row = rows[l][t];
                const Pack<TX, WIDE> some = *(const Pack<TX, WIDE>*)(x + (row.at + col));
#pragma unroll
                for (int v = 0; v < WIDE; ++v) sums[v] = fmaf(row.weight, read(some.lane[v]), sums[v]);
            }
            *(Pack<float, WIDE>*)(columns[l] + own) = *(const Pack<float, WIDE>*)sums;
        }
    }
    __syncwarp();

    const float* own = columns[lane / ACROSS] - from;
    const INDEX line = top + lane / ACROSS;
    const int place = begin + lane % ACROSS * VEC;
    y += line * p.out[2] + place;
    const i64 apart = (i64)(32 / ACROSS) * p.out[2];
#pragma unroll (TAPS2 > 0 ? 4 : 1)
    for (int step = 0; step < STRETCH; step += ACROSS * VEC) {
        const bool inside = place + step < end;
        const Sample* table = third + (inside ? place + step : begin) * taps;
#if TAPS2 > 0
        const Pack<Sample, TAPS2 * VEC> kept = *(const Pack<Sample, TAPS2 * VEC>*)table;  // of all lines
#endif
#pragma unroll
        for (int turn = 0; turn < TURNS; turn += TOGETHER) {
            const float* from_here = own + turn * (32 / ACROSS) * ROOM;
            float sums[TOGETHER][VEC] = {};
#if TAPS2 > 0
            float held[TOGETHER][HELD];
#pragma unroll
            for (int h = 0; h < HELD; ++h) {
                const int at = kept.lane[SHIFT < 0 || h < TAPS2 ? h : TAPS2 + h - SHIFT].at;
#pragma unroll
                for (int t = 0; t < TOGETHER; ++t) held[t][h] = from_here[at + t * (32 / ACROSS) * ROOM];
            }
#endif
#pragma unroll (TAPS2 < 0 ? 1 : 4)
            for (int k = 0; k < taps; ++k) {
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
#if TAPS2 > 0
                    const float weight = kept.lane[v * TAPS2 + k].weight;
#pragma unroll
                    for (int t = 0; t < TOGETHER; ++t) sums[t][v] = fmaf(weight, held[t][SHIFT < 0 ? v * TAPS2 + k : k + v * SHIFT], sums[t][v]);
#else
                    const Sample c = table[v * taps + k];
#pragma unroll
                    for (int t = 0; t < TOGETHER; ++t) sums[t][v] = fmaf(c.weight, from_here[c.at + t * (32 / ACROSS) * ROOM], sums[t][v]);
#endif
                }
            }
#pragma unroll
            for (int t = 0; t < TOGETHER; ++t) {
                Pack<TY, VEC> made;
#pragma unroll
                for (int v = 0; v < VEC; ++v) write(made.lane[v], sums[t][v]);
                store(y + apart * (turn + t) + step, made, inside && line + (turn + t) * (32 / ACROSS) < lines);
            }
        }
    }
}
#elif defined(ENTRY_PICKS)
extern "C" __global__ void __launch_bounds__(256) resize_picks(
    const TX* __restrict__ x, TY* __restrict__ y, const Sample* __restrict__ first, const Sample* __restrict__ second, const Sample* __restrict__ third, Resize p) {
    take_turn();
    const INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, steps = p.out[2] / VEC, lines = (INDEX)p.lines, top = at / steps * LINES;
    if (top >= lines) return;
    const int p2 = (int)(at % steps) * VEC;
    Pack<Sample, VEC> c;
    if (TAPS2) {
        c = *(const Pack<Sample, VEC>*)(third + p2);
    } else {
#pragma unroll
        for (int v = 0; v < VEC; ++v) c.lane[v].at = p2 + v;
    }
    y += top * p.out[2] + p2;
    Line line = line_of(top, p);
#pragma unroll
    for (int l = 0; l < LINES; ++l) {
        if (top + l >= lines) break;
        const int a = sample<TAPS0>(first, line.p0, 0, 1).at, b = sample<TAPS1>(second, line.p1, 0, 1).at;
        const TX* row = x + row_at(line, there(a), there(b), p) * p.extents[2];
        Pack<TY, VEC> made;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            write(made.lane[v], read(row[there(c.lane[v].at)]));
            if (OUTSIDE && (a < 0 || b < 0 || c.lane[v].at < 0)) write(made.lane[v], p.outside);
        }
        store(y + (INDEX)l * p.out[2], made);
        advance(line, p);
    }
}
#else
extern "C" __global__ void __launch_bounds__(256) resize(
    const TX* __restrict__ x, TY* __restrict__ y, const Sample* __restrict__ first, const Sample* __restrict__ second, const Sample* __restrict__ third, Resize p) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, rest = at, inner = (INDEX)p.inner;
    INDEX within = 0;
    if (!ALONG) within = at % (inner / VEC) * VEC, rest = at / (inner / VEC);
    const int steps = ALONG ? p.out[2] / VEC : p.out[2];
    const int p2 = (int)(rest % steps) * (ALONG ? VEC : 1);
    rest /= steps;
    if (rest >= (INDEX)p.lines) return;
    const Line line = line_of(rest, p);
    Pack<TY, VEC> made;
#if PICKS
    const int a = sample<TAPS0>(first, line.p0, 0, 1).at, b = sample<TAPS1>(second, line.p1, 0, 1).at, c = sample<TAPS2>(third, p2, 0, 1).at;
    const Pack<TX, VEC> from = *(const Pack<TX, VEC>*)(x + (row_at(line, there(a), there(b), p) * p.extents[2] + there(c)) * inner + within);
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
        write(made.lane[v], read(from.lane[v]));
        if (OUTSIDE && (a < 0 || b < 0 || c < 0)) write(made.lane[v], p.outside);
    }
#else
    float sums[VEC] = {};
    bool outside[VEC] = {};
#pragma unroll (TAPS2 < 0 ? 1 : 4)
    for (int k = 0; k < count<TAPS2>(p.taps[2]); ++k) {
        Sample c[VEC];
        float own[VEC] = {};
#pragma unroll
        for (int v = 0; v < VEC; ++v) c[v] = sample<TAPS2>(third, ALONG ? p2 + v : p2, k, p.taps[2]);
#pragma unroll (TAPS0 < 0 ? 1 : 4)
        for (int i = 0; i < count<TAPS0>(p.taps[0]); ++i) {
            const Sample a = sample<TAPS0>(first, line.p0, i, p.taps[0]);
#pragma unroll (TAPS1 < 0 ? 1 : 4)
            for (int j = 0; j < count<TAPS1>(p.taps[1]); ++j) {
                const Sample b = sample<TAPS1>(second, line.p1, j, p.taps[1]);
                const float weight = a.weight * b.weight;
                const INDEX row = row_at(line, there(a.at), there(b.at), p) * p.extents[2];
                Pack<TX, VEC> from;
                if (!ALONG) from = *(const Pack<TX, VEC>*)(x + (row + there(c[0].at)) * inner + within);
#pragma unroll
                for (int v = 0; v < VEC; ++v) {
                    own[v] = fmaf(weight, read(ALONG ? x[row + there(c[v].at)] : from.lane[v]), own[v]);
                    outside[v] |= a.at < 0 || b.at < 0 || c[v].at < 0;
                }
            }
        }
#pragma unroll
        for (int v = 0; v < VEC; ++v) sums[v] = fmaf(c[v].weight, own[v], sums[v]);
    }
#pragma unroll
    for (int v = 0; v < VEC; ++v) write(made.lane[v], OUTSIDE && outside[v] ? p.outside : sums[v]);
#endif
    store(y + (i64)at * VEC, made);
}
#endif
