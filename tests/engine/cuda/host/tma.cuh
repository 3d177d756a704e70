// Stands in for kernels/tma.cuh where kernels run on the host: copies are done when they are asked for. Blocks run one after the other, so
// there are no clusters.
#pragma once
#include "mma.cuh"
#include <map>

// What tests/engine/cuda/host_maps.py makes of a TileMap. Axes innermost first.
struct TensorMap {
    const unsigned char* at;
    unsigned long long strides[4];  // bytes
    int element, windows, extents[5], box[5], lower[3], upper[3], steps[3], rounds;
};
typedef unsigned long long Barrier;

#define SWIZZLED_SHARED(NAME) alignas(1024) static unsigned char NAME[256 << 10]
#define __grid_constant__

struct Turns { int arrivals, left, phase; long long bytes; };
static std::map<Barrier*, Turns> turns_of;
static void turn(Turns& t) {
    if (t.left == 0 && t.bytes == 0) t.left = t.arrivals, t.phase ^= 1;
}
typedef unsigned char* Shared;
typedef Barrier* BarrierAt;
inline Shared shared_of(void* at) { return (Shared)at; }
inline BarrierAt barrier_of(Barrier* first) { return first; }
inline BarrierAt barrier_at(BarrierAt first, int which) { return first + which; }
inline void barrier_make(BarrierAt at, int arrivals) { turns_of[at] = {arrivals, arrivals, 0, 0}; }
inline void barriers_made() {}
inline void barrier_arrive(BarrierAt at) { Turns& t = turns_of[at]; --t.left; turn(t); }
inline void barrier_arrive(BarrierAt at, unsigned) { abort(); }
inline void barrier_expect(BarrierAt at, int bytes) { turns_of[at].bytes += bytes; barrier_arrive(at); }
inline bool barrier_passed(BarrierAt at, int phase) { return turns_of[at].phase != phase; }
inline void barrier_wait(BarrierAt at, int phase) { while (turns_of[at].phase == phase) yield_(); }
inline int of_warp(int x) { return x; }

// The nearest number of TF32, as copies of its type round
static void to_tf32(unsigned* bits) {
    if ((*bits & 0x7f800000u) == 0x7f800000u) return;
    unsigned rounded = (*bits + 0xfffu + (*bits >> 13 & 1)) & 0xffffe000u;
    *bits = (rounded & 0x7f800000u) == 0x7f800000u ? *bits & 0xffffe000u : rounded;
}

// Element (x, y, z, w, v), zeros outside, to row `row` of a tile of 128 bytes a row (or 64)
static void bring(unsigned char* to, const TensorMap* map, int row, int column, const long long (&at)[5]) {
    int line = map->box[0] * map->element;
    unsigned long long place = (unsigned long long)to + row * line + column * map->element;
    place ^= (place >> 7 & (line / 16 - 1)) << 4;
    const unsigned char* from = map->at + at[0] * map->element;
    bool in = true;
    for (int i = 0; i < 5; ++i) in = in && at[i] >= 0 && at[i] < map->extents[i];
    for (int i = 1; i < 5; ++i) from += at[i] * (long long)map->strides[i - 1];
    if (in) std::memcpy((void*)place, from, map->element); else std::memset((void*)place, 0, map->element);
    if (map->rounds) to_tf32((unsigned*)place);
}
static void brought(const TensorMap* map, BarrierAt done, int rows) {
    Turns& t = turns_of[done];
    t.bytes -= rows * map->box[0] * map->element;
    turn(t);
}
inline void copy_tile(Shared to, const TensorMap* map, BarrierAt done, int x, int y, int z, int w) {
    if ((unsigned long long)to % 1024 || (unsigned long long)map->at % 16 || map->windows) abort();
    int rows = map->box[1] * map->box[2] * map->box[3];
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < map->box[0]; ++c)
            bring((unsigned char*)to, map, r, c, {x + c, y + r % map->box[1], z + r / map->box[1] % map->box[2], w + r / map->box[1] / map->box[2]});
    brought(map, done, rows);
}
inline void copy_tile(Shared, const TensorMap*, BarrierAt, int, int, int, int, int) { abort(); }
inline void copy_windows(Shared to, const TensorMap* map, BarrierAt done, int c, int x, int y, int n, int right, int down) {
    if ((unsigned long long)to % 1024 || (unsigned long long)map->at % 16 || !map->windows) abort();
    for (int r = 0; r < map->box[1]; ++r) {
        for (int i = 0; i < map->box[0]; ++i) bring((unsigned char*)to, map, r, i, {c + i, x + right, y + down, n});
        x += map->steps[0];
        if (x < map->extents[1] + map->upper[0]) continue;
        x = map->lower[0];
        y += map->steps[1];
        if (y < map->extents[2] + map->upper[1]) continue;
        y = map->lower[1];
        ++n;
    }
    brought(map, done, map->box[1]);
}
inline void copy_windows(Shared to, const TensorMap* map, BarrierAt done, int c, int x, int y, int z, int n, int right, int down, int deep) {
    if ((unsigned long long)to % 1024 || (unsigned long long)map->at % 16 || !map->windows || right > 31 || down > 31 || deep > 31) abort();
    for (int r = 0; r < map->box[1]; ++r) {
        for (int i = 0; i < map->box[0]; ++i) bring((unsigned char*)to, map, r, i, {c + i, x + right, y + down, z + deep, n});
        x += map->steps[0];
        if (x < map->extents[1] + map->upper[0]) continue;
        x = map->lower[0];
        y += map->steps[1];
        if (y < map->extents[2] + map->upper[1]) continue;
        y = map->lower[1];
        z += map->steps[2];
        if (z < map->extents[3] + map->upper[2]) continue;
        z = map->lower[2];
        ++n;
    }
    brought(map, done, map->box[1]);
}
inline void show_products() {}
inline void prefetch_map(const TensorMap*) {}
inline unsigned cluster_rank() { return 0; }
inline void cluster_sync(bool) { abort(); }
template <int N> Pack<float, N> read_there(const float*, unsigned, unsigned) { abort(); }
inline void meet(int which, int threads) {
    static int arrived[16], turn_[16];
    int now = turn_[which];
    if (++arrived[which] == threads) arrived[which] = 0, ++turn_[which];
    do yield_(); while (turn_[which] == now);  // the last one, too: all go on in the same round
}
template <int N> inline void registers_up() {}
template <int N> inline void registers_down() {}
