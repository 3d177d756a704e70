// Attention's tiles of queries, keys and values in FP32: how they come to shared memory, and the products of a warp's queries with them.
//   Macros: attention_simt.cu; THREADS: of a block.
#pragma once
#include "mma.cuh"
#include "attention.cuh"

#define DOWN (32 / ACROSS)   // threads of a warp one above the other
#define EACH (8 * DOWN)      // queries of a warp
#define BK 64
#define PITCH ((DEPTH > WIDTH ? DEPTH : WIDTH) + 4)  // floats: eight rows lie in different banks
#define WEIGHTS_PITCH (BK + 4)
#define PAIRS (BK / 2 / ACROSS)     // of keys, of a thread
#define COLUMNS (WIDTH / 4 / ACROSS) // fours of a result, of a thread
#define LOWEST __int_as_float(0xff800000)

typedef Pack<float, 4> Four;
typedef float Scores[4][PAIRS][4];  // rows i = m and m + 4, keys 2 * (j * ACROSS + x) and the next

// The i-th of eight rows of a thread, from its first on: i and i + 4 are 8 apart, as generated steps take them
__device__ __forceinline__ constexpr int row_at(int i) { return i % 4 / (8 / DOWN) * 16 + i % 4 % (8 / DOWN) * DOWN + i / 4 * 8; }

// ROWS of a matrix from row `first` on, zeros for what is not there. MIXED: even rows before odd ones, so that neighbours are read from different banks.
template <int ROWS, int COLS, bool MIXED> __device__ __forceinline__ void fetch(float* to, const float* matrix, i64 stride, int first, int rows, int cols) {
#pragma unroll 4
    for (int i = threadIdx.x; i < ROWS * (COLS / 4); i += THREADS) {
        int row = i / (COLS / 4), col = i % (COLS / 4) * 4;
        bool in = first + row < rows && col < cols;
        copy16(to + (MIXED ? row % 2 * (ROWS / 2) + row / 2 : row) * PITCH + col, in ? matrix + (first + row) * stride + col : matrix, in);
    }
}

// of the threads of a row
template <class F> __device__ __forceinline__ float of_row(float x, F combine) {
#pragma unroll
    for (int lane = 1; lane < ACROSS; lane *= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}
struct Larger { __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); } };

// s = q k^T for HALVES times 32 keys; `q`, `k`: the thread's first row
template <int HALVES> __device__ __forceinline__ void multiply(Scores& s, const float* q, const float* k) {
#pragma unroll(ACROSS / 8)
    for (int d = 0; d < DEPTH; d += 4) {
        constexpr int COUNT = PAIRS / 2 * HALVES;
        Four keys[COUNT][2];
#pragma unroll
        for (int j = 0; j < COUNT; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) keys[j][e] = *(const Four*)(k + (e * 32 + j * ACROSS) * PITCH + d);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            Four one = *(const Four*)(q + row_at(i) * PITCH + d);
#pragma unroll
            for (int j = 0; j < COUNT; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& sum = s[i % 4][j][i / 4 * 2 + e];
#pragma unroll
                    for (int c = 0; c < 4; ++c) sum = fmaf(one.lane[c], keys[j][e].lane[c], sum);
                }
        }
    }
}

// y += w v for `keys` keys (up to three more, whose weights are 0)
__device__ __forceinline__ void weigh(float (&y)[8][COLUMNS][4], const float* w, const float* v, int keys) {
#pragma unroll 1
    for (int k = 0; k < keys; k += 4) {
        Four values[4][COLUMNS];
#pragma unroll
        for (int u = 0; u < 4; ++u)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) values[u][c] = *(const Four*)(v + (k + u) * PITCH + c * 4 * ACROSS);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            Four some = *(const Four*)(w + row_at(i) * WEIGHTS_PITCH + k);
#pragma unroll
            for (int u = 0; u < 4; ++u)
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
                    for (int e = 0; e < 4; ++e) y[i][c][e] = fmaf(some.lane[u], values[u][c].lane[e], y[i][c][e]);
        }
    }
}
