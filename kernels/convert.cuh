// Between the storage types and float, and to memory. One PTX instruction each, sm_80 and later.
//   narrowing rounds to nearest even; beyond the largest finite number gives Inf, subnormals are kept.
#pragma once
#include "types.cuh"

__device__ __forceinline__ float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ __forceinline__ f16 to_f16(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// As the upper of two, where float has it: the instruction for a single value has an eighth of the rate, but for neighbours, which the assembler
// puts together.
__device__ __forceinline__ float round_bf16(float x) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(x), "f"(0.f));
    return __uint_as_float(both);
}

// two values side by side, the first in the lower half
__device__ __forceinline__ unsigned side_by_side(float x, float y, f16) {
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
    return both;
}

__device__ __forceinline__ unsigned side_by_side(float x, float y, bf16) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
    return both;
}

// The larger of two, NaN where one of them is
__device__ __forceinline__ float larger(float x, float y) {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

__device__ __forceinline__ unsigned pair_larger(unsigned x, unsigned y, f16) {
    unsigned z;
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
    return z;
}
__device__ __forceinline__ unsigned pair_larger(unsigned x, unsigned y, bf16) {
    unsigned z;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
    return z;
}

// 2 to the power of x; 0 where that is no normal number
__device__ __forceinline__ float two_to(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// exp(x) as 2 to the power of x log2(e); 0 where that is no normal number
__device__ __forceinline__ float exp_quick(float x) { return two_to(x * 1.4426950408889634f); }

// Of two values side by side: the same bits as computing in float and rounding once more, because float has more than twice their digits and two
// (Figueroa 1995); in bf16 but for what is no normal number of float. Products and sums are not contracted.
__device__ __forceinline__ unsigned pair_times(unsigned x, unsigned y, f16) {
    unsigned z;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
    return z;
}
__device__ __forceinline__ unsigned pair_plus(unsigned x, unsigned y, f16) {
    unsigned z;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
    return z;
}
__device__ __forceinline__ unsigned pair_minus(unsigned x, unsigned y, f16) {
    unsigned z;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
    return z;
}
__device__ __forceinline__ unsigned pair_fma(unsigned x, unsigned y, unsigned added, bf16) {
    unsigned z;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(z) : "r"(x), "r"(y), "r"(added));
    return z;
}
__device__ __forceinline__ unsigned pair_times(unsigned x, unsigned y, bf16) { return pair_fma(x, y, 0x80008000u, bf16()); }  // + -0
__device__ __forceinline__ unsigned pair_plus(unsigned x, unsigned y, bf16) { return pair_fma(x, 0x3f803f80u, y, bf16()); }
__device__ __forceinline__ unsigned pair_minus(unsigned x, unsigned y, bf16) { return pair_fma(y, 0xbf80bf80u, x, bf16()); }

// 16 bytes of global memory, loaded where this stands: weaker loads are moved to where they are waited for
__device__ __forceinline__ void load_16(unsigned (&x)[4], const void* from) {
    asm volatile("ld.relaxed.cta.global.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "l"(from) : "memory");
}

// the same of what is read once, where it is `wanted`; zeros where it is not, and nobody reads there
__device__ __forceinline__ void load_16(unsigned (&x)[4], const void* from, bool wanted) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0;\n"
                 "@p ld.relaxed.cta.global.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4]; }"
                 : "=&r"(x[0]), "=&r"(x[1]), "=&r"(x[2]), "=&r"(x[3]) : "l"(from), "r"((int)wanted) : "memory");
}
// the same where a warp reads what lies behind it next: the whole 256 bytes come into the L2 cache
__device__ __forceinline__ void load_16_on(unsigned (&x)[4], const void* from, bool wanted) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0;\n"
                 "@p ld.relaxed.cta.global.L1::no_allocate.L2::256B.v4.b32 {%0, %1, %2, %3}, [%4]; }"
                 : "=&r"(x[0]), "=&r"(x[1]), "=&r"(x[2]), "=&r"(x[3]) : "l"(from), "r"((int)wanted) : "memory");
}

// 16 bytes of global memory by one access, whatever the compiler makes of their type
__device__ __forceinline__ void store_16(void* to, const unsigned (&x)[4]) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]) : "memory");
}
// the same where it is `wanted`, without a branch, which would keep what is computed before it from what is computed behind it; nobody reads there
__device__ __forceinline__ void store_16(void* to, const unsigned (&x)[4], bool wanted) {
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %5, 0; @p st.global.v4.b32 [%0], {%1, %2, %3, %4}; }"
                 ::"l"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"((int)wanted));
}
