// Values copied from one place to another, bit for bit. UNIT is unsigned of the size that is moved at once: an element, or several neighbours.
// Tactics:
//   copy_strided   y[d] = x[s], d and s walking over up to RANK axes, each with its own strides: slice, expand, concat, split, pad, tile
//   transpose      [batch, rows, cols] -> [batch, cols, rows] through shared memory: both sides in whole lines
//   gather         y[o, j, i] = x[o, indices[j], i]; negative indices count from the end
// NVRTC defines: UNIT (unsigned of 1, 2, 4 or 8 bytes, or Wide for 16); copy_strided: RANK, INDEX; gather: TI.
#include "common.cuh"

struct alignas(16) Wide { unsigned lane[4]; };

#ifdef ENTRY_COPY
// Axis 0 is the slowest. e: extents; s: steps of x; d: steps of y; all in UNITs.
struct Axes { i64 e[RANK], s[RANK], d[RANK]; };

extern "C" __global__ void __launch_bounds__(256) copy_strided(const UNIT* __restrict__ x, UNIT* __restrict__ y, INDEX count, Axes axes) {
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= count) return;
    i64 from = 0, to = 0;
#pragma unroll
    for (int axis = RANK - 1; axis > 0; --axis) {
        INDEX extent = (INDEX)axes.e[axis], here = at % extent;
        at /= extent;
        from += (i64)here * axes.s[axis];
        to += (i64)here * axes.d[axis];
    }
    y[to + (i64)at * axes.d[0]] = x[from + (i64)at * axes.s[0]];
}
#endif

#ifdef ENTRY_TRANSPOSE
extern "C" __global__ void __launch_bounds__(256) transpose(const UNIT* __restrict__ x, UNIT* __restrict__ y, i64 rows, i64 cols, i64 across, i64 down) {
    __shared__ UNIT tile[32][33];
    i64 block = blockIdx.x, batch = block / (across * down);
    i64 row = block / across % down * 32, col = block % across * 32;
    int lane = threadIdx.x % 32, walker = threadIdx.x / 32;
    x += batch * rows * cols;
    y += batch * rows * cols;
#pragma unroll
    for (int i = walker; i < 32; i += 8)
        if (row + i < rows && col + lane < cols) tile[i][lane] = x[(row + i) * cols + col + lane];
    __syncthreads();
#pragma unroll
    for (int i = walker; i < 32; i += 8)
        if (col + i < cols && row + lane < rows) y[(col + i) * rows + row + lane] = tile[lane][i];
}
#endif

#ifdef ENTRY_GATHER
extern "C" __global__ void __launch_bounds__(256) gather(
    const UNIT* __restrict__ x, const TI* __restrict__ indices, UNIT* __restrict__ y, i64 total, i64 extent, i64 picks, i64 inner) {
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= total) return;
    i64 i = at % inner, j = at / inner % picks, o = at / inner / picks;
    i64 from = indices[j];
    if (from < 0) from += extent;
    y[at] = x[(o * extent + from) * inner + i];
}
#endif

#ifdef ENTRY_FILL
extern "C" __global__ void __launch_bounds__(256) fill(UNIT* __restrict__ y, i64 count, UNIT value) {
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at < count) y[at] = value;
}
#endif
