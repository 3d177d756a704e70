// y[b, m, n] = alpha * sum_k a[b, m, k] * b[b, k, n] + beta * c[b, m, n] for few rows m, up to 16: bound by reading b, whose every byte is read once
//   a, b TAB (f16, bf16, float); b contiguous along n (B_BY_N 1) or along k (0)     c TC, y TY (or out.cuh)     strides as in product.cuh
//   A_WIDE, B_WIDE: elements of an access, up to 16 bytes: lines of a and b begin on them and divide by them; 1: any, and of a any strides
// Tactics; each is the one above plus one idea:
//   matmul_few CORES 0      a lane multiplies 8 columns of b by 16 bytes of k with all rows of a: fused multiply-adds; FP32
//   matmul_few CORES 1      the same tile is the left operand of tensor cores, columns of b along the instruction's rows; f16, bf16, float that holds TF32
//   matmul_few SPLITS > 1   that many blocks share a tile of 64 columns, each a stretch of k (clusters: sm_90 and later)
// b goes from global memory to registers, AHEAD tiles of 64 columns a warp under way, the first before the kernel's turn where it is a weight. Warps of a
// block share k: of RANGES * SPLITS ranges, counted in steps of 64 bytes, warp w of stretch s has range s * RANGES + w. Lane (g, q) of 8 x 4 has columns 8 g to
// 8 g + 7 and the q-th 16 bytes of k of a step: which terms a sum takes together follows from k alone, neither from rows nor from how b lies.
// Products and sums are FP32. CORES 0: a lane adds its terms in the order of k, then lanes q and q ^ 2, then q and q ^ 1; CORES 1: half a step an instruction
// (of each q, first the lower 8 bytes), sums cut, not rounded, a few bits below. Warps are added in their order, then stretches in theirs.
// NVRTC defines: TAB, TC, TY, CORES, ADDED (0: nothing is added, and alpha is 1; 1: nothing is added; 2: c), B_BY_N, A_WIDE, B_WIDE, ROWS (8 or 16; CORES 0: 1, 2, 4 too), RANGES, SPLITS,
// AHEAD, RESIDENT (blocks of a multiprocessor), WEIGHTS (1: b is the same in every run), EVEN (n divides by 8).
#if SPLITS > 1
#include "tma.cuh"
#else
#include "mma.cuh"
#endif
#include "product.cuh"

typedef TAB T;

#define THREADS (32 * RANGES)
#define COLS 64
#define WIDE (16 / (int)sizeof(T))  // elements of 16 bytes
#define STEP (4 * WIDE)             // of k
#define LOADS 8                     // of a step, 16 bytes a lane
#define A_COL (A_WIDE == 1 ? p.a_col : 1)
#define SUM_ROW (COLS + 4)
#define TOGETHER (EVEN ? 4 : 1)  // sums of a row that a thread finishes at once

typedef Pack<unsigned, 4> Words;

// 16 bytes of a line, of whose elements there are `left` from here on, `apart` where each is read alone; zeros where there are none, or not `in`
// ON: the next step goes on in the same line, of which more is brought at once; slower by 2 to 9 % where elements have 16 bits
template <int EACH, int ON = 0> __device__ __forceinline__ void bring(Words& to, const T* from, int left, bool in, i64 apart = 1) {
    if constexpr (EACH == WIDE && ON) {
        load_16_on(*(unsigned(*)[4])&to.lane[0], from, in && left > 0);
    } else if constexpr (EACH == WIDE) {
        load_16(*(unsigned(*)[4])&to.lane[0], from, in && left > 0);
    } else {
        Pack<T, WIDE> values;
#pragma unroll
        for (int e = 0; e < WIDE; e += EACH) {
            Pack<T, EACH> some = {};
            if (in && e < left) some = *(const Pack<T, EACH>*)(from + (EACH == 1 ? e * apart : e));
#pragma unroll
            for (int i = 0; i < EACH; ++i) values.lane[e + i] = some.lane[i];
        }
        to = *(const Words*)&values;
    }
}

// The part of b that a lane reads: 8 columns, 16 bytes of k of each step
struct Weights {
    const T* from;
    i64 between;  // lines of the lane's tile
    i64 step;     // elements to the next step
    int cols;     // columns from the lane's first one on; none or fewer: nothing is read

    __device__ __forceinline__ void begin(const T* b, i64 col, i64 k, const Problem& p) {
        between = B_BY_N ? p.b_row : p.b_col;
        step = B_BY_N ? STEP * p.b_row : STEP;
        from = b + (B_BY_N ? k * p.b_row + col : col * p.b_col + k);
        cols = (int)(p.n - col);
    }
    // `left`: what there is of k from the lane's first element on
    __device__ __forceinline__ void fetch(Words (&to)[LOADS], i64 steps, int left) const {
        const T* at = from + steps * step;
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            constexpr int PARTS = LOADS / WIDE;  // accesses for 8 columns of one k
            int k = i / PARTS, col = i % PARTS * WIDE;
            if (B_BY_N) bring<B_WIDE>(to[i], at + k * between + col, cols - col, k < left);
            else bring<B_WIDE, WIDE == 4>(to[i], at + i * between, left, i < cols);
        }
    }
};

// 32 bits of one column: of 16-bit values those of k 2 j and 2 j + 1, else that of k j
__device__ __forceinline__ unsigned word_of(const Words (&held)[LOADS], int col, int j) {
    if (!B_BY_N) return held[col].lane[j];
    if (WIDE == 4) return held[2 * j + col / 4].lane[col % 4];
    unsigned first = held[2 * j].lane[col / 2], second = held[2 * j + 1].lane[col / 2];
    return col % 2 ? first >> 16 | (second & 0xffff0000u) : (first & 0xffffu) | second << 16;
}

#if CORES
struct Sums {
    float of[ROWS / 8][4][4];

    __device__ __forceinline__ void add(const Words (&held)[LOADS], const Words (&rows)[ROWS / 8]) {
#pragma unroll
        for (int half = 0; half < 4; half += 2)
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                const unsigned left[4] = {word_of(held, 2 * pair, half), word_of(held, 2 * pair + 1, half), word_of(held, 2 * pair, half + 1),
                                          word_of(held, 2 * pair + 1, half + 1)};
#pragma unroll
                for (int r = 0; r < ROWS / 8; ++r) mma(of[r][pair], left, rows[r].lane[half], rows[r].lane[half + 1], T());
            }
    }
    // Rows 2 q and the next of each eight, columns 8 g on
    __device__ __forceinline__ void keep(float* room) const {
        int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < ROWS / 8; ++r)
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int pair = 0; pair < 4; pair += 2)
                    *(Pack<float, 4>*)(room + (r * 8 + 2 * q + i) * SUM_ROW + 8 * g + 2 * pair) = {
                        of[r][pair][i], of[r][pair][2 + i], of[r][pair + 1][i], of[r][pair + 1][2 + i]};
    }
};
#else
struct Sums {
    float of[ROWS][8];

    // `rows`: of a, 16 values of k each
    __device__ __forceinline__ void add(const Words (&held)[LOADS], const float* rows) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            Pack<float, 4> x = *(const Pack<float, 4>*)(rows + r * STEP + threadIdx.x % 4 * 4);
#pragma unroll
            for (int k = 0; k < 4; ++k)
#pragma unroll
                for (int col = 0; col < 8; ++col) of[r][col] = fmaf(x.lane[k], __uint_as_float(word_of(held, col, k)), of[r][col]);
        }
    }
    // Lanes that share columns exchange halves of them: afterwards each has two
    __device__ __forceinline__ void keep(float* room) const {
        int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
        bool upper = q & 2, odd = q & 1;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float four[4];
#pragma unroll
            for (int e = 0; e < 4; ++e)
                four[e] = (upper ? of[r][e + 4] : of[r][e]) + __shfl_xor_sync(0xffffffffu, upper ? of[r][e] : of[r][e + 4], 2);
            Pack<float, 2> two;
#pragma unroll
            for (int e = 0; e < 2; ++e)
                two.lane[e] = (odd ? four[e + 2] : four[e]) + __shfl_xor_sync(0xffffffffu, odd ? four[e] : four[e + 2], 1);
            *(Pack<float, 2>*)(room + r * SUM_ROW + 8 * g + 2 * q) = two;
        }
    }
};
// A step of all rows of a, into shared memory that one warp uses
__device__ __forceinline__ void bring_rows(float* to, const float* a, int k, const Problem& p) {
#pragma unroll
    for (int at = 0; at < ROWS * 4; at += 32) {
        int piece = at + threadIdx.x % 32, row = piece / 4, own = k + piece % 4 * 4;
        if (ROWS * 4 % 32 && piece >= ROWS * 4) break;
        const float* from = a + row * p.a_row + own * A_COL;
#pragma unroll
        for (int e = 0; e < 4; e += A_WIDE) {
            bool in = row < p.m && own + e < p.k;
            if (A_WIDE == 4) copy16(to + piece * 4, in ? from : a, in);
            else copy4(to + piece * 4 + e, in ? from + e * A_COL : a, in);
        }
    }
}
#endif

// What becomes of N neighbouring sums
template <int N> __device__ __forceinline__ void hand_over(
    float (&values)[N], const float (&added)[N], const Beside<N>& beside, const Spot& spot, const Out& out, const Problem& p) {
#pragma unroll
    for (int e = 0; e < N; ++e) {
        if (ADDED && p.alpha != 1.f) values[e] *= p.alpha;
        if (ADDED == 2) values[e] = fmaf(p.beta, added[e], values[e]);
    }
    put(out, values, beside, spot);
}

extern "C" __global__ void
#if SPLITS > 1
__cluster_dims__(SPLITS, 1, 1)
#endif
__launch_bounds__(THREADS, RESIDENT) matmul_few(
    const T* __restrict__ a, const T* __restrict__ b, const TC* __restrict__ c, OUT_PARAMETERS, const Problem p) {
    DYNAMIC_SHARED(shared);
    float* room = (float*)shared;
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4, stretch = blockIdx.x % SPLITS;
    unsigned tile = blockIdx.x / SPLITS, across = (unsigned)p.across, batch = p.batches > 1 ? tile / across : 0;
    i64 col = (i64)(tile - batch * across) * COLS, b0 = batch ? batch / (unsigned)p.batch1 : 0, b1 = batch ? batch % (unsigned)p.batch1 : 0;
    a += b0 * p.a_batch[0] + b1 * p.a_batch[1];
    b += b0 * p.b_batch[0] + b1 * p.b_batch[1];
    int depth = (int)p.k, steps = (depth + STEP - 1) / STEP, range = stretch * RANGES + warp;
    int first = (int)((i64)steps * range / (RANGES * SPLITS)), count = (int)((i64)steps * (range + 1) / (RANGES * SPLITS)) - first;
    int own = first * STEP + q * WIDE;  // the lane's first k
    Weights weights;
    weights.begin(b, col + 8 * g, own, p);
    Words held[AHEAD][LOADS];
    auto ask = [&](Words (&to)[LOADS], int i) {
        if (i < count) weights.fetch(to, i, depth - own - i * STEP);
    };
    if (!WEIGHTS) take_turn();
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) ask(held[i], i);
    if (WEIGHTS) take_turn();
    Out out = {OUT_ARGUMENTS};
    Sums sums = {};
#if CORES
    Words rows[AHEAD][ROWS / 8];
    auto ask_rows = [&](Words (&to)[ROWS / 8], int i) {
        if (i < count)
#pragma unroll
            for (int r = 0; r < ROWS / 8; ++r)
                bring<A_WIDE>(to[r], a + (r * 8 + g) * p.a_row + (own + i * STEP) * A_COL, depth - own - i * STEP, r * 8 + g < p.m, A_COL);
    };
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) ask_rows(rows[i], i);
    for (int i = 0; i < count; i += AHEAD) {
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            if (i + j < count) sums.add(held[j], rows[j]);
            ask(held[j], i + j + AHEAD);
            ask_rows(rows[j], i + j + AHEAD);
        }
    }
#else
    float* mine = room + warp * (AHEAD * ROWS * STEP);
    auto ask_rows = [&](int slot, int i) {
        if (i < count) bring_rows(mine + slot * (ROWS * STEP), a, (first + i) * STEP, p);
        copies_commit();  // an empty group too: what is waited for is counted
    };
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) ask_rows(i, i);
    for (int i = 0; i < count; i += AHEAD) {
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            copies_wait<AHEAD - 1>();
            __syncwarp();
            if (i + j < count) sums.add(held[j], mine + j * (ROWS * STEP));
            __syncwarp();  // nobody reads them any more
            ask(held[j], i + j + AHEAD);
            ask_rows(j, i + j + AHEAD);
        }
    }
    __syncthreads();  // sums replace rows
#endif

    constexpr int N = TOGETHER, ACROSS = COLS / N;
    int items = (int)p.m * ACROSS, item = items * stretch / SPLITS + threadIdx.x, end = items * (stretch + 1) / SPLITS;
    auto spot_of = [&](int i) {
        i64 row = i / ACROSS, right = col + i % ACROSS * N;
        return Spot{(batch * p.m + row) * p.n + right, b0, b1, row, right};
    };
    // What is added and read beside the first ones, while sums are exchanged
    if (ADDED == 2) c += b0 * p.c_batch[0] + b1 * p.c_batch[1];
    auto read_added = [&](float (&added)[N], const Spot& spot, bool in) {
#pragma unroll
        for (int e = 0; e < N; ++e) added[e] = ADDED == 2 && in ? read(c[spot.row * p.c_row + (spot.col + e) * p.c_col]) : 0.f;
    };
    Spot spot = spot_of(item);
    bool in = item < end && spot.col < p.n;
    Beside<N> beside = fetch<N>(out, spot, in);
    float added[N];
    read_added(added, spot, in);
    sums.keep(room + warp * (ROWS * SUM_ROW));
    __syncthreads();
    auto of_warps = [&](float (&values)[N], int i) {
        const float* at = room + i / ACROSS * SUM_ROW + i % ACROSS * N;
#pragma unroll
        for (int w = 0; w < RANGES; ++w) {
            Pack<float, N> one = *(const Pack<float, N>*)(at + w * (ROWS * SUM_ROW));
#pragma unroll
            for (int e = 0; e < N; ++e) values[e] = w ? values[e] + one.lane[e] : one.lane[e];
        }
    };
#if SPLITS > 1
    for (int i = threadIdx.x; i < items; i += THREADS) {
        float values[N];
        of_warps(values, i);
        Pack<float, N> whole;
#pragma unroll
        for (int e = 0; e < N; ++e) whole.lane[e] = values[e];
        *(Pack<float, N>*)(room + i / ACROSS * SUM_ROW + i % ACROSS * N) = whole;  // in the place of the first warp's, which nobody else reads
    }
    cluster_sync(true);
#endif
    for (bool later = false; item < end; item += THREADS, later = true) {
        if (later) {
            spot = spot_of(item);
            in = spot.col < p.n;
            beside = fetch<N>(out, spot, in);
            read_added(added, spot, in);
        }
        if (!in) continue;
        float values[N];
#if SPLITS > 1
#pragma unroll
        for (int s = 0; s < SPLITS; ++s) {
            Pack<float, N> there = read_there<N>(room + item / ACROSS * SUM_ROW + item % ACROSS * N, s, stretch);
#pragma unroll
            for (int e = 0; e < N; ++e) values[e] = s ? values[e] + there.lane[e] : there.lane[e];
        }
#else
        of_warps(values, item);
#endif
        hand_over<N>(values, added, beside, spot, out, p);
    }
#if SPLITS > 1
    cluster_sync(false);  // nobody leaves while another reads its sums
#endif
}
