// y = w v,  w = after(softmax(between(q k^T))) over the keys: attention, every matrix of a batch, its steps generated (attention_code.py)
//   q [queries, depth], k [keys, depth], v [keys, width], TAB (f16 or bf16), rows of contiguous elements that begin on 16 bytes; y TY
//   depth <= DEPTH, width <= WIDTH: multiples of 8; strides of the batch, and of rows, in elements (attention.cuh)
// Rounded where it is produced: each step between and after in its register, w to TAB before it multiplies v. Sums are float.
// Tactics; each is the one above plus one idea:
//   attention HELD 0   the keys are walked over twice: for the largest score and the sum of a row, then for w v   any number of keys
//   attention HELD 1   the scores of a row stay in registers                                                     keys <= KEYS
// A warp has 16 queries; SPLIT warps share them, each with every SPLIT-th 16 keys. Tiles of BK keys come by asynchronous copies, STAGES under
// way. The order of every sum is fixed.
// NVRTC defines: TAB, TY, DEPTH, WIDTH (multiples of 16), QUERY_WARPS, SPLIT, BK (divides by 16 * SPLIT), STAGES, HELD, KEYS (multiple of 16; held only), PLAIN_AFTER 1 where
// nothing but a rounding lies between the softmax and its product with v, BEFORE_Q, BEFORE_K 1 where steps come before the product; WIDE 1 where nothing
// rounds w: it is multiplied as the sum of two TAB, which hold 22 (bf16: 16) of its bits.
#include "mma.cuh"

typedef TAB T;

#define THREADS (32 * QUERY_WARPS * SPLIT)
#define BQ (16 * QUERY_WARPS)
#define PITCH ((DEPTH > WIDTH ? DEPTH : WIDTH) + 8)  // an odd number of 16 bytes: rows of a matrix lie in different banks
#define TILES ((KEYS + BK - 1) / BK)
#define EACH (BK / 16 / SPLIT)                        // of a tile: 16 keys of a warp
#define MINE ((KEYS / 16 + SPLIT - 1) / SPLIT)        // of all keys
#define SUMS_PITCH (WIDTH + 8)
#define FRAGMENTS (WIDE ? 2 : 1)  // of w
#define LOWEST __int_as_float(0xff800000)

// ROWS x COLS elements to shared memory, zeros outside rows x cols
template <int ROWS, int COLS> __device__ __forceinline__ void fetch(T* to, const T* from, i64 stride, int rows, int cols) {
    constexpr int CHUNKS = COLS / 8;
    if constexpr (THREADS % CHUNKS == 0) {  // a thread stays in its columns
        constexpr int STEP = THREADS / CHUNKS, COUNT = (ROWS + STEP - 1) / STEP;
        int row = threadIdx.x / CHUNKS, col = threadIdx.x % CHUNKS * 8;
        const T* at = from + row * stride + col;
        to += row * PITCH + col;
        rows = col < cols ? rows - row : 0;
#pragma unroll 8
        for (int n = 0; n < COUNT; ++n) {
            bool in = n * STEP < rows;
            if (ROWS % STEP == 0 || row + n * STEP < ROWS) copy16(to + n * STEP * PITCH, in ? at : from, in);
            at += STEP * stride;
        }
    } else {
#pragma unroll 4
        for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            int row = i / CHUNKS, col = i % CHUNKS * 8;
            bool in = row < rows && col < cols;
            copy16(to + row * PITCH + col, in ? from + row * stride + col : from, in);
        }
    }
}

// The steps before the product, on a tile in shared memory
template <int ROWS, class F> __device__ __forceinline__ void change(T* tile, int cols, F steps) {
#pragma unroll 2
    for (int i = threadIdx.x; i < ROWS * (DEPTH / 8); i += THREADS) {
        int row = i / (DEPTH / 8), col = i % (DEPTH / 8) * 8;
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
#if DEPTH <= 128
    unsigned held[DEPTH / 16][4];
#endif
    const T* rows;
    __device__ __forceinline__ void begin(const T* from) {
        rows = from;
#if DEPTH <= 128
#pragma unroll
        for (int d = 0; d < DEPTH / 16; ++d) load(held[d], d);
#endif
    }
    __device__ __forceinline__ void load(unsigned (&into)[4], int d) const {
        load_matrices(into, rows + threadIdx.x % 16 * PITCH + d * 16 + threadIdx.x % 32 / 16 * 8);
    }
};

// s += q k^T for 16 keys
__device__ __forceinline__ void multiply(float (&left)[4], float (&right)[4], const Queries& q, const T* keys) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int d = 0; d < DEPTH / 16; ++d) {
        unsigned k[4];
        load_matrices(k, keys + (lane / 16 * 8 + lane % 8) * PITCH + d * 16 + lane / 8 % 2 * 8);
#if DEPTH <= 128
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

// y += w v for 16 keys
__device__ __forceinline__ void multiply(float (&y)[WIDTH / 8][4], const unsigned (&w)[FRAGMENTS][4], const T* values) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < WIDTH / 16; ++n) {
        unsigned v[4];
        load_matrices_transposed(v, values + lane % 16 * PITCH + n * 16 + lane / 16 * 8);
#pragma unroll
        for (int f = FRAGMENTS - 1; f >= 0; --f) {  // what is smaller first
            mma(y[2 * n], w[f], v[0], v[1], T());
            mma(y[2 * n + 1], w[f], v[2], v[3], T());
        }
    }
}

// What a thread knows of a row of scores; four threads of SPLIT warps share a row. NaN among the scores makes the sum NaN, whatever the maximum.
struct Row {
    float top = LOWEST, sum = 0.f, share;
    // part / sum, correctly rounded: the quotient by the reciprocal, and what it leaves over (Markstein 1990, theorem 8.2 of Muller et al.,
    // Handbook of Floating-Point Arithmetic)
    __device__ __forceinline__ float over(float part) const {
        float near = part * share;
        return fmaf(fmaf(-near, sum, part), share, near);
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
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            unsigned both = side_by_side(part[half * 2], part[half * 2 + 1], T());
            w[0][side * 2 + half] = both;
            if (WIDE) w[FRAGMENTS - 1][side * 2 + half] = side_by_side(part[half * 2] - lower(both, T()), part[half * 2 + 1] - higher(both, T()), T());
        }
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

__device__ __forceinline__ void finish(const float (&sums)[WIDTH / 8][4], T* own, TY* y, const Rows& rows, const Attention& p) {
    int lane = threadIdx.x % 32;
    if constexpr (sizeof(TY) == 2) {  // through shared memory, so that 16 bytes are stored at once
        __syncwarp();
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *(unsigned*)(own + (lane / 4 + half * 8) * PITCH + n * 8 + lane % 4 * 2) = side_by_side(sums[n][half * 2], sums[n][half * 2 + 1], TY());
        __syncwarp();
        int first = rows.row - lane / 4;
#pragma unroll
        for (int i = lane; i < 16 * (WIDTH / 8); i += 32) {
            int row = i / (WIDTH / 8), col = i % (WIDTH / 8) * 8;
            if (first + row < p.queries && col < p.width)
                *(Pack<TY, 8>*)(y + (first + row) * p.y.row + col) = *(const Pack<TY, 8>*)(own + row * PITCH + col);
        }
    } else {
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Pack<TY, 2> two;
                write(two.lane[0], sums[n][half * 2]);
                write(two.lane[1], sums[n][half * 2 + 1]);
                if (rows.has(half) && n * 8 < p.width) *(Pack<TY, 2>*)(y + (rows.row + half * 8) * p.y.row + n * 8 + lane % 4 * 2) = two;
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

extern "C" __global__ void __launch_bounds__(THREADS) attention(
    const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, TY* __restrict__ y, BESIDE_PARAMETERS Attention p) {
    take_turn();
    DYNAMIC_SHARED(shared);
    float* room = (float*)shared;
    T* queries = (T*)(room + (SPLIT > 1 ? 2 * SPLIT * BQ : 0));
    T* ring = queries + BQ * PITCH;
    int down = (p.queries + BQ - 1) / BQ, first = (int)(blockIdx.x % down) * BQ;
    i64 batch = blockIdx.x / down, b0 = batch / p.batch1, b1 = batch % p.batch1;
    q += b0 * p.q.b0 + b1 * p.q.b1 + first * p.q.row;
    k += b0 * p.k.b0 + b1 * p.k.b1;
    v += b0 * p.v.b0 + b1 * p.v.b1;
    y += b0 * p.y.b0 + b1 * p.y.b1;
    int warp = threadIdx.x / 32 % QUERY_WARPS, part = threadIdx.x / 32 / QUERY_WARPS, lane = threadIdx.x % 32;
    int column = part * 16 + lane % 4 * 2;  // of its first 16 keys
    Beside beside = {BESIDE_ARGUMENTS};
    beside.begin(b0, b1, batch * p.queries * p.keys, {first + warp * 16 + lane / 4, p.queries, p.keys});
    T* own = queries + warp * 16 * PITCH;
    Queries mine;
    Row rows[2];
    float sums[WIDTH / 8][4] = {};

    auto fetch_keys = [&](T* to, int tile) { fetch<BK, DEPTH>(to, k + tile * BK * p.k.row, p.k.row, p.keys - tile * BK, p.depth); };
    auto fetch_values = [&](T* to, int tile) { fetch<BK, WIDTH>(to, v + tile * BK * p.v.row, p.v.row, p.keys - tile * BK, p.width); };
    auto stage = [&](int at) { return ring + at % STAGES * BK * PITCH; };
    auto arrive = [&](T* tile, bool keys, bool begins) {  // a tile that was waited for
        if (BEFORE_Q && begins) change<BQ>(queries, p.depth, [&](unsigned x) { return beside.before_q(x); });
        if (BEFORE_K && keys) change<BK>(tile, p.depth, [&](unsigned x) { return beside.before_k(x); });
        if ((BEFORE_Q && begins) || (BEFORE_K && keys)) __syncthreads();
        if (begins) mine.begin(own);
    };
    fetch<BQ, DEPTH>(queries, q, p.q.row, p.queries - first, p.depth);

#if HELD
    float s[2 * MINE][4] = {};
    auto ask = [&](int at) {
        if (at < TILES) fetch_keys(stage(at), at);
        else if (at < 2 * TILES) fetch_values(stage(at), at - TILES);
        copies_commit();
    };
#pragma unroll
    for (int at = 0; at < STAGES - 1; ++at) ask(at);
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(t + STAGES - 1);
        arrive(stage(t), true, t == 0);
#pragma unroll
        for (int g = t * EACH; g < (t + 1) * EACH && g < MINE; ++g) {
            multiply(s[2 * g], s[2 * g + 1], mine, stage(t) + ((g - t * EACH) * SPLIT + part) * 16 * PITCH);
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
            s[j][i] = expf(s[j][i] - rows[i / 2].top);
            rows[i / 2].sum += s[j][i];
        }
    join_sums(rows, room);
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(TILES + t + STAGES - 1);
#pragma unroll
        for (int g = t * EACH; g < (t + 1) * EACH && g < MINE; ++g) {
            unsigned w[FRAGMENTS][4];
            weigh(w, s[2 * g], s[2 * g + 1], rows, beside, g * SPLIT * 16 + column);
            multiply(sums, w, stage(TILES + t) + ((g - t * EACH) * SPLIT + part) * 16 * PITCH);
        }
    }
#else
    int tiles = (p.keys + BK - 1) / BK;
    // First all keys, then keys and values in turn
    auto ask = [&](int at) {
        if (at < 3 * tiles) {
            int again = at - tiles;
            if (again >= 0 && again % 2) fetch_values(stage(at), again / 2);
            else fetch_keys(stage(at), again < 0 ? at : again / 2);
        }
        copies_commit();
    };
    auto scores = [&](float (&s)[2 * EACH][4], const T* tile, int t) {
#pragma unroll
        for (int g = 0; g < EACH; ++g) {
            multiply(s[2 * g], s[2 * g + 1], mine, tile + (g * SPLIT + part) * 16 * PITCH);
            step(s[2 * g], s[2 * g + 1], beside, t * BK + g * SPLIT * 16 + column, t == tiles - 1);
        }
    };
#pragma unroll
    for (int at = 0; at < STAGES - 1; ++at) ask(at);
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(t + STAGES - 1);
        arrive(stage(t), true, t == 0);
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
            for (int j = 0; j < 2 * EACH; ++j) row.sum += expf(s[j][half * 2] - from) + expf(s[j][half * 2 + 1] - from);
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
        arrive(stage(tiles + 2 * t), true, false);
        float s[2 * EACH][4] = {};
        scores(s, stage(tiles + 2 * t), t);
#pragma unroll
        for (int j = 0; j < 2 * EACH; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) s[j][i] = expf(s[j][i] - rows[i / 2].top);
        copies_wait<STAGES - 2>();
        __syncthreads();
        ask(tiles + 2 * t + STAGES);
#pragma unroll
        for (int g = 0; g < EACH; ++g) {
            unsigned w[FRAGMENTS][4];
            weigh(w, s[2 * g], s[2 * g + 1], rows, beside, t * BK + g * SPLIT * 16 + column);
            multiply(sums, w, stage(tiles + 2 * t + 1) + (g * SPLIT + part) * 16 * PITCH);
        }
    }
#endif
    if constexpr (SPLIT > 1) finish_parts(sums, (float*)ring, y, first, p);
    else finish(sums, own, y, beside.rows, p);
}
