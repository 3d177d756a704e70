// y[b, m, n] = alpha * sum_k a[b, m, k] * b[b, k, n] + beta * c[b, m, n] on sm_90a: wgmma out of tiles that bulk copies bring
//   a, b TAB (f16 or bf16), each contiguous along k (A_BY_M, B_BY_N 0) or along m, n (1), other strides multiples of 16 bytes; c TC, y TY (or out.cuh)
// Tactics; each is the one above plus one idea:
//   matmul_wgmma              one warp copies, CONSUMERS groups of four warps compute WM x BN each; a block takes tile after tile
//   matmul_wgmma PAIR > 1     that many blocks, one above the other, bring a part of b's tile each, for all of them
//   matmul_wgmma TURNS 2      each group computes whole tiles of its own, one stores while the other computes
//   matmul_wgmma SPLITS > 1   that many blocks share a tile, each a stretch of k; their sums are added in the order of k
//   matmul_wgmma WINDOWS 1    a is what a convolution's windows hold of x, channels last: the copies gather it, padding and strides included
// Products and sums are FP32 (the tensor core's: sums are cut, not rounded, a few bits below), in the order of k.
// The maps are (contiguous axis, other axis, second batch axis, first batch axis); Problem::a_batch, b_batch are 0 for an axis that an
// operand is repeated over, else 1.
// NVRTC defines: TAB, TC, TY, ADDED (0: c is null and alpha 1), A_BY_M, B_BY_N, BM, BN (of a block), WM (rows of a warpgroup), STAGES, PAIR, TURNS, SPLITS, WINDOWS.
#include "tma.cuh"
#include "wgmma.cuh"
#include "product.cuh"

typedef TAB T;
#define BK 64
#define CONSUMERS (TURNS > 1 ? TURNS : BM / WM)
#define THREADS (128 * (CONSUMERS + 1))
#define CLUSTER (PAIR * SPLITS)
#define A_BYTES (BM * BK * 2)
#define STAGE_BYTES (A_BYTES + BN * BK * 2)
// What a block brings of b's tile: some of its columns; or of its rows, where its columns lie in boxes of 64 and are too few
#define B_DEEP (B_BY_N && BN / PAIR < 64 ? BK / PAIR : BK)
#define B_BOXES (!B_BY_N ? 1 : B_DEEP < BK ? BN / 64 : BN / PAIR / 64)
#define B_SHARE (B_DEEP < BK ? B_DEEP * 128 : BN / PAIR * 128)  // bytes
#define SUM_ROW (BN + 8)   // floats; of a tile of sums in shared memory, so that four rows lie in different banks
#define STAGED_ROW 36      // the same of 32 columns that a warp turns from its accumulators' order to rows
#define EVEN B_BY_N       // rows of y begin on 16 bytes, as those of b do then
#define BAND 8            // rows of tiles that are taken together, column by column: what is near in time is near in memory
constexpr bool LARGE = WM / 64 * BN / 2 > 100;  // accumulators a thread: then consumers take over registers of the copying warps

#if WINDOWS
// Of a convolution: rows of a are output pixels, k runs over taps, then over chunks of 64 channels
struct Windows { int chunks, kernel_width, out_height, out_width, stride_height, stride_width, pad_top, pad_left, dilation_height, dilation_width; };
#define WINDOWS_PARAMETER , const __grid_constant__ Windows w
#else
#define WINDOWS_PARAMETER
#endif

// The tile a block works on: y's matrix, and the tile's row and column there, in elements
struct Place { i64 batch, row, col; int b0, b1; };
__device__ __forceinline__ Place place_of(unsigned tile, int rank, const Problem& p) {
    unsigned down = (unsigned)p.down, across = (unsigned)p.across, per = down * across, width = BAND * across;
    unsigned batch = tile / per, at = tile % per, first = at / width * BAND, rows = down - first < BAND ? down - first : BAND;
    unsigned row = (first + at % width % rows) * PAIR + rank % PAIR, col = at % width / rows, batch1 = (unsigned)p.batch1;
    return {batch, (i64)row * BM, (i64)col * BN, (int)(batch / batch1), (int)(batch % batch1)};
}

// row and col: in the tile
__device__ __forceinline__ Spot spot_of(const Place& place, int row, int col, const Problem& p) {
    i64 r = place.row + row, c = place.col + col;
    return {(place.batch * p.m + r) * p.n + c, place.b0, place.b1, r, c};
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, 1) matmul_wgmma(
    const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map, const TC* __restrict__ c, OUT_PARAMETERS,
    const __grid_constant__ Problem p WINDOWS_PARAMETER) {
    SWIZZLED_SHARED(shared);
    __shared__ Barrier full[STAGES], empty[STAGES], ended[TURNS];
    Out out = {OUT_ARGUMENTS};
    int group = threadIdx.x / 128, thread = threadIdx.x % 128, rank = CLUSTER > 1 ? (int)cluster_rank() : 0;
    int steps = (int)((p.k + BK - 1) / BK), begin = SPLITS > 1 ? steps * rank / SPLITS : 0, end = SPLITS > 1 ? steps * (rank + 1) / SPLITS : steps;
    unsigned first = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER, tiles = (unsigned)(p.down * p.across * p.batches);

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_make(&full[s], 1);
            barrier_make(&empty[s], CONSUMERS / TURNS * PAIR);
        }
        for (int g = 0; g < TURNS; ++g) barrier_make(&ended[g], 1);
        barriers_made();
        prefetch_map(&a_map);
        prefetch_map(&b_map);
    }
    if (CLUSTER > 1) cluster_sync(false); else __syncthreads();
    take_turn();

    if (group == CONSUMERS) {
        if constexpr (LARGE) registers_down<40>();
        int stage = 0, phase = 1;
        for (unsigned tile = first; tile < tiles && thread == 0; tile += step) {
            Place place = place_of(tile, rank, p);
            int row = (int)place.row, col = (int)place.col, share = PAIR > 1 ? rank % PAIR : 0;
#if WINDOWS
            int pixel = row % (w.out_height * w.out_width), image = row / (w.out_height * w.out_width);
            int corner_x = pixel % w.out_width * w.stride_width - w.pad_left, corner_y = pixel / w.out_width * w.stride_height - w.pad_top;
#endif
            int a0 = place.b0 * (int)p.a_batch[0], a1 = place.b1 * (int)p.a_batch[1], b0 = place.b0 * (int)p.b_batch[0], b1 = place.b1 * (int)p.b_batch[1];
            for (int t = begin; t < end; ++t) {
                unsigned char *as = shared + stage * STAGE_BYTES, *bs = as + A_BYTES + share * B_SHARE;
                barrier_wait(&empty[stage], phase);
                barrier_expect(&full[stage], STAGE_BYTES);
                int k = t * BK;
#if WINDOWS
                int tap = t / w.chunks;
                copy_windows(as, &a_map, &full[stage], (t - tap * w.chunks) * BK, corner_x, corner_y, image, tap % w.kernel_width * w.dilation_width,
                             tap / w.kernel_width * w.dilation_height);
#else
#pragma unroll
                for (int i = 0; i < (A_BY_M ? BM / 64 : 1); ++i)
                    copy_tile(as + i * 8192, &a_map, &full[stage], A_BY_M ? row + i * 64 : k, A_BY_M ? k : row, a1, a0);
#endif
#pragma unroll
                for (int i = 0; i < B_BOXES; ++i) {
                    int x = B_BY_N ? col + i * 64 + share * (B_DEEP < BK ? 0 : BN / PAIR) : k;
                    int y = B_BY_N ? k + share * (B_DEEP < BK ? B_DEEP : 0) : col + share * (BN / PAIR);
                    if (PAIR > 1) copy_tile(bs + i * 8192, &b_map, &full[stage], x, y, b1, b0, (1 << PAIR) - 1);
                    else copy_tile(bs + i * 8192, &b_map, &full[stage], x, y, b1, b0);
                }
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
        }
    } else {
        if constexpr (LARGE) registers_up<232>();
        int stage = 0, phase = 0, warp = thread / 32, lane = thread % 32;
        auto release = [&](int s) {  // once a group, in every block that copies into this one
            if (PAIR == 1 && thread == 0) barrier_arrive(&empty[s]);
            if (PAIR > 1 && thread < PAIR) barrier_arrive(&empty[s], thread);
        };
        // Of several groups in turn, each passes over the stages of the others' tiles.
        int turn = TURNS > 1 ? group : 0, part = TURNS > 1 ? 0 : group * WM, passed = turn * (end - begin);
        stage = passed % STAGES, phase = passed / STAGES % 2;
        for (unsigned tile = first + turn * step; tile < tiles; tile += TURNS * step) {
            float sums[WM / 64][BN / 2] = {};
            int before = 0;
            // A phase tells one turn of a barrier from the next, but not from the one after that: the group before must have come so far.
            if (TURNS > 1 && tile != first) barrier_wait(&ended[(turn + TURNS - 1) % TURNS], (tile - first) / step / TURNS % 2 ^ (turn == 0));
            for (int t = begin; t < end; ++t) {
                unsigned char *as = shared + stage * STAGE_BYTES + part * BK * 2, *bs = shared + stage * STAGE_BYTES + A_BYTES;
                barrier_wait(&full[stage], phase);
                wgmma_begin();
#pragma unroll
                for (int k = 0; k < BK / 16; ++k)
#pragma unroll
                    for (int i = 0; i < WM / 64; ++i)
                        wgmma(sums[i], along_k<A_BY_M>(tile_at<A_BY_M>(as + i * 64 * BK * 2), k), along_k<B_BY_N>(tile_at<B_BY_N>(bs), k));
                wgmma_end();
                wgmma_wait<1>();  // the products before these
                if (t > begin) release(before);
                before = stage;
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
            if (TURNS > 1 && thread == 0) barrier_arrive(&ended[turn]);
            wgmma_wait<0>();
            release(before);
            passed = stage + (TURNS - 1) * (end - begin);
            stage = passed % STAGES, phase = (phase + passed / STAGES) % 2;
#pragma unroll
            for (int i = 0; i < WM / 64; ++i)
#pragma unroll
                for (int j = 0; j < BN / 2; ++j) wgmma_pin(sums[i][j]);
            Place place = place_of(tile, rank, p);
            const TC* added = ADDED ? c + place.b0 * p.c_batch[0] + place.b1 * p.c_batch[1] : nullptr;
            float* staged = (float*)(shared + STAGES * STAGE_BYTES) + (group * 4 + warp) * 16 * STAGED_ROW;
            if (SPLITS > 1) meet(1, 128 * CONSUMERS);  // nobody reads tiles any more
#pragma unroll
            for (int i = 0; i < WM / 64; ++i) {
                int row = part + i * 64 + warp * 16;  // of the warp's 16, in the tile
#pragma unroll
                for (int j = 0; j < BN / 8; j += 4) {
#pragma unroll
                    for (int e = 0; e < 8; ++e) {
                        int down = lane / 4 + e % 2 * 8, right = e / 2 * 8 + lane % 4 * 2;
                        Pack<float, 2> pair = {sums[i][(j + e / 2) * 4 + e % 2 * 2], sums[i][(j + e / 2) * 4 + e % 2 * 2 + 1]};
                        if (SPLITS == 1) *(Pack<float, 2>*)(staged + down * STAGED_ROW + right) = pair;
                        else *(Pack<float, 2>*)((float*)shared + (row + down) * SUM_ROW + j * 8 + right) = pair;
                    }
                    if (SPLITS > 1) continue;
                    __syncwarp();
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        int down = lane / 4 + half * 8, right = lane % 4 * 8;
                        float values[8];
#pragma unroll
                        for (int e = 0; e < 8; e += 4) *(Pack<float, 4>*)(values + e) = *(const Pack<float, 4>*)(staged + down * STAGED_ROW + right + e);
                        finish<!ADDED>(values, added, spot_of(place, row + down, j * 8 + right, p), EVEN || p.n % 8 == 0, out, p);
                    }
                    __syncwarp();
                }
            }
        }
    }

    if (CLUSTER > 1) cluster_sync(SPLITS > 1);  // sums are there; and nobody leaves while another arrives at its barriers
#if SPLITS > 1
    Place place = place_of(first, rank, p);
    const TC* added = ADDED ? c + place.b0 * p.c_batch[0] + place.b1 * p.c_batch[1] : nullptr;
    constexpr int EIGHTS = BM * (BN / 8);  // of the tile; this block finishes its share of them
    for (int i = EIGHTS * rank / SPLITS + threadIdx.x; i < EIGHTS * (rank + 1) / SPLITS; i += THREADS) {
        int row = i / (BN / 8), col = i % (BN / 8) * 8;
        if (place.row + row >= p.m || place.col + col >= p.n) continue;
        float values[8];
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Pack<float, 4> four = read_there((const float*)shared + row * SUM_ROW + col + half * 4, s);
#pragma unroll
                for (int e = 0; e < 4; ++e) values[half * 4 + e] = s ? values[half * 4 + e] + four.lane[e] : four.lane[e];
            }
        }
        finish<!ADDED>(values, added, spot_of(place, row, col, p), EVEN || p.n % 8 == 0, out, p);
    }
    cluster_sync(false);  // nobody leaves while another reads its sums
#endif
}
