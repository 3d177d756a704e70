// CUDA's language on the host: a block is a set of fibers that take turns at barriers and shuffles. For finding wrong indices, tails and
// formulas without a GPU; says nothing about races or speed.
#pragma once
#define PROBE_HOST_SHIM
#ifndef __x86_64__
#include <ucontext.h>
#endif
#include <cmath>
#include <cstring>
#include <cstdlib>
#include <tuple>
#include <type_traits>
#include <utility>

// +0 is larger than -0 to the GPU (PTX ISA, max and min), either will do to the C library.
static inline float larger_(float x, float y) { return x == 0 && y == 0 ? (std::signbit(x) ? y : x) : std::fmax(x, y); }
static inline float smaller_(float x, float y) { return x == 0 && y == 0 ? (std::signbit(x) ? x : y) : std::fmin(x, y); }
#define fmaxf larger_
#define fminf smaller_

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(N) __attribute__((aligned(N)))

struct dim3_ { unsigned x = 0, y = 0, z = 0; };
static dim3_ threadIdx, blockIdx, blockDim, gridDim;

// Plain arrays: half of what compiling a kernel took was std::vector.
constexpr unsigned MOST = 1024;  // threads of a block
static char ended_[MOST];
static unsigned current;
static double exchanged[MOST];

#ifdef __x86_64__
// A fiber is the place where its stack ends, with the registers on it that a call keeps. swapcontext asks the kernel for a signal mask at
// every turn, which took half of the time that tests on the host took.
static void* fibers[MOST];
static void* scheduler;
static __attribute__((naked, noipa)) void turn_to(void** from, void* to) {
    asm("pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15; movq %rsp, (%rdi); movq %rsi, %rsp;"
        "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret");
}
static void yield_() { turn_to(&fibers[current], scheduler); }
static void resume_() { turn_to(&scheduler, fibers[current]); }
static void begin_(unsigned at, char* stack, size_t bytes, void (*entry)()) {
    void** top = (void**)(((size_t)stack + bytes) / 16 * 16 - 64);  // six registers, where to return to, and a return address's room
    top[6] = (void*)entry;
    fibers[at] = top;
}
#else
static ucontext_t fibers[MOST];
static ucontext_t scheduler;
static void yield_() { swapcontext(&fibers[current], &scheduler); }
static void resume_() { swapcontext(&scheduler, &fibers[current]); }
static void begin_(unsigned at, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&fibers[at]);
    fibers[at].uc_stack = {stack, 0, bytes};
    fibers[at].uc_link = &scheduler;
    makecontext(&fibers[at], entry, 0);
}
#endif
static unsigned arrived, passed;
static void __syncthreads() {  // warps may have taken different numbers of turns
    unsigned mine = passed;
    ++arrived;
    while (passed == mine) yield_();
}
static inline void __syncwarp(unsigned = ~0u) { yield_(); }
template <class T> static inline T __shfl_xor_sync(unsigned, T x, int mask) {  // float or double
    exchanged[current] = (double)x;
    yield_();
    T other = (T)exchanged[current ^ (unsigned)mask];
    yield_();  // nobody writes before all have read
    return other;
}
template <class T> static inline T __shfl_sync(unsigned, T x, int lane) {
    exchanged[current] = (double)x;
    yield_();
    T other = (T)exchanged[(current & ~31u) + (unsigned)lane];
    yield_();
    return other;
}
static inline unsigned __ballot_sync(unsigned, bool x) {
    exchanged[current] = x;
    yield_();
    unsigned found = 0;
    for (unsigned lane = 0; lane < 32; ++lane) found |= (unsigned)(exchanged[(current & ~31u) + lane] != 0.0) << lane;
    yield_();
    return found;
}
static inline unsigned __reduce_max_sync(unsigned, unsigned x) {
    exchanged[current] = (double)x;
    yield_();
    double most = 0.0;
    for (unsigned lane = 0; lane < 32; ++lane) most = exchanged[(current & ~31u) + lane] > most ? exchanged[(current & ~31u) + lane] : most;
    yield_();
    return (unsigned)most;
}
static inline unsigned __reduce_min_sync(unsigned mask, unsigned x) { return ~__reduce_max_sync(mask, ~x); }
static inline unsigned __reduce_add_sync(unsigned, unsigned x) {
    exchanged[current] = (double)x;
    yield_();
    double all = 0.0;
    for (unsigned lane = 0; lane < 32; ++lane) all += exchanged[(current & ~31u) + lane];
    yield_();
    return (unsigned)all;
}
static inline int __dp4a(int x, int y, int sum) {
    for (int at = 0; at < 32; at += 8) sum = (int)((unsigned)sum + (unsigned)((int)(signed char)(x >> at) * (int)(signed char)(y >> at)));
    return sum;
}
static inline unsigned __dp4a(unsigned x, unsigned y, unsigned sum) {
    for (int at = 0; at < 32; at += 8) sum += (x >> at & 255) * (y >> at & 255);
    return sum;
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which) {
    unsigned long long both = x | (unsigned long long)y << 32;
    unsigned found = 0;
    for (int at = 0; at < 32; at += 8) found |= (unsigned)(both >> (8 * (which >> (at / 2) & 7)) & 255) << at;
    return found;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline long long __double_as_longlong(double x) { long long y; std::memcpy(&y, &x, 8); return y; }
static inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
template <class T> static inline T atomicAdd(T* at, T x) { T old = *at; *at += x; return old; }
template <class T> static inline T atomicMax(T* at, T x) { T old = *at; *at = old > x ? old : x; return old; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __uint_as_float(unsigned x) { float y; std::memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint(float x) { unsigned y; std::memcpy(&y, &x, 4); return y; }
static inline float __int_as_float(int x) { float y; std::memcpy(&y, &x, 4); return y; }

template <class... A, size_t... I> static void invoke_(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<std::remove_reference_t<A>>*)given[I]...);
}
template <class... A> static void invoke(void (*kernel)(A...), void** given) {
    invoke_(kernel, given, std::index_sequence_for<A...>());
}

static void (*body)(void**);
static void** arguments;
static void fiber() {
    body(arguments);
    ended_[current] = 1;
    yield_();  // for good
}

static void run_grid(unsigned grid, unsigned block, void (*kernel)(void**), void** given) {
    constexpr size_t STACK = 64 << 10;
    static char* stacks;
    static unsigned room;
    if (block > room) { std::free(stacks); stacks = (char*)std::malloc(STACK * (room = block)); }  // pages come when they are touched
    body = kernel; arguments = given;
    for (unsigned t = 0; t < MOST; ++t) exchanged[t] = 0.0;
    gridDim.x = grid; blockDim.x = block;
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx.x = b;
        for (unsigned t = 0; t < block; ++t) {
            begin_(t, stacks + STACK * t, STACK, fiber);
            ended_[t] = 0;
        }
        arrived = 0;
        for (unsigned left = block; left;) {
            for (unsigned t = 0; t < block; ++t) {
                if (ended_[t]) continue;
                current = t; threadIdx.x = t;
                resume_();
                threadIdx.x = t;
                if (ended_[t]) --left;
            }
            if (arrived && arrived == left) { arrived = 0; ++passed; }  // between turns, so that the lanes of a warp stay in step
        }
    }
}
