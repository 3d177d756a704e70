// y[b, m, n] = alpha * sum_k a[b, m, k] * b[b, k, n] + beta * c[b, m, n] on sm_90a: wgmma out of tiles that bulk copies bring
//   a, b TAB (f16, bf16, or float that holds TF32), each contiguous along k (A_BY_M, B_BY_N 0) or, 16-bit types, along m, n (1); other strides
//   multiples of 16 bytes; c TC, y TY (or out.cuh)
// Tactics; each is the one above plus one idea:
//   matmul_wgmma              one warp copies, CONSUMERS groups of four warps compute WM x BN each; a block takes tile after tile
//   matmul_wgmma PAIR > 1     that many blocks, one above the other, bring a part of b's tile each, for all of them
//   matmul_wgmma TURNS 2      each group computes whole tiles of its own, one stores while the other computes
//   matmul_wgmma SPLITS > 1   that many blocks (each of a pair) share a tile, each a stretch of k; their sums are added in the order of k
//   matmul_wgmma SWAPPED 1    the instruction's rows run along y's columns, so that any multiple of 16 rows of y is a tile; a is what y calls b^T,
//                             and the maps, BM and BN are the instruction's
//   matmul_wgmma WINDOWS 1    a is what a convolution's windows hold of x, channels last: the copies gather it, padding and strides included;
//                             2: of volumes, whose slices come before rows
// Products and sums are FP32 (the tensor core's: sums are cut, not rounded, a few bits below), in the order of k.
// The maps are (contiguous axis, other axis, second batch axis, first batch axis); Problem::a_batch, b_batch are 0 for an axis that an
// operand is repeated over, else 1.
// What is read beside the sums (c, what a tail reads) is fetched before it is needed, the first of it before the products.
// NVRTC defines: TAB, TC, TY, ADDED (0: c is null and alpha 1; 2: c is a row), A_BY_M, B_BY_N, BM, BN (of a block), WM (rows of a warpgroup),
// STAGES, PAIR, TURNS, SPLITS, WINDOWS, SWAPPED, WEIGHTS (1: b is the same in every run; 2: a is), EVEN (n divides by 8).
#include "tma.cuh"
#include "wgmma.cuh"
#include "product.cuh"

typedef TAB T;
#define BK (128 / (int)sizeof(T))  // a line of a tile is 128 bytes
#define CONSUMERS (TURNS > 1 ? TURNS : BM / WM)
#define THREADS (128 * (CONSUMERS + 1))
#define CLUSTER (PAIR * SPLITS)
#define A_BYTES (BM * 128)
#define STAGE_BYTES (A_BYTES + (B_BY_N ? B_COLUMNS * 64 : BN) * 128)
// What a block brings of b's tile: some of its columns; or of its rows, where its columns lie in boxes of 64 and do not divide among the pair
#define B_COLUMNS ((BN + 63) / 64)  // of boxes
#define B_DEEP (B_BY_N && B_COLUMNS % PAIR ? BK / PAIR : BK)
#define B_BOXES (!B_BY_N ? 1 : B_DEEP < BK ? B_COLUMNS : B_COLUMNS / PAIR)
#define B_SHARE (B_DEEP < BK ? B_DEEP * 128 : B_BY_N ? B_BOXES * 8192 : BN / PAIR * 128)  // bytes
#define SUM_ROW (BN + 8)   // floats; of a tile of sums in shared memory, so that four rows lie in different banks
#define STAGED_ROW (SWAPPED ? 20 : 36)  // the same of 32 columns (16) that a warp turns from its accumulators' order to rows
#define STAGED (SWAPPED ? 32 : 16)      // such rows
#define C_ROW (SWAPPED ? WM : BN)       // columns of y of a group
#define BAND 8            // rows of tiles that are taken together, column by column: what is near in time is near in memory
#define EIGHTS (WM / 64 * (BN / 16))  // eights of a row that a thread finishes
constexpr bool LARGE = WM / 64 * BN / 2 > 70 && CONSUMERS < 3 && SPLITS == 1;  // accumulators a thread: then consumers take registers of the copying warps
// Of which what is read beside them is fetched together, while those before are finished: a warp waits for all its loads under way at once
constexpr int FETCHED = (LARGE ? (WM / 64 * BN / 2 > 128 ? 32 : WM / 64 * BN / 2 > 96 ? 64 : 96) : CONSUMERS > 2 ? (BN > 128 ? 16 : 32) : 64) / (int)sizeof(Beside<8>), AT_ONCE = FETCHED < 4 ? 2 : FETCHED < EIGHTS ? FETCHED / 2 * 2 : EIGHTS;

#if WINDOWS
// Of a convolution: rows of a are output pixels, k runs over taps, then over chunks of 64 channels
struct Windows {
    int chunks, kernel_width, out_height, out_width, stride_height, stride_width, pad_top, pad_left, dilation_height, dilation_width;
#if WINDOWS == 2
    int kernel_height, out_slices, stride_slices, pad_front, dilation_slices;
#endif
};
#define WINDOWS_PARAMETER , const __grid_constant__ Windows w
#else
#define WINDOWS_PARAMETER
#endif

// The tile a block works on: y's matrix, and the tile's row and column there, in elements
struct Site { i64 batch, row, col; int b0, b1; };
__device__ __forceinline__ Site site_of(unsigned tile, int rank, const Problem& p) {
    unsigned down = (unsigned)p.down, across = (unsigned)p.across, batch = 0, batch0 = 0, at = tile;
    if (p.batches > 1) {  // divisions take a hundred cycles each, before anything can be copied
        batch = tile / (down * across), at = tile - batch * down * across;
        batch0 = batch / (unsigned)p.batch1;
    }
    unsigned band = across > 1 ? at / (BAND * across) : at / BAND, in = at - band * BAND * across, rows = down - band * BAND;
    bool whole = rows >= BAND;
    unsigned row = (band * BAND + (whole ? in % BAND : in % rows)) * PAIR + rank % PAIR, col = whole ? in / BAND : in / rows;
    return {batch, (i64)row * BM, (i64)col * BN, (int)batch0, (int)(batch - batch0 * (unsigned)p.batch1)};
}

// row and col: of y, in the tile
__device__ __forceinline__ Spot spot_of(const Site& place, int row, int col, const Problem& p) {
    i64 r = (SWAPPED ? place.col : place.row) + row, c = (SWAPPED ? place.row : place.col) + col;
    return {(place.batch * p.m + r) * p.n + c, place.b0, place.b1, r, c};
}

// N sums of a row; for N > 1 from a column on that divides by 8, of an n that does. `row`: of c, where that is one.
template <int N> __device__ __forceinline__ void hand_over(float (&values)[N], const TC* c, const float* row, const Beside<N>& beside, const Spot& spot,
                                                           const Out& out, const Problem& p) {
    bool in = spot.row < p.m && spot.col < p.n;  // no branch, so that neighbours are finished side by side
#pragma unroll
    for (int e = 0; e < N; ++e) {
        if (ADDED) values[e] = p.alpha == 1.f ? values[e] : p.alpha * values[e];
        if (ADDED == 2) values[e] = fmaf(p.beta, row[e], values[e]);
        if (ADDED == 1 && c && in) values[e] = fmaf(p.beta, read(c[spot.row * p.c_row + (spot.col + e) * p.c_col]), values[e]);
    }
    put(out, values, beside, spot, in);
}

// What is read beside N sums; nothing outside y
template <int N> __device__ __forceinline__ Beside<N> beside_of(const Spot& spot, bool wanted, const Out& out, const Problem& p) {
    return fetch<N>(out, spot, wanted && spot.row < p.m && spot.col < p.n);
}

// Waits for what was fetched: whatever is fetched after this is not waited for, too.
__device__ __forceinline__ void wait_fetched(Beside<8>& beside) {
    if constexpr (sizeof(Beside<8>) % 16 == 0) {
#pragma unroll
        for (int w = 0; w < (int)sizeof(Beside<8>) / 4; ++w) asm volatile("" : "+r"(((unsigned*)&beside)[w])::"memory");
    }
}

#if SPLITS > 1
// N neighbours of the tile's sums, of all that have a stretch of k, in the order of k; `at` in this block's shared memory, `rank` of the first of them
template <int N> __device__ __forceinline__ void add_there(float (&values)[N], const float* at, unsigned rank) {
    constexpr int WIDE = N < 4 ? N : 4;
#pragma unroll
    for (int s = 0; s < SPLITS; ++s) {
#pragma unroll
        for (int q = 0; q < N; q += WIDE) {
            Pack<float, WIDE> there = read_there<WIDE>(at + q, s * PAIR + rank, cluster_rank());
#pragma unroll
            for (int r = 0; r < WIDE; ++r) values[q + r] = s ? values[q + r] + there.lane[r] : there.lane[r];
        }
    }
}
#endif

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, 1) matmul_wgmma(
    const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map, const TC* __restrict__ c, OUT_PARAMETERS,
    const __grid_constant__ Problem p WINDOWS_PARAMETER) {
    SWIZZLED_SHARED(shared);
    __shared__ Barrier barriers[2 * STAGES + TURNS];
    BarrierAt full = barrier_of(barriers), empty = barrier_at(full, STAGES), ended = barrier_at(full, 2 * STAGES);
    Shared stages = shared_of(shared);
    int group = of_warp(threadIdx.x / 128), thread = threadIdx.x % 128, rank = CLUSTER > 1 ? of_warp(cluster_rank()) : 0;
    int stretch = rank / PAIR, steps = (int)((p.k + BK - 1) / BK);  // of k: which of the SPLITS this block takes
    int begin = SPLITS > 1 ? steps * stretch / SPLITS : 0, end = SPLITS > 1 ? steps * (stretch + 1) / SPLITS : steps;
    unsigned first = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER, tiles = (unsigned)(p.down * p.across * p.batches);

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_make(barrier_at(full, s), 1);
            barrier_make(barrier_at(empty, s), CONSUMERS / TURNS * PAIR);
        }
        for (int g = 0; g < TURNS; ++g) barrier_make(barrier_at(ended, g), 1);
        barriers_made();
        prefetch_map(&a_map);
        prefetch_map(&b_map);
    }
    if (CLUSTER > 1) cluster_sync(false); else __syncthreads();

    if (group == CONSUMERS) {
        if constexpr (LARGE) registers_down<40>();
        int stage = 0, phase = 1, share = PAIR > 1 ? rank % PAIR : 0;
        auto bring_b = [&](const Site& place, int t, int into) {
            Shared bs = stages + into * STAGE_BYTES + A_BYTES + share * B_SHARE;
            int k = t * BK, col = (int)place.col, b0 = place.b0 * (int)p.b_batch[0], b1 = place.b1 * (int)p.b_batch[1];
#pragma unroll
            for (int i = 0; i < B_BOXES; ++i) {
                int x = B_BY_N ? col + i * 64 + share * (B_DEEP < BK ? 0 : B_BOXES * 64) : k;
                int y = B_BY_N ? k + share * (B_DEEP < BK ? B_DEEP : 0) : col + share * (BN / PAIR);
                if (PAIR > 1) copy_tile(bs + i * 8192, &b_map, barrier_at(full, into), x, y, b1, b0, ((1 << PAIR) - 1) << stretch * PAIR);
                else copy_tile(bs + i * 8192, &b_map, barrier_at(full, into), x, y, b1, b0);
            }
        };
#if !WINDOWS
        auto bring_a = [&](const Site& place, int t, int into) {
            Shared as = stages + into * STAGE_BYTES;
            int k = t * BK, row = (int)place.row, a0 = place.b0 * (int)p.a_batch[0], a1 = place.b1 * (int)p.a_batch[1];
#pragma unroll
            for (int i = 0; i < (A_BY_M ? BM / 64 : 1); ++i)
                copy_tile(as + i * 8192, &a_map, barrier_at(full, into), A_BY_M ? row + i * 64 : k, A_BY_M ? k : row, a1, a0);
        };
#endif
        // One thread asks for a's tiles, another for b's: asking for both takes longer than small tiles are multiplied. Bytes are expected by the first,
        // and may come before. Weights come beside the kernel before this one, for as many steps of the first tile as there are stages: nobody writes them.
        bool of_b = of_warp(thread / 32) == 1, asks = thread == 0 || thread == 32;
        int early = WEIGHTS && first < tiles ? (end - begin < STAGES ? end - begin : STAGES) : 0;
        if (WEIGHTS && asks && of_b == (WEIGHTS == 1) && early) {
            Site place = site_of(first, rank, p);
            for (int s = 0; s < early; ++s) {
#if WEIGHTS == 2
                barrier_expect(barrier_at(full, s), STAGE_BYTES);
                bring_a(place, begin + s, s);
#else
                bring_b(place, begin + s, s);
#endif
            }
        }
        take_turn();
        if (asks && of_b) {
            for (unsigned tile = first; tile < tiles; tile += step) {
                Site place = site_of(tile, rank, p);
                for (int t = begin; t < end; ++t) {
                    if (WEIGHTS != 1 || tile != first || t - begin >= early) {
                        barrier_wait(barrier_at(empty, stage), phase);
                        bring_b(place, t, stage);
                    }
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                }
            }
        } else if (asks) {
            for (unsigned tile = first; tile < tiles; tile += step) {
                Site place = site_of(tile, rank, p);
#if WINDOWS
                int row = (int)place.row;
                int pixel = row % (w.out_height * w.out_width), image = row / (w.out_height * w.out_width);
#if WINDOWS == 2
                int corner_z = image % w.out_slices * w.stride_slices - w.pad_front;
                image /= w.out_slices;
#endif
                int corner_x = pixel % w.out_width * w.stride_width - w.pad_left, corner_y = pixel / w.out_width * w.stride_height - w.pad_top;
#endif
                for (int t = begin; t < end; ++t) {
                    if (WEIGHTS != 2 || tile != first || t - begin >= early) {
                        barrier_wait(barrier_at(empty, stage), phase);
                        barrier_expect(barrier_at(full, stage), STAGE_BYTES);
#if WINDOWS
                        int tap = t / w.chunks;
#if WINDOWS == 2
                        int line = tap / w.kernel_width, deep = line / w.kernel_height;
                        copy_windows(stages + stage * STAGE_BYTES, &a_map, barrier_at(full, stage), (t - tap * w.chunks) * BK, corner_x, corner_y, corner_z,
                                     image, (tap - line * w.kernel_width) * w.dilation_width, (line - deep * w.kernel_height) * w.dilation_height,
                                     deep * w.dilation_slices);
#else
                        copy_windows(stages + stage * STAGE_BYTES, &a_map, barrier_at(full, stage), (t - tap * w.chunks) * BK, corner_x, corner_y, image,
                                     tap % w.kernel_width * w.dilation_width, tap / w.kernel_width * w.dilation_height);
#endif
#else
                        bring_a(place, t, stage);
#endif
                    }
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                }
            }
        }
    } else {
        take_turn();
        if constexpr (LARGE) registers_up<232>();
        Out out = {OUT_ARGUMENTS};
        int stage = 0, phase = 0, warp = thread / 32, lane = thread % 32;
        // Of 16 columns swapped, two lanes beside each other have the halves of a row, so that it is stored at once; such rows that none of eight
        // lanes reads the bank of another.
        int eighth = lane / 2 + lane % 2 * 16, at_row = (eighth & 9) | (eighth & 2) * 2 | (eighth & 4) / 2, at_pair = lane % 2 * 2 + lane / 2 % 2;
        auto release = [&](int s) {  // once a group, in every block that copies into this one
            if (PAIR == 1 && thread == 0) barrier_arrive(barrier_at(empty, s));
            if (PAIR > 1 && thread < PAIR) barrier_arrive(barrier_at(empty, s), stretch * PAIR + thread);
        };
        // Of several groups in turn, each passes over the stages of the others' tiles.
        int turn = TURNS > 1 ? group : 0, part = TURNS > 1 ? 0 : group * WM, passed = turn * (end - begin);
        stage = passed % STAGES, phase = passed / STAGES % 2;
        Tile a_tile = tile_at<A_BY_M>(stages + part * 128), b_tile = tile_at<B_BY_N>(stages + A_BYTES);
        for (unsigned tile = first + turn * step; tile < tiles; tile += TURNS * step) {
            Site place = site_of(tile, rank, p);
            const TC* added = ADDED ? c + place.b0 * p.c_batch[0] + place.b1 * p.c_batch[1] : nullptr;
            auto spot_at = [&](int eight) {  // the thread's, in the order in which it finishes them
                if (SWAPPED) return spot_of(place, eight % (BN / 16) * 16 + eighth % 16, part + eight / (BN / 16) * 64 + warp * 16 + eighth / 16 * 8, p);
                int row = part + eight / (BN / 16) * 64 + warp * 16 + eight % 2 * 8 + lane / 4;
                return spot_of(place, row, eight % (BN / 16) / 2 * 32 + lane % 4 * 8, p);
            };
#if SPLITS == 1
            Beside<8> beside[2][AT_ONCE];
#pragma unroll
            for (int e = 0; EVEN && e < AT_ONCE; ++e) beside[0][e] = beside_of<8>(spot_at(e), true, out, p);
#if ADDED == 2
            float row_of_c[(C_ROW + 127) / 128];
#pragma unroll
            for (int e = 0; e < (C_ROW + 127) / 128; ++e) {
                i64 col = (SWAPPED ? place.row + part : place.col) + e * 128 + thread;
                row_of_c[e] = col < p.n ? read(added[col * p.c_col]) : 0.f;
            }
#endif
#endif
            float sums[WM / 64][BN / 2] = {};
            int before = 0;
            bool ready = false;
            // A phase tells one turn of a barrier from the next, but not from the one after that: the group before must have come so far.
            if (TURNS > 1 && tile != first) barrier_wait(barrier_at(ended, (turn + TURNS - 1) % TURNS), (tile - first) / step / TURNS % 2 ^ (turn == 0));
            for (int t = begin; t < end; ++t) {
                Tile at = further(a_tile, stage * STAGE_BYTES), bt = further(b_tile, stage * STAGE_BYTES);
                if (!ready) barrier_wait(barrier_at(full, stage), phase);
                wgmma_begin();
#pragma unroll
                for (int k = 0; k < 4; ++k)  // 32 bytes of each line
#pragma unroll
                    for (int i = 0; i < WM / 64; ++i)
                        wgmma(sums[i], along_k<A_BY_M>(further(at, i * 64 * 128), k), along_k<B_BY_N>(bt, k));
                wgmma_end();
                int now = stage;
                if (++stage == STAGES) stage = 0, phase ^= 1;
                ready = t + 1 < end && barrier_passed(barrier_at(full, stage), phase);  // asked while products are under way
                wgmma_wait<1>();  // the products before these
                if (t > begin) release(before);
                before = now;
            }
            if (TURNS > 1 && thread == 0) barrier_arrive(barrier_at(ended, turn));
            wgmma_wait<0>();
            release(before);
            passed = stage + (TURNS - 1) * (end - begin);
            stage = passed % STAGES, phase = (phase + passed / STAGES) % 2;
#pragma unroll
            for (int i = 0; i < WM / 64; ++i)
#pragma unroll
                for (int j = 0; j < BN / 2; ++j) wgmma_pin(sums[i][j]);
#if SPLITS > 1
            meet(1, 128 * CONSUMERS);  // nobody reads tiles any more
#pragma unroll
            for (int i = 0; i < WM / 64; ++i) {
#pragma unroll
                for (int j = 0; j < BN / 4; ++j) {
                    int row = part + i * 64 + warp * 16 + j % 2 * 8 + lane / 4, col = j / 2 * 8 + lane % 4 * 2;
                    *(Pack<float, 2>*)((float*)shared + row * SUM_ROW + col) = {sums[i][j * 2], sums[i][j * 2 + 1]};
                }
            }
#else
            float* staged = (float*)(shared + STAGES * STAGE_BYTES) + (group * 4 + warp) * STAGED * STAGED_ROW;
            float* kept = (float*)(shared + STAGES * STAGE_BYTES) + CONSUMERS * 4 * STAGED * STAGED_ROW + group * C_ROW;  // the row of c
#if ADDED == 2
            meet(1 + group, 128);  // nobody reads that of the tile before
#pragma unroll
            for (int e = 0; e < (C_ROW + 127) / 128; ++e)
                if (C_ROW % 128 == 0 || e * 128 + thread < C_ROW) kept[e * 128 + thread] = row_of_c[e];
            meet(1 + group, 128);
#endif
#pragma unroll
            for (int e = 0; e < EIGHTS; e += 2) {  // of 16 rows and 32 columns; the other way round of 32 rows and 16 columns
                int i = e / (BN / 16), j = e % (BN / 16) / 2 * 4;
                if (EVEN && e % AT_ONCE == 0) {
#pragma unroll
                    for (int f = 0; f < AT_ONCE; ++f) wait_fetched(beside[e / AT_ONCE % 2][f]);
#pragma unroll
                    for (int f = 0; f < AT_ONCE; ++f)
                        if (e + AT_ONCE + f < EIGHTS) beside[(e / AT_ONCE + 1) % 2][f] = beside_of<8>(spot_at(e + AT_ONCE + f), true, out, p);
                }
#if SWAPPED
#pragma unroll
                for (int q = 0; q < 16; ++q) {
                    int half = q / 8, f = e + half, right = lane / 4 + q % 2 * 8, down = half * 16 + q / 4 % 2 * 8 + at_pair * 2 + q / 2 % 2;
                    if (f < EIGHTS) staged[down * STAGED_ROW + right] = sums[f / (BN / 16)][(f % (BN / 16) * 2 + q / 4 % 2) * 4 + q % 2 * 2 + q / 2 % 2];
                }
                __syncwarp();
                float values[2][8], row[2][8];
#pragma unroll
                for (int q = 0; q < 8; q += 4) {
#pragma unroll
                    for (int half = 0; half < 2 && e + half < EIGHTS; ++half) {
                        *(Pack<float, 4>*)(values[half] + q) = *(const Pack<float, 4>*)(staged + (at_row + half * 16) * STAGED_ROW + eighth / 16 * 8 + q);
                        if (ADDED == 2) *(Pack<float, 4>*)(row[half] + q) = *(const Pack<float, 4>*)(kept + (e + half) / (BN / 16) * 64 + warp * 16 + eighth / 16 * 8 + q);
                    }
                }
                __syncwarp();
#pragma unroll
                for (int half = 0; half < 2 && e + half < EIGHTS; ++half)
                    hand_over<8>(values[half], added, row[half], beside[e / AT_ONCE % 2][e % AT_ONCE + half], spot_at(e + half), out, p);
#else
#pragma unroll
                for (int q = 0; q < 8; ++q) {
                    int down = lane / 4 + q % 2 * 8, right = q / 2 * 8 + lane % 4 * 2;
                    *(Pack<float, 2>*)(staged + down * STAGED_ROW + right) = {sums[i][(j + q / 2) * 4 + q % 2 * 2], sums[i][(j + q / 2) * 4 + q % 2 * 2 + 1]};
                }
                __syncwarp();
#if EVEN
                float values[2][8], row[8];
#pragma unroll
                for (int q = 0; q < 8; q += 4) {
#pragma unroll
                    for (int half = 0; half < 2; ++half)
                        *(Pack<float, 4>*)(values[half] + q) = *(const Pack<float, 4>*)(staged + (lane / 4 + half * 8) * STAGED_ROW + lane % 4 * 8 + q);
                    if (ADDED == 2) *(Pack<float, 4>*)(row + q) = *(const Pack<float, 4>*)(kept + j * 8 + lane % 4 * 8 + q);
                }
                __syncwarp();  // now, so that what comes next is staged beside this
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    hand_over<8>(values[half], added, row, beside[e / AT_ONCE % 2][e % AT_ONCE + half], spot_at(e + half), out, p);
#else
                Spot spot = spot_of(place, part + i * 64 + warp * 16, j * 8 + lane, p);
                float row[1] = {ADDED == 2 ? kept[j * 8 + lane] : 0.f};
#pragma unroll 8
                for (int down = 0; down < 16; ++down) {  // a lane a column
                    float one[1] = {staged[down * STAGED_ROW + lane]};
                    hand_over<1>(one, added, row, beside_of<1>(spot, true, out, p), spot, out, p);
                    spot.row += 1, spot.at += p.n;
                }
                __syncwarp();
#endif
#endif
            }
#endif
        }
    }

#if SPLITS > 1
    Out out = {OUT_ARGUMENTS};
    Site place = site_of(first, rank, p);
    const TC* added = ADDED ? c + place.b0 * p.c_batch[0] + place.b1 * p.c_batch[1] : nullptr;
    // This block finishes its share of the tile's eights.
    constexpr int ALL = BM * (BN / 8), EACH = ((ALL + SPLITS - 1) / SPLITS + THREADS - 1) / THREADS;
    int from = ALL * stretch / SPLITS, to = ALL * (stretch + 1) / SPLITS;
    constexpr int EARLY = EACH < 2 || BN > 192 ? 1 : 2;
    auto spot_at = [&](int e) {
        int i = from + e * THREADS + threadIdx.x;
        return spot_of(place, i / (BN / 8), i % (BN / 8) * 8, p);
    };
    auto finish = [&](int e, const Beside<8>& beside) {
        int i = from + e * THREADS + threadIdx.x, row = i / (BN / 8), col = i % (BN / 8) * 8;
        if (i >= to || place.row + row >= p.m || place.col + col >= p.n) return;
        float values[8], row_of_c[8];
#pragma unroll
        for (int q = 0; q < 8; ++q)
            if (ADDED == 2) row_of_c[q] = read(added[(place.col + col + q) * p.c_col]);
        add_there<8>(values, (const float*)shared + row * SUM_ROW + col, rank % PAIR);
        hand_over<8>(values, added, row_of_c, beside, spot_at(e), out, p);
    };
    Beside<8> ahead[EARLY];
#pragma unroll
    for (int e = 0; EVEN && e < EARLY; ++e) ahead[e] = beside_of<8>(spot_at(e), true, out, p);
    cluster_sync(true);  // sums are there
#if EVEN
#pragma unroll
    for (int e = 0; e < EARLY; ++e) finish(e, ahead[e]);
#pragma unroll 1
    for (int e = EARLY; e < EACH; ++e) finish(e, beside_of<8>(spot_at(e), true, out, p));
#else
#pragma unroll 1
    for (int i = from * 8 + threadIdx.x; i < to * 8; i += THREADS) {
        Spot spot = spot_of(place, i / BN, i % BN, p);
        float one[1], row_of_c[1] = {ADDED == 2 && spot.col < p.n ? read(added[spot.col * p.c_col]) : 0.f};
        add_there<1>(one, (const float*)shared + i / BN * SUM_ROW + i % BN, rank % PAIR);
        hand_over<1>(one, added, row_of_c, beside_of<1>(spot, true, out, p), spot, out, p);
    }
#endif
#endif
    if (CLUSTER > 1) cluster_sync(false);  // nobody leaves while another reads its sums or arrives at its barriers
}
