// y = w v,  w = after(softmax(between(q k^T))) over the keys, as attention_wgmma.cu, where all scores of 64 queries fit into the registers of a warpgroup
//   q, k, v, y and the maps as there; keys <= BK
// Rounded where it is produced, as there; the keys are walked over once whatever is rounded.
// A block is a warpgroup. Queries and keys come together, values behind them; others on the same multiprocessor compute meanwhile.
// NVRTC defines: TAB, TY, DEPTH and WIDTH 64, BK (a multiple of 16, up to 256), BLOCKS (of a multiprocessor, at least), PLAIN_AFTER, BEFORE_Q, BEFORE_K,
// WIDE as attention_wgmma.cu.
#include "tma.cuh"
#include "wgmma_rows.cuh"
#include "attention.cuh"
#define ONLINE 0
#include "attention_wgmma.cuh"

#define KEY_BYTES (BK * 128)

extern "C" __global__ void __launch_bounds__(128, BLOCKS) attention_held(
    const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map, const __grid_constant__ TensorMap v_map, TY* __restrict__ y,
    BESIDE_PARAMETERS const __grid_constant__ Attention p) {
    static_assert(DEPTH == 64 && WIDTH == 64, "a row is a line of a tile");
    SWIZZLED_SHARED(shared);
    __shared__ Barrier barriers[2];
    BarrierAt first_come = barrier_of(barriers), values_come = barrier_at(first_come, 1);
    Shared queries = shared_of(shared), keys = queries + QUERY_BYTES, values = keys + KEY_BYTES;
    int down = (p.queries + 63) / 64, first = (int)(blockIdx.x % down) * 64, thread = threadIdx.x;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    if (thread == 0) {
        barrier_make(first_come, 1);
        barrier_make(values_come, 1);
        barriers_made();
    }
    __syncthreads();
    take_turn();
    if (thread == 0) {
        barrier_expect(first_come, QUERY_BYTES + KEY_BYTES);
        copy_tile(queries, &q_map, first_come, 0, first, p.q.b1 ? (int)b1 : 0, p.q.b0 ? (int)b0 : 0);
        copy_tile(keys, &k_map, first_come, 0, 0, p.k.b1 ? (int)b1 : 0, p.k.b0 ? (int)b0 : 0);
        barrier_expect(values_come, KEY_BYTES);
        copy_tile(values, &v_map, values_come, 0, 0, p.v.b1 ? (int)b1 : 0, p.v.b0 ? (int)b0 : 0);
    }
    int top = first + thread / 32 * 16, lane = thread % 32, column = lane % 4 * 2;
    Beside beside = {BESIDE_ARGUMENTS};
    beside.begin(b0, b1, batch * p.queries * p.keys, {top + lane / 4, p.queries, p.keys});
    y += b0 * p.y.b0 + b1 * p.y.b1;
    barrier_wait(first_come, 0);
    if (BEFORE_Q) change(queries, QUERY_BYTES, thread, 128, [&](unsigned x) { return beside.before_q(x); });
    if (BEFORE_K) change(keys, KEY_BYTES, thread, 128, [&](unsigned x) { return beside.before_k(x); });
    if (BEFORE_Q || BEFORE_K) __syncthreads();

    Scores s = {};
    Tile q_tile = tile_at<0>(queries), k_tile = tile_at<0>(keys), v_tile = tile_at<1>(values);
    pin(s);
    wgmma_begin();
    wgmma_columns<true>(s, q_tile, k_tile);
#pragma unroll
    for (int d = 1; d < 4; ++d) wgmma_columns<false>(s, along_k<0>(q_tile, d), along_k<0>(k_tile, d));
    wgmma_end();
    wgmma_wait<0>();
    pin(s);
    step<BK - 16>(s, beside, column, p.keys < BK);
    Row rows[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Row& row = rows[half];
        row.from(of_row(highest_of(s, half, LOWEST), Larger()));
        float added[2] = {0.f, 0.f};
#pragma unroll
        for (int j = 0; j < BK / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& one = s[j][half * 2 + e];
                one = two_to(row.exponent(one));
                added[e] += one;
            }
        row.sum = of_row(added[0] + added[1], Added());
        row.divide();
    }
    unsigned w[BK / 16][FRAGMENTS][4];
#pragma unroll
    for (int j = 0; j < BK / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[j][i] = rows[i / 2].over(s[j][i]);
#if !PLAIN_AFTER
        beside.after(s[j], column + j * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (j >= BK / 8 - 2 && column + j * 8 + i % 2 >= p.keys) s[j][i] = 0.f;  // a row of NaN has no others
#endif
    }
    pack(w, s);
    float sums[WIDTH / 8][4] = {};
    barrier_wait(values_come, 0);
    pin(sums);
    wgmma_begin();
#pragma unroll
    for (int g = 0; g < BK / 16; ++g)
#pragma unroll
        for (int f = FRAGMENTS - 1; f >= 0; --f) wgmma_values(sums, w[g][f], along_k<1>(v_tile, g));  // what is smaller first
    wgmma_end();
    wgmma_wait<0>();
    pin(sums);
    finish(sums, queries, y, top, 1, p);
}
