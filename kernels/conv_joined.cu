// The end of a transposed convolution that is computed as a product (conv.cuh): what each element of x brings to the windows around it, summed up
//   parts float [images, pixels of x, taps, outputs], bias TB or null, y TY [images, pixels of y, outputs]: both channels last
// Tactic:
//   conv_joined   a thread VEC outputs of a pixel of y
// Sums are float, over slices of the window, then rows, then columns, then the bias. NVRTC defines: TB, TY, VEC, AXES (3 for volumes).
#include "conv.cuh"

extern "C" __global__ void __launch_bounds__(256) conv_joined(const float* __restrict__ parts, const TB* __restrict__ bias, TY* __restrict__ y, Conv p) {
    take_turn();
    const int eights = p.outputs / VEC, pixels = pixels_of(p);
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, rest = at / eights;
    if (rest >= (i64)p.images * pixels) return;
    const int m = (int)(at - rest * eights) * VEC, image = (int)(rest / pixels);
    Voxel place = voxel_of((int)(rest - (i64)image * pixels), p);
    place.slice += pad_front_of(p), place.row += p.pad_top, place.col += p.pad_left;
    const Walk deep(place.slice, stride_slices_of(p), dilation_slices_of(p)), down(place.row, p.stride_height, p.dilation_height),
        across(place.col, p.stride_width, p.dilation_width);
    parts += (i64)image * room_of(p) * taps_of(p) * p.outputs + m;
    float sums[VEC] = {};
    for (int h = deep.first; h < kernel_slices_of(p); h += deep.step) {
        const int s = brought(place.slice, h, stride_slices_of(p), dilation_slices_of(p), slices_of(p));
        if (s < 0) continue;
        for (int i = down.first; i < p.kernel_height; i += down.step) {
            const int r = brought(place.row, i, p.stride_height, p.dilation_height, p.height);
            if (r < 0) continue;
            for (int j = across.first; j < p.kernel_width; j += across.step) {
                const int q = brought(place.col, j, p.stride_width, p.dilation_width, p.width);
                if (q < 0) continue;
                const i64 from = ((i64)s * p.height + r) * p.width + q;
                const Pack<float, VEC> part = *(const Pack<float, VEC>*)(parts + (from * taps_of(p) + (h * p.kernel_height + i) * p.kernel_width + j) * p.outputs);
#pragma unroll
                for (int v = 0; v < VEC; ++v) sums[v] += part.lane[v];
            }
        }
    }
    Pack<TY, VEC> made;
#pragma unroll
    for (int v = 0; v < VEC; ++v) write(made.lane[v], bias ? sums[v] + read(bias[m + v]) : sums[v]);
    store(y + at * VEC, made);
}
