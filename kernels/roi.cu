// y[r, c, i, j] = mean, or largest, of samples of x in cell (i, j) of region r: RoiAlign, as ONNX Runtime computes it
//   x TX [N, C, H, W], regions TR [R, 4] (x0, y0, x1, y1), images i64 [R], y TY [R, C, ROWS, COLS]. An image out of range sets *fault and is read as 0.
// Tactic:
//   roi_align   a thread a cell: each sample's place and weights are found once for CHANNELS channels
// Computed without contraction, in ONNX Runtime's order.
// NVRTC defines: TX, TR, TY, ROWS, COLS, LARGEST (0 or 1), HALF (1: pixels' centres are at halves), SAMPLES (an axis; 0: as many as a cell has pixels),
// CHANNELS.
#include "pointwise.cuh"

struct Aligned { i64 images, channels, chunks, total; int height, width; float scale; };

// The two pixels beside a place and the weight of the second; false where it is outside
__device__ __forceinline__ bool between(float x, int extent, int& low, int& high, float& weight) {
    if (!(x >= -1.f && x <= (float)extent)) return false;
    x = x <= 0.f ? 0.f : x;
    low = (int)x;
    if (low >= extent - 1) {
        low = high = extent - 1;
        x = (float)low;
    } else {
        high = low + 1;
    }
    weight = x - low;
    return true;
}

extern "C" __global__ void __launch_bounds__(256) roi_align(const TX* __restrict__ x, const TR* __restrict__ regions, const i64* __restrict__ images,
                                                            TY* __restrict__ y, int* fault, Aligned p) {
    take_turn();
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= p.total) return;
    int col = at % COLS, row = at / COLS % ROWS;
    i64 chunk = at / (COLS * ROWS) % p.chunks, r = at / (COLS * ROWS) / p.chunks, image = images[r];
    if (image < 0 || image >= p.images) {
        *fault = 1;
        image = 0;
    }
    float offset = HALF ? 0.5f : 0.f;
    float left = read(regions[r * 4]) * p.scale - offset, top = read(regions[r * 4 + 1]) * p.scale - offset;
    float width = read(regions[r * 4 + 2]) * p.scale - offset - left, height = read(regions[r * 4 + 3]) * p.scale - offset - top;
    if (!HALF) {
        width = fmaxf(width, 1.f);
        height = fmaxf(height, 1.f);
    }
    float across = width / COLS, down = height / ROWS;
    int rows = SAMPLES ? SAMPLES : (int)ceilf(height / ROWS), cols = SAMPLES ? SAMPLES : (int)ceilf(width / COLS);
    Divisor by_rows = divisor((float)rows), by_cols = divisor((float)cols);
    i64 plane = (i64)p.height * p.width, first = chunk * CHANNELS;
    int count = p.channels - first < CHANNELS ? (int)(p.channels - first) : CHANNELS;
    x += (image * p.channels + first) * plane;
    y += ((r * p.channels + first) * ROWS + row) * COLS + col;
    float found[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) found[c] = 0.f;
    bool any = false;
    for (int j = 0; j < rows; ++j) {
        float v = top + row * down + op_div_by((j + 0.5f) * down, by_rows), lower = 0.f;
        int v0 = 0, v1 = 0;
        bool inside = between(v, p.height, v0, v1, lower);
        for (int i = 0; i < cols; ++i) {
            float u = left + col * across + op_div_by((i + 0.5f) * across, by_cols), right = 0.f;
            int u0 = 0, u1 = 0;
            bool there = between(u, p.width, u0, u1, right) && inside;
            float w[4] = {(1.f - lower) * (1.f - right), (1.f - lower) * right, lower * (1.f - right), lower * right};
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c) {
                float s[4] = {};
                if (there && c < count) {
                    const TX* own = x + c * plane;
                    s[0] = w[0] * read(own[v0 * p.width + u0]);
                    s[1] = w[1] * read(own[v0 * p.width + u1]);
                    s[2] = w[2] * read(own[v1 * p.width + u0]);
                    s[3] = w[3] * read(own[v1 * p.width + u1]);
                }
                if (LARGEST) {
                    float most = fmaxf(fmaxf(fmaxf(s[0], s[1]), s[2]), s[3]);
                    found[c] = any ? fmaxf(found[c], most) : most;
                } else {
                    found[c] += s[0] + s[1] + s[2] + s[3];
                }
            }
            any = true;
        }
    }
    float samples = rows * cols > 1 ? (float)(rows * cols) : 1.f;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        if (c < count) write(y[(i64)c * ROWS * COLS], LARGEST ? found[c] : found[c] / samples);
    }
}
