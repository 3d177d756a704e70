// CUDA's language on the host: a block is a set of fibers that take turns at barriers and shuffles. For finding wrong indices, tails and
// formulas without a GPU; says nothing about races or speed.
#pragma once
#include <ucontext.h>
#include <cmath>
#include <cstring>
#include <cstdlib>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(N) __attribute__((aligned(N)))

struct dim3_ { unsigned x = 0, y = 0, z = 0; };
static dim3_ threadIdx, blockIdx, blockDim, gridDim;

static std::vector<ucontext_t> fibers;
static std::vector<char> ended_;
static ucontext_t scheduler;
static unsigned current;
static std::vector<double> exchanged;

static void yield_() { swapcontext(&fibers[current], &scheduler); }
static inline void __syncthreads() { yield_(); }
static inline void __syncwarp(unsigned = ~0u) { yield_(); }
template <class T> static inline T __shfl_xor_sync(unsigned, T x, int mask) {  // float or double
    exchanged[current] = (double)x;
    yield_();
    T other = (T)exchanged[current ^ (unsigned)mask];
    yield_();  // nobody writes before all have read
    return other;
}
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
static void fiber() { body(arguments); ended_[current] = 1; }

static void run_grid(unsigned grid, unsigned block, void (*kernel)(void**), void** given) {
    constexpr size_t STACK = 64 << 10;
    static std::vector<char> stacks;
    stacks.resize(STACK * block);
    body = kernel; arguments = given;
    fibers.resize(block); ended_.assign(block, 0); exchanged.assign(block < 32 ? 32 : block, 0.0);
    gridDim.x = grid; blockDim.x = block;
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx.x = b;
        for (unsigned t = 0; t < block; ++t) {
            getcontext(&fibers[t]);
            fibers[t].uc_stack = {stacks.data() + STACK * t, 0, STACK};
            fibers[t].uc_link = &scheduler;
            makecontext(&fibers[t], fiber, 0);
            ended_[t] = 0;
        }
        for (unsigned left = block; left;) {
            for (unsigned t = 0; t < block; ++t) {
                if (ended_[t]) continue;
                current = t; threadIdx.x = t;
                swapcontext(&scheduler, &fibers[t]);
                threadIdx.x = t;
                if (ended_[t]) --left;
            }
        }
    }
}
