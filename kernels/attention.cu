// y = w v,  w = after(softmax(between(q k^T))) over the keys: attention, every matrix of a batch, its steps generated (attention_code.py)
//   q [queries, depth], k [keys, depth], v [keys, width], TAB (f16, bf16, or float that is multiplied as TF32), y TY: rows of contiguous elements that
//   begin on 16 bytes; depth <= DEPTH, width <= WIDTH, multiples of 8; strides of the batch, and of rows, in elements (attention.cuh)
// Rounded where it is produced: each step between and after in its register, w to TAB before it multiplies v. Sums are float.
// Tactics; each is the one above plus one idea:
//   attention HELD 0       the keys are walked over twice: for the largest score and the sum of a row, then for w v     any number of keys
//   attention ONCE 1       once: sums so far are scaled whenever a larger score comes                                  HELD 0, WIDE 1, SPLIT 1, PLAIN_AFTER 1
//   attention HELD 1       the scores of a row stay in registers                                                       keys <= KEYS
//   attention SPLIT 2..8   warps share 16 queries, each with every SPLIT-th 16 keys                                     few queries
//   attention EACH_WARP 2  a warp has 32 queries: keys and values are read from shared memory half as often            many queries, SPLIT 1
// Tiles of BK keys come by asynchronous copies, STAGES under way. The order of every sum is fixed.
// NVRTC defines: TAB, TY, DEPTH, WIDTH (multiples of 16), QUERY_WARPS, SPLIT, EACH_WARP, BK (divides by 16 * SPLIT), STAGES, BLOCKS (of a
// multiprocessor, at least), HELD, KEYS (multiple of 16; held only), PLAIN_AFTER 1 where nothing but a rounding lies between the softmax and its
// product with v, BEFORE_Q, BEFORE_K, BEFORE_V 1 where steps come before the products, TF32 1 where TAB is float, WIDE 1 where nothing rounds w: it is
// multiplied as the sum of two TAB, which hold 22 (bf16: 16) of its bits; ONCE.
#include "attention_tiles.cuh"
#include "attention_rows.cuh"

template <class Y> __device__ __forceinline__ void finish(const float (&sums)[WIDTH / 8][4], T* own, Y* y, const Rows& rows, const Attention& p) {
    int lane = threadIdx.x % 32;
    if constexpr (sizeof(Y) == 2) {  // through shared memory, so that 16 bytes are stored at once
        __syncwarp();
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *(unsigned*)(own + (lane / 4 + half * 8) * PITCH + n * 8 + lane % 4 * 2) = side_by_side(sums[n][half * 2], sums[n][half * 2 + 1], Y());
        __syncwarp();
        int first = rows.row - lane / 4;
#pragma unroll
        for (int i = lane; i < 16 * (WIDTH / 8); i += 32) {
            int row = i / (WIDTH / 8), col = i % (WIDTH / 8) * 8;
            if (first + row < p.queries && col < p.width)
                *(Pack<Y, 8>*)(y + (first + row) * p.y.row + col) = *(const Pack<Y, 8>*)(own + row * PITCH + col);
        }
    } else {
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Pack<Y, 2> two;
                write(two.lane[0], sums[n][half * 2]);
                write(two.lane[1], sums[n][half * 2 + 1]);
                if (rows.has(half) && n * 8 < p.width) *(Pack<Y, 2>*)(y + (rows.row + half * 8) * p.y.row + n * 8 + lane % 4 * 2) = two;
            }
    }
}

// The same where warps share queries: their sums are added in order. `room`: SPLIT x BQ x SUMS_PITCH floats
__device__ __forceinline__ void finish_parts(const float (&sums)[WIDTH / 8][4], float* room, TY* y, int first, const Attention& p) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, part = warp / QUERY_WARPS, row = warp % QUERY_WARPS * 16 + lane / 4;
    __syncthreads();  // the last tile was read
#pragma unroll
    for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
            *(Pack<float, 2>*)(room + (part * BQ + row + half * 8) * SUMS_PITCH + n * 8 + lane % 4 * 2) = {sums[n][half * 2], sums[n][half * 2 + 1]};
    __syncthreads();
    for (int i = threadIdx.x; i < BQ * (WIDTH / 8); i += THREADS) {
        int at = i / (WIDTH / 8), col = i % (WIDTH / 8) * 8;
        if (first + at >= p.queries || col >= p.width) continue;
        float all[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) all[e] = room[at * SUMS_PITCH + col + e];
#pragma unroll
        for (int other = 1; other < SPLIT; ++other)
#pragma unroll
            for (int e = 0; e < 8; ++e) all[e] += room[(other * BQ + at) * SUMS_PITCH + col + e];
        Pack<TY, 8> out;
#pragma unroll
        for (int e = 0; e < 8; ++e) write(out.lane[e], all[e]);
        store(y + (first + at) * p.y.row + col, out);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) attention(
    const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, TY* __restrict__ y, BESIDE_PARAMETERS Attention p) {
    take_turn();
    DYNAMIC_SHARED(shared);
    float* room = (float*)shared;
    T* queries = (T*)(room + (SPLIT > 1 ? 2 * SPLIT * BQ : 0));
    T* ring = queries + BQ * PITCH;
    int down = (p.queries + BQ - 1) / BQ, first = first_query(p, (int)(blockIdx.x % down), down, BQ);
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    Strips<DEPTH> q_strips, k_strips;
    Strips<WIDTH> v_strips;
    q_strips.begin(q + b0 * p.q.b0 + b1 * p.q.b1, p.q.row, p.queries, p.depth);
    k_strips.begin(k + b0 * p.k.b0 + b1 * p.k.b1, p.k.row, p.keys, p.depth);
    v_strips.begin(v + b0 * p.v.b0 + b1 * p.v.b1, p.v.row, p.keys, p.width);
    y += b0 * p.y.b0 + b1 * p.y.b1;
    int warp = threadIdx.x / 32 % QUERY_WARPS, part = threadIdx.x / 32 / QUERY_WARPS, lane = threadIdx.x % 32;
    int column = part * 16 + lane % 4 * 2;  // of its first 16 keys
    static_assert(SPLIT == 1 || EACH_WARP == 1, "warps that share queries have 16");
    Beside beside[EACH_WARP];
#pragma unroll
    for (int m = 0; m < EACH_WARP; ++m) {
        beside[m] = {BESIDE_ARGUMENTS};
        beside[m].begin(b0, b1, batch * p.queries * p.keys, {first + (warp * EACH_WARP + m) * 16 + lane / 4, p.queries, p.keys});
    }
    T* own = queries + warp * EACH_WARP * 16 * PITCH;
    Queries mine[EACH_WARP];
    Row rows[EACH_WARP][2];
    float sums[EACH_WARP][WIDTH / 8][4] = {};

    constexpr int TILE = BK * ROW_BYTES;
    Place tiles_at = place_of(ring);
    auto stage = [&](int at) { return at % STAGES * TILE; };
    Place keys_at = tiles_at + (part * 16 + lane / 16 * 8 + lane % 8) * ROW_BYTES + lane / 8 % 2 * 16;  // this thread's row of a tile
    Place values_at = tiles_at + (TF32 ? (part * 16 + lane % 4 * 2) * ROW_BYTES + lane / 4 * 4 : (part * 16 + lane % 16) * ROW_BYTES + lane / 16 * 16);
    auto arrive = [&](int at, bool begins) {  // a tile of keys that was waited for
        if (BEFORE_Q && begins) change<BQ, DEPTH>(queries, p.depth, [&](unsigned x) { return beside[0].before_q(x); });
        if (BEFORE_K) change<BK, DEPTH>(ring + at / (int)sizeof(T), p.depth, [&](unsigned x) { return beside[0].before_k(x); });
        if ((BEFORE_Q && begins) || BEFORE_K) __syncthreads();
#pragma unroll
        for (int m = 0; m < EACH_WARP; ++m)
            if (begins) mine[m].begin(place_of(own) + m * 16 * ROW_BYTES);
    };
    auto arrive_values = [&](int at) {
        if (!BEFORE_V) return;
        change<BK, WIDTH>(ring + at / (int)sizeof(T), p.width, [&](unsigned x) { return beside[0].before_v(x); });
        __syncthreads();
    };
    q_strips.template fetch<BQ>(place_of(queries), first);

#if HELD
    float s[EACH_WARP][2 * MINE][4] = {};
    auto ask = [&](int at) {
        if (at < TILES) k_strips.template fetch<BK>(tiles_at + stage(at), at * BK);
        else if (at < 2 * TILES) v_strips.template fetch<BK>(tiles_at + stage(at), (at - TILES) * BK);
        copies_commit();
    };
#pragma unroll
    for (int at = 0; at < STAGES - 1; ++at) ask(at);
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(t + STAGES - 1);
        arrive(stage(t), t == 0);
#pragma unroll
        for (int g = t * EACH; g < (t + 1) * EACH && g < MINE; ++g) {
            multiply(s, 2 * g, mine, keys_at + stage(t) + (g - t * EACH) * SPLIT * 16 * ROW_BYTES);
#pragma unroll
            for (int m = 0; m < EACH_WARP; ++m) {
                Row(&row)[2] = rows[m];
                const Beside& along = beside[m];
                step(s[m][2 * g], s[m][2 * g + 1], along, g * SPLIT * 16 + column, (g + 1) * SPLIT >= KEYS / 16);
#pragma unroll
                for (int i = 0; i < 4; ++i) row[i / 2].top = fmaxf(row[i / 2].top, fmaxf(s[m][2 * g][i], s[m][2 * g + 1][i]));
            }
        }
    }
#pragma unroll
    for (int m = 0; m < EACH_WARP; ++m) {
        Row(&row)[2] = rows[m];
        join_tops(row, room);
#pragma unroll
        for (int j = 0; j < 2 * MINE; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[m][j][i] = exponential(s[m][j][i] - row[i / 2].top);
                row[i / 2].sum += s[m][j][i];
            }
        join_sums(row, room);
    }
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(TILES + t + STAGES - 1);
        arrive_values(stage(TILES + t));
#pragma unroll
        for (int g = t * EACH; g < (t + 1) * EACH && g < MINE; ++g) {
            unsigned w[EACH_WARP][FRAGMENTS][4];
#pragma unroll
            for (int m = 0; m < EACH_WARP; ++m) {
                Row(&row)[2] = rows[m];
                const Beside& along = beside[m];
                weigh(w[m], s[m][2 * g], s[m][2 * g + 1], row, along, g * SPLIT * 16 + column);
            }
            multiply(sums, w, values_at + stage(TILES + t) + (g - t * EACH) * SPLIT * 16 * ROW_BYTES);
        }
    }
#else
    int tiles = (keys_of(p, first, BQ) + BK - 1) / BK;
    // First all keys, then keys and values in turn; ONCE: these alone
    int skipped = ONCE ? 0 : tiles;
    auto ask = [&](int at) {
        if (at < skipped + 2 * tiles) {
            int again = at - skipped;
            if (again >= 0 && again % 2) v_strips.template fetch<BK>(tiles_at + stage(at), again / 2 * BK);
            else k_strips.template fetch<BK>(tiles_at + stage(at), (again < 0 ? at : again / 2) * BK);
        }
        copies_commit();
    };
    auto scores = [&](float (&s)[EACH_WARP][2 * EACH][4], int at, int t) {
#pragma unroll
        for (int g = 0; g < EACH; ++g) {
            multiply(s, 2 * g, mine, keys_at + at + g * SPLIT * 16 * ROW_BYTES);
#pragma unroll
            for (int m = 0; m < EACH_WARP; ++m) {
                Row(&row)[2] = rows[m];
                const Beside& along = beside[m];
                step(s[m][2 * g], s[m][2 * g + 1], along, t * BK + g * SPLIT * 16 + column, t == tiles - 1);
            }
        }
    };
#pragma unroll
    for (int at = 0; at < STAGES - 1; ++at) ask(at);
#if !ONCE
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(t + STAGES - 1);
        arrive(stage(t), t == 0);
        float s[EACH_WARP][2 * EACH][4] = {};
        scores(s, stage(t), t);
#pragma unroll
        for (int m = 0; m < EACH_WARP; ++m) {
            Row(&both)[2] = rows[m];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Row& row = both[half];
                float higher = row.top;
#pragma unroll
                for (int j = 0; j < 2 * EACH; ++j) higher = fmaxf(higher, fmaxf(s[m][j][half * 2], s[m][j][half * 2 + 1]));
                // whenever a larger one comes, the sum so far is scaled to it; -Inf adds nothing, even to rows that have nothing else
                row.sum *= row.top == higher ? 1.f : expf(row.top - higher);
                float from = higher == LOWEST ? 0.f : higher;
#pragma unroll
                for (int j = 0; j < 2 * EACH; ++j)
                    row.sum += exponential(s[m][j][half * 2] - from) + exponential(s[m][j][half * 2 + 1] - from);
                row.top = higher;
            }
        }
    }
#pragma unroll
    for (int m = 0; m < EACH_WARP; ++m) {
        Row(&row)[2] = rows[m];
        float before[2] = {row[0].top, row[1].top};
        join_tops(row, room);
#pragma unroll
        for (int half = 0; half < 2; ++half) row[half].sum *= before[half] == row[half].top ? 1.f : expf(before[half] - row[half].top);
        join_sums(row, room);
    }
#endif
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(skipped + 2 * t + STAGES - 1);
        arrive(stage(skipped + 2 * t), ONCE && t == 0);
        float s[EACH_WARP][2 * EACH][4] = {};
        scores(s, stage(skipped + 2 * t), t);
#pragma unroll
        for (int m = 0; m < EACH_WARP; ++m) {
            Row(&row)[2] = rows[m];
#if ONCE
            scale(sums[m], s[m], row);
#else
#pragma unroll
            for (int j = 0; j < 2 * EACH; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) s[m][j][i] = exponential(s[m][j][i] - row[i / 2].top);
#endif
        }
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(skipped + 2 * t + STAGES);
        arrive_values(stage(skipped + 2 * t + 1));
#pragma unroll
        for (int g = 0; g < EACH; ++g) {
            unsigned w[EACH_WARP][FRAGMENTS][4];
#pragma unroll
            for (int m = 0; m < EACH_WARP; ++m) {
                Row(&row)[2] = rows[m];
                const Beside& along = beside[m];
                weigh(w[m], s[m][2 * g], s[m][2 * g + 1], row, along, t * BK + g * SPLIT * 16 + column);
            }
            multiply(sums, w, values_at + stage(skipped + 2 * t + 1) + g * SPLIT * 16 * ROW_BYTES);
        }
    }
#if ONCE
#pragma unroll
    for (int m = 0; m < EACH_WARP; ++m) {
        join_sums(rows[m], room);
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[m][n][i] *= rows[m][i / 2].share;
    }
#endif
#endif
    if constexpr (SPLIT > 1) finish_parts(sums[0], (float*)ring, y, first, p);
    else {
#pragma unroll
        for (int m = 0; m < EACH_WARP; ++m) finish(sums[m], own + m * 16 * PITCH, y, beside[m].rows, p);
    }
}
