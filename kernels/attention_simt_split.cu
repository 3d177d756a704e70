// y = w v,  w = after(softmax(between(q k^T))) over the keys, as attention_simt.cu, where there are few queries: warps share them
//   q, k, v, y as there; keys <= 64 * SPLIT
// Tactics:
//   attention_simt_split HELD 0    each warp knows of its own largest scores and sums; results are scaled in the end    no steps after the softmax
//   attention_simt_split HELD 1    warps learn of one another's before they weigh
//   attention_simt_split APART 0   values come where keys were: more blocks have room                                 else they come beside products
// Each warp has 16 queries (or 32) and 64 keys; in the end results are added up in the order of the keys. The order of every sum is fixed.
// NVRTC defines: TY, DEPTH (a multiple of 16), WIDTH (64 or 128), ACROSS as attention_simt.cu, QUERY_WARPS, SPLIT (warps that share queries), BLOCKS (of
// a multiprocessor, at least), HELD, APART.
#define THREADS (32 * QUERY_WARPS * SPLIT)
#include "attention_simt.cuh"

#define BQ (EACH * QUERY_WARPS)
#define KEYS (BK * SPLIT)

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention_simt_split(
    const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v, TY* __restrict__ y, BESIDE_PARAMETERS Attention p) {
    take_turn();
    DYNAMIC_SHARED(shared);
    __shared__ float part_tops[SPLIT][BQ], part_totals[SPLIT][BQ];
    float *queries = (float*)shared, *keys = queries + BQ * PITCH, *values = keys + APART * KEYS * PITCH, *weights = values + KEYS * PITCH;
    int down = (p.queries + BQ - 1) / BQ, first = (int)(blockIdx.x % down) * BQ;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    q += b0 * p.q.b0 + b1 * p.q.b1, k += b0 * p.k.b0 + b1 * p.k.b1, v += b0 * p.v.b0 + b1 * p.v.b1, y += b0 * p.y.b0 + b1 * p.y.b1;
    int part = threadIdx.x / 32 % SPLIT, x = threadIdx.x % ACROSS, down_in = threadIdx.x / 32 / SPLIT * EACH + threadIdx.x % 32 / ACROSS;  // the first of its rows
    int key = part * BK, left = p.keys - key;  // of this warp
    Beside beside[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
        beside[m] = {BESIDE_ARGUMENTS};
        beside[m].begin(b0, b1, batch * p.queries * p.keys, {first + down_in + row_at(m), p.queries, p.keys});
    }
    float* own_weights = weights + (part * BQ + down_in) * WEIGHTS_PITCH;
    auto highest = [&](const Scores& s, int i) {
        float top = LOWEST;
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) top = fmaxf(top, fmaxf(s[i % 4][j][i / 4 * 2], s[i % 4][j][i / 4 * 2 + 1]));
        return of_row(top, Larger());
    };
    auto exponentials = [&](Scores& s, int i, float top) {  // in place of scores; their sum
        float added = 0.f, from = top == LOWEST ? 0.f : top;
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) {
            float &one = s[i % 4][j][i / 4 * 2], &other = s[i % 4][j][i / 4 * 2 + 1];
            one = expf(one - from), other = expf(other - from);
            added += one + other;
        }
        return of_row(added, Sum());
    };
    auto tell = [&](float (&all)[SPLIT][BQ], const float (&own)[8]) {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (x == 0) all[part][down_in + row_at(i)] = own[i];
    };
    auto top_of = [&](int row) {
        float top = LOWEST;
#pragma unroll
        for (int n = 0; n < SPLIT; ++n) top = fmaxf(top, part_tops[n][row]);
        return top;
    };
    auto fetch_values = [&] {
#pragma unroll 1
        for (int n = 0; n < p.keys; n += BK) fetch<BK, WIDTH, false>(values + n * PITCH, v, p.v.row, n, p.keys, p.width);
        copies_commit();
    };

    fetch<BQ, DEPTH, false>(queries, q, p.q.row, first, p.queries, p.depth);
#pragma unroll 1
    for (int n = 0; n < p.keys; n += BK) fetch<BK, DEPTH, true>(keys + n * PITCH, k, p.k.row, n, p.keys, p.depth);
    copies_commit();
    if (APART) fetch_values();
    copies_wait<APART>();
    __syncthreads();
    Scores s = {};
    float tops[8], totals[8], sums[8][COLUMNS][4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) tops[i] = LOWEST, totals[i] = 0.f;
    if (left > 32) multiply<2>(s, queries + down_in * PITCH, keys + (key + x) * PITCH);
    else if (left > 0) multiply<1>(s, queries + down_in * PITCH, keys + (key + x) * PITCH);
    if (!APART) {
        __syncthreads();  // keys are read no more
        fetch_values();
    }
    if (left > 0) {
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) {
                int col = key + (j * ACROSS + x) * 2;
                beside[m].between(s[m][j], col);
                if (left < BK)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (col + i % 2 >= p.keys) s[m][j][i] = LOWEST;
            }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            tops[i] = highest(s, i);
            if (!HELD) totals[i] = exponentials(s, i, tops[i]);
        }
    }
    tell(part_tops, tops);
#if HELD
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (left > 0) totals[i] = exponentials(s, i, top_of(down_in + row_at(i)));
#endif
    tell(part_totals, totals);
#if HELD
    __syncthreads();
    if (left > 0) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            float total = 0.f;
#pragma unroll
            for (int n = 0; n < SPLIT; ++n) total += part_totals[n][down_in + row_at(i)];
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) s[i % 4][j][i / 4 * 2] /= total, s[i % 4][j][i / 4 * 2 + 1] /= total;
        }
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) {
                int col = key + (j * ACROSS + x) * 2;
                beside[m].after(s[m][j], col);
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (col + i % 2 >= p.keys) s[m][j][i] = 0.f;  // a row of NaN has no others
            }
    }
#endif
    if (left > 0)
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < PAIRS; ++j)
                *(Pack<float, 2>*)(own_weights + row_at(i) * WEIGHTS_PITCH + (j * ACROSS + x) * 2) = {s[i % 4][j][i / 4 * 2], s[i % 4][j][i / 4 * 2 + 1]};
    copies_wait<0>();
    __syncthreads();
    if (left > 0) weigh(sums, own_weights, values + key * PITCH + x * 4, left < BK ? left : BK);
    __syncthreads();

    // What the warps found, together: results lie where values were
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int row = down_in + row_at(i);
        float top = HELD ? tops[i] : top_of(row), scale = tops[i] == top ? 1.f : expf(tops[i] - top);
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            Four four;
#pragma unroll
            for (int e = 0; e < 4; ++e) four.lane[e] = HELD ? sums[i][c][e] : sums[i][c][e] * scale;
            *(Four*)(values + (part * BQ + row) * PITCH + (c * ACROSS + x) * 4) = four;
        }
    }
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < BQ * (WIDTH / 4); i += THREADS) {
        int row = i / (WIDTH / 4), col = i % (WIDTH / 4) * 4;
        float top = top_of(row), total = 0.f;
        Four sum = {};
#pragma unroll
        for (int n = 0; n < SPLIT; ++n) {
            total += part_totals[n][row] * (part_tops[n][row] == top ? 1.f : expf(part_tops[n][row] - top));
            Four one = *(const Four*)(values + (n * BQ + row) * PITCH + col);
#pragma unroll
            for (int e = 0; e < 4; ++e) sum.lane[e] += one.lane[e];
        }
        Pack<TY, 4> four;
#pragma unroll
        for (int e = 0; e < 4; ++e) write(four.lane[e], HELD ? sum.lane[e] : sum.lane[e] / total);
        if (first + row < p.queries && col < p.width) *(Pack<TY, 4>*)(y + (first + row) * p.y.row + col) = four;
    }
}
