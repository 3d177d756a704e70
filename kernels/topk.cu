// The k best elements of every row, best first, and their places: y TY [rows, k], places i64 [rows, k], of x TX [rows, cols]; cols fits 31 bits
//   topk_sort     a block sorts SEGMENTS rows, or parts of HELD elements of rows, in shared memory (bitonic); 512 items at least
//   topk_select   a block keeps the k best of a part of a row: radix select, digit by digit from the top, until what has a digit is wanted whole;
//                 they are sorted when LAST. k <= HELD
//   topk_merge    two sorted lists become one: an element's place is its own and how many of the other list are better
// Between launches stand items: what orders an element, and its place; no two of a row are equal, so that the result does not depend on the order
// in which threads come. Of equal elements the first is better, -0 is 0, NaN is larger than every number.
// NVRTC defines: TX, TY, WIDE (1 for 64-bit elements), LEAST (1: the smallest are best), FIRST (1: x is read; 0: items), LAST (1: y and places are
// written; 0: items), THREADS, one ENTRY; HELD, a power of two; topk_sort: SEGMENTS; topk_select: HELD is 16 at least.
#include "common.cuh"

typedef unsigned long long u64;

#if WIDE
struct alignas(16) Item { u64 key; unsigned behind; };  // behind: the place, inverted
#define DIGITS 12
__device__ __forceinline__ bool better(const Item& x, const Item& y) { return x.key > y.key || (x.key == y.key && x.behind > y.behind); }
__device__ __forceinline__ unsigned place(const Item& x) { return ~x.behind; }
__device__ __forceinline__ Item worst() { return {0, 0}; }
// the first `digits` digits as a number, and so of what is compared with it
__device__ __forceinline__ Item upper(const Item& x, int digits) {
    if (digits <= 8) return {digits ? x.key >> (64 - 8 * digits) : 0, 0};
    return {x.key, x.behind >> (32 - 8 * (digits - 8))};
}
__device__ __forceinline__ unsigned digit(const Item& x, int at) {
    return at < 8 ? (unsigned)(x.key >> (56 - 8 * at)) & 255 : (x.behind >> (24 - 8 * (at - 8))) & 255;
}
__device__ __forceinline__ Item with_digit(Item x, int at, unsigned digit) {
    if (at < 8) x.key |= (u64)digit << (56 - 8 * at);
    else x.behind |= digit << (24 - 8 * (at - 8));
    return x;
}
#else
typedef u64 Item;  // the key above, the place, inverted, below
#define DIGITS 8
__device__ __forceinline__ bool better(Item x, Item y) { return x > y; }
__device__ __forceinline__ unsigned place(Item x) { return ~(unsigned)x; }
__device__ __forceinline__ Item worst() { return 0; }
__device__ __forceinline__ Item upper(Item x, int digits) { return digits ? x >> (64 - 8 * digits) : 0; }
__device__ __forceinline__ unsigned digit(Item x, int at) { return (unsigned)(x >> (56 - 8 * at)) & 255; }
__device__ __forceinline__ Item with_digit(Item x, int at, unsigned digit) { return x | (Item)digit << (56 - 8 * at); }
#endif

__device__ __forceinline__ unsigned key_of(float x) {
    if (x != x) return LEAST ? 0u : 0xffffffffu;
    unsigned bits = __float_as_uint(x == 0.f ? 0.f : x);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return LEAST ? ~bits : bits;
}
__device__ __forceinline__ unsigned key_of(int x) { return ((unsigned)x ^ 0x80000000u) ^ (LEAST ? ~0u : 0u); }
__device__ __forceinline__ unsigned key_of(u8 x) { return key_of((int)x); }
__device__ __forceinline__ unsigned key_of(i8 x) { return key_of((int)x); }
__device__ __forceinline__ u64 key_of(i64 x) { return ((u64)x ^ 0x8000000000000000ull) ^ (LEAST ? ~0ull : 0ull); }

#if FIRST
typedef TX From;
__device__ __forceinline__ Item item_of(const TX* row, i64 at) {
#if WIDE
    return {key_of(read(row[at])), ~(unsigned)at};
#else
    return (Item)key_of(read(row[at])) << 32 | (unsigned)~(unsigned)at;
#endif
}
#else
typedef Item From;
__device__ __forceinline__ Item item_of(const Item* row, i64 at) { return row[at]; }
#endif

#define RESULTS const TX* __restrict__ x, TY* __restrict__ y, i64* __restrict__ places, Item* __restrict__ items, i64 elements

// `elements` of a row of x
__device__ __forceinline__ void give(RESULTS, i64 row, i64 to, const Item& item) {
    if (LAST) {
        write(y[to], read(x[row * elements + place(item)]));
        places[to] = place(item);
    } else {
        items[to] = item;
    }
}
#define GIVE(...) give(x, y, places, items, elements, __VA_ARGS__)

#ifndef ENTRY_MERGE
#define LOG (WIDE ? 3 : 4)  // a thread has so many neighbours in registers, as a power of two: as many steps between two walks through shared memory
#define OWN (1 << LOG)
#define ROOM(COUNT) ((COUNT) + ((COUNT) >> LOG))

// Where an item lies: one is left free behind each line of all banks, so that threads with OWN neighbours each read different banks
__device__ __forceinline__ int lies(int i) { return i + (i >> LOG); }

__device__ __forceinline__ void exchange(Item& x, Item& y, bool down) {
    if (better(y, x) != down) return;
    Item kept = x;
    x = y;
    y = kept;
}

// STEPS neighbouring steps of a merge to lists of `size`, down to 1 << low
template <int COUNT, int PART, int STEPS> __device__ __forceinline__ void merge_steps(Item* items, int size, int low) {
    for (int g = threadIdx.x; g < COUNT >> STEPS; g += THREADS) {
        int base = (g >> low << (low + STEPS)) | (g & ((1 << low) - 1));
        bool down = size == PART || !(base & size);
        Item x[1 << STEPS];
#pragma unroll
        for (int i = 0; i < 1 << STEPS; ++i) x[i] = items[lies(base + (i << low))];
#pragma unroll
        for (int step = 1 << (STEPS - 1); step > 0; step /= 2) {
#pragma unroll
            for (int i = 0; i < 1 << STEPS; ++i) {
                if (!(i & step)) exchange(x[i], x[i | step], down);
            }
        }
#pragma unroll
        for (int i = 0; i < 1 << STEPS; ++i) items[lies(base + (i << low))] = x[i];
    }
    __syncthreads();
}

// COUNT items in shared memory, each PART of them best first: bitonic
template <int COUNT, int PART> __device__ __forceinline__ void sort_items(Item* items) {
    for (int g = threadIdx.x; g < COUNT >> LOG; g += THREADS) {
        Item x[OWN];
#pragma unroll
        for (int i = 0; i < OWN; ++i) x[i] = items[lies(g * OWN + i)];
#pragma unroll
        for (int size = 2; size <= OWN && size <= PART; size *= 2) {
#pragma unroll
            for (int step = size / 2; step > 0; step /= 2) {
#pragma unroll
                for (int i = 0; i < OWN; ++i) {
                    if (!(i & step)) exchange(x[i], x[i | step], size == PART || !((size == OWN ? g * OWN : i) & size));
                }
            }
        }
#pragma unroll
        for (int i = 0; i < OWN; ++i) items[lies(g * OWN + i)] = x[i];
    }
    __syncthreads();
    for (int bits = LOG + 1; 1 << bits <= PART; ++bits) {
        int low = bits - bits % LOG;
        if (bits % LOG == 1) merge_steps<COUNT, PART, 1>(items, 1 << bits, low);
        if (bits % LOG == 2) merge_steps<COUNT, PART, 2>(items, 1 << bits, low);
        if (LOG > 3 && bits % LOG == 3) merge_steps<COUNT, PART, 3>(items, 1 << bits, low);
        while (low) merge_steps<COUNT, PART, LOG>(items, 1 << bits, low -= LOG);
    }
}
#endif

#ifdef ENTRY_SORT
// segment s: part s % parts of row s / parts
extern "C" __global__ void __launch_bounds__(THREADS) topk_sort(const From* __restrict__ from, RESULTS, i64 segments, i64 parts, i64 cols, int k) {
    take_turn();
    __shared__ Item held[ROOM(HELD * SEGMENTS)];
    i64 first = (i64)blockIdx.x * SEGMENTS;
    for (int i = threadIdx.x; i < HELD * SEGMENTS; i += THREADS) {
        i64 segment = first + i / HELD, at = segment % parts * HELD + i % HELD;
        held[lies(i)] = segment < segments && at < cols ? item_of(from + segment / parts * cols, at) : worst();
    }
    __syncthreads();
    sort_items<HELD * SEGMENTS, HELD>(held);
    for (int i = threadIdx.x; i < HELD * SEGMENTS; i += THREADS) {
        i64 segment = first + i / HELD;
        if (segment < segments && i % HELD < k) GIVE(segment / parts, segment * k + i % HELD, held[lies(i)]);
    }
}
#endif

#ifdef ENTRY_SELECT
// a block a part: row * parts + part; parts have `each` elements, the first `longer` of them one more, and all of them k at least
extern "C" __global__ void __launch_bounds__(THREADS) topk_select(const From* __restrict__ from, RESULTS, int parts, i64 cols, int each, int longer, int k) {
    take_turn();
    __shared__ Item held[LAST ? ROOM(HELD) : 1];
    __shared__ int counts[256];
    __shared__ Item limit;
    __shared__ int needed, whole, filled;
    int part = blockIdx.x % parts, begin = part * each + (part < longer ? part : longer), end = begin + each + (part < longer);
    i64 row = blockIdx.x / parts;
    from += row * cols;
    if (threadIdx.x == 0) {
        limit = worst();
        needed = k;
        whole = end - begin == k;
        filled = 0;
    }
    __syncthreads();
    int digits = 0;
    while (!whole && digits < DIGITS) {
        for (int i = threadIdx.x; i < 256; i += THREADS) counts[i] = 0;
        __syncthreads();
        Item wanted = upper(limit, digits);
        int left = needed;
        for (int c = begin + threadIdx.x; c < end; c += THREADS) {
            Item item = item_of(from, c), own = upper(item, digits);
            if (!better(own, wanted) && !better(wanted, own)) atomicAdd(&counts[digit(item, digits)], 1);
        }
        __syncthreads();
        // a lane eight digits, from the largest down; every warp, so that none diverges
        int lane = threadIdx.x % 32, sum = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += counts[255 - 8 * lane - i];
        int up_to = sum;
#pragma unroll
        for (int reach = 1; reach < 32; reach *= 2) {
            int other = __shfl_sync(0xffffffffu, up_to, lane >= reach ? lane - reach : lane);
            up_to += lane >= reach ? other : 0;
        }
        int above = up_to - sum;
        if (threadIdx.x < 32 && above < left && left <= up_to) {
            int at = 255 - 8 * lane;
            while (above + counts[at] < left) above += counts[at--];
            limit = with_digit(limit, digits, at);
            needed = left - above;
            whole = counts[at] == needed;
        }
        ++digits;
        __syncthreads();
    }
    Item wanted = upper(limit, digits);
    for (int c = begin + threadIdx.x; c < end; c += THREADS) {
        Item item = item_of(from, c);
        if (better(wanted, upper(item, digits))) continue;
        int at = atomicAdd(&filled, 1);
        if (LAST) held[lies(at)] = item;
        else items[(row * parts + part) * k + at] = item;
    }
    if constexpr (LAST) {
        for (int i = k + threadIdx.x; i < HELD; i += THREADS) held[lies(i)] = worst();
        __syncthreads();
        sort_items<HELD, HELD>(held);
        for (int i = threadIdx.x; i < k; i += THREADS) GIVE(row, row * k + i, held[lies(i)]);
    }
}
#endif

#ifdef ENTRY_MERGE
// lists of `length`, `lists` a row; of two neighbours the first `kept` stay. A thread an element; a list that is missing holds the worst.
extern "C" __global__ void __launch_bounds__(256) topk_merge(const Item* __restrict__ from, RESULTS, i64 lists, i64 length, i64 kept, i64 total) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= total) return;
    i64 pairs = (lists + 1) / 2, pair = at / (2 * length), i = at % (2 * length), row = pair / pairs;
    const Item* first = from + (row * lists + pair % pairs * 2) * length;
    bool second = i >= length, alone = pair % pairs * 2 + 1 == lists;
    if (second) i -= length;
    const Item* other = second ? first : first + length;
    Item item = !second ? first[i] : alone ? worst() : first[length + i];
    i64 low = 0, high = !second && alone ? 0 : length;
    while (low < high) {  // how many of the others come before
        i64 middle = (low + high) / 2;
        if (second ? !better(item, other[middle]) : better(other[middle], item)) low = middle + 1;
        else high = middle;
    }
    if (i + low < kept) GIVE(row, pair * kept + i + low, item);
}
#endif
