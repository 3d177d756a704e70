// Group and instance norm of images whose channels are contiguous: what norm.cu computes, x and y [images, pixels, channels], dense.
//   y = (x - mean) * rstd * scale[k] + bias[k]   mean and rstd of a group of `each` neighbouring channels of an image; k = c, or c / each (PER_GROUP)
// Tactic:
//   norm_channel_parts, norm_channel_apply   many blocks an image, each of `span` pixels with all their channels: statistics of every group, then
//                                            every block joins those of its image and normalises its pixels
// A thread stays with VEC channels, which lie in one group. Sums are float, two-pass over what a thread holds, joined by the formula of Chan, Golub
// and LeVeque (1979); their order is fixed. channels / VEC <= THREADS, groups <= GROUPS.
// NVRTC defines: TX, TY, TS, VEC, THREADS, GROUPS, PER_GROUP (0 or 1), ENTRY_PARTS or ENTRY_APPLY.
#include "common.cuh"

#define HELD 4  // pixels that a thread reads at once

struct alignas(8) Part { float mean, square; };

// Elements seen so far: how many, their mean, the sum of squares around it.
struct Seen {
    float count, mean, square;
    __device__ __forceinline__ void join(float other, float its_mean, float its_square) {
        float both = count + other, apart = its_mean - mean;
        if (other == 0.f) return;
        mean += apart * (other / both);
        square += its_square + apart * apart * (count * (other / both));
        count = both;
    }
    // With those of all lanes of the warp
    __device__ __forceinline__ void join_warp() {
#pragma unroll
        for (int lane = 16; lane > 0; lane >>= 1) {
            float a = __shfl_xor_sync(0xffffffffu, count, lane), b = __shfl_xor_sync(0xffffffffu, mean, lane), c = __shfl_xor_sync(0xffffffffu, square, lane);
            Seen low = {threadIdx.x & lane ? a : count, threadIdx.x & lane ? b : mean, threadIdx.x & lane ? c : square};
            if (threadIdx.x & lane) low.join(count, mean, square); else low.join(a, b, c);
            *this = low;
        }
    }
};

struct Images { int pixels, channels, each, chunks, span; };

// Where a thread of a block is: its first channel, and every how many pixels it comes, from which on.
struct Post {
    int channel, row, rows, image, first, last;
    __device__ __forceinline__ Post(const Images& p, unsigned block) {
        int across = p.channels / VEC;
        rows = THREADS / across;
        row = threadIdx.x / across;
        channel = threadIdx.x % across * VEC;
        image = block / p.chunks;
        first = block % p.chunks * p.span;
        last = first + p.span < p.pixels ? first + p.span : p.pixels;
        if (row >= rows) first = last;  // left over
    }
};

#ifdef ENTRY_PARTS
extern "C" __global__ void __launch_bounds__(THREADS) norm_channel_parts(const TX* __restrict__ x, Part* __restrict__ parts, Images p) {
    take_turn();
    Post post(p, blockIdx.x);
    Seen seen = {0.f, 0.f, 0.f};
    x += (i64)post.image * p.pixels * p.channels + post.channel;
    for (int pixel = post.first + post.row; pixel < post.last; pixel += HELD * post.rows) {
        Pack<TX, VEC> in[HELD];
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            int at = pixel + i * post.rows;
            in[i] = *(const Pack<TX, VEC>*)(x + (i64)(at < post.last ? at : pixel) * p.channels);
        }
        float sum = 0.f, square = 0.f, count = 0.f;
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            bool has = pixel + i * post.rows < post.last;
            count += has ? (float)VEC : 0.f;
#pragma unroll
            for (int v = 0; v < VEC; ++v) sum += has ? read(in[i].lane[v]) : 0.f;
        }
        float mean = sum / count;
#pragma unroll
        for (int i = 0; i < HELD; ++i)
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
                float centred = read(in[i].lane[v]) - mean;
                square += pixel + i * post.rows < post.last ? centred * centred : 0.f;
            }
        seen.join(count, mean, square);
    }
    __shared__ Seen all[THREADS];
    all[threadIdx.x] = seen;
    __syncthreads();
    // A warp joins what the threads of a group have seen: `lanes` neighbours in each of the rows
    int across = p.channels / VEC, lanes = p.each / VEC, groups = p.channels / p.each;
    for (int group = threadIdx.x / 32; group < groups; group += THREADS / 32) {
        Seen whole = {0.f, 0.f, 0.f};
        for (int i = threadIdx.x % 32; i < lanes * post.rows; i += 32) {
            const Seen& one = all[i / lanes * across + group * lanes + i % lanes];
            whole.join(one.count, one.mean, one.square);
        }
        whole.join_warp();
        if (threadIdx.x % 32 == 0) parts[(i64)blockIdx.x * groups + group] = {whole.mean, whole.square};
    }
}
#endif

#ifdef ENTRY_APPLY
extern "C" __global__ void __launch_bounds__(THREADS) norm_channel_apply(
    const TX* __restrict__ x, TY* __restrict__ y, const TS* __restrict__ scale, const TS* __restrict__ bias, const Part* __restrict__ parts,
    Images p, float epsilon) {
    take_turn();
    Post post(p, gridDim.x - 1 - blockIdx.x);  // what norm_channel_parts read last is in the cache still
    __shared__ Part all[GROUPS];  // mean and rstd
    int groups = p.channels / p.each;
    parts += (i64)post.image * p.chunks * groups;
    for (int group = threadIdx.x / 32; group < groups; group += THREADS / 32) {
        Seen whole = {0.f, 0.f, 0.f};
        for (int i = threadIdx.x % 32; i < p.chunks; i += 32) {
            int pixels = p.pixels - i * p.span < p.span ? p.pixels - i * p.span : p.span;
            Part one = parts[i * groups + group];
            whole.join((float)pixels * (float)p.each, one.mean, one.square);
        }
        whole.join_warp();
        if (threadIdx.x % 32 == 0) all[group] = {whole.mean, 1.f / sqrtf(whole.square / whole.count + epsilon)};
    }
    __syncthreads();
    if (post.first >= post.last) return;
    int group = post.channel / p.each;
    float mean = all[group].mean, rstd = all[group].square, factor[VEC], shift[VEC];
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
        int k = PER_GROUP ? group : post.channel + v;
        factor[v] = read(scale[k]);
        shift[v] = read(bias[k]);
    }
    i64 base = (i64)post.image * p.pixels * p.channels + post.channel;
#pragma unroll 4
    for (int pixel = post.first + post.row; pixel < post.last; pixel += post.rows) {
        Pack<TX, VEC> in = *(const Pack<TX, VEC>*)(x + base + (i64)pixel * p.channels);
        Pack<TY, VEC> out;
#pragma unroll
        for (int v = 0; v < VEC; ++v) write(out.lane[v], (read(in.lane[v]) - mean) * rstd * factor[v] + shift[v]);
        store(y + base + (i64)pixel * p.channels, out);
    }
}
#endif
