// y = w v,  w = after(softmax(between(q k^T))) over the keys, as attention.cu, in FP32 throughout: products and sums are fused multiply-adds
//   q [queries, depth], k [keys, depth], v [keys, width], y: float, rows of contiguous elements that begin on 16 bytes; depth <= DEPTH, width <= WIDTH,
//   multiples of 8; strides of the batch, and of rows, in elements (attention.cuh)
// Tactics:
//   attention_simt TWICE 0   the keys are walked over once: sums so far are scaled whenever a larger score comes     no steps after the softmax
//   attention_simt TWICE 1   twice: for the largest score and the sum of a row, then for w v
//   attention_simt ACROSS 8  a warp has 32 queries: half as much is read of shared memory for each product        many queries
// A warp has 16 queries (or 32) and, of a tile of 64 keys, all: a thread 8 rows x 4 keys (8), then 8 rows x 4 elements of the result (8), or twice as many.
// Weights go through shared memory within their warp. Keys and values come by asynchronous copies, one tile ahead. The order of every sum is fixed.
// NVRTC defines: TY, DEPTH (a multiple of 16), WIDTH (64 or 128), QUERY_WARPS, ACROSS (threads side by side: 16 or 8), BLOCKS (of a multiprocessor, at
// least), TWICE.
#define THREADS (32 * QUERY_WARPS)
#include "attention_simt.cuh"

#define BQ (EACH * QUERY_WARPS)

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_simt(
    const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v, TY* __restrict__ y, BESIDE_PARAMETERS Attention p) {
    take_turn();
    DYNAMIC_SHARED(shared);
    float *queries = (float*)shared, *keys = queries + BQ * PITCH, *values = keys + BK * PITCH, *weights = values + BK * PITCH;
    int down = (p.queries + BQ - 1) / BQ, first = first_query(p, (int)(blockIdx.x % down), down, BQ), tiles = (keys_of(p, first, BQ) + BK - 1) / BK;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    q += b0 * p.q.b0 + b1 * p.q.b1, k += b0 * p.k.b0 + b1 * p.k.b1, v += b0 * p.v.b0 + b1 * p.v.b1, y += b0 * p.y.b0 + b1 * p.y.b1;
    int warp = threadIdx.x / 32, x = threadIdx.x % ACROSS, down_in = warp * EACH + threadIdx.x % 32 / ACROSS;  // the first of its rows
    bool busy = first + warp * EACH < p.queries;
    Beside beside[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
        beside[m] = {BESIDE_ARGUMENTS};
        beside[m].begin(b0, b1, batch * p.queries * p.keys, {first + down_in + row_at(m), p.queries, p.keys});
    }
    const float *own = queries + down_in * PITCH, *key = keys + x * PITCH, *value = values + x * 4;
    float* own_weights = weights + down_in * WEIGHTS_PITCH;
    float tops[8], totals[8] = {}, sums[8][COLUMNS][4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) tops[i] = LOWEST;

    auto fetch_keys = [&](int t) {
        if (t < tiles) fetch<BK, DEPTH, true>(keys, k, p.k.row, t * BK, p.keys, p.depth);
        copies_commit();
    };
    auto fetch_values = [&](int t) {
        if (t < tiles) fetch<BK, WIDTH, false>(values, v, p.v.row, t * BK, p.keys, p.width);
        copies_commit();
    };
    auto scores = [&](Scores& s, int t) {
        int left = p.keys - t * BK;
        if (left > 32) multiply<2>(s, own, key);
        else multiply<1>(s, own, key);
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) {
                int col = t * BK + (j * ACROSS + x) * 2;
                beside[m].between(s[m][j], col);
                if (left < BK)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (col + i % 2 >= p.keys) s[m][j][i] = LOWEST;
            }
    };
    auto highest = [&](const Scores& s, int i) {
        float top = tops[i];
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) top = fmaxf(top, fmaxf(s[i % 4][j][i / 4 * 2], s[i % 4][j][i / 4 * 2 + 1]));
        return top;
    };

    fetch<BQ, DEPTH, false>(queries, q, p.q.row, first, p.queries, p.depth);
    fetch_keys(0);
#if TWICE
    for (int t = 0; t < tiles; ++t) {
        copies_wait<0>();
        __syncthreads();
        Scores s = {};
        if (busy) scores(s, t);
        __syncthreads();
        fetch_keys(t + 1 < tiles ? t + 1 : 0);
        if (!busy) continue;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float higher = highest(s, i), from = higher == LOWEST ? 0.f : higher;
            totals[i] *= tops[i] == higher ? 1.f : expf(tops[i] - higher);
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) totals[i] += expf(s[i % 4][j][i / 4 * 2] - from) + expf(s[i % 4][j][i / 4 * 2 + 1] - from);
            tops[i] = higher;
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        float before = tops[i];
        tops[i] = of_row(before, Larger());
        totals[i] = of_row(before == tops[i] ? totals[i] : totals[i] * expf(before - tops[i]), Sum());
    }
#endif
    fetch_values(0);
    for (int t = 0; t < tiles; ++t) {
        copies_wait<1>();
        __syncthreads();
        Scores s = {};
        if (busy) scores(s, t);
        __syncthreads();
        fetch_keys(t + 1);
        if (busy) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int at = i / 4 * 2;
#if TWICE
#pragma unroll
                for (int j = 0; j < PAIRS; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) s[i % 4][j][at + e] = expf(s[i % 4][j][at + e] - tops[i]) / totals[i];
#else
                float higher = of_row(highest(s, i), Larger()), from = higher == LOWEST ? 0.f : higher, added = 0.f;
                float scale = tops[i] == higher ? 1.f : expf(tops[i] - higher);
                tops[i] = higher;
#pragma unroll
                for (int j = 0; j < PAIRS; ++j) {
                    float(&both)[4] = s[i % 4][j];
                    both[at] = expf(both[at] - from), both[at + 1] = expf(both[at + 1] - from);
                    added += both[at] + both[at + 1];
                }
                totals[i] = totals[i] * scale + added;
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) sums[i][c][e] *= scale;
#endif
            }
#if TWICE
#pragma unroll
            for (int m = 0; m < 4; ++m)
#pragma unroll
                for (int j = 0; j < PAIRS; ++j) {
                    int col = t * BK + (j * ACROSS + x) * 2;
                    beside[m].after(s[m][j], col);
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (col + i % 2 >= p.keys) s[m][j][i] = 0.f;  // a row of NaN has no others
                }
#endif
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < PAIRS; ++j)
                    *(Pack<float, 2>*)(own_weights + row_at(i) * WEIGHTS_PITCH + (j * ACROSS + x) * 2) = {s[i % 4][j][i / 4 * 2], s[i % 4][j][i / 4 * 2 + 1]};
        }
        copies_wait<1>();
        __syncthreads();
        if (busy) weigh(sums, own_weights, value, p.keys - t * BK < BK ? p.keys - t * BK : BK);
        __syncthreads();
        fetch_values(t + 1);
    }
    if (!busy) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        float total = TWICE ? 1.f : of_row(totals[i], Sum());
        int row = first + down_in + row_at(i);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            Pack<TY, 4> four;
#pragma unroll
            for (int e = 0; e < 4; ++e) write(four.lane[e], TWICE ? sums[i][c][e] : sums[i][c][e] / total);
            if (row < p.queries && (c * ACROSS + x) * 4 < p.width) *(Pack<TY, 4>*)(y + row * p.y.row + (c * ACROSS + x) * 4) = four;
        }
    }
}
