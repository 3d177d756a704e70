// Exact sums of products of 8-bit integers on tensor cores, int32 as in ONNX: s [batches, M, N] = sum over k of (a - its zero point) (b - its zero point)
//   a TA [batches of a, M, K], lines of a_row bytes; b TB [batches of b, K, N], lines of b_row; TA, TB u8 or i8, batches are repeated
//   Lines divide by 16 bytes; what a line of a holds behind K is 0.
//   y TY: i32, the sums; u8 or i8, QUANTISED: round(float(s + bias) * (scale of a * scale of b / scale of y)) + zero of y, cut off at TY's ends
// Tactic: asynchronous copies, STAGES tiles under way; of few rows, warps share k, so that more is under way and fewer steps follow each other.
// Lines of b lie along n and tensor cores want neighbours along k: matrices of two-byte values are turned as they are loaded, lines 0, 1, 4, 5... by
// one and 2, 3, 6, 7... by the next, so that two byte permutations make four neighbours along k of an even column and of an odd one. A thread then
// holds four neighbouring columns of y.
// Zero points come off at the end: sum (a - p)(b - q) = sum ab - p sum b - q sum a + K p q, modulo 2^32.
// NVRTC defines: TA, TB, TY, ROWS_A, COLS_B (1: a zero point for every row of a batch of a, column of b; 0: one), SUMS_A, SUMS_B (sums of rows of a, of
// columns of b: 0: the other's zero points are 0; 1: made here; 2: given), QUANTISED, SCALES_A, SCALES_B (1: a scale for
// every row of a batch of a, column of b; 0: one), BM, BN, BK (of a block), WM, WN (of a warp), ALONG (warps that share BK), STAGES.
#include "integers.cuh"
#include "mma.cuh"

#define WARPS ((BM / WM) * (BN / WN))  // that share a part of k
#define THREADS (32 * WARPS * ALONG)
#define EACH (BK / ALONG)
#define HELD (WM * WN / 32 + WM / 8 + WN / 8)  // sums of a thread
#define A_LINE (BK + 16)  // so that the eight rows of a matrix lie in different banks
#define UNITS (BN / 16)
#define A_STEP (THREADS / (BK / 16))
#define B_STEP (THREADS / UNITS)
static_assert(BM % A_STEP == 0 && BK % B_STEP == 0 && B_STEP % 16 == 0, "every thread fetches as many, always from the same place of 16 lines");

struct Product { i64 a_batches, b_batches, down, across; int m, n, k, a_row, b_row; };

// Where 16 bytes of a line of b lie: the lines that a matrix is made of, 0, 1, 4, 5, 8, 9, 12, 13 and two further on, in different banks
__device__ __forceinline__ int place_in_b(int line, int unit) {
    int moved = UNITS >= 8 ? (line & 1) | (line >> 1 & 6) : line >> 2 & 3;
    return line * BN + 16 * (unit ^ moved);
}

typedef int Held[WM * WN / 32];

// Sums of a thread to memory, or those that lie there added to its own
template <bool TAKE> __device__ __forceinline__ void hand_over(Held& sums, unsigned (&of_a)[WM / 16][2], unsigned (&of_b)[WN / 8], unsigned* given) {
#pragma unroll
    for (int e = 0; e < HELD; ++e) {
        int a = e - WM * WN / 32, b = a - WM / 8;
        unsigned& one = a < 0 ? (unsigned&)sums[e] : b < 0 ? of_a[a / 2][a % 2] : of_b[b];
        if (TAKE) one += given[32 * e];
        else given[32 * e] = one;
    }
}

template <class T> __device__ __forceinline__ unsigned add_bytes(unsigned four, unsigned sum) {
    if constexpr (T(-1) < T(0)) return (unsigned)__dp4a((int)four, 0x01010101, (int)sum);
    else return __dp4a(four, 0x01010101u, sum);
}

__device__ __forceinline__ unsigned of_four(unsigned x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) integer_mma(
    const TA* __restrict__ a, const TB* __restrict__ b, const TA* __restrict__ a_zero, const TB* __restrict__ b_zero, const i32* __restrict__ rows_of_a,
    const i32* __restrict__ cols_of_b, const float* __restrict__ a_scale, const float* __restrict__ b_scale, const float* __restrict__ y_scale,
    const TY* __restrict__ y_zero, const i32* __restrict__ bias, TY* __restrict__ y, Product p) {
    take_turn();
    DYNAMIC_SHARED(shared);
    unsigned char* bs = shared + STAGES * BM * A_LINE;
    unsigned each = (unsigned)p.down * (unsigned)p.across, batch = blockIdx.x / each, tile = blockIdx.x - batch * each;  // a grid has fewer than 2^31 blocks
    i64 a_batch = batch % (unsigned)p.a_batches, b_batch = batch % (unsigned)p.b_batches;
    int down = (int)(tile / (unsigned)p.across), row = down * BM, col = (int)(tile - down * (unsigned)p.across) * BN, thread = threadIdx.x;
    int lane = thread % 32, warp = thread / 32, along = warp / WARPS, wm = warp % WARPS / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
    int tiles = (p.k + BK - 1) / BK, put = 0;
    // Sixteen bytes of every A_STEP-th line of a tile of a, of every B_STEP-th of b
    int a_line = thread / (BK / 16), a_col = thread % (BK / 16) * 16, b_line = thread / UNITS, b_col = thread % UNITS * 16;
    const unsigned char* a_from = (const unsigned char*)a + (a_batch * p.m + row + a_line) * p.a_row + a_col;
    const unsigned char* b_from = (const unsigned char*)b + (b_batch * p.k + b_line) * p.b_row + col + b_col;
    Place a_to = place_of(shared) + (a_line * A_LINE + a_col), b_to = place_of(bs) + place_in_b(b_line, b_col / 16);
    i64 a_step = (i64)A_STEP * p.a_row, b_step = (i64)B_STEP * p.b_row;
    int a_rows = p.m - row - a_line, a_depth = p.a_row - a_col, b_rows = col + b_col < p.b_row ? p.k - b_line : 0;

    auto fetch = [&](int t) {
        if (t < tiles) {
            const unsigned char *at = a_from, *bt = b_from;
            Place a_at = a_to + put * (BM * A_LINE), b_at = b_to + put * (BK * BN);
#pragma unroll
            for (int e = 0; e < BM / A_STEP; ++e, at += a_step) {
                bool in = e * A_STEP < a_rows && a_depth > 0;
                copy16(a_at + e * A_STEP * A_LINE, in ? at : (const unsigned char*)a, in);
            }
#pragma unroll
            for (int e = 0; e < BK / B_STEP; ++e, bt += b_step) {
                bool in = e * B_STEP < b_rows;
                copy16(b_at + e * B_STEP * BN, in ? bt : (const unsigned char*)b, in);
            }
            a_from += BK, a_depth -= BK, b_from = bt, b_rows -= BK;
            put = put + 1 < STAGES ? put + 1 : 0;
        }
        copies_commit();  // an empty group too: what is waited for is counted
    };

    int sums[WM / 16][WN / 8][4] = {}, get = 0;
    unsigned of_a[WM / 16][2] = {}, of_b[WN / 8] = {};  // of what a thread holds
    unsigned left[2][WM / 16][4], right[2][WN / 16][4];  // a step's, and the next one's
    Place a_read = place_of(shared) + ((wm + lane % 16) * A_LINE + lane / 16 * 16 + along * EACH), b_read[WN / 16];
#pragma unroll
    for (int j = 0; j < WN / 16; ++j)
        b_read[j] = place_of(bs) + (along * EACH * BN + place_in_b(lane / 16 * 16 + lane % 8 / 2 * 4 + lane % 2 + lane / 8 % 2 * 2, wn / 16 + j));

    auto load = [&](int step) {  // 32 of k
#pragma unroll
        for (int i = 0; i < WM / 16; ++i) load_matrices(left[step % 2][i], a_read + (get * (BM * A_LINE) + (i * 16 * A_LINE + 32 * step)));
#pragma unroll
        for (int j = 0; j < WN / 16; ++j) load_matrices_transposed(right[step % 2][j], b_read[j] + (get * (BK * BN) + 32 * step * BN));
    };

    for (int s = 0; s < STAGES - 1; ++s) fetch(s);
    for (int t = 0; t < tiles; ++t) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        load(0);
        fetch(t + STAGES - 1);
#pragma unroll
        for (int step = 0; step < EACH / 32; ++step) {
            if (step + 1 < EACH / 32) load(step + 1);
            unsigned (&x)[WM / 16][4] = left[step % 2];
#pragma unroll
            for (int j = 0; j < WN / 8; ++j) {
                unsigned (&two)[4] = right[step % 2][j / 2];
                unsigned z[2];
#pragma unroll
                for (int half = 0; half < 2; ++half) z[half] = __byte_perm(two[2 * half], two[2 * half + 1], j % 2 ? 0x7531 : 0x6420);
#pragma unroll
                for (int i = 0; i < WM / 16; ++i) mma(sums[i][j], x[i], z[0], z[1], TA(), TB());
                if (SUMS_B == 1) of_b[j] = add_bytes<TB>(z[1], add_bytes<TB>(z[0], of_b[j]));
            }
#pragma unroll
            for (int e = 0; e < 4 * (WM / 16); ++e)
                if (SUMS_A == 1) of_a[e / 4][e % 2] = add_bytes<TA>(x[e / 4][e % 4], of_a[e / 4][e % 2]);
        }
        get = get + 1 < STAGES ? get + 1 : 0;
    }

#if ALONG > 1  // warps that have parts of k hand them over
    __syncthreads();
    unsigned* given = (unsigned*)shared + warp % WARPS * HELD * 32 + lane;
    for (int from = 1; from < ALONG; ++from, given += WARPS * HELD * 32) {
        if (along == from) hand_over<false>((Held&)sums, of_a, of_b, given);
    }
    __syncthreads();
    if (along) return;
    for (int from = 1; from < ALONG; ++from) hand_over<true>((Held&)sums, of_a, of_b, given -= WARPS * HELD * 32);
#endif

    // Four threads hold parts of two rows and of a column; each then has its rows' sums, and those of its columns
    unsigned of_cols[WN / 8][2];
#pragma unroll
    for (int e = 0; e < 2 * (WM / 16); ++e)
        if (SUMS_A == 1) of_a[e / 2][e % 2] = of_four(of_a[e / 2][e % 2]);
#pragma unroll
    for (int j = 0; j < WN / 8; ++j) {
        if (SUMS_B != 1) continue;
        unsigned of_col = of_four(of_b[j]);
#pragma unroll
        for (int e = 0; e < 2; ++e) of_cols[j][e] = __shfl_sync(0xffffffffu, of_col, (lane % 4 * 2 + e) * 4);
    }
    y += (i64)batch * p.m * p.n;
#pragma unroll
    for (int i = 0; i < 2 * (WM / 16); ++i) {
        int mm = row + wm + i * 8 + lane / 4;
        if (mm >= p.m) continue;
        i64 of_row = a_batch * p.m + mm;
        unsigned sum_a = SUMS_A == 2 ? rows_of_a[of_row] : of_a[i / 2][i % 2], zero_a = SUMS_B ? (int)a_zero[ROWS_A ? of_row : 0] : 0;
#if QUANTISED
        float scale_a = a_scale[SCALES_A ? of_row : 0], scale_y = *y_scale, zero_y = (float)*y_zero, factor = scale_a * *b_scale / scale_y;
        unsigned added = bias ? bias[of_row] : 0;
#endif
#pragma unroll
        for (int j = 0; j < WN / 16; ++j) {
            int nn = col + wn + j * 16 + lane % 4 * 4;
            Pack<TY, 4> out;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int at = 2 * j + e % 2, which = i % 2 * 2 + e / 2;
                unsigned sum = sums[i / 2][at][which];
                bool there = nn + e < p.n;
                unsigned zero_b = SUMS_A && there ? (int)b_zero[COLS_B ? nn + e : 0] : 0;
                if (SUMS_B) sum -= zero_a * (SUMS_B == 2 ? (unsigned)(there ? cols_of_b[b_batch * p.n + nn + e] : 0) : of_cols[at][e / 2]);
                if (SUMS_A) sum -= zero_b * sum_a;
                if (SUMS_A && SUMS_B) sum += (unsigned)p.k * zero_a * zero_b;
#if QUANTISED
                if (SCALES_B && there) factor = scale_a * b_scale[nn + e] / scale_y;
                out.lane[e] = requantised<TY>((int)(sum + added), factor, zero_y);
#else
                out.lane[e] = (i32)sum;
#endif
            }
            TY* to = y + (i64)mm * p.n + nn;
            if (p.n % 4 == 0) {
                if (nn < p.n) *(Pack<TY, 4>*)to = out;
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    if (nn + e < p.n) to[e] = out.lane[e];
            }
        }
    }
}
