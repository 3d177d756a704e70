// Elements picked and placed by index tensors, bit for bit. UNIT is unsigned of the size of an element, or of several neighbours (slices).
// Tactics: a thread an element (or a few neighbours) of what the indices name.
//   gather_nd          y[t, i] = x[batch(t), index[t], i]            t over tuples of `depth` indices, i over a slice of `inner` units
//   scatter_nd         y[index[t], i] = u[t, i]                      y holds the data already
//   gather_elements    y[p] = x[p with p[axis] = index[p]]           over the shape of the indices
//   scatter_elements   y[p with p[axis] = index[p]] = u[p]           y holds the data already
//   reverse_sequence   y[t, b, i] = x[lengths[b] - 1 - t, b, i] where t < lengths[b], else x[t, b, i]; or [b, t, i] (BATCH_FIRST)
// Negative indices count from the end; one out of range sets *fault and is read, or placed, as 0. Where two elements are placed at the same
// spot it is not said which stays, as in ONNX.
// NVRTC defines: UNIT, TI (i64 or i32), RANK, one ENTRY; reverse_sequence: BATCH_FIRST.
#include "common.cuh"

struct alignas(16) Wide { unsigned lane[4]; };

__device__ __forceinline__ i64 valid(i64 index, i64 extent, int* fault) {
    if (index < 0) index += extent;
    if (index >= 0 && index < extent) return index;
    *fault = 1;
    return 0;
}

#ifdef ENTRY_ND
// e, s: extent and step (in slices) of each indexed axis; `tuples` of them a batch, batches lie `batch_step` slices apart
struct Indexed { i64 e[RANK], s[RANK], tuples, batch_step, inner, total; };

extern "C" __global__ void __launch_bounds__(256) ENTRY_ND(
    const UNIT* __restrict__ from, const TI* __restrict__ indices, UNIT* __restrict__ to, int* fault, Indexed p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= p.total) return;
    i64 tuple = at / p.inner, i = at % p.inner, place = tuple / p.tuples * p.batch_step;
#pragma unroll
    for (int axis = 0; axis < RANK; ++axis) place += valid(indices[tuple * RANK + axis], p.e[axis], fault) * p.s[axis];
    if (GATHERS) to[at] = from[place * p.inner + i];
    else to[place * p.inner + i] = from[at];
}
#endif

#ifdef ENTRY_ELEMENTS
// e: extents of the indices; s: steps of the other tensor; along `axis` it has `extent` elements
struct Indexed { i64 e[RANK], s[RANK], axis, extent, total; };

extern "C" __global__ void __launch_bounds__(256) ENTRY_ELEMENTS(
    const UNIT* __restrict__ from, const TI* __restrict__ indices, UNIT* __restrict__ to, int* fault, Indexed p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, rest = at, place = 0;
    if (at >= p.total) return;
#pragma unroll
    for (int axis = RANK - 1; axis >= 0; --axis) {
        i64 here = rest % p.e[axis];
        rest /= p.e[axis];
        place += (axis == p.axis ? valid(indices[at], p.extent, fault) : here) * p.s[axis];
    }
    if (GATHERS) to[at] = from[place];
    else to[place] = from[at];
}
#endif

#ifdef ENTRY_REVERSE
extern "C" __global__ void __launch_bounds__(256) reverse_sequence(
    const UNIT* __restrict__ x, const TI* __restrict__ lengths, UNIT* __restrict__ y, int* fault, i64 times, i64 batches, i64 inner) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, rest = at / inner;
    if (at >= times * batches * inner) return;
    i64 t = BATCH_FIRST ? rest % times : rest / batches, b = BATCH_FIRST ? rest / times : rest % batches, length = lengths[b];
    if (length < 0 || length > times) {
        *fault = 1;
        length = 0;
    }
    i64 from = t < length ? length - 1 - t : t;
    y[at] = x[(BATCH_FIRST ? b * times + from : from * batches + b) * inner + at % inner];
}
#endif
