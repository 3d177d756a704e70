// Stands in for kernels/mma.cuh where kernels run on the host: a warp of fibers exchanges its fragments.
#pragma once
#include "convert.cuh"

#define DYNAMIC_SHARED(NAME) alignas(16) static unsigned char NAME[256 << 10]

typedef unsigned char* Place;
inline Place place_of(const void* at) { return (Place)at; }

inline void copy16(void* to, const void* from, bool in) {
    if (((unsigned long long)to | (unsigned long long)from) % 16) abort();  // the instruction faults
    if (in) std::memcpy(to, from, 16); else std::memset(to, 0, 16);
}
inline void copy4(void* to, const void* from, bool in) {
    if (((unsigned long long)to | (unsigned long long)from) % 4) abort();
    if (in) std::memcpy(to, from, 4); else std::memset(to, 0, 4);
}
inline unsigned load_word(Place at) { return *(const unsigned*)at; }
inline void copies_commit() {}
template <int N> inline void copies_wait() {}

static const void* row_of[1024];
static unsigned fragments[1024][8];

static void load(unsigned (&r)[4], const void* row, bool transposed) {
    if ((unsigned long long)row % 16) abort();
    row_of[current] = row;
    yield_();
    unsigned warp = current / 32 * 32, lane = current % 32;
    for (int m = 0; m < 4; ++m) {
        unsigned short two[2];
        for (int i = 0; i < 2; ++i) {
            int line = lane / 4, column = 2 * (lane % 4) + i;
            if (transposed) std::swap(line, column);
            two[i] = ((const unsigned short*)row_of[warp + 8 * m + line])[column];
        }
        std::memcpy(&r[m], two, 4);
    }
    yield_();
}
static void load_matrices(unsigned (&r)[4], const void* row) { load(r, row, false); }
static void load_matrices_transposed(unsigned (&r)[4], const void* row) { load(r, row, true); }

template <class T> static float element(unsigned pair, int which) {
    T one; one.bits = (unsigned short)(pair >> (16 * which));
    return widen(one);
}
// the sum of 16 products for row, col of c
template <class T> static float dot(int row, int col) {
    unsigned warp = current / 32 * 32;
    float sum = 0.f;
    for (int k = 0; k < 16; ++k) {
        unsigned a = fragments[warp + row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
        unsigned b = fragments[warp + col * 4 + k % 8 / 2][4 + k / 8];
        sum += element<T>(a, k % 2) * element<T>(b, k % 2);
    }
    return sum;
}
static void publish(const unsigned (&a)[4], unsigned b0, unsigned b1) {
    for (int i = 0; i < 4; ++i) fragments[current][i] = a[i];
    fragments[current][4] = b0; fragments[current][5] = b1;
    yield_();
}
template <class T> static void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {
    publish(a, b0, b1);
    int lane = current % 32;
    for (int i = 0; i < 4; ++i) c[i] += dot<T>(lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2);
    yield_();
}
static void mma(unsigned (&c)[2], const unsigned (&a)[4], unsigned b0, unsigned b1, f16) {
    publish(a, b0, b1);
    int lane = current % 32;
    for (int i = 0; i < 2; ++i) {
        unsigned short two[2];
        for (int j = 0; j < 2; ++j) two[j] = to_f16(element<f16>(c[i], j) + dot<f16>(lane / 4 + 8 * i, 2 * (lane % 4) + j)).bits;
        std::memcpy(&c[i], two, 4);
    }
    yield_();
}
// TF32: what lies below the upper 19 bits is not read
static float upper(unsigned bits) { return __uint_as_float(bits & 0xffffe000u); }
static void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, float) {
    publish(a, b0, b1);
    unsigned lane = current % 32, warp = current - lane;
    for (int i = 0; i < 4; ++i) {
        int row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
        float sum = 0.f;
        for (int k = 0; k < 8; ++k)
            sum += upper(fragments[warp + row % 8 * 4 + k % 4][row / 8 + 2 * (k / 4)]) * upper(fragments[warp + col * 4 + k % 4][4 + k / 4]);
        c[i] += sum;
    }
    yield_();
}
// 8-bit integers, four a register
template <class A, class B> static void mma(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, A, B) {
    publish(a, b0, b1);
    unsigned lane = current % 32, warp = current - lane;
    for (int i = 0; i < 4; ++i) {
        int row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
        unsigned sum = (unsigned)c[i];
        for (int k = 0; k < 32; ++k) {
            unsigned x = fragments[warp + row % 8 * 4 + k % 16 / 4][row / 8 + 2 * (k / 16)];
            unsigned z = fragments[warp + col * 4 + k % 16 / 4][4 + k / 16];
            sum += (unsigned)((int)(A)(x >> (8 * (k % 4))) * (int)(B)(z >> (8 * (k % 4))));
        }
        c[i] = (int)sum;
    }
    yield_();
}
