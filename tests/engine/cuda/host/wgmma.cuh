// Stands in for kernels/wgmma.cuh where kernels run on the host: a thread computes its own sums when the product is asked for.
#pragma once
#include "common.cuh"
#include "mma.cuh"

struct Tile { const unsigned char* at; int by, deep; };  // from `at`; k begins `deep` values in
#ifndef B_LINE
#define B_LINE 128
#endif
#define DEEP (32 / (int)sizeof(TAB))  // of a product
template <int BY> static Tile tile_at(const void* at) { return {(const unsigned char*)at, BY, 0}; }
static Tile further(Tile tile, int bytes) { tile.at += bytes; return tile; }
template <int BY> static Tile along_k(Tile tile, int steps) { tile.deep += DEEP * steps; return tile; }
inline void wgmma_begin() {}
inline void wgmma_end() {}
template <int N> inline void wgmma_wait() {}
inline void wgmma_pin(float&) {}

// Value (line, k), where a line is a row of a or a column of b
static float value_at(const Tile& tile, int line, int k, int pitch = 128) {
    k += tile.deep;
    unsigned long long place = (unsigned long long)tile.at + (tile.by ? line / 64 * 8192 + k * 128 + line % 64 * 2 : line * pitch + k * (int)sizeof(TAB));
    place ^= (place >> 7 & (pitch / 16 - 1)) << 4;
    return read(*(const TAB*)place);
}
template <int N> static void wgmma(float (&c)[N], Tile a, Tile b) {
    int warp = current / 32 % 4, lane = current % 32;
    float left[2][DEEP];
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < DEEP; ++k) left[i][k] = value_at(a, 16 * warp + lane / 4 + 8 * i, k);
    for (int j = 0; j < N / 4; ++j)
        for (int e = 0; e < 2; ++e)
            for (int k = 0; k < DEEP; ++k) {
                float right = value_at(b, 8 * j + 2 * (lane % 4) + e, k, B_LINE);
                for (int i = 0; i < 2; ++i) c[4 * j + 2 * i + e] += left[i][k] * right;
            }
}
