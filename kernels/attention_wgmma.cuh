// What attention on sm_90a's tensor cores is made of: a warpgroup has 64 queries and a tile of BK keys. Macros: attention_wgmma.cu, attention_held.cu.
#pragma once
#include "tma.cuh"
#include "wgmma_rows.cuh"
#include "attention.cuh"

typedef TAB T;

#define QUERY_BYTES (64 * (int)sizeof(T) * DEPTH)  // of a group
#define LINE (128 / (int)sizeof(T))                // elements in a row of a tile
#define STEPS_OF(LENGTH) ((LENGTH) * (int)sizeof(T) / 32)  // products along so many elements
#define FRAGMENTS (WIDE ? 2 : 1)      // of w
#define LOWEST __int_as_float(0xff800000)
#define LOG2_E 1.4426950408889634f
#define FAR (ONLINE ? 0x1p12f : 0x1p60f)  // sums of parts below are no Inf, nor are such parts in TAB

typedef float Scores[BK / 8][4];

template <int N> __device__ __forceinline__ void pin(float (&x)[N][4]) {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) wgmma_pin(x[j][i]);
}

// What a thread knows of a row of scores; four threads share a row. NaN among the scores makes the sum NaN, whatever the largest.
struct Row {
    // Weights are 2 to the power of score * by - shift: off by 2^-24 |score - top| of themselves. What the shift was rounded by, at most 8, scales all of
    // a row alike, and their sum. Beyond, scores are 16 apart or more, and powers of two, which round no shift, tell them apart as well.
    // `top` is a score of the row, or was the largest when it was chosen. It stays while parts, powers of two of what scores lie above it, are small.
    float top = LOWEST, sum = 0.f, share, shift = 0.f, by = LOG2_E;
    __device__ __forceinline__ void from(float score) {
        by = fabsf(score) > 1e38f ? 1.f : fabsf(score) > 0x1p27f ? 2.f : LOG2_E;
        shift = score * by;
    }
    __device__ __forceinline__ float exponent(float score) const { return fmaf(score, by, -shift); }
    // Whether some of these parts are too large by their sum, or may all be too small, where there was nothing but -Inf
    __device__ __forceinline__ bool is_far(float parts) const { return parts > FAR || top == LOWEST; }
    // From another score on: what the parts before are multiplied by. -Inf adds nothing, even to rows that have nothing else.
    __device__ __forceinline__ float raise(float higher) {
        float before = top, was = shift, by_then = by;
        top = higher;
        from(higher == LOWEST ? 0.f : higher);
        return before == higher ? 1.f : before == LOWEST ? 0.f : two_to(by == by_then ? was - shift : fmaf(before, by, -shift));
    }
    __device__ __forceinline__ void divide() { share = 1.f / sum; }
    // correctly rounded, or where it is rounded to 16 bits or to TF32 within two units in the last place of float (attention_rows.cuh)
    __device__ __forceinline__ float over(float part) const {
        float near = part * share;
        return WIDE ? fmaf(fmaf(-near, sum, part), share, near) : near;
    }
};

// of the four threads of a row
template <class F> __device__ __forceinline__ float of_row(float x, F combine) {
    x = combine(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return combine(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
struct Larger { __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); } };
struct Added { __device__ __forceinline__ float operator()(float x, float y) const { return x + y; } };

// steps between, on a tile of scores; those behind the last are no keys. `column`: the thread's first
// FROM: columns of the tile before it are those of keys, whatever the tile
template <int FROM = 0> __device__ __forceinline__ void step(Scores& s, const Beside& beside, int column, bool last) {
#pragma unroll
    for (int j = 0; j < BK / 8; ++j) beside.between(s[j], column + j * 8);
    if (!last) return;
#pragma unroll
    for (int j = FROM / 8; j < BK / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (column + j * 8 + i % 2 >= beside.rows.keys) s[j][i] = LOWEST;
}

__device__ __forceinline__ float highest_of(const Scores& s, int half, float top) {
    float other = LOWEST;  // two chains
#pragma unroll
    for (int j = 0; j < BK / 8; ++j) top = fmaxf(top, s[j][half * 2]), other = fmaxf(other, s[j][half * 2 + 1]);
    return fmaxf(top, other);
}

// w as fragments of 32 bytes of keys each: what is rounded, then what that leaves over
__device__ __forceinline__ void pack(unsigned (&w)[STEPS_OF(BK)][FRAGMENTS][4], const Scores& s) {
#if TF32
#pragma unroll
    for (int j = 0; j < BK / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i)  // row, row + 8; the next key of both
            w[j][0][i % 2 * 2 + i / 2] = PLAIN_AFTER ? near_tf32(s[j][i]) : __float_as_uint(round_tf32(s[j][i]));
#else
#pragma unroll
    for (int g = 0; g < BK / 16; ++g)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float* two = &s[2 * g + i / 2][i % 2 * 2];
            unsigned both = side_by_side(two[0], two[1], T());
            w[g][0][i] = both;
            if (WIDE) w[g][FRAGMENTS - 1][i] = side_by_side(two[0] - lower(both, T()), two[1] - higher(both, T()), T());
        }
#endif
}

#if TF32
#define PART_BYTES (128 * WIDTH)  // values of 32 keys
// A tile of 32 (key, element) becomes one of (element, key): of 64 threads each takes 4 x 4 numbers, every other key, as products of weights do that
// are sums of scores (attention_tiles.cuh); places are such that neither reads nor writes meet in a bank.
struct Square {
    int from, to;  // 4 elements, 4 keys
    Pack<unsigned, 4> x[4];
    __device__ __forceinline__ Square(int thread) : from(thread % 8), to((from >> 1 & 1 | from >> 2 << 1) ^ thread / 8 % 8) {}
    __device__ __forceinline__ void take(Shared tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int row = to % 2 + 2 * i;
            x[i] = load_shared_16(tile + (to / 2 * 8 + row) * 128 + (from ^ row) * 16);
        }
    }
    // when all have taken theirs
    __device__ __forceinline__ void put(Shared tile) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int row = from * 4 + i;
            store_shared_16(tile + row * 128 + (to ^ row % 8) * 16, {x[0].lane[i], x[1].lane[i], x[2].lane[i], x[3].lane[i]});
        }
    }
};
#endif

// So many bytes of shared memory taken through steps by `threads` threads
template <class F> __device__ __forceinline__ void change(Shared at, int bytes, int thread, int threads, F steps) {
#pragma unroll 4
    for (int i = thread * 16; i < bytes; i += threads * 16) {
        Pack<unsigned, 4> x = load_shared_16(at + i);
#pragma unroll
        for (int e = 0; e < 4; ++e) x.lane[e] = steps(x.lane[e]);
        store_shared_16(at + i, x);
    }
    show_products();
}

// Results of a warp's 16 queries from row `top` on. `own`: the group's queries in shared memory, which are read no more when its threads have met.
template <class Y>
__device__ __forceinline__ void finish(const float (&sums)[WIDTH / 8][4], Shared own, Y* y, int top, int barrier, const Attention& p) {
    int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, column = lane % 4 * 2;
    if constexpr (sizeof(Y) == 2) {  // through shared memory, so that 16 bytes are stored at once; 16-byte chunks swizzled
        static_assert(WIDTH <= DEPTH, "results lie where queries were");
        meet(barrier, 128);  // queries are read no more
        Shared mine = own + warp * 16 * WIDTH * 2;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                store_word(mine + (lane / 4 + half * 8) * WIDTH * 2 + (n ^ lane / 4) * 16 + column * 2,
                           side_by_side(sums[n][half * 2], sums[n][half * 2 + 1], Y()));
        __syncwarp();
#pragma unroll
        for (int i = lane; i < 16 * (WIDTH / 8); i += 32) {
            int row = i / (WIDTH / 8), n = i % (WIDTH / 8);
            Pack<unsigned, 4> x = load_shared_16(mine + row * WIDTH * 2 + (n ^ row % 8) * 16);
            if (top + row < p.queries && n * 8 < p.width) store_16(y + (top + row) * p.y.row + n * 8, x.lane);
        }
    } else {
#pragma unroll
        for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Pack<Y, 2> two;
                write(two.lane[0], sums[n][half * 2]);
                write(two.lane[1], sums[n][half * 2 + 1]);
                if (top + lane / 4 + half * 8 < p.queries && n * 8 < p.width) *(Pack<Y, 2>*)(y + (top + lane / 4 + half * 8) * p.y.row + n * 8 + column) = two;
            }
    }
}
