// y[b, m, n] = alpha * sum_k a[b, m, k] * b[b, k, n] + beta * c[b, m, n] in FP32, and convolutions, channels last, as such products
//   a, b float, each contiguous along one of its axes (A_BY_K, B_BY_N; 0: along the other)     c TC, y TY (or out.cuh)     strides as in product.cuh
//   A_WIDE, B_WIDE 4: their lines begin on 16 bytes and divide by as much; 1: any
// Tactics; each is the one above plus one idea:
//   matmul_ffma               tiles by asynchronous copies, STAGES under way; TM x TN sums a thread, read from shared memory 16 bytes at a time
//   matmul_ffma WINDOWS 1     rows of a are the windows of output pixels, [tap, channel], gathered by the copies: x [images, rows, columns, channels]
//   matmul_ffma SPLITS > 1    that many blocks share a tile, each a stretch of k; their sums are added in the order of k (clusters: sm_90 and later)
// Products and sums are float, one fused multiply-add a product, k in order within a stretch: the bits of matmul_simt where k is not split.
// Tiles keep the order of global memory. What is contiguous along k is padded by 16 bytes a row, and neighbouring lanes have neighbouring rows; what
// is not, gives a lane four neighbours. Lanes 2 i and 2 i + 1 have the same rows, lanes i and i + 2 of four the same columns: a half of the warp is
// served at once then.
// NVRTC defines: TC, TY, ADDED (what is added: 0 nothing, and alpha is 1; 2 a row; 1 anything), A_BY_K, B_BY_N, A_WIDE, B_WIDE, BM, BN, BK (of a block), TM, TN
// (of a thread), STAGES, SPLITS, WINDOWS, RESIDENT (blocks of a multiprocessor), SERPENTINE (1: sums of a thread column by column, to and fro, where the assembler
// then finds registers of different banks more often).
#if SPLITS > 1
#include "tma.cuh"
#else
#include "mma.cuh"
#endif
#include "product.cuh"
#include "conv.cuh"

#define WM (4 * TM)  // of a warp: 4 x 8 lanes
#define WN (8 * TN)
#define THREADS (32 * (BM / WM) * (BN / WN))
#define A_ROWS (A_BY_K ? BM : BK)
#define A_ROW (A_BY_K ? BK + 4 : BM)
#define B_ROWS (B_BY_N ? BK : BN)
#define B_ROW (B_BY_N ? BN : BK + 4)
#define STAGE (A_ROWS * A_ROW + B_ROWS * B_ROW)
#define SUM_ROW (BN + 4)
#define BAND 8  // rows of tiles that are taken together, column by column: what is near in time is near in memory
#define UNIT 32  // of k: stretches are counted in these, whatever BK is

template <int WIDE> __device__ __forceinline__ void bring(float* to, const float* from, bool in) {
    if (WIDE == 4) copy16(to, from, in);
    else copy4(to, from, in);
}

// What this thread fetches of a matrix, tile after tile along k: EACH strips, in the same PARTS columns of rows that are STEP apart. ROWS x COLS values a
// tile, COLS contiguous in memory; ALONG 1: k runs along the columns, 0: along the rows.
template <int ROWS, int COLS, int PITCH, int ALONG, int WIDE> struct Strips {
    static constexpr int ACROSS = COLS / WIDE, PARTS = ACROSS > THREADS ? ACROSS / THREADS : 1, STEP = PARTS > 1 ? 1 : THREADS / ACROSS;
    static constexpr int EACH = ROWS / STEP * PARTS;
    static_assert((PARTS > 1 ? ACROSS % THREADS == 0 : THREADS % ACROSS == 0) && ROWS % STEP == 0, "every thread fetches as many strips of its own columns");
    const float* matrix;
    int from, stride;  // elements; between rows
    int row, col, outside;  // rows or columns from here on lie outside, as far as the axis that is not k says

    // `first` and `extent`: of the axis that is not k
    __device__ __forceinline__ void begin(const float* at, int first, int extent, int between, int k) {
        matrix = at;
        stride = between;
        row = PARTS > 1 ? 0 : threadIdx.x / ACROSS;
        col = (PARTS > 1 ? threadIdx.x : threadIdx.x % ACROSS) * WIDE;
        outside = extent - first;
        from = ALONG ? (first + row) * stride + k + col : (k + row) * stride + first + col;
    }

    // `left`: what there is of k from here on
    __device__ __forceinline__ void fetch(float* tile, int left) {
        int at = from;
        tile += row * PITCH + col;
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
            int down = e / PARTS * STEP, right = e % PARTS * THREADS * WIDE, r = row + down, c = col + right;
            bool in = (ALONG ? c : r) < left && (ALONG ? r : c) < outside;
            bring<WIDE>(tile + down * PITCH + right, matrix + (in ? at + right : 0), in);
            if (e % PARTS == PARTS - 1) at += STEP * stride;
        }
        from += ALONG ? COLS : ROWS * stride;
    }
};

#if WINDOWS
#define WINDOWS_PARAMETER , const Conv w
// The tap, and the channel, of one k
struct Tap {
    int channel, deep, down, right;  // down and right, and of volumes deep: in pixels of x

    __device__ __forceinline__ void begin(int k, const Conv& w) {
        int tap = k / w.channels;
        channel = k % w.channels;
        Voxel at = step_of(tap, w);
        deep = at.slice, down = at.row, right = at.col;
    }
    // `whole`, `rest`: taps and channels of a tile of k
    __device__ __forceinline__ void advance(int whole, int rest, const Conv& w) {
        channel += rest;
        bool over = channel >= w.channels;
        channel -= over ? w.channels : 0;
        right += (whole + over) * w.dilation_width;
        for (; right >= w.kernel_width * w.dilation_width; down += w.dilation_height) right -= w.kernel_width * w.dilation_width;
        if (AXES == 3)
            for (; down >= w.kernel_height * w.dilation_height; deep += dilation_slices_of(w)) down -= w.kernel_height * w.dilation_height;
    }
};
// Where the window of an output pixel begins: row and column, and elements from x on
struct alignas(16) Begin {
    int top, left, corner;
#if AXES == 3
    int front;
#else
    static constexpr int front = 0;
#endif

    __device__ __forceinline__ void set(int pixel, int extent, const Conv& w) {
        int each = pixels_of(w), image = pixel / each;
        Voxel at = corner_of(pixel % each, w);
        top = at.row, left = at.col;
#if AXES == 3
        front = at.slice;
#endif
        corner = (((image * slices_of(w) + front) * w.height + top) * w.width + left) * w.channels;
        if (pixel >= extent) top = -(1 << 30);  // no tap reaches the image
    }
    __device__ __forceinline__ bool reaches(const Tap& tap, const Conv& w) const {
        return is_inside({front + tap.deep, top + tap.down, left + tap.right}, w);
    }
};

// What this thread fetches of the windows of an image, channels last: rows are output pixels, k runs over taps, then channels. WIDE channels of EACH
// pixels, STEP rows apart, whose windows begin where shared memory says.
template <int WIDE> struct Gathered {
    static constexpr int STEP = THREADS / (BK / WIDE), EACH = BM / STEP;
    static_assert(THREADS % (BK / WIDE) == 0 && BM % STEP == 0, "every thread fetches as many strips of its own columns");
    const float* image;
    const Begin* begins;
    int row, col, whole, rest;
    Tap tap;

    __device__ __forceinline__ void begin(const float* at, int first, int extent, int k, Begin* all, const Conv& w) {
        image = at;
        begins = all;
        row = threadIdx.x / (BK / WIDE);
        col = threadIdx.x % (BK / WIDE) * WIDE;
        tap.begin(k + col, w);
        whole = BK / w.channels;
        rest = BK % w.channels;
        for (int r = threadIdx.x; r < BM; r += THREADS) all[r].set(first + r, extent, w);
        __syncthreads();
    }
    __device__ __forceinline__ void fetch(float* tile, int depth, const Conv& w) {
        int step = ((tap.deep * w.height + tap.down) * w.width + tap.right) * w.channels + tap.channel;
        tile += row * A_ROW + col;
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
            Begin pixel = begins[row + e * STEP];
            bool in = col < depth && pixel.reaches(tap, w);
            bring<WIDE>(tile + e * STEP * A_ROW, image + (in ? pixel.corner + step : 0), in);
        }
        tap.advance(whole, rest, w);
    }
};
#else
#define WINDOWS_PARAMETER
#endif

// N sums of a row, which begin on a multiple of N; `row`: of c, where that is one
template <int N> __device__ __forceinline__ void hand_over(
    const float (&sums)[N], const TC* c, const float* row, const Beside<N>& beside, const Spot& spot, const Out& out, const Problem& p) {
    bool in = spot.row < p.m && spot.col < p.n;
    float values[N];
#pragma unroll
    for (int e = 0; e < N; ++e) {
        values[e] = sums[e];
        if (ADDED == 2) values[e] = fmaf(p.beta, row[e], p.alpha == 1.f ? values[e] : p.alpha * values[e]);
        if (ADDED == 1 && in) values[e] = finished(values[e], c, spot.row, spot.col + e, p);
    }
    put(out, values, beside, spot, in);
}
// What is read beside them; nothing outside y
template <int N> __device__ __forceinline__ Beside<N> beside_of(const Spot& spot, const Out& out, const Problem& p) {
    return fetch<N>(out, spot, spot.row < p.m && spot.col < p.n);
}

// This block's share of the tile's sums, which lie in shared memory, N neighbours at once: those of all stretches of k, in their order. `from`: the tile's
// first element.
template <int N> __device__ __forceinline__ void finish_share(
    const float* sums, unsigned stretch, const TC* c, const Spot& from, const Out& out, const Problem& p) {
    constexpr int ALL = BM * BN / N;
#pragma unroll 1
    for (int i = ALL * stretch / SPLITS + threadIdx.x; i < ALL * (stretch + 1) / SPLITS; i += THREADS) {
        int down = i / (BN / N), right = i % (BN / N) * N;
        Spot spot = {from.at + down * p.n + right, from.b0, from.b1, from.row + down, from.col + right};
        if (spot.row >= p.m || spot.col >= p.n) continue;
        Beside<N> beside = beside_of<N>(spot, out, p);
        float values[N], row_of_c[N];
#pragma unroll
        for (int e = 0; e < N; ++e) row_of_c[e] = ADDED == 2 ? read(c[(spot.col + e) * p.c_col]) : 0.f;
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) {
#if SPLITS > 1
            Pack<float, N> there = read_there<N>(sums + down * SUM_ROW + right, s, stretch);
#else
            Pack<float, N> there = *(const Pack<float, N>*)(sums + down * SUM_ROW + right);
#endif
#pragma unroll
            for (int e = 0; e < N; ++e) values[e] = s ? values[e] + there.lane[e] : there.lane[e];
        }
        hand_over<N>(values, c, row_of_c, beside, spot, out, p);
    }
}

extern "C" __global__ void
#if SPLITS > 1
__cluster_dims__(SPLITS, 1, 1)
#endif
__launch_bounds__(THREADS, RESIDENT) matmul_ffma(
    const float* __restrict__ a, const float* __restrict__ b, const TC* __restrict__ c, OUT_PARAMETERS, const Problem p WINDOWS_PARAMETER) {
    take_turn();
    DYNAMIC_SHARED(shared);
    float* stages = (float*)shared;
    int stretch = blockIdx.x % SPLITS;
    i64 tile = blockIdx.x / SPLITS, batch = p.batches > 1 ? tile / (p.down * p.across) : 0;
    int at = (int)(tile - batch * p.down * p.across), across = (int)p.across, down = (int)p.down;
    int band = at / (BAND * across), in = at - band * BAND * across, rows = down - band * BAND < BAND ? down - band * BAND : BAND;
    i64 row = (i64)(band * BAND + in % rows) * BM, col = (i64)(in / rows) * BN;
    i64 b0 = batch / p.batch1, b1 = batch % p.batch1;
    a += b0 * p.a_batch[0] + b1 * p.a_batch[1];
    b += b0 * p.b_batch[0] + b1 * p.b_batch[1];
    if (ADDED) c += b0 * p.c_batch[0] + b1 * p.c_batch[1];
    Out out = {OUT_ARGUMENTS};
    int depth = (int)p.k, steps = (depth + BK - 1) / BK, units = (depth + UNIT - 1) / UNIT;
    int first = units * stretch / SPLITS * (UNIT / BK), last = SPLITS == 1 ? steps : units * (stretch + 1) / SPLITS * (UNIT / BK);
#if WINDOWS
    Gathered<A_WIDE> left_strips;
    __shared__ Begin begins[BM];
    left_strips.begin(a, (int)row, (int)p.m, first * BK, begins, w);
#else
    Strips<A_ROWS, A_BY_K ? BK : BM, A_ROW, A_BY_K, A_WIDE> left_strips;
    left_strips.begin(a, (int)row, (int)p.m, (int)(A_BY_K ? p.a_row : p.a_col), first * BK);
#endif
    Strips<B_ROWS, B_BY_N ? BN : BK, B_ROW, !B_BY_N, B_WIDE> right_strips;
    right_strips.begin(b, (int)col, (int)p.n, (int)(B_BY_N ? p.b_row : p.b_col), first * BK);

    auto fetch = [&](int t, int stage) {
        if (t < last) {
            float* to = stages + stage * STAGE;
#if WINDOWS
            left_strips.fetch(to, depth - t * BK, w);
#else
            left_strips.fetch(to, depth - t * BK);
#endif
            right_strips.fetch(to + A_ROWS * A_ROW, depth - t * BK);
        }
        copies_commit();  // an empty group too: what is waited for is counted
    };

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int lane_m = (lane >> 1 & 1) | (lane >> 3 & 2), lane_n = (lane & 1) | (lane >> 1 & 6);
    int wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
    float sums[TM][TN] = {};
    for (int s = 0; s < STAGES - 1; ++s) fetch(first + s, s);
    int stage = 0, next = STAGES - 1;
    for (int t = first; t < last; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        fetch(t + STAGES - 1, next);
        const float* as = stages + stage * STAGE + (A_BY_K ? (wm + lane_m) * A_ROW : wm + lane_m * 4);
        const float* bs = stages + stage * STAGE + A_ROWS * A_ROW + (B_BY_N ? wn + lane_n * 4 : (wn + lane_n) * B_ROW);
#pragma unroll
        for (int k = 0; k < BK; k += 4) {
            Pack<float, 4> left[TM];  // along k where their lines do, else of neighbours at each k
#pragma unroll
            for (int i = 0; i < TM; ++i)
                left[i] = *(const Pack<float, 4>*)(A_BY_K ? as + i * 4 * A_ROW + k : as + (k + i % 4) * A_ROW + i / 4 * 16);
            auto left_at = [&](int i, int q) { return A_BY_K ? left[i].lane[q] : left[i / 4 * 4 + q].lane[i % 4]; };
            Pack<float, 4> right[TN];
#pragma unroll
            for (int j = 0; j < TN; ++j)
                right[j] = *(const Pack<float, 4>*)(B_BY_N ? bs + (k + j % 4) * B_ROW + j / 4 * 32 : bs + j * 8 * B_ROW + k);
            auto right_at = [&](int j, int q) { return B_BY_N ? right[j / 4 * 4 + q].lane[j % 4] : right[j].lane[q]; };
#pragma unroll
            for (int q = 0; q < 4; ++q) {
#pragma unroll
                for (int e = 0; e < TM * TN; ++e) {
                    int j = SERPENTINE ? e / TM : e % TN, i = !SERPENTINE ? e / TN : j % 2 ? TM - 1 - e % TM : e % TM;
                    sums[i][j] = fmaf(left_at(i, q), right_at(j, q), sums[i][j]);
                }
            }
        }
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }

    bool even = p.n % 8 == 0;  // rows that endings may reach by whole accesses
    i64 origin = (batch * p.m + row) * p.n + col;
    int width = (int)p.n;
    auto spot_of = [&](int down, int right) { return Spot{origin + (down * width + right), b0, b1, row + down, col + right}; };
    auto row_of = [&](int i) { return wm + (A_BY_K ? i * 4 + lane_m : i / 4 * 16 + lane_m * 4 + i % 4); };
    auto col_of = [&](int j) { return wn + (B_BY_N ? j / 4 * 32 + lane_n * 4 + j % 4 : j * 8 + lane_n); };
    if (SPLITS == 1 && B_BY_N && even) {
        float row_of_c[TN];
#pragma unroll
        for (int j = 0; j < TN; ++j) row_of_c[j] = ADDED == 2 && col + col_of(j) < p.n ? read(c[(col + col_of(j)) * p.c_col]) : 0.f;
        constexpr int ROWS = 2;  // what is read beside them is fetched together
#pragma unroll
        for (int i = 0; i < TM; i += ROWS) {
            Beside<4> beside[ROWS][TN / 4];
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
#pragma unroll
                for (int j = 0; j < TN; j += 4) beside[r][j / 4] = beside_of<4>(spot_of(row_of(i + r), col_of(j)), out, p);
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
#pragma unroll
                for (int j = 0; j < TN; j += 4)
                    hand_over<4>(*(const float(*)[4])&sums[i + r][j], c, row_of_c + j, beside[r][j / 4], spot_of(row_of(i + r), col_of(j)), out, p);
        }
        return;
    }
    __syncthreads();  // nobody reads tiles any more; no copies are under way, for those behind the last tile were empty
#pragma unroll
    for (int i = 0; i < TM; ++i) {
#pragma unroll
        for (int j = 0; j < TN; j += B_BY_N ? 4 : 1) {
            float* to = stages + row_of(i) * SUM_ROW + col_of(j);
            if (B_BY_N) *(Pack<float, 4>*)to = {sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]};
            else *to = sums[i][j];
        }
    }
#if SPLITS > 1
    cluster_sync(true);
#else
    __syncthreads();
#endif
    if (even) finish_share<4>(stages, stretch, c, spot_of(0, 0), out, p);
    else finish_share<1>(stages, stretch, c, spot_of(0, 0), out, p);
#if SPLITS > 1
    cluster_sync(false);  // nobody leaves while another reads its sums
#endif
}
