// Products of a warpgroup whose sums are rows of a matrix in registers, sm_90a: those of attention. Tiles are those of wgmma.cuh; of warp w,
// c[j][2 * i + e] lies in row 16 * w + lane / 4 + 8 * i, column 8 * j + 2 * (lane % 4) + e.
//   NVRTC defines: TAB (16 bits; or float with TF32 1: tiles along k only), WIDTH (columns of weighted values): 64 or 128.
#pragma once
#ifndef TF32
#define TF32 0
#endif
#define A_BY_M 0
#define B_BY_N 0
#define BN 0  // none of wgmma.cuh's own products
#include "tma.cuh"
#include "wgmma.cuh"

__device__ __forceinline__ Pack<unsigned, 4> load_shared_16(Shared at) {
    Pack<unsigned, 4> x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x.lane[0]), "=r"(x.lane[1]), "=r"(x.lane[2]), "=r"(x.lane[3]) : "r"(at) : "memory");
    return x;
}
__device__ __forceinline__ void store_shared_16(Shared at, const Pack<unsigned, 4>& x) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x.lane[0]), "r"(x.lane[1]), "r"(x.lane[2]), "r"(x.lane[3]) : "memory");
}
__device__ __forceinline__ void store_word(Shared at, unsigned x) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(x) : "memory"); }

// to TF32, nearest even, what is nowhere near the largest number (common.cuh)
__device__ __forceinline__ unsigned near_tf32(float x) {
    unsigned bits;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

#define R8_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define C1(J) "+f"(c[J][0]), "+f"(c[J][1]), "+f"(c[J][2]), "+f"(c[J][3])
#define C8(J) C1(J), C1(J + 1), C1(J + 2), C1(J + 3), C1(J + 4), C1(J + 5), C1(J + 6), C1(J + 7)
#if TF32
#define KIND(N) "wgmma.mma_async.sync.aligned.m64n" #N "k8.f32.tf32.tf32"
#define ALONG_K ""  // how tiles lie
#define HELD_ALONG_K ""
#define VALUES_LIE ""
#else
#define KIND(N) "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TEXT(TAB) "." TEXT(TAB)
#define ALONG_K ", 0, 0"
#define HELD_ALONG_K ", 0"
#define VALUES_LIE ", 1"
#endif
// c (64 x N) = a b where it is the FIRST, else +=: a and b as tiles, along k
#define SCORES(N, REGISTERS, A, B, MORE, ...)                                                                                            \
    template <bool FIRST> __device__ __forceinline__ void wgmma_scores(float (&c)[N / 8][4], Tile a, Tile b) {                            \
        asm volatile(TILES(A, B) ".reg .pred more; setp.ne.b32 more, " MORE ", 0; " KIND(N) " {" REGISTERS "}, a, b, more, 1, 1" ALONG_K "; }" \
                     : __VA_ARGS__ : "r"(a), "r"(b), "n"(FIRST ? 0 : 1));                                                                 \
    }
// The same with a in registers, as mma.cuh's
#define HELD_SCORES(N, REGISTERS, A, B, MORE, ...)                                                                                       \
    template <bool FIRST> __device__ __forceinline__ void wgmma_scores(float (&c)[N / 8][4], const unsigned (&a)[4], Tile b) {            \
        asm volatile("{ .reg .b64 b; mov.b64 b, {" B ", 0x40000040}; .reg .pred more; setp.ne.b32 more, " MORE ", 0; " KIND(N)            \
                     " {" REGISTERS "}, {" A "}, b, more, 1, 1" HELD_ALONG_K "; }"                                                        \
                     : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "n"(FIRST ? 0 : 1));                             \
    }
// c (64 x N) += a b: a in registers as mma.cuh's, b a tile whose rows run along n, in TF32 along k
#define VALUES(N, REGISTERS, A, B, ...)                                                                                                  \
    __device__ __forceinline__ void wgmma_values(float (&c)[N / 8][4], const unsigned (&a)[4], Tile b) {                                  \
        asm volatile("{ .reg .b64 b; mov.b64 b, {" B ", 0x40000040}; " KIND(N) " {" REGISTERS "}, {" A "}, b, 1, 1, 1" VALUES_LIE "; }"    \
                     : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));                                                 \
    }
SCORES(16, R8_0, "%8", "%9", "%10", C1(0), C1(1))
SCORES(32, R16_0, "%16", "%17", "%18", C1(0), C1(1), C1(2), C1(3))
SCORES(64, R32_0, "%32", "%33", "%34", C8(0))
SCORES(128, R32_0 ", " R32_32, "%64", "%65", "%66", C8(0), C8(8))
HELD_SCORES(64, R32_0, "%32, %33, %34, %35", "%36", "%37", C8(0))
HELD_SCORES(128, R32_0 ", " R32_32, "%64, %65, %66, %67", "%68", "%69", C8(0), C8(8))
// The same for any number of columns that divides by 16: in pieces, the largest first
template <bool FIRST, int N> __device__ __forceinline__ void wgmma_columns(float (&c)[N][4], Tile a, Tile b) {
    constexpr int PIECE = N >= 16 ? 16 : N >= 8 ? 8 : N >= 4 ? 4 : 2;
    wgmma_scores<FIRST>(*(float(*)[PIECE][4])&c[0], a, b);
    if constexpr (N > PIECE) wgmma_columns<FIRST>(*(float(*)[N - PIECE][4])&c[PIECE], a, further(b, PIECE * 8 * 128));
}
#if WIDTH == 64
VALUES(64, R32_0, "%32, %33, %34, %35", "%36", C8(0))
#else
VALUES(128, R32_0 ", " R32_32, "%64, %65, %66, %67", "%68", C8(0), C8(8))
#endif
