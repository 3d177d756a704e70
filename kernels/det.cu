// y[b] = determinant of x TX [batches, ROWS, ROWS], y TY: by elimination, the largest element of what is left of a column first, as LAPACK does
// Tactic: a warp a matrix, which lies in shared memory; a lane a column, or several.
// NVRTC defines: TX, TY, ROWS (of a matrix, up to 64).
#include "common.cuh"

#define LINE (ROWS + 1)

extern "C" __global__ void __launch_bounds__(32) determinant(const TX* __restrict__ x, TY* __restrict__ y) {
    take_turn();
    __shared__ float a[ROWS * LINE];
    x += (i64)blockIdx.x * ROWS * ROWS;
    for (int i = threadIdx.x; i < ROWS * ROWS; i += 32) a[i / ROWS * LINE + i % ROWS] = read(x[i]);
    __syncthreads();
    float found = 1.f;
    for (int step = 0; step < ROWS; ++step) {
        int best = step;
        for (int row = step + 1; row < ROWS; ++row) best = fabsf(a[row * LINE + step]) > fabsf(a[best * LINE + step]) ? row : best;
        float pivot = a[best * LINE + step];
        found *= best == step ? pivot : -pivot;
        __syncthreads();  // all have looked at the column
        if (best != step) {
            for (int col = step + threadIdx.x; col < ROWS; col += 32) {
                float kept = a[best * LINE + col];
                a[best * LINE + col] = a[step * LINE + col];
                a[step * LINE + col] = kept;
            }
        }
        __syncthreads();
        for (int row = step + 1; row < ROWS && pivot != 0.f; ++row) {
            float factor = a[row * LINE + step] / pivot;
            for (int col = step + 1 + threadIdx.x; col < ROWS; col += 32) a[row * LINE + col] -= factor * a[step * LINE + col];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) write(y[blockIdx.x], found);
}
