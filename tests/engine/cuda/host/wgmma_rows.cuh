// Stands in for kernels/wgmma_rows.cuh where kernels run on the host.
#pragma once
#include "tma.cuh"
#include "wgmma.cuh"

inline unsigned near_tf32(float x) { return __float_as_uint(round_tf32(x)); }
inline Pack<unsigned, 4> load_shared_16(Shared at) { return *(const Pack<unsigned, 4>*)at; }
inline void store_shared_16(Shared at, const Pack<unsigned, 4>& x) { *(Pack<unsigned, 4>*)at = x; }
inline void store_word(Shared at, unsigned x) { std::memcpy(at, &x, 4); }
template <bool FIRST, int N> static void wgmma_scores(float (&c)[N][4], Tile a, Tile b) {
    if (FIRST) std::memset(c, 0, sizeof(c));
    wgmma(*(float(*)[4 * N])c, a, b);
}
template <bool FIRST, int N> static void wgmma_columns(float (&c)[N][4], Tile a, Tile b) { wgmma_scores<FIRST>(c, a, b); }
template <int N> static void wgmma_values(float (&c)[N][4], const unsigned (&a)[4], Tile b) {
    int lane = current % 32;
    for (int i = 0; i < 4; ++i) fragments[current][i] = a[i];
    yield_();
    float left[2][DEEP];
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < DEEP; ++k)
            if constexpr (DEEP == 8) left[i][k] = upper(fragments[current - lane % 4 + k % 4][i + k / 4 * 2]);
            else left[i][k] = element<TAB>(fragments[current - lane % 4 + k % 8 / 2][i + k / 8 * 2], k % 2);
    yield_();
    for (int j = 0; j < N; ++j)
        for (int e = 0; e < 2; ++e)
            for (int k = 0; k < DEEP; ++k) {
                float right = value_at(b, 8 * j + 2 * (lane % 4) + e, k);
                for (int i = 0; i < 2; ++i) c[j][2 * i + e] += left[i][k] * right;
            }
}
template <bool FIRST, int N> static void wgmma_scores(float (&c)[N][4], const unsigned (&a)[4], Tile b) {
    if (FIRST) std::memset(c, 0, sizeof(c));
    wgmma_values(c, a, b);
}
