// y[r, c] = exp(x[r, c] - max) / sum_c exp(x[r, c] - max), or its logarithm x - max - log(sum)
//   x TX, y TY: `rows` rows of `cols`, dense; for softmax_strided [outer, cols, inner], softmax over the middle axis
// Tactics; each is the one above plus one idea:
//   softmax_strided   a thread per row, x read three times         any inner; neighbours read neighbours
//   softmax_looped    a block per row, x read twice                any cols
//   softmax_kept      the row kept in shared memory: x read once   as many cols as a block has shared memory for
//   softmax_held      the row held in registers: x read once       cols <= THREADS * ITEMS * VEC, cols % VEC == 0
// Sums are float whatever the storage, their order fixed. A row of -Inf alone gives NaN, as the formula does.
// NVRTC defines: TX, TY, LOG (0 or 1), THREADS; for softmax_held: ITEMS, VEC, ROWS (rows of a block; more than 1 when THREADS is 32).
#include "common.cuh"

#define LOWEST __int_as_float(0xff800000)

// x / sum by its reciprocal and the remainder (Markstein 1990): rounded as the division is, but for results next to zero, and without its branch
__device__ __forceinline__ float divided(float x, float sum, float once) {
    float q = x * once;
    return fmaf(fmaf(-q, sum, x), once, q);
}
__device__ __forceinline__ float result(float x, float top, float sum) {
    return LOG ? x - top - logf(sum) : divided(expf(x - top), sum, 1.f / sum);
}

#ifdef ENTRY_STRIDED
extern "C" __global__ void __launch_bounds__(THREADS) softmax_strided(
    const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols, i64 inner) {
    take_turn();
    i64 row = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (row >= rows) return;
    i64 base = row / inner * cols * inner + row % inner;
    float top = LOWEST, sum = 0.f;
    for (i64 c = 0; c < cols; ++c) top = Max()(top, read(x[base + c * inner]));
    for (i64 c = 0; c < cols; ++c) sum += expf(read(x[base + c * inner]) - top);
    for (i64 c = 0; c < cols; ++c) write(y[base + c * inner], result(read(x[base + c * inner]), top, sum));
}
#endif

#ifdef ENTRY_LOOPED
// Largest element and sum in one walk: whenever a larger one comes, the sum so far is scaled to it.
extern "C" __global__ void __launch_bounds__(THREADS) softmax_looped(
    const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols) {
    take_turn();
    i64 base = (i64)blockIdx.x * cols;
    float top = LOWEST, sum = 0.f;
#pragma unroll 4
    for (i64 c = threadIdx.x; c < cols; c += THREADS) {
        float one = read(x[base + c]), higher = Max()(top, one);
        sum = sum * (top == higher ? 1.f : expf(top - higher)) + (one == LOWEST ? 0.f : expf(one - higher));
        top = higher;
    }
    float all = block_all<THREADS>(top, LOWEST, Max());
    sum = block_all<THREADS>(top == LOWEST && all != LOWEST ? 0.f : sum * expf(top - all), 0.f, Sum());
    for (i64 c = threadIdx.x; c < cols; c += THREADS) write(y[base + c], result(read(x[base + c]), all, sum));
}
#endif

#ifdef ENTRY_KEPT
#include "shared.cuh"
// Walks over a row in accesses of 16 bytes where memory wants them, and one by one before the first and behind the last of these.
template <class T, class V, class E> __device__ __forceinline__ void over(const T* row, int cols, V vector, E element) {
    constexpr int WIDE = 16 / sizeof(T);
    int head = (WIDE - (int)((unsigned long long)row / sizeof(T) % WIDE)) % WIDE;
    if (head > cols) head = cols;
    int count = (cols - head) / WIDE, tail = head + count * WIDE;
    if ((int)threadIdx.x < head) element(threadIdx.x);
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += THREADS) vector(head + i * WIDE);
    if (tail + (int)threadIdx.x < cols) element(tail + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS) softmax_kept(const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols) {
    take_turn();
    constexpr int VX = 16 / sizeof(TX), VY = 16 / sizeof(TY);
    constexpr bool HOLDS = !LOG && sizeof(TX) == 4;  // there is room for exp(x - max)
    DYNAMIC_SHARED(shared);
    x += (i64)blockIdx.x * cols;
    y += (i64)blockIdx.x * cols;
    TX* kept = (TX*)shared + (unsigned long long)x / sizeof(TX) % VX;  // as misaligned as the row
    float top = LOWEST, sum = 0.f;
    over(x, (int)cols, [&](int c) {
        Pack<TX, VX> in = *(const Pack<TX, VX>*)(x + c);
        *(Pack<TX, VX>*)(kept + c) = in;
#pragma unroll
        for (int v = 0; v < VX; ++v) top = Max()(top, read(in.lane[v]));
    }, [&](int c) {
        kept[c] = x[c];
        top = Max()(top, read(x[c]));
    });
    top = block_all<THREADS>(top, LOWEST, Max());
    __syncthreads();
    over(x, (int)cols, [&](int c) {
        Pack<TX, VX> in = *(const Pack<TX, VX>*)(kept + c);
#pragma unroll
        for (int v = 0; v < VX; ++v) {
            float part = expf(read(in.lane[v]) - top);
            sum += part;
            if (HOLDS) write(in.lane[v], part);
        }
        if (HOLDS) *(Pack<TX, VX>*)(kept + c) = in;
    }, [&](int c) {
        float part = expf(read(kept[c]) - top);
        sum += part;
        if (HOLDS) write(kept[c], part);
    });
    sum = block_all<THREADS>(sum, 0.f, Sum());
    __syncthreads();
    float shift = LOG ? logf(sum) : 0.f, once = 1.f / sum;
    auto stored = [&](TX one) { return LOG ? read(one) - top - shift : divided(HOLDS ? read(one) : expf(read(one) - top), sum, once); };
    over(y, (int)cols, [&](int c) {
        Pack<TY, VY> out;
        if constexpr (sizeof(TX) == sizeof(TY)) {  // as misaligned as y, too
            Pack<TX, VX> in = *(const Pack<TX, VX>*)(kept + c);
#pragma unroll
            for (int v = 0; v < VY; ++v) write(out.lane[v], stored(in.lane[v % VX]));
        } else {
#pragma unroll
            for (int v = 0; v < VY; ++v) write(out.lane[v], stored(kept[c + v]));
        }
        *(Pack<TY, VY>*)(y + c) = out;
    }, [&](int c) { write(y[c], stored(kept[c])); });
}
#endif

#ifdef ENTRY_HELD
extern "C" __global__ void __launch_bounds__(THREADS * ROWS) softmax_held(
    const TX* __restrict__ x, TY* __restrict__ y, i64 rows, i64 cols) {
    take_turn();
    i64 row = (i64)blockIdx.x * ROWS + threadIdx.x / THREADS;
    if (row >= rows) return;  // whole warps: ROWS > 1 only with THREADS == 32
    int thread = threadIdx.x % THREADS;
    x += row * cols;
    y += row * cols;
    float held[ITEMS][VEC], top = LOWEST, sum = 0.f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        Pack<TX, VEC> in;
        if (c < cols) in = *(const Pack<TX, VEC>*)(x + c);
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            held[i][v] = c < cols ? read(in.lane[v]) : LOWEST;
            top = Max()(top, held[i][v]);
        }
    }
    top = ROWS > 1 ? warp_all(top, Max()) : block_all<THREADS>(top, LOWEST, Max());
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            float part = expf(held[i][v] - top);
            if (!LOG) held[i][v] = part;
            sum += c < cols ? part : 0.f;
        }
    }
    sum = ROWS > 1 ? warp_all(sum, Sum()) : block_all<THREADS>(sum, 0.f, Sum());
    float shift = LOG ? logf(sum) : 0.f, once = 1.f / sum;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        int c = (i * THREADS + thread) * VEC;
        Pack<TY, VEC> out;
#pragma unroll
        for (int v = 0; v < VEC; ++v) write(out.lane[v], LOG ? held[i][v] - top - shift : divided(held[i][v], sum, once));
        if (c < cols) *(Pack<TY, VEC>*)(y + c) = out;
    }
}
#endif
