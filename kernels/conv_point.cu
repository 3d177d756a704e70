// A convolution of single pixels, channels last, whose weights fit into shared memory: y[m, n] = c[n] + sum_k x[m, k] * w[n, k]
//   x, w TAB (f16, bf16), channels k and outputs n divide by 8; c TC, y TY (or out.cuh)
// Tactic:
//   conv_point   weights stay in shared memory, and warps walk over the pixels, 16 at a time, from registers to registers: many warps a
//                multiprocessor, so that there is always one that stores
// Of 32 channels, a thread has eight neighbours, of x as of w: which of them an instruction multiplies first is the same for both.
// Products and sums are FP32 (the tensor core's: sums are cut, not rounded, a few bits below), over 32 channels after the other, in two parts:
// channels 0..3 of each eight, then 4..7.
// NVRTC defines: TAB, TC, TY, ADDED (0: no c), CHANNELS, OUTPUTS, RESIDENT (blocks a multiprocessor), WEIGHTS (1: w is the same in every run).
#include "mma.cuh"
#include "out.cuh"

typedef TAB T;
#define THREADS 256
#define BLOCKS ((CHANNELS + 31) / 32)
#define ACROSS ((OUTPUTS + 31) / 32)
#define PITCH (BLOCKS * 64 + (BLOCKS % 2 ? 0 : 64))  // bytes of a row of weights, so that neighbours lie in different banks
#define PIXELS 16

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) conv_point(
    const T* __restrict__ x, const T* __restrict__ w, const TC* __restrict__ c, OUT_PARAMETERS, int pixels) {
    DYNAMIC_SHARED(shared);
    if (!WEIGHTS) take_turn();
    for (int i = threadIdx.x; i < ACROSS * 32 * BLOCKS * 4; i += THREADS) {
        int n = i / (BLOCKS * 4), eight = i % (BLOCKS * 4);
        bool in = n < OUTPUTS && eight * 8 < CHANNELS;
        copy16(shared + n * PITCH + eight * 16, in ? w + n * CHANNELS + eight * 8 : w, in);
    }
    copies_commit();
    if (WEIGHTS) take_turn();
    copies_wait<0>();
    __syncthreads();
    Out out = {OUT_ARGUMENTS};
    int lane = threadIdx.x % 32, quad = lane % 4, line = lane / 4;
    const unsigned char* weights = shared + line * PITCH + quad * 16;
    for (i64 first = ((i64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32) * PIXELS; first < pixels; first += (i64)gridDim.x * (THREADS / 32) * PIXELS) {
        Pack<unsigned, 4> values[2][BLOCKS];
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            i64 row = first + s * 8 + line;
#pragma unroll
            for (int b = 0; b < BLOCKS; ++b) {
                int k = b * 32 + quad * 8;
                bool in = row < pixels && (CHANNELS % 32 == 0 || k < CHANNELS);
                Pack<unsigned, 4> zeros = {};
                load_16(*(unsigned(*)[4])&values[s][b].lane[0], in ? x + row * CHANNELS + k : x);
                if (!in) values[s][b] = zeros;
            }
        }
#pragma unroll 1
        for (int n = 0; n < OUTPUTS; n += 32) {
            int col = n + quad * 8;
            auto spot_at = [&](int s) {
                i64 row = first + s * 8 + line;
                return Spot{row * OUTPUTS + col, 0, 0, row, col};
            };
            auto is_in = [&](int s) { return first + s * 8 + line < pixels && (OUTPUTS % 32 == 0 || col < OUTPUTS); };
            Beside<8> beside[2];
#pragma unroll
            for (int s = 0; s < 2; ++s) beside[s] = fetch<8>(out, spot_at(s), is_in(s));
            float sums[4][4] = {};
#pragma unroll
            for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    Pack<unsigned, 4> weight = *(const Pack<unsigned, 4>*)(weights + (n + j * 8) * PITCH + b * 64);
#pragma unroll
                    for (int part = 0; part < 4; part += 2) {
                        const unsigned a[4] = {values[0][b].lane[part], values[1][b].lane[part], values[0][b].lane[part + 1], values[1][b].lane[part + 1]};
                        mma(sums[j], a, weight.lane[part], weight.lane[part + 1], T());
                    }
                }
            }
            float added[8];
#pragma unroll
            for (int e = 0; e < 8; ++e)
                if (ADDED) added[e] = OUTPUTS % 32 == 0 || col < OUTPUTS ? read(c[col + e]) : 0.f;
#pragma unroll
            for (int s = 0; s < 2; ++s) {
                float pair[4][2];
#pragma unroll
                for (int j = 0; j < 4; ++j) pair[j][0] = sums[j][s * 2], pair[j][1] = sums[j][s * 2 + 1];
                gather_columns(pair);
                float finished[8];
#pragma unroll
                for (int e = 0; e < 8; ++e) finished[e] = ADDED ? pair[e / 2][e % 2] + added[e] : pair[e / 2][e % 2];
                put(out, finished, beside[s], spot_at(s), is_in(s));
            }
        }
    }
}
