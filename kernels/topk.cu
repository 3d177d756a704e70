// The k best of short rows, and their places: y TY [rows, k], places i64 [rows, k], of x TX [rows, cols], or of items (items.cuh)
// Tactics; each for longer rows, or fewer of them, than the one above:
//   topk_sort     a block sorts SEGMENTS rows in shared memory (bitonic), 512 items
//   radix.cu      digit by digit from the lowest: up to all of a row
//   topk_select.cu   few of many, without sorting the others
// NVRTC defines: what items.cuh and sorting.cuh ask for; HELD, a power of two, cols at least; SEGMENTS.
#include "items.cuh"
#include "sorting.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) topk_sort(const From* __restrict__ from, RESULTS, i64 rows, i64 cols, int k) {
    take_turn();
    __shared__ Item held[ROOM(HELD * SEGMENTS)];
    i64 first = (i64)blockIdx.x * SEGMENTS;
    for (int i = threadIdx.x; i < HELD * SEGMENTS; i += THREADS) {
        i64 row = first + i / HELD;
        held[lies(i)] = row < rows && i % HELD < cols ? item_of(from + row * cols, i % HELD) : missing();
    }
    __syncthreads();
    sort_items<HELD * SEGMENTS, HELD>(held);
    for (int i = threadIdx.x; i < HELD * SEGMENTS; i += THREADS) {
        i64 row = first + i / HELD;
        if (row < rows && i % HELD < k) GIVE(row, row * k + i % HELD, held[lies(i)]);
    }
}
