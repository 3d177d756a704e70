// y = w v,  w = after(softmax(between(q k^T))) over the keys: attention, every matrix of a batch, its steps generated (attention_code.py)
//   q [queries, depth], k [keys, depth], v [keys, width], TAB (f16, bf16, or float that is multiplied as TF32), rows of contiguous elements that begin on 16 bytes; y TY
//   depth <= DEPTH, width <= WIDTH: multiples of 8; strides of the batch, and of rows, in elements (attention.cuh)
// Rounded where it is produced: each step between and after in its register, w to TAB before it multiplies v. Sums are float.
// Tactics; each is the one above plus one idea:
//   attention HELD 0   the keys are walked over twice: for the largest score and the sum of a row, then for w v   any number of keys
//   attention HELD 1   the scores of a row stay in registers                                                     keys <= KEYS
// A warp has 16 queries; SPLIT warps share them, each with every SPLIT-th 16 keys. Tiles of BK keys come by asynchronous copies, STAGES under
// way. The order of every sum is fixed.
// NVRTC defines: TAB, TY, DEPTH, WIDTH (multiples of 16), QUERY_WARPS, SPLIT, BK (divides by 16 * SPLIT), STAGES, BLOCKS (of a multiprocessor, at least), HELD, KEYS (multiple of 16; held only), PLAIN_AFTER 1 where
// nothing but a rounding lies between the softmax and its product with v, BEFORE_Q, BEFORE_K, BEFORE_V 1 where steps come before the products; WIDE 1 where nothing
// rounds w: it is multiplied as the sum of two TAB, which hold 22 (bf16: 16) of its bits.
#include "mma.cuh"

typedef TAB T;

#define THREADS (32 * QUERY_WARPS * SPLIT)
#define BQ (16 * QUERY_WARPS)
#define ACCESS (16 / (int)sizeof(T))                 // elements of 16 bytes
#define PITCH ((DEPTH > WIDTH ? DEPTH : WIDTH) + ACCESS)  // an odd number of 16 bytes: rows of a matrix lie in different banks
#define TILES ((KEYS + BK - 1) / BK)
#define EACH (BK / 16 / SPLIT)                        // of a tile: 16 keys of a warp
#define MINE ((KEYS / 16 + SPLIT - 1) / SPLIT)        // of all keys
#define SUMS_PITCH (WIDTH + 8)
#define FRAGMENTS (WIDE || TF32 ? 2 : 1)  // of w: of what is left of it, or of every other key
#define FRAGMENTS_OF(LENGTH) (LENGTH * (int)sizeof(T) / 32)  // of 32 bytes a row
#define QUERIES_HELD (DEPTH <= (TF32 ? 64 : 128))
#define LOWEST __int_as_float(0xff800000)

#define ROW_BYTES (PITCH * (int)sizeof(T))

// Rows of up to COLS elements that come to shared memory tile after tile, zeros for what is not there. Where a row's accesses divide the threads,
// a thread stays in its columns.
template <int COLS> struct Strips {
    static constexpr int CHUNKS = COLS / ACCESS, STEP = THREADS / CHUNKS;
    static constexpr bool STAYS = THREADS % CHUNKS == 0;
    const T* at;
    i64 stride;
    int rows, cols, row, place;  // of the matrix; of this thread: its first row (beyond all rows where its columns are) and place in a tile

    __device__ __forceinline__ void begin(const T* matrix, i64 between, int down, int across) {
        at = matrix;
        stride = between, rows = down, cols = across;
        if (STAYS) {
            int col = threadIdx.x % CHUNKS * ACCESS;
            row = threadIdx.x / CHUNKS;
            at += row * stride + col;
            place = row * ROW_BYTES + col * (int)sizeof(T);
            if (col >= cols) row = 1 << 30;
        }
    }
    // ROWS of them from row `first` on
    template <int ROWS> __device__ __forceinline__ void fetch(Place to, int first) const {
        const T* from = at + first * stride;
        if constexpr (STAYS) {
#pragma unroll 8
            for (int n = 0; n < (ROWS + STEP - 1) / STEP; ++n) {
                if (ROWS % STEP && place / ROW_BYTES + n * STEP >= ROWS) break;
                copy16(to + place + n * STEP * ROW_BYTES, from, row + n * STEP < rows - first);
                from += STEP * stride;
            }
        } else {
#pragma unroll 4
            for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
                int down = i / CHUNKS, col = i % CHUNKS * ACCESS;
                bool in = down < rows - first && col < cols;
                copy16(to + down * ROW_BYTES + col * (int)sizeof(T), from + down * stride + col, in);
            }
        }
    }
};

// The steps before a product, on a tile in shared memory
template <int ROWS, int COLS, class F> __device__ __forceinline__ void change(T* tile, int cols, F steps) {
#pragma unroll 2
    for (int i = threadIdx.x; i < ROWS * (COLS / ACCESS); i += THREADS) {
        int row = i / (COLS / ACCESS), col = i % (COLS / ACCESS) * ACCESS;
        if (col >= cols) continue;
        auto at = (Pack<unsigned, 4>*)(tile + row * PITCH + col);
        Pack<unsigned, 4> x = *at;
#pragma unroll
        for (int e = 0; e < 4; ++e) x.lane[e] = steps(x.lane[e]);
        *at = x;
    }
}

// 16 queries of a warp, as fragments
struct Queries {
#if QUERIES_HELD
    unsigned held[FRAGMENTS_OF(DEPTH)][4];
#endif
    Place rows;
    __device__ __forceinline__ void begin(Place own) {
        rows = own + threadIdx.x % 16 * ROW_BYTES + threadIdx.x % 32 / 16 * 16;
#if QUERIES_HELD
#pragma unroll
        for (int d = 0; d < FRAGMENTS_OF(DEPTH); ++d) load(held[d], d);
#endif
    }
    __device__ __forceinline__ void load(unsigned (&into)[4], int d) const { load_matrices(into, rows + d * 32); }
};

// s += q k^T for 16 keys; `keys`: this thread's row of them
__device__ __forceinline__ void multiply(float (&left)[4], float (&right)[4], const Queries& q, Place keys) {
#pragma unroll
    for (int d = 0; d < FRAGMENTS_OF(DEPTH); ++d) {
        unsigned k[4];
        load_matrices(k, keys + d * 32);
#if QUERIES_HELD
        mma(left, q.held[d], k[0], k[1], T());
        mma(right, q.held[d], k[2], k[3], T());
#else
        unsigned one[4];
        q.load(one, d);
        mma(left, one, k[0], k[1], T());
        mma(right, one, k[2], k[3], T());
#endif
    }
}

// y += w v for 16 keys; `values`: this thread's row of theirs
__device__ __forceinline__ void multiply(float (&y)[WIDTH / 8][4], const unsigned (&w)[FRAGMENTS][4], Place values) {
#if TF32  // sums do not ask in which order keys come: a thread has the weights of neighbours, and takes their values
#pragma unroll
    for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
        for (int f = 0; f < 2; ++f) mma(y[n], w[f], load_word(values + f * 8 * ROW_BYTES + n * 32), load_word(values + (f * 8 + 1) * ROW_BYTES + n * 32), T());
#else
#pragma unroll
    for (int n = 0; n < WIDTH / 16; ++n) {
        unsigned v[4];
        load_matrices_transposed(v, values + n * 32);
#pragma unroll
        for (int f = FRAGMENTS - 1; f >= 0; --f) {  // what is smaller first
            mma(y[2 * n], w[f], v[0], v[1], T());
            mma(y[2 * n + 1], w[f], v[2], v[3], T());
        }
    }
#endif
}

// exp(x) for x <= 0. Where weights are rounded to 16 bits: two instructions, off by 2^-24 |x| of itself, which is nowhere more than a unit in the last
// place (of float) of the row's largest. Else the function that the softmax kernel calls.
__device__ __forceinline__ float exponential(float x) { return WIDE || TF32 ? expf(x) : exp_quick(x); }

// What a thread knows of a row of scores; four threads of SPLIT warps share a row. NaN among the scores makes the sum NaN, whatever the maximum.
struct Row {
    float top = LOWEST, sum = 0.f, share;
    // part / sum: correctly rounded (the quotient by the reciprocal, and what it leaves over: Markstein 1990, theorem 8.2 of Muller et al., Handbook
    // of Floating-Point Arithmetic), or, where it is rounded to 16 bits, within two units in the last place of float
    __device__ __forceinline__ float over(float part) const {
        float near = part * share;
        return WIDE || TF32 ? fmaf(fmaf(-near, sum, part), share, near) : near;
    }
};

// Of two rows, what all who share them know together. `room`: SPLIT x BQ floats that nobody else uses.
template <class F> __device__ __forceinline__ void join(float (&of)[2], float* room, F combine) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int lane = 1; lane <= 2; lane *= 2) of[half] = combine(of[half], __shfl_xor_sync(0xffffffffu, of[half], lane));
    if constexpr (SPLIT > 1) {
        int part = threadIdx.x / 32 / QUERY_WARPS, row = threadIdx.x / 32 % QUERY_WARPS * 16 + threadIdx.x % 32 / 4;
#pragma unroll
        for (int half = 0; half < 2; ++half)
            if (threadIdx.x % 4 == 0) room[part * BQ + row + half * 8] = of[half];
        __syncthreads();
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            of[half] = room[row + half * 8];
#pragma unroll
            for (int other = 1; other < SPLIT; ++other) of[half] = combine(of[half], room[other * BQ + row + half * 8]);
        }
    }
}
struct Larger { __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); } };
__device__ __forceinline__ void join_tops(Row (&rows)[2], float* room) {
    float tops[2] = {rows[0].top, rows[1].top};
    join(tops, room, Larger());
    rows[0].top = tops[0], rows[1].top = tops[1];
}
__device__ __forceinline__ void join_sums(Row (&rows)[2], float* room) {
    float sums[2] = {rows[0].sum, rows[1].sum};
    join(sums, room + SPLIT * BQ, Sum());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        rows[half].sum = sums[half];
        rows[half].share = 1.f / sums[half];
    }
}

// w of 16 keys from the exponentials of their scores: as fragments
__device__ __forceinline__ void weigh(
    unsigned (&w)[FRAGMENTS][4], float (&left)[4], float (&right)[4], const Row (&rows)[2], const Beside& beside, int col) {
#pragma unroll
    for (int side = 0; side < 2; ++side) {
        float(&part)[4] = side ? right : left;
#pragma unroll
        for (int i = 0; i < 4; ++i) part[i] = rows[i / 2].over(part[i]);
#if !PLAIN_AFTER
        beside.after(part, col + side * 8);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (col + side * 8 + i % 2 >= beside.rows.keys) part[i] = 0.f;  // a row of NaN has no others
#endif
#if TF32
#pragma unroll
        for (int i = 0; i < 4; ++i) w[side][i % 2 * 2 + i / 2] = __float_as_uint(round_tf32(part[i]));  // row, row + 8; the next key of both
#else
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            unsigned both = side_by_side(part[half * 2], part[half * 2 + 1], T());
            w[0][side * 2 + half] = both;
            if (WIDE) w[FRAGMENTS - 1][side * 2 + half] = side_by_side(part[half * 2] - lower(both, T()), part[half * 2 + 1] - higher(both, T()), T());
        }
#endif
    }
}

// steps between, on 16 keys from column col on; those behind the last are no keys
__device__ __forceinline__ void step(float (&left)[4], float (&right)[4], const Beside& beside, int col, bool last) {
    beside.between(left, col);
    beside.between(right, col + 8);
    if (!last) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (col + i % 2 >= beside.rows.keys) left[i] = LOWEST;
        if (col + 8 + i % 2 >= beside.rows.keys) right[i] = LOWEST;
    }
}

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
    int down = (p.queries + BQ - 1) / BQ, first = (int)(blockIdx.x % down) * BQ;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    Strips<DEPTH> q_strips, k_strips;
    Strips<WIDTH> v_strips;
    q_strips.begin(q + b0 * p.q.b0 + b1 * p.q.b1, p.q.row, p.queries, p.depth);
    k_strips.begin(k + b0 * p.k.b0 + b1 * p.k.b1, p.k.row, p.keys, p.depth);
    v_strips.begin(v + b0 * p.v.b0 + b1 * p.v.b1, p.v.row, p.keys, p.width);
    y += b0 * p.y.b0 + b1 * p.y.b1;
    int warp = threadIdx.x / 32 % QUERY_WARPS, part = threadIdx.x / 32 / QUERY_WARPS, lane = threadIdx.x % 32;
    int column = part * 16 + lane % 4 * 2;  // of its first 16 keys
    Beside beside = {BESIDE_ARGUMENTS};
    beside.begin(b0, b1, batch * p.queries * p.keys, {first + warp * 16 + lane / 4, p.queries, p.keys});
    T* own = queries + warp * 16 * PITCH;
    Queries mine;
    Row rows[2];
    float sums[WIDTH / 8][4] = {};

    constexpr int TILE = BK * ROW_BYTES;
    Place tiles_at = place_of(ring);
    auto stage = [&](int at) { return at % STAGES * TILE; };
    Place keys_at = tiles_at + (part * 16 + lane / 16 * 8 + lane % 8) * ROW_BYTES + lane / 8 % 2 * 16;  // this thread's row of a tile
    Place values_at = tiles_at + (TF32 ? (part * 16 + lane % 4 * 2) * ROW_BYTES + lane / 4 * 4 : (part * 16 + lane % 16) * ROW_BYTES + lane / 16 * 16);
    auto arrive = [&](int at, bool begins) {  // a tile of keys that was waited for
        if (BEFORE_Q && begins) change<BQ, DEPTH>(queries, p.depth, [&](unsigned x) { return beside.before_q(x); });
        if (BEFORE_K) change<BK, DEPTH>(ring + at / (int)sizeof(T), p.depth, [&](unsigned x) { return beside.before_k(x); });
        if ((BEFORE_Q && begins) || BEFORE_K) __syncthreads();
        if (begins) mine.begin(place_of(own));
    };
    auto arrive_values = [&](int at) {
        if (!BEFORE_V) return;
        change<BK, WIDTH>(ring + at / (int)sizeof(T), p.width, [&](unsigned x) { return beside.before_v(x); });
        __syncthreads();
    };
    q_strips.template fetch<BQ>(place_of(queries), first);

#if HELD
    float s[2 * MINE][4] = {};
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
            multiply(s[2 * g], s[2 * g + 1], mine, keys_at + stage(t) + (g - t * EACH) * SPLIT * 16 * ROW_BYTES);
            step(s[2 * g], s[2 * g + 1], beside, g * SPLIT * 16 + column, (g + 1) * SPLIT >= KEYS / 16);
#pragma unroll
            for (int i = 0; i < 4; ++i) rows[i / 2].top = fmaxf(rows[i / 2].top, fmaxf(s[2 * g][i], s[2 * g + 1][i]));
        }
    }
    join_tops(rows, room);
#pragma unroll
    for (int j = 0; j < 2 * MINE; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            s[j][i] = exponential(s[j][i] - rows[i / 2].top);
            rows[i / 2].sum += s[j][i];
        }
    join_sums(rows, room);
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(TILES + t + STAGES - 1);
        arrive_values(stage(TILES + t));
#pragma unroll
        for (int g = t * EACH; g < (t + 1) * EACH && g < MINE; ++g) {
            unsigned w[FRAGMENTS][4];
            weigh(w, s[2 * g], s[2 * g + 1], rows, beside, g * SPLIT * 16 + column);
            multiply(sums, w, values_at + stage(TILES + t) + (g - t * EACH) * SPLIT * 16 * ROW_BYTES);
        }
    }
#else
    int tiles = (p.keys + BK - 1) / BK;
    // First all keys, then keys and values in turn
    auto ask = [&](int at) {
        if (at < 3 * tiles) {
            int again = at - tiles;
            if (again >= 0 && again % 2) v_strips.template fetch<BK>(tiles_at + stage(at), again / 2 * BK);
            else k_strips.template fetch<BK>(tiles_at + stage(at), (again < 0 ? at : again / 2) * BK);
        }
        copies_commit();
    };
    auto scores = [&](float (&s)[2 * EACH][4], int at, int t) {
#pragma unroll
        for (int g = 0; g < EACH; ++g) {
            multiply(s[2 * g], s[2 * g + 1], mine, keys_at + at + g * SPLIT * 16 * ROW_BYTES);
            step(s[2 * g], s[2 * g + 1], beside, t * BK + g * SPLIT * 16 + column, t == tiles - 1);
        }
    };
#pragma unroll
    for (int at = 0; at < STAGES - 1; ++at) ask(at);
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(t + STAGES - 1);
        arrive(stage(t), t == 0);
        float s[2 * EACH][4] = {};
        scores(s, stage(t), t);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Row& row = rows[half];
            float higher = row.top;
#pragma unroll
            for (int j = 0; j < 2 * EACH; ++j) higher = fmaxf(higher, fmaxf(s[j][half * 2], s[j][half * 2 + 1]));
            // whenever a larger one comes, the sum so far is scaled to it; -Inf adds nothing, even to rows that have nothing else
            row.sum *= row.top == higher ? 1.f : expf(row.top - higher);
            float from = higher == LOWEST ? 0.f : higher;
#pragma unroll
            for (int j = 0; j < 2 * EACH; ++j) row.sum += exponential(s[j][half * 2] - from) + exponential(s[j][half * 2 + 1] - from);
            row.top = higher;
        }
    }
    float before[2] = {rows[0].top, rows[1].top};
    join_tops(rows, room);
#pragma unroll
    for (int half = 0; half < 2; ++half) rows[half].sum *= before[half] == rows[half].top ? 1.f : expf(before[half] - rows[half].top);
    join_sums(rows, room);
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(tiles + 2 * t + STAGES - 1);
        arrive(stage(tiles + 2 * t), false);
        float s[2 * EACH][4] = {};
        scores(s, stage(tiles + 2 * t), t);
#pragma unroll
        for (int j = 0; j < 2 * EACH; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) s[j][i] = exponential(s[j][i] - rows[i / 2].top);
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(tiles + 2 * t + STAGES);
        arrive_values(stage(tiles + 2 * t + 1));
#pragma unroll
        for (int g = 0; g < EACH; ++g) {
            unsigned w[FRAGMENTS][4];
            weigh(w, s[2 * g], s[2 * g + 1], rows, beside, t * BK + g * SPLIT * 16 + column);
            multiply(sums, w, values_at + stage(tiles + 2 * t + 1) + g * SPLIT * 16 * ROW_BYTES);
        }
    }
#endif
    if constexpr (SPLIT > 1) finish_parts(sums, (float*)ring, y, first, p);
    else finish(sums, own, y, beside.rows, p);
}
