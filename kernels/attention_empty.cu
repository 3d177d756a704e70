// y = 0 in the rows of queries that look at no key: attention makes something else of them
//   mask TM, of its own steps (0: the same along an axis); lengths TL, of the keys of a batch; y TY, its columns contiguous
//   LOOKS says whether `query` looks at `key`: an expression of these two, mask, lengths and past (attention_masks.py)
// Tactic:
//   attention_empty   a warp a row of conditions, up to the first key that is looked at
// NVRTC defines: TM, HAS_MASK, TL, HAS_LENGTHS, TY, LOOKS, ONE_QUERY (rows are heads of one).
#include "common.cuh"

// Along the three batch axes and the rows: e: extents of what conditions differ in, times: how often each of them is there, m, y: steps of mask and y
struct Empty { i64 e[4], times[4], m[4], y[4], column, batch, keys, width, past, rows; };

extern "C" __global__ void __launch_bounds__(256) attention_empty(const TM* __restrict__ masks, const TL* __restrict__ all_lengths, TY* __restrict__ y, Empty p) {
    take_turn();
    i64 row = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (row >= p.rows) return;
    i64 at[4], rest = row;
#pragma unroll
    for (int axis = 3; axis >= 0; --axis) {
        at[axis] = rest % p.e[axis];
        rest /= p.e[axis];
        masks += at[axis] * p.m[axis];
        y += at[axis] * p.y[axis];
    }
    i64 lengths = 0, past = p.past, query = ONE_QUERY ? 0 : at[3];
    if (HAS_LENGTHS) lengths = all_lengths[at[0] * p.batch];
    bool looks = false;
    for (i64 from = 0; from < p.keys; from += 32) {
        i64 key = from + lane;
        if (key < p.keys) {
            auto mask = HAS_MASK ? read(masks[key * p.column]) : read(TM());
            looks = LOOKS;
        }
        if (__ballot_sync(0xffffffffu, looks)) return;
    }
    for (i64 a = 0; a < p.times[0]; ++a)
        for (i64 b = 0; b < p.times[1]; ++b)
            for (i64 c = 0; c < p.times[2]; ++c)
                for (i64 d = 0; d < p.times[3]; ++d)
                    for (i64 e = lane; e < p.width; e += 32) write(y[a * p.y[0] + b * p.y[1] + c * p.y[2] + d * p.y[3] + e], 0.f);
}
