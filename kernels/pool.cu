// Pooling over windows, NCHW: y[plane, oh, ow] = largest, mean, or norm of x[plane, ih, iw], ih = oh * stride - pad + kh * dilation
//   x TX, y TY. A mean divides by the elements inside x, or (COUNT_PAD 1) inside x and its padding.
// Tactic:
//   pool_direct   a thread an output element; neighbours read neighbours. Volumes too (AXES 3), with slices before rows
//   pool_rows     small windows: a thread LANES / STRIDE neighbours of a row, whose windows it reads by aligned accesses of LANES elements, each once
//   pool_channels   with channels last, x [images, height, width, channels]: a thread computes 8 channels of a pixel, small windows read at
//                   once: what lies outside is the beginning of the image, and not used
// Sums are float, slices first, then rows; a NaN under the window is the largest (ONNX Runtime sometimes drops it). NVRTC defines: TX, TY, MAXIMUM,
// COUNT_PAD (0 or 1), INDEX (of elements; unsigned or i64); ENTRY_ROWS or ENTRY_CHANNELS with WINDOW_HEIGHT, WINDOW_WIDTH, of volumes WINDOW_SLICES (0:
// a window of any size). pool_rows: LANES, and along a row STRIDE, PAD (before it) and VEC (results that are stored at once).
// pool_direct: WHOLE (1: integers), NORM (0, or the p of (sum |x|^p)^(1/p)), INDICES (1: where in x the largest is, the first of equal ones; 2: counted
// along the first axis of an image first).
#include "common.cuh"

struct Pool {
    i64 planes;
    int height, width, out_height, out_width, kernel_height, kernel_width;
    int stride_height, stride_width, pad_top, pad_left, pad_bottom, pad_right, dilation_height, dilation_width;
#if AXES == 3
    int slices, out_slices, kernel_slices, stride_slices, pad_front, pad_back, dilation_slices;
#endif
};

template <class To, class From> __device__ __forceinline__ To as(const From& from) { return *(const To*)&from; }
__device__ __forceinline__ unsigned pair_larger(unsigned x, unsigned y, float) { return x; }  // of floats there are no pairs
#define PAIRS (MAXIMUM && sizeof(TX) == 2)  // two at once: the largest is none that was not there

#ifdef ENTRY_CHANNELS
extern "C" __global__ void __launch_bounds__(256) pool_channels(const TX* __restrict__ x, TY* __restrict__ y, Pool p, int channels) {
    take_turn();
#if AXES == 3
    const int slices = p.slices, kernel_slices = WINDOW_HEIGHT ? WINDOW_SLICES : p.kernel_slices, out_slices = p.out_slices;
#else
    const int slices = 1, kernel_slices = 1, out_slices = 1;
#endif
    const int plane = p.out_height * p.out_width;
    INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, pixels = (INDEX)out_slices * plane, eights = channels / 8;
    if (at >= (INDEX)(p.planes / channels) * pixels * eights) return;
    INDEX place = at / eights, image = place / pixels;
    int pixel = (int)(place - image * pixels);
#if AXES == 3
    const int deep = pixel / plane, front = deep * p.stride_slices - p.pad_front;
    pixel -= deep * plane;
#else
    const int front = 0;
#endif
    int down = pixel / p.out_width;
    int top = down * p.stride_height - p.pad_top, left = (pixel - down * p.out_width) * p.stride_width - p.pad_left;
    x += image * slices * p.height * p.width * channels + (at - place * eights) * 8;
    const int height = WINDOW_HEIGHT ? WINDOW_HEIGHT : p.kernel_height, width = WINDOW_WIDTH ? WINDOW_WIDTH : p.kernel_width;
    constexpr int WORDS = 2 * sizeof(TX);
    typedef Pack<unsigned, WORDS> Eight;
    float values[8];
    Pack<TX, 8> nothing;
#pragma unroll
    for (int e = 0; e < 8; ++e) values[e] = MAXIMUM ? __int_as_float(0xff800000) : 0.f, write(nothing.lane[e], values[e]);
    Eight outside = as<Eight>(nothing), largest = outside;
    int count = 0;
    // of the window's corner, which may lie outside, and of a step down and to the right
    const INDEX corner = (((INDEX)front * p.height + top) * p.width + left) * channels, below = (INDEX)p.dilation_height * p.width * channels, next = (INDEX)p.dilation_width * channels;
    constexpr int DOWN = WINDOW_HEIGHT ? WINDOW_HEIGHT : 1, ACROSS = WINDOW_WIDTH ? WINDOW_WIDTH : 1;  // a small window is under way at once
#if AXES == 3
    const INDEX behind = (INDEX)p.dilation_slices * p.height * p.width * channels;
    constexpr int DEEP = WINDOW_HEIGHT ? WINDOW_SLICES : 1;
#else
    const INDEX behind = 0;
    constexpr int DEEP = 1;
#endif
#pragma unroll DEEP
    for (int h = 0; h < kernel_slices; ++h) {
#if AXES == 3
        const int slice = front + h * p.dilation_slices;
        const bool within = slice >= 0 && slice < slices, counted = slice < slices + p.pad_back;
#else
        const bool within = true, counted = true;
#endif
#pragma unroll DOWN
        for (int i = 0; i < height; ++i) {
            int row = top + i * p.dilation_height;
            bool beside = within && row >= 0 && row < p.height;
#pragma unroll ACROSS
            for (int j = 0; j < width; ++j) {
                int col = left + j * p.dilation_width;
                bool in = beside && col >= 0 && col < p.width;
                count += in || (COUNT_PAD && counted && row < p.height + p.pad_bottom && col < p.width + p.pad_right);
                Eight eight = *(const Eight*)(x + (in ? corner + h * behind + i * below + j * next : 0));
#pragma unroll
                for (int e = 0; e < WORDS; ++e) {
                    eight.lane[e] = in ? eight.lane[e] : outside.lane[e];
                    if (PAIRS) largest.lane[e] = pair_larger(largest.lane[e], eight.lane[e], TX());
                }
                if (PAIRS) continue;
                Pack<TX, 8> own = as<Pack<TX, 8>>(eight);
#pragma unroll
                for (int e = 0; e < 8; ++e) values[e] = MAXIMUM ? larger(values[e], read(own.lane[e])) : values[e] + read(own.lane[e]);
            }
        }
    }
    Pack<TX, 8> found = as<Pack<TX, 8>>(largest);
    Pack<TY, 8> out;
#pragma unroll
    for (int e = 0; e < 8; ++e) write(out.lane[e], PAIRS ? read(found.lane[e]) : MAXIMUM ? values[e] : values[e] / (float)count);
    store(y + (i64)at * 8, out);
}
#elif defined(ENTRY_ROWS)
#define EACH (LANES / STRIDE)
#define BEFORE ((PAD + LANES - 1) / LANES)  // accesses before a thread's own columns
#define REACH (BEFORE * LANES - PAD + (EACH - 1) * STRIDE + WINDOW_WIDTH)
#define ACCESSES ((REACH + LANES - 1) / LANES)
#if AXES == 3
#define DEEP WINDOW_SLICES
#else
#define DEEP 1
#endif
#define WORDS (LANES * sizeof(TX) / 4)
typedef Pack<unsigned, WORDS> Words;

// What a row of x adds to the results
__device__ __forceinline__ void gather(float (&values)[EACH], const Words (&row)[ACCESSES]) {
#pragma unroll
    for (int o = 0; o < EACH; ++o) {
#pragma unroll
        for (int j = 0; j < WINDOW_WIDTH; ++j) {
            const int e = BEFORE * LANES - PAD + o * STRIDE + j;
            const float one = read(as<Pack<TX, LANES>>(row[e / LANES]).lane[e % LANES]);
            values[o] = MAXIMUM ? larger(values[o], one) : values[o] + one;
        }
    }
}

// Elements of a window along an axis that a mean counts: those before `end`, which are padding or not
template <int SIZE> __device__ __forceinline__ int counted(int first, int dilation, int end) {
    int count = 0;
#pragma unroll
    for (int i = 0; i < SIZE; ++i) count += first + i * dilation < end && (COUNT_PAD || first + i * dilation >= 0);
    return count;
}

extern "C" __global__ void __launch_bounds__(256) pool_rows(const TX* __restrict__ x, TY* __restrict__ y, Pool p) {
    take_turn();
#if AXES == 3
    const int slices = p.slices, out_slices = p.out_slices, stride_slices = p.stride_slices, pad_front = p.pad_front, dilation_slices = p.dilation_slices;
    const int behind = slices + (COUNT_PAD ? p.pad_back : 0);
#else
    const int slices = 1, out_slices = 1, stride_slices = 1, pad_front = 0, dilation_slices = 1, behind = 1;
#endif
    const INDEX pieces = (p.out_width + EACH - 1) / EACH, at = (INDEX)blockIdx.x * 256 + threadIdx.x, row = at / pieces, slice = row / p.out_height;
    const INDEX image = slice / out_slices;
    if (image >= (INDEX)p.planes) return;
    const int piece = (int)(at - row * pieces), top = (int)(row - slice * p.out_height) * p.stride_height - p.pad_top;
    const int front = (int)(slice - image * out_slices) * stride_slices - pad_front, left = (piece - BEFORE) * LANES;
    x += image * slices * p.height * p.width;
    x += left;  // columns before the first are not read
    const float none = MAXIMUM ? __int_as_float(0xff800000) : 0.f;
    Pack<TX, LANES> nothing;
    float values[EACH];
#pragma unroll
    for (int e = 0; e < LANES; ++e) write(nothing.lane[e], none);
#pragma unroll
    for (int o = 0; o < EACH; ++o) values[o] = none;
    const Words outside = as<Words>(nothing);
    Words largest[ACCESSES];  // of all rows, where there are pairs
#pragma unroll
    for (int a = 0; a < ACCESSES; ++a) largest[a] = outside;
#pragma unroll (DEEP * WINDOW_HEIGHT <= 9 ? DEEP : 1)
    for (int h = 0; h < DEEP; ++h) {
        const int deep = front + h * dilation_slices;
#pragma unroll
        for (int i = 0; i < WINDOW_HEIGHT; ++i) {
            const int down = top + i * p.dilation_height;
            const bool beside = deep >= 0 && deep < slices && down >= 0 && down < p.height;
            const TX* own = x + ((INDEX)deep * p.height + down) * p.width;
            Words some[ACCESSES];
#pragma unroll
            for (int a = 0; a < ACCESSES; ++a) {
                some[a] = outside;
                if (beside && left + a * LANES >= 0 && left + a * LANES < p.width) some[a] = *(const Words*)(own + a * LANES);
            }
            if (!PAIRS) gather(values, some);
#pragma unroll
            for (int a = 0; PAIRS && a < ACCESSES; ++a) {
#pragma unroll
                for (int w = 0; w < WORDS; ++w) largest[a].lane[w] = pair_larger(largest[a].lane[w], some[a].lane[w], TX());
            }
        }
    }
    if (PAIRS) gather(values, largest);
    const int lines = MAXIMUM ? 1 : counted<DEEP>(front, dilation_slices, behind) * counted<WINDOW_HEIGHT>(top, p.dilation_height, p.height + (COUNT_PAD ? p.pad_bottom : 0));
    y += row * p.out_width + piece * EACH;
#pragma unroll
    for (int o = 0; o < EACH; o += VEC) {
        Pack<TY, VEC> made;
#pragma unroll
        for (int v = 0; v < VEC; ++v) {
            const int cols = counted<WINDOW_WIDTH>((piece * EACH + o + v) * STRIDE - PAD, 1, p.width + (COUNT_PAD ? p.pad_right : 0));
            write(made.lane[v], MAXIMUM ? values[o + v] : values[o + v] / (float)(lines * cols));
        }
        if (piece * EACH + o < p.out_width) store(y + o, made);
    }
}
#else
#if WHOLE
typedef int Value;
#define LEAST (-2147483647 - 1)
#else
typedef float Value;
#define LEAST __int_as_float(0xff800000)
#endif
__device__ __forceinline__ int larger(int x, int y) { return x > y ? x : y; }

// What an element adds to a window's sum
__device__ __forceinline__ Value share(Value x) {
#if NORM == 0
    return x;
#elif NORM == 1
    return fabsf(x);
#elif NORM == 2
    return x * x;
#else
    return powf(fabsf(x), (float)NORM);
#endif
}
// What a sum over `count` elements becomes
__device__ __forceinline__ Value finished(Value sum, int count) {
#if NORM == 0
    return sum / (Value)count;
#elif NORM == 1
    return sum;
#elif NORM == 2
    return sqrtf(sum);
#else
    return powf(sum, 1.f / NORM);
#endif
}

extern "C" __global__ void __launch_bounds__(256) pool_direct(const TX* __restrict__ x, TY* __restrict__ y, i64* __restrict__ indices, Pool p) {
    take_turn();
#if AXES == 3
    const int slices = p.slices, planes = p.out_slices, kernel_slices = p.kernel_slices;
#else
    const int slices = 1, planes = 1, kernel_slices = 1;
#endif
    const INDEX at = (INDEX)blockIdx.x * 256 + threadIdx.x, plane = (INDEX)p.out_height * p.out_width, pixels = planes * plane;
    if (at >= (INDEX)p.planes * pixels) return;
    const int pixel = (int)(at % plane);
    int top = pixel / p.out_width * p.stride_height - p.pad_top, left = pixel % p.out_width * p.stride_width - p.pad_left;
    const i64 image = at / pixels, first = image * slices * p.height * p.width;
    x += first;
    Value value = MAXIMUM ? LEAST : 0;
    int count = 0, found = -1, found_slice = 0, found_row = 0, found_col = 0;
    for (int h = 0; h < kernel_slices; ++h) {
#if AXES == 3
        int slice = (int)(at / plane % p.out_slices) * p.stride_slices - p.pad_front + h * p.dilation_slices;
        bool within = slice >= 0 && slice < p.slices, counted = slice < p.slices + p.pad_back;
#else
        const int slice = 0;
        const bool within = true, counted = true;
#endif
        for (int i = 0; i < p.kernel_height; ++i) {
            int row = top + i * p.dilation_height;
            for (int j = 0; j < p.kernel_width; ++j) {
                int col = left + j * p.dilation_width;
                bool in = within && row >= 0 && row < p.height && col >= 0 && col < p.width;
                if (in) {
                    Value one = read(x[((i64)slice * p.height + row) * p.width + col]);
                    if (INDICES && (found < 0 || one > value || (one != one && value == value)))
                        found = 0, found_slice = slice, found_row = row, found_col = col;
                    value = MAXIMUM ? larger(value, one) : value + share(one);
                }
                count += in || (COUNT_PAD && counted && row < p.height + p.pad_bottom && col < p.width + p.pad_right);
            }
        }
    }
#if WHOLE
    y[at] = (TY)value;
#else
    write(y[at], MAXIMUM ? value : finished(value, count));
#endif
#if INDICES == 1
    indices[at] = first + ((i64)found_slice * p.height + found_row) * p.width + found_col;
#elif INDICES == 2
    indices[at] = first + ((i64)found_col * p.height + found_row) * slices + found_slice;
#endif
}
#endif
