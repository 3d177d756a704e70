// y = w v,  w = after(softmax(between(q k^T))) over the keys, as attention.cu, on sm_90a's tensor cores: tiles of 64 queries a warpgroup
//   q [queries, depth], k [keys, depth], v [keys, width], TAB (f16, bf16, or float that is multiplied as TF32), y TY: rows of contiguous elements that begin on 16 bytes; depth <= DEPTH,
//   width <= WIDTH, multiples of 8; strides of the batch, and of rows, in elements (attention.cuh). The maps are (element, row, second batch axis, first).
// Rounded where it is produced: each step between and after in its register, w to TAB before it multiplies v. Sums are float.
// Tactics; each is the one above plus one idea:
//   attention_wgmma ONLINE 0   the keys are walked over twice: for the largest score and the sum of a row, then for w v; products of one tile are
//                              under way beside the exponentials of another
//   attention_wgmma ONLINE 1   once: sums so far are scaled whenever a larger score comes                            nothing rounds w, no steps after
//   attention_wgmma SETS 1     one set of scores in registers, not two: w v of a tile runs beside the exponentials of the next, whose scores were asked
//                              for before. More groups have room, and are under way beside one another                       heads of 128
//   attention_wgmma TF32 1     the copying group's other warps transpose values where they lie: products of floats read tiles along k alone; ONLINE 0
// One warp copies tiles of BK keys or values, STAGES under way; CONSUMERS groups of four warps compute, each its own 64 queries. Where steps come
// before the products, the groups do them to queries, the copying group's other warps to keys. The order of every sum is fixed.
// NVRTC defines: TAB, TY, DEPTH, WIDTH (64 or 128), CONSUMERS, BK (64 or 128), STAGES, ONLINE, HOLD_QUERIES (1: in registers), SETS, PLAIN_AFTER, BEFORE_Q, BEFORE_K as attention.cu, WIDE 1
// where nothing rounds w: it is multiplied as the sum of two TAB; TF32 1 where TAB is float: maps round what has no steps before.
#include "attention_wgmma.cuh"

#define THREADS (128 * (CONSUMERS + 1))
#define BQ (64 * CONSUMERS)
#define STAGE_BYTES (BK * (int)sizeof(T) * (DEPTH > WIDTH ? DEPTH : WIDTH))
#define FEW (TF32 ? 88 : CONSUMERS == 2 ? 40 : 32)    // registers of a thread that copies
#define MANY (TF32 ? 208 : CONSUMERS == 2 ? 232 : 160)  // of one that computes
static_assert(CONSUMERS * MANY + FEW <= (CONSUMERS + 1) * (65536 / THREADS / 8 * 8), "what is not given back cannot be taken: groups would wait for ever");
#define HELPERS 96  // threads that do steps to keys
#define UNITS (STAGE_BYTES / 4096)  // of a stage in TF32, each changed by a warp
#define CHANGES (BEFORE_K || TF32)  // something is done to tiles where they lie

// what a tile adds to the sums of rows so far. Exponentials do not wait for the largest score: where their sum shows one too far above, they are
// computed again.
__device__ __forceinline__ void look(const Scores& s, Row (&rows)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Row& row = rows[half];
        row.top = row.top == LOWEST ? s[0][half * 2] : row.top;
        row.from(row.top == LOWEST ? 0.f : row.top);
    }
    float sums[2];
    auto add_up = [&] {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float parts[2] = {0.f, 0.f};
#pragma unroll
            for (int j = 0; j < BK / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) parts[e] += two_to(rows[half].exponent(s[j][half * 2 + e]));
            sums[half] = parts[0] + parts[1];
        }
    };
    add_up();
    if (__ballot_sync(0xffffffffu, rows[0].is_far(sums[0]) || rows[1].is_far(sums[1]))) {
#pragma unroll
        for (int half = 0; half < 2; ++half) rows[half].sum *= rows[half].raise(highest_of(s, half, rows[half].top));
        add_up();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) rows[half].sum += sums[half];
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_wgmma(
    const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map, const __grid_constant__ TensorMap v_map, TY* __restrict__ y,
    BESIDE_PARAMETERS const __grid_constant__ Attention p) {
    SWIZZLED_SHARED(shared);
    __shared__ Barrier barriers[3 * STAGES + 1];
    BarrierAt full = barrier_of(barriers), empty = barrier_at(full, STAGES), changed = barrier_at(full, 2 * STAGES), begun = barrier_at(full, 3 * STAGES);
    static_assert(!TF32 || (!ONLINE && DEPTH == WIDTH && BK % 32 == 0), "tiles of values are as large as those of keys");
    Shared queries = shared_of(shared), ring = queries + CONSUMERS * QUERY_BYTES;
    int group = of_warp(threadIdx.x / 128), thread = threadIdx.x % 128;
    int down = (p.queries + BQ - 1) / BQ, first = first_query(p, (int)(blockIdx.x % down), down, BQ), tiles = (keys_of(p, first, BQ) + BK - 1) / BK;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_make(barrier_at(full, s), 1);
            barrier_make(barrier_at(empty, s), CONSUMERS);
            barrier_make(barrier_at(changed, s), TF32 ? UNITS : HELPERS);
        }
        barrier_make(begun, 1);
        barriers_made();
        prefetch_map(&q_map);
        prefetch_map(&k_map);
        prefetch_map(&v_map);
    }
    __syncthreads();
    take_turn();

    // Tiles come in the order in which they are multiplied: all keys where they are walked over twice; the first keys; further keys, values before them
    constexpr int WALKS = ONLINE ? 1 : 2;
    int all = (WALKS + 1) * tiles, ahead = (WALKS - 1) * tiles;
    auto has_values = [&](int at) { return at > ahead && ((at - ahead) % 2 == 0 || at == all - 1); };
    auto tile_of = [&](int at) { return at < ahead ? at : at == all - 1 ? tiles - 1 : has_values(at) ? (at - ahead) / 2 - 1 : (at - ahead + 1) / 2; };

    if (group == CONSUMERS) {
        registers_down<FEW>();
        int stage = 0, phase = 1;
        if (thread == 0) {
            int q0 = p.q.b0 ? (int)b0 : 0, q1 = p.q.b1 ? (int)b1 : 0, k0 = p.k.b0 ? (int)b0 : 0, k1 = p.k.b1 ? (int)b1 : 0;
            int v0 = p.v.b0 ? (int)b0 : 0, v1 = p.v.b1 ? (int)b1 : 0;
            barrier_expect(begun, CONSUMERS * QUERY_BYTES);
            for (int g = 0; g < CONSUMERS; ++g)
                for (int d = 0; d < DEPTH / LINE; ++d) copy_tile(queries + g * QUERY_BYTES + d * 8192, &q_map, begun, d * LINE, first + g * 64, q1, q0);
            for (int at = 0; at < all; ++at) {
                bool values = has_values(at);
                int key = tile_of(at) * BK;
                Shared to = ring + stage * STAGE_BYTES;
                BarrierAt done = barrier_at(full, stage);
                barrier_wait(barrier_at(empty, stage), phase);
                barrier_expect(done, BK * (int)sizeof(T) * (values ? WIDTH : DEPTH));
                if (values) {
#if TF32
                    for (int h = 0; h < BK / 32; ++h)
                        for (int c = 0; c < WIDTH / 32; ++c) copy_tile(to + h * PART_BYTES + c * 4096, &v_map, done, c * 32, key + h * 32, v1, v0);
#else
                    for (int h = 0; h < BK / 64; ++h)
                        for (int c = 0; c < WIDTH / 64; ++c) copy_tile(to + (h * (WIDTH / 64) + c) * 8192, &v_map, done, c * 64, key + h * 64, v1, v0);
#endif
                } else {
                    for (int d = 0; d < DEPTH / LINE; ++d) copy_tile(to + d * BK * 128, &k_map, done, d * LINE, key, k1, k0);
                }
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
        } else if (CHANGES && thread >= 32) {
            Beside beside = {BESIDE_ARGUMENTS};
            beside.begin(b0, b1, 0, {0, p.queries, p.keys});
            phase = 0;
#if TF32
            int lane = thread % 32, others = thread / 32 - 1;  // units that other warps take first
            for (int at = 0; at < all; ++at) {
                bool values = has_values(at);
                for (int unit = 0; unit < UNITS; ++unit) {
                    if (others-- > 0) continue;
                    others = HELPERS / 32 - 1;
                    Shared tile = ring + stage * STAGE_BYTES + unit * 4096;
                    barrier_wait(barrier_at(full, stage), phase);
                    if (values) {
                        Square left(lane), right(lane + 32);
                        left.take(tile), right.take(tile);
                        __syncwarp();
                        left.put(tile), right.put(tile);
                        show_products();
                    } else if (BEFORE_K) {
                        change(tile, 4096, lane, 32, [&](unsigned x) { return beside.before_k(x); });
                    }
                    __syncwarp();
                    if (lane == 0) barrier_arrive(barrier_at(changed, stage));
                }
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
#else
            for (int at = 0; at < all; ++at) {
                barrier_wait(barrier_at(full, stage), phase);
                if (!has_values(at)) change(ring + stage * STAGE_BYTES, BK * 2 * DEPTH, thread - 32, HELPERS, [&](unsigned x) { return beside.before_k(x); });
                barrier_arrive(barrier_at(changed, stage));
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
#endif
        }
    } else {
        registers_up<MANY>();
        int warp = thread / 32, lane = thread % 32, top = first + group * 64 + warp * 16, column = lane % 4 * 2;
        Beside beside = {BESIDE_ARGUMENTS};
        beside.begin(b0, b1, batch * p.queries * p.keys, {top + lane / 4, p.queries, p.keys});
        y += b0 * p.y.b0 + b1 * p.y.b1;
        Shared own = queries + group * QUERY_BYTES;
        barrier_wait(begun, 0);
        if (BEFORE_Q) {
            change(own, QUERY_BYTES, thread, 128, [&](unsigned x) { return beside.before_q(x); });
            meet(1 + group, 128);
        }
        Tile q_tile = tile_at<0>(own), k_tiles = tile_at<0>(ring), v_tiles = tile_at<TF32 ? 0 : 1>(ring);
#if HOLD_QUERIES
        unsigned held[STEPS_OF(DEPTH)][4];
#pragma unroll
        for (int d = 0; d < STEPS_OF(DEPTH); ++d) {
            int row = warp * 16 + lane % 16;
            load_matrices(held[d], own + d / 4 * 8192 + row * 128 + ((d % 4 * 2 + lane / 16) ^ row % 8) * 16);
        }
#endif
        int stage = 0, phase = 0;
        auto next = [&] {
            barrier_wait(barrier_at(CHANGES ? changed : full, stage), phase);
            int now = stage;
            if (++stage == STAGES) stage = 0, phase ^= 1;
            return now;
        };
        auto release = [&](int which) {
            if (thread == 0) barrier_arrive(barrier_at(empty, which));
        };
        auto ask = [&](Scores& s) {  // the next tile's scores
            int now = next();
            Tile k_tile = further(k_tiles, now * STAGE_BYTES);
            pin(s);
            wgmma_begin();
#if HOLD_QUERIES
            wgmma_scores<true>(s, held[0], k_tile);
#pragma unroll
            for (int d = 1; d < STEPS_OF(DEPTH); ++d) wgmma_scores<false>(s, held[d], along_k<0>(further(k_tile, d / 4 * BK * 128), d % 4));
#else
            wgmma_scores<true>(s, q_tile, k_tile);
#pragma unroll
            for (int d = 1; d < STEPS_OF(DEPTH); ++d)
                wgmma_scores<false>(s, along_k<0>(further(q_tile, d / 4 * 8192), d % 4), along_k<0>(further(k_tile, d / 4 * BK * 128), d % 4));
#endif
            wgmma_end();
            return now;
        };
        Row rows[2];
        Scores s = {}, other = {};

        if constexpr (!ONLINE) {
            auto seen = [&](Scores& these, int which, int t, bool last) {
                pin(these);
                release(which);
                step(these, beside, t * BK + column, last);
                look(these, rows);
            };
            int one = ask(s), two, t = 0;
            for (; t + 2 < tiles; t += 2) {
                two = ask(other);
                wgmma_wait<1>();
                seen(s, one, t, false);
                one = ask(s);
                wgmma_wait<1>();
                seen(other, two, t + 1, false);
            }
            if (t + 1 < tiles) {
                two = ask(other);
                wgmma_wait<1>();
                seen(s, one, t, false);
                wgmma_wait<0>();
                seen(other, two, t + 1, true);
            } else {
                wgmma_wait<0>();
                seen(s, one, t, true);
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Row& row = rows[half];
                row.sum *= row.raise(of_row(row.top, Larger()));
                row.sum = of_row(row.sum, Added());
                row.from(row.top);  // a row without keys is NaN
                row.divide();
            }
        }

        float sums[WIDTH / 8][4] = {};
        unsigned w[STEPS_OF(BK)][FRAGMENTS][4];
        float scale[2];   // what the sums are multiplied by before a tile is added, where
        bool scales = false;  // some are
        auto weigh = [&](Scores& s, int t, bool last) {
            step(s, beside, t * BK + column, last);
#if ONLINE && SETS == 1
            float tops[2] = {highest_of(s, 0, LOWEST), highest_of(s, 1, LOWEST)};  // registers have no room for scores beside their exponentials
            auto is_far = [&](int half) { return rows[half].exponent(tops[half]) > 12.f || rows[half].top == LOWEST; };
            scales = __ballot_sync(0xffffffffu, is_far(0) || is_far(1));
            if (scales)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    scale[half] = rows[half].raise(of_row(fmaxf(tops[half], rows[half].top), Larger()));
                    rows[half].sum *= scale[half];
                }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float added[2] = {0.f, 0.f};
#pragma unroll
                for (int j = 0; j < BK / 8; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        float& one = s[j][half * 2 + e];
                        one = two_to(rows[half].exponent(one));
                        added[e] += one;
                    }
                rows[half].sum += added[0] + added[1];
            }
#elif ONLINE
            Scores parts;
            float sums_of[2];
            auto take = [&] {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float added[2] = {0.f, 0.f};
#pragma unroll
                    for (int j = 0; j < BK / 8; ++j)
#pragma unroll
                        for (int e = 0; e < 2; ++e) added[e] += parts[j][half * 2 + e] = two_to(rows[half].exponent(s[j][half * 2 + e]));
                    sums_of[half] = added[0] + added[1];
                }
            };
            take();
            scales = __ballot_sync(0xffffffffu, rows[0].is_far(sums_of[0]) || rows[1].is_far(sums_of[1]));
            if (scales) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    scale[half] = rows[half].raise(of_row(highest_of(s, half, rows[half].top), Larger()));
                    rows[half].sum *= scale[half];
                }
                take();
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) rows[half].sum += sums_of[half];
#pragma unroll
            for (int j = 0; j < BK / 8; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[j][i] = parts[j][i];
#else
#pragma unroll
            for (int j = 0; j < BK / 8; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[j][i] = rows[i / 2].over(two_to(rows[i / 2].exponent(s[j][i])));
#endif
#if !PLAIN_AFTER
#pragma unroll
            for (int j = 0; j < BK / 8; ++j) {
                beside.after(s[j], t * BK + column + j * 8);
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (last && t * BK + column + j * 8 + i % 2 >= p.keys) s[j][i] = 0.f;  // a row of NaN has no others
            }
#endif
        };
        auto add = [&] {  // w v of the next tile
            int now = next();
            Tile v_tile = further(v_tiles, now * STAGE_BYTES);
            pin(sums);
            wgmma_begin();
#pragma unroll
            for (int g = 0; g < STEPS_OF(BK); ++g)
#pragma unroll
                for (int f = FRAGMENTS - 1; f >= 0; --f)  // what is smaller first
                    wgmma_values(sums, w[g][f], along_k<TF32 ? 0 : 1>(further(v_tile, g / 4 * WIDTH * 128), g % 4));
            wgmma_end();
            return now;
        };
        auto rescale = [&] {
            if (ONLINE && scales)
#pragma unroll
                for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) sums[n][i] *= scale[i / 2];
        };
#if SETS == 2
        // Beside the exponentials of a tile run the products of the next one's scores and of the weights of the one before.
        int values_at = -1;
        auto turn = [&](Scores& these, Scores& following, int t, bool last) {
            int keys_at = last ? 0 : ask(following);
            weigh(these, t, last);
            if (last) wgmma_wait<0>();
            else wgmma_wait<1>();
            pin(sums);
            pin(these);  // so that w is not written before
            if (values_at >= 0) release(values_at);
            rescale();
            pack(w, these);
            values_at = add();
            if (last) return;
            wgmma_wait<1>();
            pin(following);
            release(keys_at);
        };
        int begun_at = ask(s);
        wgmma_wait<0>();
        pin(s);
        release(begun_at);
        int t = 0;
        for (; t + 2 < tiles; t += 2) {  // the last tiles apart: others ask for no end of the keys
            turn(s, other, t, false);
            turn(other, s, t + 1, false);
        }
        if (t + 1 < tiles) {
            turn(s, other, t, false);
            turn(other, s, t + 1, true);
        } else {
            turn(s, other, t, true);
        }
#else
        auto turn = [&](int t, bool last) {
            int keys_at = ask(s), values_at = add();
            wgmma_wait<1>();
            pin(s);
            release(keys_at);
            weigh(s, t, last);
            wgmma_wait<0>();
            pin(sums);
            pin(s);  // so that w is not written before
            release(values_at);
            rescale();
            pack(w, s);
        };
        int begun_at = ask(s);
        wgmma_wait<0>();
        pin(s);
        release(begun_at);
        weigh(s, 0, tiles == 1);
        pack(w, s);
        int t = 1;
        for (; t + 1 < tiles; ++t) turn(t, false);  // the last tile apart: others ask for no end of the keys
        if (t < tiles) turn(t, true);
        add();
#endif
        wgmma_wait<0>();
        pin(sums);
        if constexpr (ONLINE) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                rows[half].sum = of_row(rows[half].sum, Added());
                rows[half].divide();
            }
#pragma unroll
            for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[n][i] *= rows[i / 2].share;
        }

        finish(sums, own, y, top, 1 + group, p);
    }
}
