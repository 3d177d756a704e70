// The recurrence of an LSTM, GRU or RNN (ONNX's formulas, default activations), all steps in one launch.
//   gates [D, steps, batch, G * H] float: x . W^T of every step     r [D, H, G * H] TR: R with its last axes exchanged
//   bias [D, 2 * G * H] TB (of W, then of R) or null     h0, c0 [D, batch, H] TH, TC or null     lengths [batch] int or null
//   y [steps, D, batch, H] TY; y_h [D, batch, H] TYH; y_c [D, batch, H] TYC: null where nobody wants them
//   G and the order of gates: LSTM 4, i o f c; GRU 3, z r h; RNN 1. Direction d = 1, or all with `backward`, walks from the end.
// Tactic:
//   recurrent   a block takes BT rows of the batch of one direction through all steps; h, c and the gates stay in shared memory, and
//               neighbouring threads read neighbouring columns of r, which the caches hold. For H of a few hundred: a block reads all of r a step.
// State is float whatever the storage: only what is stored is rounded. Sums run over k in order. Rows shorter than `steps` end in zeros. A length that
// is out of range sets *fault and is read as 0.
// NVRTC defines: KIND (LSTM, GRU, RNN), H, BT, THREADS, RESET_AFTER (GRU: linear_before_reset), RELU (RNN), TR, TB, TH, TC, TY, TYH, TYC.
#include "pointwise.cuh"

#define LSTM 0
#define GRU 1
#define RNN 2
#define G (KIND == LSTM ? 4 : KIND == GRU ? 3 : 1)
#define COLS (G * H)

struct Shape { int directions, steps, batch, backward; };

__device__ __forceinline__ int length_of(const int* __restrict__ lengths, int row, const Shape& p) {
    int length = lengths ? lengths[row] : p.steps;
    return length < 0 || length > p.steps ? 0 : length;
}

// s[b][j] = h[b] . r[:, j] for the columns from `first` on
__device__ __forceinline__ void products(const TR* __restrict__ r, const float (&h)[BT][H], float (&s)[BT][COLS], int first, int last) {
    for (int j = first + threadIdx.x; j < last; j += THREADS) {
        float sum[BT];
#pragma unroll
        for (int b = 0; b < BT; ++b) sum[b] = 0.f;
#pragma unroll 8
        for (int k = 0; k < H; ++k) {
            float w = read(r[k * COLS + j]);
#pragma unroll
            for (int b = 0; b < BT; ++b) sum[b] = fmaf(h[b][k], w, sum[b]);
        }
#pragma unroll
        for (int b = 0; b < BT; ++b) s[b][j] = sum[b];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) recurrent(
    const float* __restrict__ gates, const TR* __restrict__ r, const TB* __restrict__ bias, const TH* __restrict__ h0,
    const TC* __restrict__ c0, const int* __restrict__ lengths, TY* __restrict__ y, TYH* __restrict__ y_h, TYC* __restrict__ y_c, int* fault,
    Shape p) {
    take_turn();
    __shared__ float h[BT][H], c[BT][H], s[BT][COLS];
    int tiles = (p.batch + BT - 1) / BT, d = blockIdx.x / tiles, row = blockIdx.x % tiles * BT;
    bool backward = p.backward || d == 1;
    i64 state = ((i64)d * p.batch + row) * H;
    gates += (i64)d * p.steps * p.batch * COLS;
    r += (i64)d * H * COLS;
    if (bias) bias += (i64)d * 2 * COLS;
    if (lengths && threadIdx.x < BT && row + (int)threadIdx.x < p.batch) {
        int length = lengths[row + threadIdx.x];
        if (length < 0 || length > p.steps) *fault = 1;
    }
    for (int e = threadIdx.x; e < BT * H; e += THREADS) {
        bool mine = row + e / H < p.batch;
        h[e / H][e % H] = mine && h0 ? read(h0[state + e]) : 0.f;
        c[e / H][e % H] = mine && c0 ? read(c0[state + e]) : 0.f;
    }
    __syncthreads();
    for (int step = 0; step < p.steps; ++step) {
        products(r, h, s, 0, KIND == GRU && !RESET_AFTER ? 2 * H : COLS);
        __syncthreads();
        if (KIND == GRU && !RESET_AFTER) {  // the candidate reads reset * h: a product of its own; c holds it meanwhile
            for (int e = threadIdx.x; e < BT * H; e += THREADS) {
                int b = e / H, u = e % H, t = backward ? (row + b < p.batch ? length_of(lengths, row + b, p) : p.steps) - 1 - step : step;
                if (row + b < p.batch && t >= 0) {
                    const float* x = gates + ((i64)t * p.batch + row + b) * COLS;
                    float offset = bias ? read(bias[H + u]) + read(bias[COLS + H + u]) : 0.f;
                    c[b][u] = op_sigmoid(x[H + u] + s[b][H + u] + offset) * h[b][u];
                }
            }
            __syncthreads();
            products(r, c, s, 2 * H, COLS);
            __syncthreads();
        }
        for (int e = threadIdx.x; e < BT * H; e += THREADS) {
            int b = e / H, u = e % H;
            if (row + b >= p.batch) continue;
            int length = length_of(lengths, row + b, p), t = backward && step < length ? length - 1 - step : step;
            i64 to = (((i64)t * p.directions + d) * p.batch + row + b) * H + u;
            if (step >= length) {
                if (y) write(y[to], 0.f);
                continue;
            }
            const float* x = gates + ((i64)t * p.batch + row + b) * COLS;
            float in[G];
#pragma unroll
            for (int g = 0; g < G; ++g) in[g] = x[g * H + u] + (bias ? read(bias[g * H + u]) : 0.f);
            float value;
            if (KIND == LSTM) {
#pragma unroll
                for (int g = 0; g < G; ++g) in[g] += s[b][g * H + u] + (bias ? read(bias[COLS + g * H + u]) : 0.f);
                float kept = op_sigmoid(in[2 % G]) * c[b][u] + op_sigmoid(in[0]) * op_tanh(in[3 % G]);
                c[b][u] = kept;
                value = op_sigmoid(in[1 % G]) * op_tanh(kept);
            } else if (KIND == GRU) {
                float offset[G];
#pragma unroll
                for (int g = 0; g < G; ++g) offset[g] = bias ? read(bias[COLS + g * H + u]) : 0.f;
                float z = op_sigmoid(in[0] + s[b][u] + offset[0]);
                float candidate = s[b][(2 % G) * H + u] + offset[2 % G];
                if (RESET_AFTER) candidate *= op_sigmoid(in[1 % G] + s[b][(1 % G) * H + u] + offset[1 % G]);
                value = (1.f - z) * op_tanh(in[2 % G] + candidate) + z * h[b][u];
            } else {
                float sum = in[0] + s[b][u] + (bias ? read(bias[COLS + u]) : 0.f);
                value = RELU ? op_relu(sum) : op_tanh(sum);
            }
            h[b][u] = value;
            if (y) write(y[to], value);
        }
        __syncthreads();
    }
    for (int e = threadIdx.x; e < BT * H; e += THREADS) {
        if (row + e / H >= p.batch) continue;
        if (y_h) write(y_h[state + e], h[e / H][e % H]);
        if (y_c) write(y_c[state + e], c[e / H][e % H]);
    }
}
