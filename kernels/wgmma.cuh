// Products of a warpgroup (4 warps) out of shared memory, sm_90a: c (64 x N, float) += a (64 x 16) * b (16 x N) of 16-bit values; or 8 in place
// of 16 of floats, of which the upper 19 bits are read (TF32): those along k only.
//   Tiles lie as tma.cuh leaves them: rows of 128 bytes, swizzled. Along k (K-major): a row a line of the matrix; along m or n: a row a k.
//   Of warp w of the group, c[4 * j + 2 * i + e] lies in row 16 * w + lane / 4 + 8 * i, column 8 * j + 2 * (lane % 4) + e.
//   NVRTC defines: TAB, TF32, A_BY_M, B_BY_N (1: the tile's rows run along m, n), BN.
#pragma once
#include "mma.cuh"

#define TEXT_(X) #X
#define TEXT(X) TEXT_(X)

// Where a tile lies, as the lower half of what the instruction takes: address, bytes between its columns of boxes (BY 1), in units of 16 bytes.
// The upper half is the same for all: 1024 bytes between groups of 8 rows, swizzle of 128 bytes. (In a cluster, addresses hold the block's rank
// above bit 23.)
typedef unsigned Tile;
template <int BY> __device__ __forceinline__ Tile tile_at(unsigned at) { return ((at & 0x3ffff) >> 4) | (BY ? 8192 >> 4 : 1) << 16; }
__device__ __forceinline__ Tile further(Tile tile, int bytes) { return tile + (bytes >> 4); }
// 32 bytes of k further
template <int BY> __device__ __forceinline__ Tile along_k(Tile tile, int steps) { return further(tile, steps * (BY ? 2048 : 32)); }
#ifndef B_LINE
#define B_LINE 128  // or 32: bytes of b's rows, 256 bytes between groups of 8, swizzled among those; along k
#endif
#if B_LINE == 128
#define B_UPPER "0x40000040"
#else
#define B_UPPER "0xc0000010"
#endif
#define TILES(A, B) "{ .reg .b64 a, b; mov.b64 a, {" A ", 0x40000040}; mov.b64 b, {" B ", " B_UPPER "}; "

__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// until at most N of the groups that were ended are under way
template <int N> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
// keeps the compiler from moving a register that a product under way still writes
__device__ __forceinline__ void wgmma_pin(float& x) { asm volatile("" : "+f"(x)::"memory"); }

#define C4(I) "+f"(c[I]), "+f"(c[I + 1]), "+f"(c[I + 2]), "+f"(c[I + 3])
#define C8(I) C4(I), C4(I + 4)
#define C16(I) C8(I), C8(I + 8)
#define C32(I) C16(I), C16(I + 16)
#define R32_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define R32_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define R32_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define R32_96 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define R8_64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define R8_96 "%96, %97, %98, %99, %100, %101, %102, %103"
#define R4_104 "%104, %105, %106, %107"
#define R16_96 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define R4_112 "%112, %113, %114, %115"
#define R16_0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define R16_32 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define R16_64 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#if TF32
#define WGMMA(N, REGISTERS, A, B, ...)                                                                                         \
    __device__ __forceinline__ void wgmma(float (&c)[N / 2], Tile a, Tile b) {                     \
        asm volatile(TILES(A, B) "wgmma.mma_async.sync.aligned.m64n" #N "k8.f32.tf32.tf32 {" REGISTERS "}, a, b, 1, 1, 1; }"         \
                     : __VA_ARGS__ : "r"(a), "r"(b));                                                                          \
    }
#else
#define WGMMA(N, REGISTERS, A, B, ...)                                                                                           \
    __device__ __forceinline__ void wgmma(float (&c)[N / 2], Tile a, Tile b) {                     \
        asm volatile(TILES(A, B) "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TEXT(TAB) "." TEXT(TAB) " {" REGISTERS "}, a, b"    \
                     ", 1, 1, 1, " TEXT(A_BY_M) ", " TEXT(B_BY_N) "; }" : __VA_ARGS__ : "r"(a), "r"(b));                         \
    }
#endif
#if BN == 16
WGMMA(16, "%0, %1, %2, %3, %4, %5, %6, %7", "%8", "%9", C8(0))
#elif BN == 32
WGMMA(32, R16_0, "%16", "%17", C16(0))
#elif BN == 64
WGMMA(64, R32_0, "%32", "%33", C32(0))
#elif BN == 96
WGMMA(96, R32_0 ", " R16_32, "%48", "%49", C32(0), C16(32))
#elif BN == 128
WGMMA(128, R32_0 ", " R32_32, "%64", "%65", C32(0), C32(32))
#elif BN == 144
WGMMA(144, R32_0 ", " R32_32 ", " R8_64, "%72", "%73", C32(0), C32(32), C8(64))
#elif BN == 160
WGMMA(160, R32_0 ", " R32_32 ", " R16_64, "%80", "%81", C32(0), C32(32), C16(64))
#elif BN == 192
WGMMA(192, R32_0 ", " R32_32 ", " R32_64, "%96", "%97", C32(0), C32(32), C32(64))
#elif BN == 208
WGMMA(208, R32_0 ", " R32_32 ", " R32_64 ", " R8_96, "%104", "%105", C32(0), C32(32), C32(64), C8(96))
#elif BN == 216
WGMMA(216, R32_0 ", " R32_32 ", " R32_64 ", " R8_96 ", " R4_104, "%108", "%109", C32(0), C32(32), C32(64), C8(96), C4(104))
#elif BN == 224
WGMMA(224, R32_0 ", " R32_32 ", " R32_64 ", " R16_96, "%112", "%113", C32(0), C32(32), C32(64), C16(96))
#elif BN == 232
WGMMA(232, R32_0 ", " R32_32 ", " R32_64 ", " R16_96 ", " R4_112, "%116", "%117", C32(0), C32(32), C32(64), C16(96), C4(112))
#elif BN == 256
WGMMA(256, R32_0 ", " R32_32 ", " R32_64 ", " R32_96, "%128", "%129", C32(0), C32(32), C32(64), C32(96))
#endif
