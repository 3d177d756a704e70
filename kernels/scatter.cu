// y[place of update t, i] combined with u[t, i], one update after the other in the order in which they stand: ScatterND and ScatterElements that add,
// multiply, or keep the larger or smaller; the same bits in every run. Indices i64 or i32; y holds x already; fewer than 2^32 places.
// Tactic: updates are brought into the order of their places by radix.cu, then a thread takes all updates of a place.
//   scatter_items     an item an update: its place, then its number, both inverted, so that the first are the largest
//   scatter_combine   a thread an update and element of a slice; who is not the first of its place ends → where places are fewer, a thread a place and
//                     element, who looks for its first update
// Larger and smaller of NaN are as in ONNX Runtime: the update, unless the comparison says otherwise. Negative indices count from the end, one out of
// range sets *fault.
// NVRTC defines: scatter_items: TI, RANK, ELEMENTS (1: an index along one axis; 0: tuples of RANK); scatter_combine: TX, TU, TY, HOW (names below), INDEX,
// SEARCHED (1: a thread a place).
#include "common.cuh"

typedef unsigned long long u64;
#define ADD 0
#define MUL 1
#define MAX 2
#define MIN 3

#ifdef ENTRY_ITEMS
// Of tuples: extent and step, in slices, of each indexed axis. Of elements: extents of the indices, steps of y; along `axis` it has `extent` of them.
struct Indexed { i64 e[RANK], s[RANK], axis, extent, total; };

__device__ __forceinline__ i64 valid(i64 index, i64 extent, int* fault) {
    if (index < 0) index += extent;
    if (index >= 0 && index < extent) return index;
    *fault = 1;
    return 0;
}

extern "C" __global__ void __launch_bounds__(256) scatter_items(const TI* __restrict__ indices, u64* __restrict__ items, int* fault, Indexed p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, rest = at, place = 0;
    if (at >= p.total) return;
#pragma unroll
    for (int axis = RANK - 1; axis >= 0; --axis) {
        if (ELEMENTS) {
            i64 here = rest % p.e[axis];
            rest /= p.e[axis];
            place += (axis == p.axis ? valid(indices[at], p.extent, fault) : here) * p.s[axis];
        } else {
            place += valid(indices[at * RANK + axis], p.e[axis], fault) * p.s[axis];
        }
    }
    items[at] = (u64)~(unsigned)place << 32 | (unsigned)~(unsigned)at;
}
#endif

#ifdef ENTRY_COMBINE
#define AHEAD 8

template <class T> __device__ __forceinline__ T combined(T x, T y) {
    return HOW == ADD ? T(x + y) : HOW == MUL ? T(x * y) : HOW == MAX ? (x > y ? x : y) : (x < y ? x : y);
}

// `threads`: updates, or places
extern "C" __global__ void __launch_bounds__(256) scatter_combine(const u64* __restrict__ items, const TX* __restrict__ x, const TU* __restrict__ u,
                                                                  TY* __restrict__ y, INDEX threads, INDEX updates, INDEX inner) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, s = at / inner, i = at % inner;
    if (s >= threads) return;
    unsigned place = SEARCHED ? ~(unsigned)s : (unsigned)(items[s] >> 32);
    if (SEARCHED) {
        INDEX end = updates;
        for (s = 0; s < end;) {
            INDEX middle = s + (end - s) / 2;
            if ((unsigned)(items[middle] >> 32) > place) s = middle + 1;
            else end = middle;
        }
        if (s >= updates || (unsigned)(items[s] >> 32) != place) return;
    } else if (s && (unsigned)(items[s - 1] >> 32) == place) {
        return;
    }
    i64 to = (i64)~place * inner + i;
    auto value = read(x[to]);
    u64 item[AHEAD];
#pragma unroll
    for (int j = 0; j < AHEAD; ++j) item[j] = load_here(items + (s + j < updates ? s + j : updates - 1));
    for (bool more = true; more; s += AHEAD) {
        TU given[AHEAD];
        bool mine[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            mine[j] = s + j < updates && (unsigned)(item[j] >> 32) == place;
            given[j] = load_here(u + ((i64)(mine[j] ? ~(unsigned)item[j] : 0) * inner + i));
        }
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) item[j] = load_here(items + (s + AHEAD + j < updates ? s + AHEAD + j : updates - 1));
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            auto next = combined(value, read(given[j]));
            value = mine[j] ? next : value;
        }
        more = mine[AHEAD - 1];
    }
    write(y[to], value);
}
#endif
