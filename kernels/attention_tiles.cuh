// Attention's tiles of queries, keys and values: how they come to shared memory, and the products of 16 rows with them. Macros: attention.cu.
#pragma once
#include "attention.cuh"
#include "mma.cuh"

typedef TAB T;

#define THREADS (32 * QUERY_WARPS * SPLIT)
#define BQ (16 * EACH_WARP * QUERY_WARPS)
#define ACCESS (16 / (int)sizeof(T))                 // elements of 16 bytes
#define PITCH ((DEPTH > WIDTH ? DEPTH : WIDTH) + ACCESS)  // an odd number of 16 bytes: rows of a matrix lie in different banks
#define TILES ((KEYS + BK - 1) / BK)
#define EACH (BK / 16 / SPLIT)                        // of a tile: 16 keys of a warp
#define MINE ((KEYS / 16 + SPLIT - 1) / SPLIT)        // of all keys
#define SUMS_PITCH (WIDTH + 8)
#define FRAGMENTS (WIDE || TF32 ? 2 : 1)  // of w: of what is left of it, or of every other key
#define FRAGMENTS_OF(LENGTH) (LENGTH * (int)sizeof(T) / 32)  // of 32 bytes a row
#define QUERIES_HELD (DEPTH * EACH_WARP <= (TF32 ? 64 : 128))
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
template <int COUNT> __device__ __forceinline__ void multiply(float (&s)[EACH_WARP][COUNT][4], int at, const Queries (&q)[EACH_WARP], Place keys) {
#pragma unroll
    for (int d = 0; d < FRAGMENTS_OF(DEPTH); ++d) {
        unsigned k[4];
        load_matrices(k, keys + d * 32);
#pragma unroll
        for (int m = 0; m < EACH_WARP; ++m) {
#if QUERIES_HELD
            const unsigned(&one)[4] = q[m].held[d];
#else
            unsigned one[4];
            q[m].load(one, d);
#endif
            mma(s[m][at], one, k[0], k[1], T());
            mma(s[m][at + 1], one, k[2], k[3], T());
        }
    }
}

// y += w v for 16 keys; `values`: this thread's row of theirs
__device__ __forceinline__ void multiply(
    float (&y)[EACH_WARP][WIDTH / 8][4], const unsigned (&w)[EACH_WARP][FRAGMENTS][4], Place values) {
#if TF32  // sums do not ask in which order keys come: a thread has the weights of neighbours, and takes their values
#pragma unroll
    for (int n = 0; n < WIDTH / 8; ++n)
#pragma unroll
        for (int f = 0; f < 2; ++f) {
            unsigned v[2] = {load_word(values + f * 8 * ROW_BYTES + n * 32), load_word(values + (f * 8 + 1) * ROW_BYTES + n * 32)};
#pragma unroll
            for (int m = 0; m < EACH_WARP; ++m) mma(y[m][n], w[m][f], v[0], v[1], T());
        }
#else
#pragma unroll
    for (int n = 0; n < WIDTH / 16; ++n) {
        unsigned v[4];
        load_matrices_transposed(v, values + n * 32);
#pragma unroll
        for (int f = FRAGMENTS - 1; f >= 0; --f)  // what is smaller first
#pragma unroll
            for (int m = 0; m < EACH_WARP; ++m) {
                mma(y[m][2 * n], w[m][f], v[0], v[1], T());
                mma(y[m][2 * n + 1], w[m][f], v[2], v[3], T());
            }
    }
#endif
}
