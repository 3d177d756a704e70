// The k best elements of parts of rows, by their rank: y TY [rows, k], places i64 [rows, k], of x TX [rows, cols]; cols fits 31 bits
//   topk_select   a block a part, for any k: radix select, digit by digit from the top, until what has a digit is wanted whole; the part is read once
//                 for every digit. Sorted where LAST; k <= HELD
//   topk_few      a team of threads a part, for few: each holds the keys of its elements and knows its best. The k-th of those bests bounds the result from
//                 below, and hardly more than k elements reach it: they are sorted by counting. Where more than CANDIDATES do, radix select
// A part has k elements at least; parts of a row have `each` elements, the first `longer` of them one more. Between launches stand items (items.cuh).
// NVRTC defines: what items.cuh asks for, THREADS, one ENTRY; topk_select: HELD, a power of two, 16 at least; topk_few: TEAM (32, or THREADS), OWN (elements of a
// thread, 32 at most, TEAM * OWN >= those of a part), CANDIDATES (k at least); k <= TEAM.
#include "items.cuh"
#ifdef ENTRY_SELECT
#include "sorting.cuh"
#define TABLES 4
#else
#define TABLES 1
#endif

#ifndef TEAM
#define TEAM THREADS
#endif

// A block counts in several tables, because lanes with equal digits wait for each other; what they have in common begins in different banks.
struct Search {
    int counts[TABLES][256 + 4];
    Item limit;
    int needed, whole, filled;
};

__device__ __forceinline__ void team_sync() {
    if (TEAM == 32) __syncwarp();
    else __syncthreads();
}

// Counts what has the wanted digits so far by its next one.
struct Counted {
    Search& found;
    Item wanted;
    int digits;
    __device__ __forceinline__ void operator()(const Item& one) const {
        Item own = upper(one, digits);
        if (!better(own, wanted) && !better(wanted, own)) atomicAdd(&found.counts[threadIdx.x % TABLES][digit(one, digits)], 1);
    }
};

// How many digits of `found.limit` tell the k best from the others: they are the items that are not worse there. `each` calls back with every item of the
// thread; `all`: k items are all there are. found.filled is 0 then.
template <class Each> __device__ __forceinline__ int search(Search& found, int me, int k, bool all, i64 elements, const Each& each) {
    if (me == 0) {
        found.limit = item(0, ~0u);
        found.needed = k;
        found.whole = all;
        found.filled = 0;
    }
    team_sync();
    int digits = 0;
    while (!found.whole && digits < DIGITS) {
        if (digits == KEY_DIGITS) {  // digits in which no two differ: those behind short keys, the upper ones of places
            digits = DIGITS - 4;
            for (; digits < DIGITS - 1 && elements <= 1ll << 8 * (DIGITS - 1 - digits); ++digits) {
                if (me == 0) found.limit = with_digit(found.limit, digits, 255);
            }
        }
        for (int i = me; i < TABLES * 256; i += TEAM) found.counts[i / 256][i % 256] = 0;
        team_sync();
        Item wanted = upper(found.limit, digits);
        int left = found.needed;
        each(Counted{found, wanted, digits});
        team_sync();
        if (TABLES > 1) {
            for (int i = me; i < 256; i += TEAM) {
#pragma unroll
                for (int table = 1; table < TABLES; ++table) found.counts[0][i] += found.counts[table][i];
            }
            team_sync();
        }
        const int* counts = found.counts[0];
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
        if (me < 32 && above < left && left <= up_to) {
            int at = 255 - 8 * lane;
            while (above + counts[at] < left) above += counts[at--];
            found.limit = with_digit(found.limit, digits, at);
            found.needed = left - above;
            found.whole = counts[at] == found.needed;
        }
        ++digits;
        team_sync();
    }
    return digits;
}

// Keeps what is not worse than the limit, in no order.
struct Kept {
    Search& found;
    Item wanted, *to;
    int digits;
    __device__ __forceinline__ void operator()(const Item& one) const {
        if (better(wanted, upper(one, digits))) return;
        int at = atomicAdd(&found.filled, 1);
#if defined(ENTRY_SELECT) && LAST
        at = lies(at);
#endif
        to[at] = one;
    }
};

// A thread's elements of a part, AHEAD of them under way at once
#define AHEAD 8
struct Part {
    const From* row;
    int first, end;
    template <class Told> __device__ __forceinline__ void operator()(const Told& told) const {
        for (int c = first; c < end; c += AHEAD * TEAM) {
            From given[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) given[i] = load_here(row + (c + i * TEAM < end ? c + i * TEAM : c));
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (c + i * TEAM < end) told(item_from(given[i], c + i * TEAM));
            }
        }
    }
};

#ifdef ENTRY_SELECT
extern "C" __global__ void __launch_bounds__(THREADS) topk_select(const From* __restrict__ from, RESULTS, int parts, i64 cols, int each, int longer, int k) {
    take_turn();
    __shared__ Item held[LAST ? ROOM(HELD) : 1];
    __shared__ Search found;
    int part = blockIdx.x % parts, begin = part * each + (part < longer ? part : longer), end = begin + each + (part < longer);
    i64 row = blockIdx.x / parts;
    from += row * cols;
    Part all{from, begin + (int)threadIdx.x, end};
    int digits = search(found, threadIdx.x, k, end - begin == k, elements, all);
    all(Kept{found, upper(found.limit, digits), LAST ? (Item*)held : items + (row * parts + part) * k, digits});
    if constexpr (LAST) {
        for (int i = k + threadIdx.x; i < HELD; i += THREADS) held[lies(i)] = missing();
        __syncthreads();
        sort_items<HELD, HELD>(held);
        for (int i = threadIdx.x; i < k; i += THREADS) GIVE(row, row * k + i, held[lies(i)]);
    }
}
#endif

#ifdef ENTRY_FEW
// A warp's items, the best in lane 0
__device__ __forceinline__ Item sorted_by_warp(Item mine) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int size = 2; size <= 32; size *= 2) {
#pragma unroll
        for (int step = size / 2; step > 0; step /= 2) {
            Item other = from_lane(mine, lane ^ step);
            bool first = !(lane & step), down = !(lane & size);
            if (better(other, mine) == (first == down)) mine = other;
        }
    }
    return mine;
}

extern "C" __global__ void __launch_bounds__(THREADS) topk_few(const From* __restrict__ from, RESULTS, unsigned all, int parts, i64 cols, int each, int longer,
                                                                int k) {
    take_turn();
    __shared__ Item reached[THREADS / TEAM][CANDIDATES];
    __shared__ Search searches[THREADS / TEAM];
    __shared__ Item bounds[THREADS / 32];
    int me = threadIdx.x % TEAM;
    unsigned mine = blockIdx.x * (THREADS / TEAM) + threadIdx.x / TEAM;
    if (mine >= all) return;  // all of a team
    Search& found = searches[threadIdx.x / TEAM];
    Item* candidates = reached[threadIdx.x / TEAM];
    int part = (int)(mine % (unsigned)parts), begin = part * each + (part < longer ? part : longer), end = begin + each + (part < longer);
    i64 row = mine / (unsigned)parts;
    from += row * cols;
    int first = begin + me;
    From given[OWN];
#pragma unroll
    for (int i = 0; i < OWN; ++i) given[i] = load_here(from + (first + i * TEAM < end ? first + i * TEAM : begin));
    Key held[OWN];
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        Key own = key(item_from(given[i], 0));
        held[i] = first + i * TEAM < end ? own : 0;
    }
    Key largest = held[0];
    int best = first;
#pragma unroll
    for (int i = 1; i < OWN; ++i) {
        best = held[i] > largest ? first + i * TEAM : best;
        largest = held[i] > largest ? held[i] : largest;
    }
#if FIRST
    Item own_best = item(largest, (unsigned)best);
#else
    Item own_best = from[best < end ? best : begin];
#endif
    // Every warp has its share of k bests that are not worse than its bound; so the lowest of these bounds has k elements.
    int share = (k + TEAM / 32 - 1) / (TEAM / 32);
    Item bound = from_lane(sorted_by_warp(first < end ? own_best : missing()), share - 1);
    if (me == 0) found.filled = 0;
    if (TEAM > 32) {
        if (threadIdx.x % 32 == 0) bounds[threadIdx.x / 32] = bound;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TEAM / 32; ++i) bound = better(bound, bounds[i]) ? bounds[i] : bound;
    }
    bound = better(worst(), bound) ? worst() : bound;  // what is missing does not reach it
    team_sync();
    unsigned reach = 0;
#pragma unroll
    for (int i = 0; i < OWN; ++i) reach |= (unsigned)(held[i] >= key(bound)) << i;
    for (; reach; reach &= reach - 1) {
        int c = first + (__ffs(reach) - 1) * TEAM;
        if (c >= end) break;
        Item one = item_of(from, c);
        if (better(bound, one)) continue;
        int at = atomicAdd(&found.filled, 1);
        if (at < CANDIDATES) candidates[at] = one;
    }
    team_sync();
    int count = found.filled;
    if (count > CANDIDATES) {
        team_sync();  // all have read how many there are
        Part own{from, first, end};
        int digits = search(found, me, k, end - begin == k, elements, own);
        own(Kept{found, upper(found.limit, digits), candidates, digits});
        team_sync();
        count = k;
    }
    for (int at = me; at < count; at += TEAM) {
        Item one = candidates[at];
        int rank = 0;
#pragma unroll 4
        for (int i = 0; i < count; ++i) rank += better(candidates[i], one);
        if (rank < k) GIVE(row, (i64)mine * k + rank, one);
    }
}
#endif
