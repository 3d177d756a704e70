// Values copied from one place to another, bit for bit. UNIT is unsigned of the size that is moved at once: an element, or several neighbours.
// Tactics:
//   copy_strided   y[d] = x[s], d and s walking over up to RANK axes, each with its own strides: slice, expand, concat, split, pad, tile; or from
//                  one type of float to another, rounded once
//   repeat         the same where x stands still along the last axes of y: READ neighbours of x, each TIMES behind one another, all that ROWS times
//                  `pitch` apart; written PIECE at once
//   transpose      [outer, inner, rows, cols] -> [outer, inner, cols, rows] through shared memory: both sides in whole lines, VEC elements an access
//   gather         y[o, j, i] = x[o, indices[j], i]; negative indices count from the end, one out of range sets *fault
// NVRTC defines: UNIT (unsigned of 1, 2, 4 or 8 bytes, or Wide for 16); copy_strided and repeat: RANK, INDEX; copy_strided: in place of UNIT TX, TY
// and VEC where types differ; repeat: READ, TIMES, ROWS, PIECE; transpose: TILE, VEC; gather: TI.
#include "common.cuh"

struct alignas(16) Wide { unsigned lane[4]; };

#ifdef RANK
// Axis 0 is the slowest. e: extents; s: steps of x; d: steps of y; all in what is moved at once.
struct Axes { i64 e[RANK], s[RANK], d[RANK]; };
struct Place { i64 from, to; };

__device__ __forceinline__ Place place_of(INDEX at, const Axes& axes) {
    Place found = {0, 0};
#pragma unroll
    for (int axis = RANK - 1; axis > 0; --axis) {
        INDEX extent = (INDEX)axes.e[axis], here = at % extent;
        at /= extent;
        found.from += (i64)here * axes.s[axis];
        found.to += (i64)here * axes.d[axis];
    }
    return {found.from + (i64)at * axes.s[0], found.to + (i64)at * axes.d[0]};
}
#endif

#ifdef ENTRY_COPY
#ifdef UNIT
typedef UNIT From;
typedef UNIT To;
__device__ __forceinline__ void move(To& to, From from) { to = from; }
#else
typedef Pack<TX, VEC> From;
typedef Pack<TY, VEC> To;
__device__ __forceinline__ void move(To& to, const From& from) {
#pragma unroll
    for (int v = 0; v < VEC; ++v) write(to.lane[v], read(from.lane[v]));
}
#endif

extern "C" __global__ void __launch_bounds__(256) copy_strided(const From* __restrict__ x, To* __restrict__ y, INDEX count, Axes axes) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= count) return;
    const Place place = place_of(at, axes);
    move(y[place.to], x[place.from]);
}
#endif

#ifdef ENTRY_REPEAT
extern "C" __global__ void __launch_bounds__(256) repeat(const UNIT* __restrict__ x, UNIT* __restrict__ y, INDEX count, i64 pitch, Axes axes) {
    take_turn();
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x;
    if (at >= count) return;
    const Place place = place_of(at, axes);
    const Pack<UNIT, READ> own = *(const Pack<UNIT, READ>*)(x + place.from);
    y += place.to;
#pragma unroll
    for (int first = 0; first < READ * TIMES; first += PIECE) {
        Pack<UNIT, PIECE> piece;
#pragma unroll
        for (int v = 0; v < PIECE; ++v) piece.lane[v] = own.lane[(first + v) / TIMES];
#pragma unroll
        for (int row = 0; row < ROWS; ++row) store(y + row * pitch + first, piece);
    }
}
#endif

#ifdef ENTRY_TRANSPOSE
// VEC elements at once on both sides; `across` and `down` tiles of TILE x TILE a matrix. Matrices of x lie `by_outer` and `by_inner` apart (`inner`
// of them along the faster axis), their rows `pitch`; y is dense.
extern "C" __global__ void __launch_bounds__(256) transpose(
    const UNIT* __restrict__ x, UNIT* __restrict__ y, unsigned rows, unsigned cols, unsigned across, unsigned down, unsigned inner, i64 by_outer,
    i64 by_inner, i64 pitch) {
    take_turn();
    constexpr int LANES = TILE / VEC, EACH = TILE * LANES / 256 < 1 ? 1 : TILE * LANES / 256;
    __shared__ UNIT tile[TILE][TILE + (sizeof(UNIT) < 4 ? 4 / sizeof(UNIT) : 1)];  // rows begin in different banks
    unsigned batch = blockIdx.x / (across * down), at = blockIdx.x % (across * down);
    unsigned row = at / across * TILE, col = at % across * TILE;
    x += batch / inner * by_outer + batch % inner * by_inner;
    y += (i64)batch * rows * cols;
    Pack<UNIT, VEC> held[EACH];
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        unsigned i = threadIdx.x + e * 256, r = i / LANES, c = i % LANES * VEC;
        if (r < TILE && row + r < rows && col + c < cols) held[e] = *(const Pack<UNIT, VEC>*)(x + (row + r) * pitch + col + c);
    }
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        unsigned i = threadIdx.x + e * 256, r = i / LANES, c = i % LANES * VEC;
        if (r < TILE) {
#pragma unroll
            for (int v = 0; v < VEC; ++v) tile[r][c + v] = held[e].lane[v];
        }
    }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        unsigned i = threadIdx.x + e * 256, c = i / LANES, r = i % LANES * VEC;
        if (c < TILE && col + c < cols && row + r < rows) {
            Pack<UNIT, VEC> out;
#pragma unroll
            for (int v = 0; v < VEC; ++v) out.lane[v] = tile[r + v][c];
            *(Pack<UNIT, VEC>*)(y + (i64)(col + c) * rows + row + r) = out;
        }
    }
}
#endif

#ifdef ENTRY_GATHER
extern "C" __global__ void __launch_bounds__(256) gather(
    const UNIT* __restrict__ x, const TI* __restrict__ indices, UNIT* __restrict__ y, int* fault, i64 total, i64 extent, i64 picks,
    i64 inner) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= total) return;
    i64 i = at % inner, j = at / inner % picks, o = at / inner / picks;
    i64 from = indices[j];
    if (from < 0) from += extent;
    if (from < 0 || from >= extent) {
        *fault = 1;
        from = 0;
    }
    y[at] = x[(o * extent + from) * inner + i];
}
#endif

#ifdef ENTRY_FILL
extern "C" __global__ void __launch_bounds__(256) fill(UNIT* __restrict__ y, i64 count, UNIT value) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at < count) y[at] = value;
}
#endif
