// The k best of every row, k many, or all of it in order: y TY [rows, k], places i64 [rows, k], of x TX [rows, cols]; or items, in order. cols fits 30 bits
// Radix sort, digit by digit from the lowest, the largest first. Every pass keeps the order of equal digits, so only digits of the key are sorted by: of equal
// keys the first stays first. Digits `low` to `low` + PASSES - 1, counted from the lowest of the key.
//   radix_tile    a block a row of TILE elements at most: all passes in shared memory
//   radix_clear   what follows begins with zeros
//   radix_count   counts [PASSES, rows, 256] of each digit, all passes at once
//   radix_pass    one pass: a block a tile. Where its items go follows from the counts and from what tiles before it have of each digit: each says so as
//                 soon as it knows, and adds up what those before it said (decoupled look-back); tiles are taken in the order in which blocks begin, so
//                 that nobody waits for one that has not begun
// Within a tile: a warp's lanes with equal digits find each other by votes, counters of each warp are added up.
// NVRTC defines: what items.cuh asks for, one ENTRY, PASSES; radix_tile, radix_pass: OWN (items of a thread).
#include "items.cuh"

#define THREADS 256  // as many as a digit has values
#define WARPS (THREADS / 32)
#define BITS 30
#define VALUE ((1u << BITS) - 1)
#define OWN_ONLY (1u << BITS)  // of the tile
#define WITH_EARLIER (2u << BITS)  // of all tiles up to it
#define AT(low) (KEY_ALL - 1 - (low))
#define KEY_ALL (WIDE ? 8 : 4)

// From the largest down
__device__ __forceinline__ int bin(const Item& x, int low) { return 255 - (int)digit(x, AT(low)); }

#if defined(ENTRY_TILE) || defined(ENTRY_PASS)
#define TILE (THREADS * OWN)

// Sums of what threads before this one have
__device__ __forceinline__ int sum_before(int mine) {
    __shared__ __align__(16) int sums[WARPS];  // whole lines: a wide load of them takes no neighbour along
    int lane = threadIdx.x % 32, up_to = mine, before = 0;
#pragma unroll
    for (int reach = 1; reach < 32; reach *= 2) {
        int other = __shfl_sync(0xffffffffu, up_to, lane >= reach ? lane - reach : lane);
        up_to += lane >= reach ? other : 0;
    }
    __syncthreads();  // an earlier call may still be reading
    if (lane == 31) sums[threadIdx.x / 32] = up_to;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < WARPS; ++i) before += i < (int)threadIdx.x / 32 ? sums[i] : 0;
    return before + up_to - mine;
}

struct Tile {
    Item items[TILE];
    int counts[WARPS][256], begins[256];
};

// The element of the tile that is the thread's i-th
__device__ __forceinline__ int element(int i) { return threadIdx.x / 32 * 32 * OWN + i * 32 + threadIdx.x % 32; }

// The first `size` elements of a row as the thread's items; `first`: where that is in the whole row
__device__ __forceinline__ void load(Item (&mine)[OWN], const From* __restrict__ row, i64 first, int size) {
    From given[OWN];
#pragma unroll
    for (int i = 0; i < OWN; ++i) given[i] = load_here(row + (element(i) < size ? element(i) : 0));
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        Item own = item_from(given[i], first + element(i));
        mine[i] = element(i) < size ? own : missing();
    }
}

// Brings a tile into the order of a digit, in shared memory. Returns how many have the thread's digit, and writes where they begin.
__device__ __forceinline__ int place_in_tile(Tile& tile, const Item (&mine)[OWN], int low) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, to[OWN];
#pragma unroll
    for (int i = 0; i < WARPS; ++i) tile.counts[i][threadIdx.x] = 0;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int own = bin(mine[i], low);
        unsigned equal = 0xffffffffu;
#pragma unroll
        for (int bit = 0; bit < 8; ++bit) {
            bool set = own >> bit & 1;
            unsigned all = __ballot_sync(0xffffffffu, set);
            equal &= set ? all : ~all;
        }
        int first = __ffs(equal) - 1, before = 0;
        if (lane == first) before = atomicAdd(&tile.counts[warp][own], __popc(equal));
        to[i] = __shfl_sync(0xffffffffu, before, first) + __popc(equal & ((1u << lane) - 1));
    }
    __syncthreads();
    int all = 0;
#pragma unroll
    for (int i = 0; i < WARPS; ++i) {
        int count = tile.counts[i][threadIdx.x];
        tile.counts[i][threadIdx.x] = all;
        all += count;
    }
    tile.begins[threadIdx.x] = sum_before(all);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        int own = bin(mine[i], low);
        tile.items[tile.begins[own] + tile.counts[warp][own] + to[i]] = mine[i];
    }
    return all;
}
#endif

#ifdef ENTRY_TILE
extern "C" __global__ void __launch_bounds__(THREADS) radix_tile(const From* __restrict__ from, RESULTS, i64 cols, int k, int low) {
    take_turn();
    __shared__ Tile tile;
    i64 row = blockIdx.x;
    Item mine[OWN];
    load(mine, from + row * cols, 0, (int)cols);
    for (int pass = 0; pass < PASSES; ++pass) {
        place_in_tile(tile, mine, low + pass);
        __syncthreads();
        if (pass + 1 == PASSES) break;
#pragma unroll
        for (int i = 0; i < OWN; ++i) mine[i] = tile.items[element(i)];
        __syncthreads();
    }
    for (int i = threadIdx.x; i < k; i += THREADS) GIVE(row, row * k + i, tile.items[i]);
}
#endif

#ifdef ENTRY_CLEAR
extern "C" __global__ void __launch_bounds__(THREADS) radix_clear(unsigned* __restrict__ words, i64 count) {
    take_turn();
    i64 at = (i64)blockIdx.x * THREADS + threadIdx.x;
    if (at < count) words[at] = 0;
}
#endif

#ifdef ENTRY_COUNT
#define EACH 16  // elements of a thread
extern "C" __global__ void __launch_bounds__(THREADS) radix_count(const From* __restrict__ from, int* __restrict__ counts, i64 rows, i64 cols, int blocks, int low) {
    take_turn();
    __shared__ int own[PASSES][256];
    i64 row = blockIdx.x / blocks, first = (i64)(blockIdx.x % blocks) * THREADS * EACH + threadIdx.x;
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) own[pass][threadIdx.x] = 0;
    __syncthreads();
    From given[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) given[i] = load_here(from + row * cols + (first + i * THREADS < cols ? first + i * THREADS : 0));
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        Item one = item_from(given[i], 0);
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            if (first + i * THREADS < cols) atomicAdd(&own[pass][bin(one, low + pass)], 1);
        }
    }
    __syncthreads();
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
        if (int found = own[pass][threadIdx.x]) atomicAdd(&counts[(pass * rows + row) * 256 + threadIdx.x], found);
    }
}
#endif

#ifdef ENTRY_PASS
#define LOOKS 8  // tiles whose words are fetched at once

// counts [rows, 256], said [rows, tiles, 256] of this pass
extern "C" __global__ void __launch_bounds__(THREADS) radix_pass(const From* __restrict__ from, RESULTS, const int* __restrict__ counts, unsigned* said, int* taken,
                                                                 i64 cols, int tiles, i64 k, int low) {
    take_turn();
    __shared__ Tile tile;
    __shared__ int turn, to[256];
    if (threadIdx.x == 0) turn = atomicAdd(taken, 1);
    __syncthreads();
    if (turn >= (int)gridDim.x) return;  // launched again alone, without what clears
    i64 row = turn / tiles;
    int at = turn % tiles;
    i64 first = (i64)at * TILE;
    int size = (int)(cols - first < TILE ? cols - first : TILE);
    Item mine[OWN];
    load(mine, from + row * cols + first, first, size);
    int all = place_in_tile(tile, mine, low);  // with what is missing, which the last tile has, after which nobody asks
    volatile unsigned* words = said + row * tiles * 256 + threadIdx.x;
    words[(i64)at * 256] = (at ? OWN_ONLY : WITH_EARLIER) | (unsigned)all;
    unsigned before = 0;
    for (int other = at - 1; other >= 0;) {
        unsigned told[LOOKS];
#pragma unroll
        for (int i = 0; i < LOOKS; ++i) told[i] = other >= i ? words[(i64)(other - i) * 256] : WITH_EARLIER;
        bool open = true;
#pragma unroll
        for (int i = 0; i < LOOKS; ++i) {
            open = open && told[i] >> BITS;
            if (!open) continue;
            before += told[i] & VALUE;
            --other;
            if (told[i] & WITH_EARLIER) {
                other = -1;
                open = false;
            }
        }
    }
    if (at) words[(i64)at * 256] = WITH_EARLIER | (before + (unsigned)all);
    to[threadIdx.x] = sum_before(counts[row * 256 + threadIdx.x]) + (int)before - tile.begins[threadIdx.x];
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += THREADS) {
        i64 place = to[bin(tile.items[i], low)] + i;
        if (LAST) {
            if (place < k) GIVE(row, row * k + place, tile.items[i]);
        } else {
            items[row * cols + place] = tile.items[i];
        }
    }
}
#endif
