// Boxes that no better one of their class covers, best first: chosen i32 [batches * classes, most] of boxes [batches, count, 4], as many as counts
// i32 [batches * classes] says. scores, places [batches * classes, count]: best first.
// Tactic: SPAN boxes in the order of their scores at a time, so that memory is bounded: which of them cover which is asked of all pairs at once, then walked.
//   suppress_cover   covered u64 [batches * classes, SPAN, SPAN / 64]: of a box of the span, by which better ones of it, a bit each; gone u8 [batches *
//                    classes, count]: whether one that was chosen before covers it. A thread a box and 64 others
//   suppress_walk    a block a batch and class, 64 boxes a turn: eight threads a box ask who chosen in earlier turns covers it, their next words on the way
//                    meanwhile; a warp settles the 64, all at once those whose coverers are settled
//   suppress_place   y i64 [all, 3]: batch, class, box; `before` i32: counts added up
// Whether a box covers another is asked in ONNX Runtime's words, without contraction; what it divides is divided only where a product does not tell.
// NVRTC defines: one ENTRY; suppress_cover: CENTRES (1: centre and extents; 0: two corners); SPAN (64 to 2048, a power of two), LIMITED (1: scores must be
// larger than `least`).
#include "common.cuh"

typedef unsigned long long u64;
#define THREADS 256
#define TILE 64
#define TILES (SPAN / TILE)

#ifdef ENTRY_COVER
struct alignas(16) Box { float x0, x1, y0, y1; };

__device__ __forceinline__ Box box_of(const float* __restrict__ at) {
    float a = load_here(at), b = load_here(at + 1), c = load_here(at + 2), d = load_here(at + 3);
    if (CENTRES) {
        float half_width = c / 2, half_height = d / 2;
        return {a - half_width, a + half_width, b - half_height, b + half_height};
    }
    bool x = b < d, y = a < c;
    return {x ? b : d, x ? d : b, y ? a : c, y ? c : a};
}

__device__ __forceinline__ float area(const Box& box) { return (box.x1 - box.x0) * (box.y1 - box.y0); }

struct Pair {
    float both, either;
    bool meet;
    __device__ __forceinline__ Pair(const Box& one, const Box& other, float first, float second) {
        float x0 = fmaxf(one.x0, other.x0), x1 = fminf(one.x1, other.x1), y0 = fmaxf(one.y0, other.y0), y1 = fminf(one.y1, other.y1);
        both = (x1 - x0) * (y1 - y0);
        either = first + second - both;
        meet = !(x1 <= x0) & !(y1 <= y0) & !(both <= 0.f) & (first > 0.f) & (second > 0.f) & (either > 0.f);
    }
};

// Block: a batch and class, TILE boxes of the span, four tiles to be asked about: of those chosen before, then of the span. 64 threads each.
extern "C" __global__ void __launch_bounds__(THREADS) suppress_cover(const float* __restrict__ boxes, const float* __restrict__ scores, const i64* __restrict__ places,
                                                                     u64* __restrict__ covered, u8* __restrict__ gone, const i32* __restrict__ chosen,
                                                                     const i32* __restrict__ counts, int classes, int count, int most, int begin, int earlier,
                                                                     float overlap, float least) {
    take_turn();
    __shared__ Box others[THREADS];
    __shared__ float areas[THREADS];
    int group = threadIdx.x / TILE, me = threadIdx.x % TILE, groups = (earlier + TILES + 3) / 4;
    int which = blockIdx.x % groups * 4 + group - earlier, tile = blockIdx.x / groups % TILES, first = begin + tile * TILE, mine = first + me;
    i64 row = blockIdx.x / groups / TILES, batch = blockIdx.x / groups / TILES / classes;
    scores += row * count;
    places += row * count;
    chosen += row * most;
    boxes += batch * count * 4;
    // whom this thread brings: one of the chosen, of a tile of the span that is not behind its own, or nobody
    int from = which < 0 ? (which + earlier) * TILE + me : begin + which * TILE + me;
    i64 own_place = load_here(places + (mine < count ? mine : 0)), place = load_here(places + (which >= 0 && from < count ? from : 0));
    int known = begin ? counts[row] : 0;
    if (known >= most || first >= count) return;
    if (LIMITED && scores[first] <= least) return;
    bool there = which < 0 ? from < known : which <= tile && from < count;
    if (which < 0) place = there ? chosen[from] : 0;
    Box own = box_of(boxes + own_place * 4), other = box_of(boxes + place * 4);
    others[threadIdx.x] = other;
    areas[threadIdx.x] = there ? area(other) : 0.f;  // nothing covers without an area
    __syncthreads();
    if (mine >= count || which > tile || (which < 0 && (which + earlier) * TILE >= known)) return;
    float own_area = area(own);
    u64 found = 0, open = 0;
    int end = which == tile ? me : TILE;
#pragma unroll 8
    for (int i = 0; i < TILE; ++i) {
        Pair pair(others[group * TILE + i], own, areas[group * TILE + i], own_area);
        float limit = overlap * pair.either;  // far from what rounds, over- or underflows, it tells what the quotient would
        bool far = (limit > 1e-30f) & (limit < 1e30f), more = pair.both > limit * 1.00001f, less = pair.both < limit * 0.99999f;
        found |= (u64)(pair.meet & far & more) << i;
        open |= (u64)(pair.meet & !(far & (more | less))) << i;
    }
    for (; open; open &= open - 1) {
        int i = (unsigned)open ? __ffs((unsigned)open) - 1 : __ffs((unsigned)(open >> 32)) + 31;
        Pair pair(others[group * TILE + i], own, areas[group * TILE + i], own_area);
        found |= (u64)(pair.both / pair.either > overlap) << i;
    }
    if (end < TILE) found &= (1ull << end) - 1;
    if (which >= 0) covered[(row * SPAN + tile * TILE + me) * TILES + which] = found;
    else if (found) gone[row * count + mine] = 1;
}
#endif

#ifdef ENTRY_WALK
#define ASKING 8  // threads of a box
#define WORDS ((TILES + ASKING - 1) / ASKING)

__device__ __forceinline__ u64 both_halves(unsigned low, unsigned high) { return (u64)high << 32 | low; }
__device__ __forceinline__ int bits_of(u64 x) { return __popc((unsigned)x) + __popc((unsigned)(x >> 32)); }

extern "C" __global__ void __launch_bounds__(TILE * ASKING) suppress_walk(const float* __restrict__ scores, const i64* __restrict__ places, const u64* __restrict__ covered,
                                                                          u8* __restrict__ gone, i32* __restrict__ chosen, i32* __restrict__ counts, int count,
                                                                          int most, int begin, float least) {
    take_turn();
    __shared__ u64 kept[TILES];
    __shared__ unsigned asked[TILE * ASKING / 32];  // a warp's four boxes: whether one that was chosen covers them
    __shared__ int selected;
    i64 row = blockIdx.x;
    int known = begin ? counts[row] : 0;
    for (int i = begin + SPAN + threadIdx.x; i < count && i < begin + 2 * SPAN; i += TILE * ASKING) gone[row * count + i] = 0;
    if (known >= most) return;
    scores += row * count;
    places += row * count;
    gone += row * count;
    covered += row * SPAN * TILES;
    int box = threadIdx.x / ASKING, part = threadIdx.x % ASKING, lane = threadIdx.x % 32;
    int settled = known;  // of the warp that settles
    if (threadIdx.x == 0) selected = known;
    u64 next[WORDS];
#pragma unroll
    for (int i = 0; i < WORDS; ++i) next[i] = 0;
    int tiles = count - begin >= SPAN ? TILES : (count - begin + TILE - 1) / TILE;
    for (int tile = 0; tile < tiles; ++tile) {
        int first = begin + tile * TILE;
        if (LIMITED && scores[first] <= least) break;
        u64 found = 0;
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            int word = i * ASKING + part;
            if (word < tile) found |= next[i] & kept[word];
        }
        unsigned asking = __ballot_sync(0xffffffffu, found != 0);
        if (lane == 0) asked[threadIdx.x / 32] = asking;
#pragma unroll
        for (int i = 0; i < WORDS; ++i) {
            int word = i * ASKING + part;
            if (word <= tile && first + TILE + box < count && tile + 1 < tiles) next[i] = covered[(i64)((tile + 1) * TILE + box) * TILES + word];
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            u64 by[2];  // of the lane's two boxes
            bool out[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                int own = lane + 32 * i, at = first + own;
                bool there = at < count;
                by[i] = there ? covered[(i64)(tile * TILE + own) * TILES + tile] : 0;
                out[i] = !there || (begin && gone[at]) || (LIMITED && !(scores[at] > least)) || (asked[own / 4] >> own % 4 * ASKING & 0xffu);
            }
            u64 open = ~both_halves(__ballot_sync(0xffffffffu, out[0]), __ballot_sync(0xffffffffu, out[1])), good = 0;
            while (open) {
                // settled: covered by a good one; or by none that is open
                bool bad[2], fine[2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    bool mine = open >> (lane + 32 * i) & 1;
                    bad[i] = mine && (by[i] & good);
                    fine[i] = mine && !bad[i] && !(by[i] & open);
                }
                u64 lost = both_halves(__ballot_sync(0xffffffffu, bad[0]), __ballot_sync(0xffffffffu, bad[1]));
                u64 won = both_halves(__ballot_sync(0xffffffffu, fine[0]), __ballot_sync(0xffffffffu, fine[1]));
                good |= won;
                open &= ~(won | lost);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                int own = lane + 32 * i, to = settled + bits_of(good & ((1ull << own) - 1));
                if ((good >> own & 1) && to < most) chosen[row * most + to] = (i32)places[first + own];
            }
            settled = settled + bits_of(good) < most ? settled + bits_of(good) : most;
            if (lane == 0) {
                kept[tile] = good;
                selected = settled;
            }
        }
        __syncthreads();
        if (selected >= most) break;
    }
    if (threadIdx.x == 0) counts[row] = selected;
}
#endif

#ifdef ENTRY_PLACE
extern "C" __global__ void __launch_bounds__(THREADS) suppress_place(const i32* __restrict__ chosen, const i32* __restrict__ before, i64* __restrict__ y, i64 rows,
                                                                     int classes, int most) {
    take_turn();
    i64 at = (i64)blockIdx.x * THREADS + threadIdx.x, row = at / most, i = at % most;
    if (row >= rows) return;
    i64 first = row ? before[row - 1] : 0;
    if (i >= before[row] - first) return;
    y += (first + i) * 3;
    y[0] = row / classes;
    y[1] = row % classes;
    y[2] = chosen[at];
}
#endif
