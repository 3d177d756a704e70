// y = w v,  w = after(softmax(between(q k^T))) over the keys, as attention_wgmma.cu, where all scores of 64 queries fit into the registers of a warpgroup
//   q, k, v, y and the maps as there; or TAB float, multiplied as TF32, where maps round what has no steps before; keys <= BK
// Rounded where it is produced, as there; the keys are walked over once whatever is rounded.
// A block is a warpgroup. Queries and keys come at once, values behind them; others on the same multiprocessor compute meanwhile.
//   attention_held TURNS 2   a block takes 128 queries, half of them after the others: fewer blocks copy keys and values
//   attention_held TF32 1   values come where keys were, so that three blocks have room, and are transposed there, 32 keys at a time: products of floats
//                           read tiles along k alone
// NVRTC defines: TAB, TY, DEPTH and WIDTH 64, BK (a multiple of 16, up to 256), BLOCKS (of a multiprocessor, at least), TURNS (TF32: 1),
// PLAIN_AFTER, BEFORE_Q, BEFORE_K, WIDE as attention_wgmma.cu, TF32 1 where TAB is float.
#include "tma.cuh"
#include "wgmma_rows.cuh"
#include "attention.cuh"
#define ONLINE 0
#include "attention_wgmma.cuh"

#define COLUMNS (64 / LINE)  // of tiles
#define KEY_BYTES (BK * 128 * COLUMNS)

#if TF32
#define PARTS ((BK + 31) / 32)
// Two tiles of every 32 keys
__device__ __forceinline__ void transpose(Shared values) {
    Square square(threadIdx.x);
    values += threadIdx.x / 64 * (PART_BYTES / 2);
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        square.take(values + part * PART_BYTES);
        __syncthreads();
        square.put(values + part * PART_BYTES);
    }
    show_products();
    __syncthreads();
}
#endif

extern "C" __global__ void __launch_bounds__(128, BLOCKS) attention_held(
    const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map, const __grid_constant__ TensorMap v_map, TY* __restrict__ y,
    BESIDE_PARAMETERS const __grid_constant__ Attention p) {
    static_assert(DEPTH == 64 && WIDTH == 64, "a row is a line of a tile");
    static_assert(TURNS == 1 || !TF32, "values lie where keys were");
    SWIZZLED_SHARED(shared);
    __shared__ Barrier barriers[2];
    BarrierAt first_come = barrier_of(barriers), values_come = barrier_at(first_come, 1);
    Shared queries = shared_of(shared), keys = queries + TURNS * QUERY_BYTES, values = keys + (TF32 ? 0 : KEY_BYTES);
    int down = (p.queries + 64 * TURNS - 1) / (64 * TURNS), first = (int)(blockIdx.x % down) * 64 * TURNS, thread = threadIdx.x;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    if (thread == 0) {
        barrier_make(first_come, 1);
        barrier_make(values_come, 1);
        barriers_made();
    }
    __syncthreads();
    take_turn();
    if (thread == 0) {
        barrier_expect(first_come, TURNS * QUERY_BYTES + KEY_BYTES);
        for (int c = 0; c < COLUMNS; ++c) {
            for (int e = 0; e < TURNS; ++e)
                copy_tile(queries + e * QUERY_BYTES + c * 8192, &q_map, first_come, c * LINE, first + e * 64, p.q.b1 ? (int)b1 : 0, p.q.b0 ? (int)b0 : 0);
            copy_tile(keys + c * BK * 128, &k_map, first_come, c * LINE, 0, p.k.b1 ? (int)b1 : 0, p.k.b0 ? (int)b0 : 0);
        }
#if !TF32
        barrier_expect(values_come, KEY_BYTES);
        copy_tile(values, &v_map, values_come, 0, 0, p.v.b1 ? (int)b1 : 0, p.v.b0 ? (int)b0 : 0);
#endif
    }
    int lane = thread % 32, column = lane % 4 * 2;
    y += b0 * p.y.b0 + b1 * p.y.b1;
    if (BEFORE_Q || BEFORE_K) {
        Beside beside = {BESIDE_ARGUMENTS};
        beside.begin(b0, b1, 0, {0, p.queries, p.keys});
        barrier_wait(first_come, 0);
        if (BEFORE_Q) change(queries, TURNS * QUERY_BYTES, thread, 128, [&](unsigned x) { return beside.before_q(x); });
        if (BEFORE_K) change(keys, KEY_BYTES, thread, 128, [&](unsigned x) { return beside.before_k(x); });
        __syncthreads();
    }
    auto attend = [&](Shared queries, int top) {
        Beside beside = {BESIDE_ARGUMENTS};
        beside.begin(b0, b1, batch * p.queries * p.keys, {top + lane / 4, p.queries, p.keys});
        barrier_wait(first_come, 0);
        Scores s = {};
        Tile q_tile = tile_at<0>(queries), k_tile = tile_at<0>(keys), v_tile = tile_at<TF32 ? 0 : 1>(values);
        pin(s);
        wgmma_begin();
        wgmma_columns<true>(s, q_tile, k_tile);
#pragma unroll
        for (int d = 1; d < 4 * COLUMNS; ++d)
            wgmma_columns<false>(s, along_k<0>(further(q_tile, d / 4 * 8192), d % 4), along_k<0>(further(k_tile, d / 4 * BK * 128), d % 4));
        wgmma_end();
        wgmma_wait<0>();
        pin(s);
#if TF32
        __syncthreads();  // keys are read no more
        if (thread == 0) {
            barrier_expect(values_come, PARTS * PART_BYTES);
            for (int part = 0; part < PARTS; ++part)
                for (int c = 0; c < COLUMNS; ++c)
                    copy_tile(values + part * PART_BYTES + c * (PART_BYTES / 2), &v_map, values_come, c * LINE, part * 32, p.v.b1 ? (int)b1 : 0,
                              p.v.b0 ? (int)b0 : 0);
        }
#endif
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
#if TF32
        barrier_wait(values_come, 0);
        transpose(values);
        float sums[WIDTH / 8][4] = {};
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {  // apart, so that weights take the registers of scores
            constexpr int EACH = 32 / 8;
            unsigned w[EACH][4];
#pragma unroll
            for (int j = 0; j < EACH && part * EACH + j < BK / 8; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float& one = s[part * EACH + j][i];
                    wgmma_pin(one);
                    w[j][i % 2 * 2 + i / 2] = PLAIN_AFTER ? near_tf32(one) : __float_as_uint(round_tf32(one));  // row, row + 8; the next key of both
                }
            pin(sums);
            wgmma_begin();
#pragma unroll
            for (int j = 0; j < EACH && part * EACH + j < BK / 8; ++j) wgmma_values(sums, w[j], along_k<0>(further(v_tile, part * PART_BYTES), j));
            wgmma_end();
            if (part > 0) wgmma_wait<1>();
        }
#else
        unsigned w[BK / 16][FRAGMENTS][4];
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
#endif
        wgmma_wait<0>();
        pin(sums);
        finish(sums, queries, y, top, 1, p);
    };
#pragma unroll 1
    for (int turn = 0; turn < TURNS && first + turn * 64 < p.queries; ++turn)
        attend(queries + turn * QUERY_BYTES, first + turn * 64 + thread / 32 * 16);
}
