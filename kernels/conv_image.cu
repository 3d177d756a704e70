// A convolution whose window moves by one pixel, channels last, on sm_90a: what a tile of pixels reads of the image is brought to shared memory
// once, and every tap of the window reads it there
//   y[pixel, m] = c[m] + sum over chunks of 128 bytes of channels, rows, then columns of the window, channels of the chunk, of x * w
//   x [images, rows, columns, channels], w [outputs, taps * channels], both TAB (f16, bf16, or float that holds TF32), channels of w filled up to whole
//   chunks; c TC, y TY (or out.cuh), [pixels, outputs], outputs divide by 8
// Tactics; the second is the first plus one idea:
//   conv_image            one warp copies, a group of four warps computes 64 outputs of TALL rows of an image, or of some whole images
//   conv_image TURNS 2    two groups compute whole tiles in turn, one stores while the other computes
// A tile is BN columns of the instruction: pixels as they lie in shared memory, where a row of the image has WIDE of them: those of the image and the
// padding on its left, which is that on the right of the row above, too. A tap is then the same columns, so many pixels further. Columns that are
// no pixel of y are computed and dropped.
// Pixels of 32 bytes lie side by side: what is the channels of a chunk otherwise are then those of four neighbours.
// Products and sums are FP32 as in matmul_wgmma.cu.
// NVRTC defines: TAB, TF32, TC, TY, ADDED (0: no c), BN, WIDE, HIGH (rows of the image there), TALL, IMAGES (more than one: whole ones, HIGH rows each),
// ROWS, COLS (of the window),
// LINE (bytes of a pixel: 128 or 32), PAD_TOP, PAD_LEFT, CHUNKS, STAGES (of images), ROOM (bytes of one, a multiple of 1024), WSTAGES (of weights of a tap), HELD (1: all weights
// have a stage of their own and stay), TURNS, WEIGHTS (1: w is the same in every run).
#define A_BY_M 0
#define B_BY_N 0
#define B_LINE LINE
#include "tma.cuh"
#include "wgmma.cuh"
#include "out.cuh"

#define BK (128 / (int)sizeof(TAB))
#define TAPS (ROWS * COLS)
#define THREADS (128 * (TURNS + 1))
#define BOX_BYTES (WIDE * HIGH * IMAGES * LINE)
#define WEIGHT_BYTES (64 * 128)
#define STAGED_ROW 20  // floats; of a tile of sums in shared memory, so that four rows lie in different banks
#define STAGED 32
#define EIGHTS ((BN + 15) / 16)  // eights of a row that a thread finishes
constexpr int FETCHED = 64 / (int)sizeof(Beside<8>), AT_ONCE = FETCHED < 4 ? 2 : FETCHED < EIGHTS ? FETCHED / 2 * 2 : EIGHTS;  // what is read beside them together

// of y; bands: tiles of an image, across: of outputs, tiles: all of them
struct Image { int images, height, width, outputs, bands, across, tiles; };

// What a tap reads of the image lies so many pixels behind what the window's corner reads
__device__ __forceinline__ int place_in(int tap) { return tap / COLS * WIDE + tap % COLS; }

// Where a tile begins
struct Site { int image, row, output; };
__device__ __forceinline__ Site site_of(int tile, const Image& p) {
    int place = tile / p.across;
    return {place / p.bands * IMAGES, place % p.bands * TALL, (tile - place * p.across) * 64};
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) conv_image(
    const __grid_constant__ TensorMap x_map, const __grid_constant__ TensorMap w_map, const TC* __restrict__ c, OUT_PARAMETERS, const __grid_constant__ Image p) {
    SWIZZLED_SHARED(shared);
    __shared__ Barrier barriers[2 * STAGES + 2 * WSTAGES + TURNS];
    BarrierAt full = barrier_of(barriers), empty = barrier_at(full, STAGES), full_w = barrier_at(empty, STAGES), empty_w = barrier_at(full_w, WSTAGES);
    BarrierAt ended = barrier_at(empty_w, WSTAGES);
    Shared images = shared_of(shared), weights = images + STAGES * ROOM;
    int group = of_warp(threadIdx.x / 128), thread = threadIdx.x % 128, first = blockIdx.x, step = gridDim.x;

    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_make(barrier_at(full, s), 1);
            barrier_make(barrier_at(empty, s), 1);
        }
        for (int s = 0; s < WSTAGES; ++s) {
            barrier_make(barrier_at(full_w, s), 1);
            barrier_make(barrier_at(empty_w, s), 1);
        }
        for (int g = 0; g < TURNS; ++g) barrier_make(barrier_at(ended, g), 1);
        barriers_made();
        prefetch_map(&x_map);
        prefetch_map(&w_map);
    }
#pragma unroll
    for (int s = 0; s < STAGES; ++s)  // the padding behind the last row: copies do not reach it
        for (int at = BOX_BYTES + threadIdx.x * 16; at < ROOM; at += THREADS * 16) *(Pack<float, 4>*)(shared + s * ROOM + at) = {};
    show_products();
    __syncthreads();

    if (group == TURNS) {
        if constexpr (TURNS > 1) registers_down<40>();
        if (thread == 0) {
            int stage = 0, phase = 1, wstage = 0, wphase = 1, early = 0;
            auto bring_image = [&](const Site& place, int chunk, int into) {
                barrier_expect(barrier_at(full, into), BOX_BYTES);
                copy_tile(images + into * ROOM, &x_map, barrier_at(full, into), chunk * (LINE / (int)sizeof(TAB)), -PAD_LEFT, place.row - PAD_TOP, place.image);
            };
            auto bring_weights = [&](const Site& place, int chunk, int tap, int into) {
                barrier_expect(barrier_at(full_w, into), WEIGHT_BYTES);
                copy_tile(weights + into * WEIGHT_BYTES, &w_map, barrier_at(full_w, into), (tap * CHUNKS + chunk) * BK, place.output, 0, 0);
            };
            if (WEIGHTS && first < p.tiles) {  // beside the kernel before this one: nobody writes them
                Site place = site_of(first, p);
                for (int chunk = 0; chunk < CHUNKS; ++chunk)
                    for (int tap = 0; tap < TAPS && early < WSTAGES; ++tap) bring_weights(place, chunk, tap, early++);
            }
            take_turn();
            for (int tile = first; tile < p.tiles; tile += step) {
                Site place = site_of(tile, p);
                for (int chunk = 0; chunk < CHUNKS; ++chunk) {
                    barrier_wait(barrier_at(empty, stage), phase);
                    bring_image(place, chunk, stage);
                    if (++stage == STAGES) stage = 0, phase ^= 1;
                    if (HELD && tile != first) continue;
                    for (int tap = 0; tap < TAPS; ++tap) {
                        if (early > 0) {
                            --early;
                        } else {
                            if (!HELD) barrier_wait(barrier_at(empty_w, wstage), wphase);
                            bring_weights(place, chunk, tap, wstage);
                        }
                        if (++wstage == WSTAGES) wstage = 0, wphase ^= 1;
                    }
                }
            }
        } else {
            take_turn();
        }
    } else {
        take_turn();
        if constexpr (TURNS > 1) registers_up<232>();
        Out out = {OUT_ARGUMENTS};
        int warp = thread / 32, lane = thread % 32;
        Tile image_tile = tile_at<0>(images), weight_tile = tile_at<0>(weights);
        float* staged = (float*)(shared + STAGES * ROOM + WSTAGES * WEIGHT_BYTES) + (group * 4 + warp) * STAGED * STAGED_ROW;
        int count = group;  // tiles of this block before this one
        for (int tile = first + group * step; tile < p.tiles; tile += TURNS * step, count += TURNS) {
            Site place = site_of(tile, p);
            int output = place.output + warp * 16 + lane / 16 * 8;
            auto spot_at = [&](int eight, bool& in) {  // the thread's, in the order in which it finishes them
                int at = eight * 16 + lane % 16, image = IMAGES > 1 ? at / (WIDE * HIGH) : 0, there = IMAGES > 1 ? at % (WIDE * HIGH) : at;
                int row = there / WIDE, col = there % WIDE;
                in = row < TALL && col < p.width && place.row + row < p.height && image < IMAGES && place.image + image < p.images && output < p.outputs;
                i64 pixel = ((i64)(place.image + image) * p.height + place.row + row) * p.width + col;
                return Spot{pixel * p.outputs + output, 0, 0, pixel, output};
            };
            auto beside_at = [&](int eight) {
                bool in;
                Spot spot = spot_at(eight, in);
                return fetch<8>(out, spot, in);
            };
            Beside<8> beside[2][AT_ONCE];
#pragma unroll
            for (int e = 0; e < AT_ONCE; ++e) beside[0][e] = beside_at(e);
            float added[8];
#pragma unroll
            for (int q = 0; q < 8; ++q)
                if (ADDED) added[q] = output < p.outputs ? read(c[output + q]) : 0.f;
            float sums[BN / 2] = {};
            int at = count * CHUNKS, stage = at % STAGES, phase = at / STAGES % 2, before = 0;
            int wat = HELD ? 0 : count * CHUNKS * TAPS, wstage = wat % WSTAGES, wphase = wat / WSTAGES % 2, wbefore = 0;
            // A phase tells one turn of a barrier from the next, but not from the one after that: the group before must have come so far.
            if (TURNS > 1 && count > 0) barrier_wait(barrier_at(ended, (group + TURNS - 1) % TURNS), count / TURNS % 2 ^ (group == 0));
            for (int chunk = 0; chunk < CHUNKS; ++chunk) {
                barrier_wait(barrier_at(full, stage), phase);
#pragma unroll
                for (int tap = 0; tap < TAPS; ++tap) {
                    barrier_wait(barrier_at(full_w, wstage), wphase);
                    Tile a = further(weight_tile, wstage * WEIGHT_BYTES), b = further(image_tile, stage * ROOM + place_in(tap) * LINE);
                    wgmma_begin();
#pragma unroll
                    for (int k = 0; k < 4; ++k) wgmma(sums, along_k<0>(a, k), along_k<0>(b, k));
                    wgmma_end();
                    wgmma_wait<1>();  // the products before these
                    if (thread == 0 && !HELD && (chunk > 0 || tap > 0)) barrier_arrive(barrier_at(empty_w, wbefore));
                    if (thread == 0 && chunk > 0 && tap == 0) barrier_arrive(barrier_at(empty, before));
                    wbefore = wstage;
                    if (++wstage == WSTAGES) wstage = 0, wphase ^= !HELD;
                }
                before = stage;
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
            if (TURNS > 1 && thread == 0) barrier_arrive(barrier_at(ended, group));
            wgmma_wait<0>();
            if (thread == 0) {
                if (!HELD) barrier_arrive(barrier_at(empty_w, wbefore));
                barrier_arrive(barrier_at(empty, before));
            }
#pragma unroll
            for (int j = 0; j < BN / 2; ++j) wgmma_pin(sums[j]);
#pragma unroll
            for (int e = 0; e < EIGHTS; e += 2) {  // of 32 pixels and 16 outputs
                if (e % AT_ONCE == 0) {
#pragma unroll
                    for (int f = 0; f < AT_ONCE; ++f)
                        if (e + AT_ONCE + f < EIGHTS) beside[(e / AT_ONCE + 1) % 2][f] = beside_at(e + AT_ONCE + f);
                }
#pragma unroll
                for (int q = 0; q < 16; ++q) {
                    int half = q / 8, j = (e + half) * 2 + q / 4 % 2, right = lane / 4 + q % 2 * 8, down = half * 16 + q / 4 % 2 * 8 + lane % 4 * 2 + q / 2 % 2;
                    if (j < BN / 8) staged[down * STAGED_ROW + right] = sums[j * 4 + q % 2 * 2 + q / 2 % 2];
                }
                __syncwarp();
                float values[2][8];
#pragma unroll
                for (int q = 0; q < 8; q += 4) {
#pragma unroll
                    for (int half = 0; half < 2; ++half)
                        *(Pack<float, 4>*)(values[half] + q) = *(const Pack<float, 4>*)(staged + (lane % 16 + half * 16) * STAGED_ROW + lane / 16 * 8 + q);
                }
                __syncwarp();
#pragma unroll
                for (int half = 0; half < 2 && e + half < EIGHTS; ++half) {
                    bool in;
                    Spot spot = spot_at(e + half, in);
#pragma unroll
                    for (int q = 0; q < 8; ++q)
                        if (ADDED) values[half][q] += added[q];
                    put(out, values[half], beside[e / AT_ONCE % 2][e % AT_ONCE + half], spot, in && (e + half) * 16 + lane % 16 < BN);
                }
            }
        }
    }
}
