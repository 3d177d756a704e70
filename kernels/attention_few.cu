// y = softmax(between(q k^T)) v over the keys, as attention.cu, for a few queries and many keys: what a decoder does step by step. Nothing is rounded
// between; sums are FP32.
//   q [.., ROWS, depth], k [.., keys, depth], v [.., keys, width] of TX, batches of two axes, columns contiguous and rows on 16 bytes; y TY, dense
//   STEPS makes MADE of a product `sum` of `query` and `key`, LOOKS says whether that query looks at that key: expressions of mask, lengths and past, too
//   (attention_masks.py)
// Tactics:
//   attention_few        a block a part of the keys of a batch: products, exponentials beside the part's largest score, weighted values
//   attention_few_join   a block a row: parts put together; rows without a key become 0
// Keys and values are read once, by accesses of 16 bytes; the order of sums follows from how keys are parted.
// NVRTC defines: TX, TY, ROWS, SPAN (keys of a part), LANES and COLUMNS (threads a key, a value: powers of two), TM, HAS_MASK, TL, HAS_LENGTHS, STEPS, MADE,
// LOOKS, ONE_QUERY (rows are heads of one), one ENTRY.
#include "pointwise.cuh"
#include "attention.cuh"

#define THREADS 128
#define EACH 8  // elements of a thread

struct Largest { __device__ __forceinline__ float operator()(float x, float y) const { return fmaxf(x, y); } };

struct Few {
    Along q, k, v, mask, lengths;
    i64 batch1, past;
    int keys, depth, width, parts;
};

#ifdef ENTRY_FEW
__device__ __forceinline__ void fetch(float (&to)[EACH], const TX* from, bool wanted) {
    Pack<TX, 16 / sizeof(TX)> held[EACH * sizeof(TX) / 16] = {};
    if (wanted)
#pragma unroll
        for (int n = 0; n < EACH * (int)sizeof(TX) / 16; ++n) held[n] = *(const Pack<TX, 16 / sizeof(TX)>*)(from + n * (16 / sizeof(TX)));
#pragma unroll
    for (int e = 0; e < EACH; ++e) to[e] = read(held[e * sizeof(TX) / 16].lane[e % (16 / sizeof(TX))]);
}

// sums [batch, part, ROWS, width]; known [batch, part, ROWS, 3]: largest score, sum of exponentials, whether a key was looked at
extern "C" __global__ void __launch_bounds__(THREADS, 4) attention_few(
    const TX* __restrict__ q, const TX* __restrict__ k, const TX* __restrict__ v, const TM* __restrict__ masks, const TL* __restrict__ all_lengths,
    float* __restrict__ sums, float* __restrict__ known, Few p) {
    take_turn();
    __shared__ float weights[ROWS][SPAN], room[THREADS / 32][ROWS][COLUMNS * EACH], looked[ROWS];
    i64 batch = blockIdx.x / p.parts, b0 = batch / p.batch1, b1 = batch % p.batch1;
    int first = (int)(blockIdx.x % p.parts) * SPAN, count = p.keys - first < SPAN ? p.keys - first : SPAN, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    q += b0 * p.q.b0 + b1 * p.q.b1, k += b0 * p.k.b0 + b1 * p.k.b1, v += b0 * p.v.b0 + b1 * p.v.b1;
    masks += b0 * p.mask.b0 + b1 * p.mask.b1;
    i64 lengths = 0, past = p.past;
    if (HAS_LENGTHS) lengths = all_lengths[b0 * p.lengths.b0 + b1 * p.lengths.b1];
    if (threadIdx.x < ROWS) looked[threadIdx.x] = 0.f;
    __syncthreads();
    {
        int part = threadIdx.x % LANES * EACH;
        float mine[ROWS][EACH];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) fetch(mine[r], q + r * p.q.row + part, part < p.depth);
#pragma unroll 4
        for (int at = threadIdx.x / LANES; at < SPAN; at += THREADS / LANES) {
            float one[EACH], total[ROWS] = {};
            i64 key = first + at;
            fetch(one, k + key * p.k.row + part, part < p.depth && at < count);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int e = 0; e < EACH; ++e) total[r] = fmaf(mine[r][e], one[e], total[r]);
#pragma unroll
                for (int other = LANES / 2; other > 0; other /= 2) total[r] += __shfl_xor_sync(0xffffffffu, total[r], other);
            }
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                if (r % LANES == threadIdx.x % LANES && at < count) {
                    i64 query = ONE_QUERY ? 0 : r;
                    auto mask = HAS_MASK ? read(masks[r * p.mask.row + key * p.mask.col]) : read(TM());
                    float sum = total[r];
                    STEPS
                    weights[r][at] = MADE;
                    if (LOOKS) looked[r] = 1.f;  // whoever writes says the same
                }
        }
    }
    __syncthreads();
    for (int r = warp; r < ROWS; r += THREADS / 32) {
        float top = __int_as_float(0xff800000), sum = 0.f;
        for (int at = lane; at < count; at += 32) top = fmaxf(top, weights[r][at]);
        top = warp_all(top, Largest());
        float from = top == __int_as_float(0xff800000) ? 0.f : top;  // -Inf alone: weights of 0
        for (int at = lane; at < count; at += 32) sum += weights[r][at] = expf(weights[r][at] - from);
        sum = warp_all(sum, Sum());
        if (lane == 0) {
            float* to = known + ((i64)blockIdx.x * ROWS + r) * 3;
            to[0] = top, to[1] = sum, to[2] = looked[r];
        }
    }
    __syncthreads();
    float total[ROWS][EACH] = {};
    int column = threadIdx.x % COLUMNS * EACH;
#pragma unroll 4
    for (int at = threadIdx.x / COLUMNS; at < count; at += THREADS / COLUMNS) {
        float one[EACH];
        fetch(one, v + (first + (i64)at) * p.v.row + column, column < p.width);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int e = 0; e < EACH; ++e) total[r][e] = fmaf(weights[r][at], one[e], total[r][e]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
#pragma unroll
            for (int other = 16; other >= COLUMNS; other /= 2) total[r][e] += __shfl_xor_sync(0xffffffffu, total[r][e], other);
            if (lane < COLUMNS) room[warp][r][column + e] = total[r][e];
        }
    __syncthreads();
    for (int at = threadIdx.x; at < ROWS * p.width; at += THREADS) {
        int r = at / p.width, c = at % p.width;
        float sum = room[0][r][c];
#pragma unroll
        for (int w = 1; w < THREADS / 32; ++w) sum += room[w][r][c];
        sums[(i64)blockIdx.x * ROWS * p.width + at] = sum;
    }
}
#endif

#ifdef ENTRY_JOIN
extern "C" __global__ void __launch_bounds__(THREADS) attention_few_join(const float* __restrict__ sums, const float* __restrict__ known, TY* __restrict__ y, int parts, int width) {
    take_turn();
    i64 batch = blockIdx.x / ROWS, r = blockIdx.x % ROWS;
    known += (batch * parts * ROWS + r) * 3, sums += (batch * parts * ROWS + r) * width, y += (i64)blockIdx.x * width;
    float top = __int_as_float(0xff800000), total = 0.f, seen = 0.f;
    for (int n = 0; n < parts; ++n) top = fmaxf(top, known[(i64)n * ROWS * 3]), seen = fmaxf(seen, known[(i64)n * ROWS * 3 + 2]);
    float from = top == __int_as_float(0xff800000) ? 0.f : top;
    for (int n = 0; n < parts; ++n) total += known[(i64)n * ROWS * 3 + 1] * expf(known[(i64)n * ROWS * 3] - from);
    for (int c = threadIdx.x; c < width; c += THREADS) {
        float sum = 0.f;
        for (int n = 0; n < parts; ++n) sum += sums[(i64)n * ROWS * width + c] * expf(known[(i64)n * ROWS * 3] - from);
        write(y[c], seen == 0.f ? 0.f : sum / total);
    }
}
#endif
