// What kernels share: loads to registers, stores with one rounding, sums and maxima of warps and blocks.
#pragma once
#include "convert.cuh"
#include "overlap.cuh"

// A stored value in a register: floats of any storage are float, integers stay what they are.
__device__ __forceinline__ float read(float x) { return x; }
__device__ __forceinline__ float read(f16 x) { return widen(x); }
__device__ __forceinline__ float read(bf16 x) { return widen(x); }
__device__ __forceinline__ i64 read(i64 x) { return x; }
__device__ __forceinline__ i32 read(i32 x) { return x; }
__device__ __forceinline__ u8 read(u8 x) { return x; }
__device__ __forceinline__ i8 read(i8 x) { return x; }
__device__ __forceinline__ bool read(bool x) { return x; }

__device__ __forceinline__ void write(float& y, float x) { y = x; }
__device__ __forceinline__ void write(f16& y, float x) { y = to_f16(x); }
__device__ __forceinline__ void write(bf16& y, float x) { y = to_bf16(x); }
__device__ __forceinline__ void write(i64& y, i64 x) { y = x; }
__device__ __forceinline__ void write(i32& y, i32 x) { y = x; }
__device__ __forceinline__ void write(u8& y, u8 x) { y = x; }
__device__ __forceinline__ void write(i8& y, i8 x) { y = x; }
__device__ __forceinline__ void write(bool& y, bool x) { y = x; }

// A value of global memory, loaded where this stands: weaker loads are moved to where they are waited for, and branched around
template <class T> __device__ __forceinline__ T load_here(const T* from) {
#ifdef __CUDA_ARCH__
    T x;
    if constexpr (sizeof(T) == 1) {
        unsigned bits;
        asm volatile("ld.relaxed.cta.global.u8 %0, [%1];" : "=r"(bits) : "l"(from));
        (u8&)x = (u8)bits;
    } else if constexpr (sizeof(T) == 2) {
        asm volatile("ld.relaxed.cta.global.u16 %0, [%1];" : "=h"((unsigned short&)x) : "l"(from));
    } else if constexpr (sizeof(T) == 4) {
        asm volatile("ld.relaxed.cta.global.u32 %0, [%1];" : "=r"((unsigned&)x) : "l"(from));
    } else if constexpr (sizeof(T) == 8) {
        asm volatile("ld.relaxed.cta.global.u64 %0, [%1];" : "=l"((unsigned long long&)x) : "l"(from));
    } else {
        asm volatile("ld.relaxed.cta.global.v2.u64 {%0, %1}, [%2];" : "=l"(((unsigned long long*)&x)[0]), "=l"(((unsigned long long*)&x)[1]) : "l"(from));
    }
    return x;
#else
    return *from;
#endif
}

// Two values of 16 bits side by side, and one of them
template <class T> __device__ __forceinline__ unsigned side_by_side(const Pack<T, 2>& both) { return both.lane[0].bits | (unsigned)both.lane[1].bits << 16; }
template <class T> __device__ __forceinline__ float lower(unsigned both, T) { return widen(T{(unsigned short)both}); }
template <class T> __device__ __forceinline__ float higher(unsigned both, T) { return widen(T{(unsigned short)(both >> 16)}); }
template <class T> __device__ __forceinline__ unsigned side_by_side(T x, T y) { return side_by_side(Pack<T, 2>{x, y}); }

// N values to memory that is aligned to all of them, 16 bytes at a time
template <class T, int N> __device__ __forceinline__ void store(T* to, const Pack<T, N>& from) {
    if constexpr (sizeof(T) * N % 16) {
        *(Pack<T, N>*)to = from;
    } else {
#pragma unroll
        for (int n = 0; n < N; n += 16 / sizeof(T)) store_16(to + n, *(const unsigned(*)[4])&from.lane[n]);
    }
}
// where it is `wanted`
template <class T, int N> __device__ __forceinline__ void store(T* to, const Pack<T, N>& from, bool wanted) {
    if constexpr (sizeof(T) * N % 16) {
        if (wanted) *(Pack<T, N>*)to = from;
    } else {
#pragma unroll
        for (int n = 0; n < N; n += 16 / sizeof(T)) store_16(to + n, *(const unsigned(*)[4])&from.lane[n], wanted);
    }
}

// Rounding without storing: what a tensor inside a fused layer goes through (bf16: convert.cuh).
__device__ __forceinline__ float round_f16(float x) { return widen(to_f16(x)); }

// 10 bits of mantissa, nearest even. Never overflows: what would, is cut instead, so that a mask of -3.4e38 stays finite.
__device__ __forceinline__ float round_tf32(float x) {
    unsigned bits = __float_as_uint(x);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (fabsf(x) > __uint_as_float(0x7f7fe000u) && fabsf(x) < __uint_as_float(0x7f800000u)) bits &= 0xffffe000u;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(bits) : "f"(__uint_as_float(bits)));
    return __uint_as_float(bits);
#else
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    unsigned rounded = (bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u;
    if ((rounded & 0x7f800000u) == 0x7f800000u) rounded = bits & 0xffffe000u;
    return __uint_as_float(rounded);
#endif
}

// The order of these trees is fixed: the same input gives the same bits on every run.
template <class F> __device__ __forceinline__ float warp_all(float x, F combine) {
#pragma unroll
    for (int lane = 16; lane > 0; lane >>= 1) x = combine(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

// All threads of the block get the result. SIZE is a multiple of 32, at most 1024; `neutral` leaves the other operand as it is.
template <int SIZE, class F> __device__ __forceinline__ float block_all(float x, float neutral, F combine) {
    constexpr int WARPS = SIZE / 32;
    x = warp_all(x, combine);
    if constexpr (WARPS > 1) {
        __shared__ float partial[32];
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        __syncthreads();  // an earlier call may still be reading
        if (lane == 0) partial[warp] = x;
        __syncthreads();
        x = warp_all(lane < WARPS ? partial[lane] : neutral, combine);
    }
    return x;
}

struct Sum { __device__ __forceinline__ float operator()(float x, float y) const { return x + y; } };
struct Prod { __device__ __forceinline__ float operator()(float x, float y) const { return x * y; } };
// NaN wins, as in ONNX Runtime.
struct Max { __device__ __forceinline__ float operator()(float x, float y) const { return x > y || x != x ? x : y; } };
struct Min { __device__ __forceinline__ float operator()(float x, float y) const { return x < y || x != x ? x : y; } };
