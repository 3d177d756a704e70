// Items: what orders an element of a row, and its place. No two of a row are equal, so that no result depends on the order in which threads come.
// Of equal elements the first is better, -0 is 0, NaN is larger than every number.
// Macros: TX, TY, WIDE (1 for 64-bit elements), LEAST (1: the smallest are best), FIRST (1: x is read; 0: items), LAST (1: y and places are written;
// 0: items).
#pragma once
#include "common.cuh"

typedef unsigned long long u64;

#if WIDE
struct alignas(16) Item { u64 key; unsigned behind; };  // behind: the place, inverted
#define DIGITS 12
#define KEY_DIGITS 8
__device__ __forceinline__ bool better(const Item& x, const Item& y) { return x.key > y.key || (x.key == y.key && x.behind > y.behind); }
typedef u64 Key;
__device__ __forceinline__ Key key(const Item& x) { return x.key; }
__device__ __forceinline__ unsigned place(const Item& x) { return ~x.behind; }
__device__ __forceinline__ Item item(Key key, unsigned place) { return {key, ~place}; }
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
__device__ __forceinline__ Item from_lane(const Item& x, int lane) {
    unsigned high = __shfl_sync(0xffffffffu, (unsigned)(x.key >> 32), lane), low = __shfl_sync(0xffffffffu, (unsigned)x.key, lane);
    return {(u64)high << 32 | low, __shfl_sync(0xffffffffu, x.behind, lane)};
}
#else
typedef u64 Item;  // the key above, the place, inverted, below
#define DIGITS 8
#define KEY_DIGITS (int)sizeof(TX)  // of the four those that are not 0 in all items
__device__ __forceinline__ bool better(Item x, Item y) { return x > y; }
typedef unsigned Key;
__device__ __forceinline__ Key key(Item x) { return (Key)(x >> 32); }
__device__ __forceinline__ unsigned place(Item x) { return ~(unsigned)x; }
__device__ __forceinline__ Item item(Key key, unsigned place) { return (Item)key << 32 | (unsigned)~place; }
__device__ __forceinline__ Item upper(Item x, int digits) { return digits ? x >> (64 - 8 * digits) : 0; }
__device__ __forceinline__ unsigned digit(Item x, int at) { return (unsigned)(x >> (56 - 8 * at)) & 255; }
__device__ __forceinline__ Item with_digit(Item x, int at, unsigned digit) { return x | (Item)digit << (56 - 8 * at); }
__device__ __forceinline__ Item from_lane(Item x, int lane) {
    unsigned high = __shfl_sync(0xffffffffu, (unsigned)(x >> 32), lane), low = __shfl_sync(0xffffffffu, (unsigned)x, lane);
    return (Item)high << 32 | low;
}
#endif

// Worse than every item of a row, whose places fit 31 bits; and the worst that an item can be
__device__ __forceinline__ Item missing() { return item(0, ~0u); }
__device__ __forceinline__ Item worst() { return item(0, ~1u); }

// Keys fill their upper bits first, so that those of 16 bits have two digits that differ.
// Without branches, so that loads of several elements are under way at once.
__device__ __forceinline__ unsigned ordered(unsigned bits, unsigned sign, unsigned infinity) {
    unsigned magnitude = bits & (sign - 1), all = sign | (sign - 1), key = bits & sign ? ~bits & all : bits | sign;
    key = magnitude ? key : sign;
    key = magnitude > infinity ? all : key;
    return LEAST ? magnitude > infinity ? 0u : ~key & all : key;
}
__device__ __forceinline__ unsigned key_of(float x) { return ordered(__float_as_uint(x), 0x80000000u, 0x7f800000u); }
__device__ __forceinline__ unsigned key_of(f16 x) { return ordered(x.bits, 0x8000u, 0x7c00u) << 16; }
__device__ __forceinline__ unsigned key_of(bf16 x) { return ordered(x.bits, 0x8000u, 0x7f80u) << 16; }
__device__ __forceinline__ unsigned key_of(i32 x) { return ((unsigned)x ^ 0x80000000u) ^ (LEAST ? ~0u : 0u); }
__device__ __forceinline__ unsigned key_of(u8 x) { return (x ^ (LEAST ? 0xffu : 0u)) << 24; }
__device__ __forceinline__ unsigned key_of(i8 x) { return (((unsigned)x & 0xffu) ^ (LEAST ? 0x7fu : 0x80u)) << 24; }
__device__ __forceinline__ u64 key_of(i64 x) { return ((u64)x ^ 0x8000000000000000ull) ^ (LEAST ? ~0ull : 0ull); }

#if FIRST
typedef TX From;
__device__ __forceinline__ Item item_from(const TX& value, i64 place) { return item(key_of(value), (unsigned)place); }
#else
typedef Item From;
__device__ __forceinline__ Item item_from(const Item& value, i64) { return value; }
#endif
__device__ __forceinline__ Item item_of(const From* row, i64 at) { return item_from(row[at], at); }

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
