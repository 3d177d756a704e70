// Convolution (conv.cuh). x TX, w TW, bias TB or null, y TY
// Tactics; each is the one above plus one idea:
//   conv_direct   a thread an output element: depthwise, and the readable reference
//   conv_transposed   conv_direct for ConvTranspose
//   conv_simt     a tile of m x pixels a block, strips of w and of the windows in shared memory
// Products and sums are float, one fused multiply-add a product, over channels, then slices, then rows, then columns of the window.
// NVRTC defines: TX, TW, TB, TY, AXES (3 for volumes); conv_simt: BM, BN, BK, TM, TN.
#include "conv.cuh"

#ifdef ENTRY_DIRECT
extern "C" __global__ void __launch_bounds__(256) conv_direct(
    const TX* __restrict__ x, const TW* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS, Conv p) {
    take_turn();
    int pixels = pixels_of(p), k = p.channels * taps_of(p);
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= (i64)p.images * p.groups * p.outputs * pixels) return;
    int pixel = (int)(at % pixels), output = (int)(at / pixels % (p.groups * p.outputs)), group = output / p.outputs;
    i64 image = at / pixels / (p.groups * p.outputs);
    Voxel corner = corner_of(pixel, p);
    x += (image * p.groups + group) * p.channels * room_of(p);
    w += (i64)output * k;
    float sum = 0.f;
    for (int c = 0; c < p.channels; ++c, x += room_of(p)) {
        for (int h = 0; h < kernel_slices_of(p); ++h) {
            int slice = corner.slice + h * dilation_slices_of(p);
            for (int i = 0; i < p.kernel_height; ++i) {
                int row = corner.row + i * p.dilation_height;
                for (int j = 0; j < p.kernel_width; ++j, ++w) {
                    int col = corner.col + j * p.dilation_width;
                    if (is_inside({slice, row, col}, p)) sum = fmaf(read(x[((i64)slice * p.height + row) * p.width + col]), read(*w), sum);
                }
            }
        }
    }
    Out out = {OUT_ARGUMENTS};
    float one[1] = {bias ? sum + read(bias[output]) : sum};
    put(out, one, {at, image, group, output % p.outputs, pixel});
}
#endif

#ifdef ENTRY_TRANSPOSED
// The transposed convolution: y[n, g, m, oh, ow] = bias + sum over c, kh, kw with oh = ih * stride - pad + kh * dilation of
// x[n, g, c, ih, iw] * w[g, c, m, kh, kw]. height and width are x's, out_height and out_width y's.

extern "C" __global__ void __launch_bounds__(256) conv_transposed(
    const TX* __restrict__ x, const TW* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS, Conv p) {
    take_turn();
    int pixels = pixels_of(p), taps = taps_of(p);
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x;
    if (at >= (i64)p.images * p.groups * p.outputs * pixels) return;
    int pixel = (int)(at % pixels), output = (int)(at / pixels % (p.groups * p.outputs)), group = output / p.outputs;
    i64 image = at / pixels / (p.groups * p.outputs);
    Voxel place = voxel_of(pixel, p);
    place.slice += pad_front_of(p), place.row += p.pad_top, place.col += p.pad_left;
    Walk deep(place.slice, stride_slices_of(p), dilation_slices_of(p)), down(place.row, p.stride_height, p.dilation_height),
        across(place.col, p.stride_width, p.dilation_width);
    x += (image * p.groups + group) * p.channels * room_of(p);
    w += ((i64)group * p.channels * p.outputs + output % p.outputs) * taps;
    float sum = 0.f;
    for (int c = 0; c < p.channels; ++c, x += room_of(p), w += (i64)p.outputs * taps) {
        for (int h = deep.first; h < kernel_slices_of(p); h += deep.step) {
            int s = brought(place.slice, h, stride_slices_of(p), dilation_slices_of(p), slices_of(p));
            if (s < 0) continue;
            for (int i = down.first; i < p.kernel_height; i += down.step) {
                int r = brought(place.row, i, p.stride_height, p.dilation_height, p.height);
                if (r < 0) continue;
                for (int j = across.first; j < p.kernel_width; j += across.step) {
                    int q = brought(place.col, j, p.stride_width, p.dilation_width, p.width);
                    if (q < 0) continue;
                    sum = fmaf(read(x[((i64)s * p.height + r) * p.width + q]), read(w[(h * p.kernel_height + i) * p.kernel_width + j]), sum);
                }
            }
        }
    }
    Out out = {OUT_ARGUMENTS};
    float one[1] = {bias ? sum + read(bias[output]) : sum};
    put(out, one, {at, image, group, output % p.outputs, pixel});
}
#endif

#ifdef ENTRY_SIMT
#define THREADS ((BM / TM) * (BN / TN))
extern "C" __global__ void __launch_bounds__(THREADS) conv_simt(
    const TX* __restrict__ x, const TW* __restrict__ w, const TB* __restrict__ bias, OUT_PARAMETERS, Conv p) {
    take_turn();
    __shared__ float ws[BK][BM + 1], xs[BK][BN + 1];
    int pixels = pixels_of(p), depth = p.channels * taps_of(p);
    int tile = (int)(blockIdx.x % (p.down * p.across)), row = tile / p.across * BM, col = tile % p.across * BN;
    i64 batch = blockIdx.x / (p.down * p.across);  // image and group
    int group = (int)(batch % p.groups);
    x += batch * p.channels * room_of(p);
    w += (i64)group * p.outputs * depth;
    Out out = {OUT_ARGUMENTS};
    int tx = threadIdx.x % (BN / TN), ty = threadIdx.x / (BN / TN);
    // A thread fetches the windows of one pixel: THREADS is a multiple of BN.
    int mine = threadIdx.x % BN;
    Voxel corner = corner_of(col + mine, p);
    float sums[TM][TN] = {};
    for (int k0 = 0; k0 < depth; k0 += BK) {
        for (int i = threadIdx.x; i < BM * BK; i += THREADS) {
            int mm = i / BK, kk = i % BK;
            ws[kk][mm] = row + mm < p.outputs && k0 + kk < depth ? read(w[(i64)(row + mm) * depth + k0 + kk]) : 0.f;
        }
        for (int kk = threadIdx.x / BN; kk < BK; kk += THREADS / BN) {
            TX value;
            bool in = col + mine < pixels && k0 + kk < depth && tap(value, x, k0 + kk, corner, p);
            xs[kk][mine] = in ? read(value) : 0.f;
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < BK; ++kk) {
            float left[TM], right[TN];
#pragma unroll
            for (int i = 0; i < TM; ++i) left[i] = ws[kk][ty + i * (BM / TM)];
#pragma unroll
            for (int j = 0; j < TN; ++j) right[j] = xs[kk][tx + j * (BN / TN)];
#pragma unroll
            for (int i = 0; i < TM; ++i)
#pragma unroll
                for (int j = 0; j < TN; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        int mm = row + ty + i * (BM / TM);
        if (mm >= p.outputs) continue;
        float added = bias ? read(bias[group * p.outputs + mm]) : 0.f;
#pragma unroll
        for (int j = 0; j < TN; ++j) {
            int nn = col + tx + j * (BN / TN);
            if (nn >= pixels) continue;
            float one[1] = {bias ? sums[i][j] + added : sums[i][j]};
            put(out, one, {(batch * p.outputs + mm) * pixels + nn, batch / p.groups, group, mm, nn});
        }
    }
}
#endif
