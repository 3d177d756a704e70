// Stands in for kernels/convert.cuh where kernels run on the host: the same functions without PTX.
#pragma once
#include "types.cuh"
#include <cstring>

// NaN as the instruction gives it, whatever its bits were
inline float widen(f16 x) {
    _Float16 y; std::memcpy(&y, &x.bits, 2);
    unsigned nan = 0x7fffffffu; float z = (float)y;
    if (z != z) std::memcpy(&z, &nan, 4);
    return z;
}
inline float widen(bf16 x) { unsigned bits = (unsigned)x.bits << 16; float y; std::memcpy(&y, &bits, 4); return y; }
inline f16 to_f16(float x) { _Float16 y = (_Float16)x; f16 z; std::memcpy(&z.bits, &y, 2); return z; }
inline bf16 to_bf16(float x) {
    unsigned bits; std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {(unsigned short)0x7fff};
    return {(unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
inline float round_bf16(float x) { return widen(to_bf16(x)); }
inline unsigned side_by_side(float x, float y, f16) { return to_f16(x).bits | (unsigned)to_f16(y).bits << 16; }
inline unsigned side_by_side(float x, float y, bf16) { return to_bf16(x).bits | (unsigned)to_bf16(y).bits << 16; }
inline float larger(float x, float y) { return x > y || x != x ? x : y; }
inline float two_to(float x) { return exp2f(x); }
inline float exp_quick(float x) { return two_to(x * 1.4426950408889634f); }
template <class T, class F> inline unsigned pairwise(unsigned x, unsigned y, T, F f) {
    auto of = [](unsigned both, int at) { T one; one.bits = (unsigned short)(both >> 16 * at); return widen(one); };
    return side_by_side(f(of(x, 0), of(y, 0)), f(of(x, 1), of(y, 1)), T());
}
template <class T> inline unsigned pair_times(unsigned x, unsigned y, T) { return pairwise(x, y, T(), [](float a, float b) { return a * b; }); }
template <class T> inline unsigned pair_plus(unsigned x, unsigned y, T) { return pairwise(x, y, T(), [](float a, float b) { return a + b; }); }
template <class T> inline unsigned pair_minus(unsigned x, unsigned y, T) { return pairwise(x, y, T(), [](float a, float b) { return a - b; }); }
template <class T> inline unsigned pair_larger(unsigned x, unsigned y, T) { return pairwise(x, y, T(), larger); }
inline void load_16(unsigned (&x)[4], const void* from) {
    if ((unsigned long long)from % 16) abort();  // the instruction faults
    std::memcpy(x, from, 16);
}
inline void load_16(unsigned (&x)[4], const void* from, bool wanted) {
    if (wanted) load_16(x, from);
    else std::memset(x, 0, 16);
}
inline void load_16_on(unsigned (&x)[4], const void* from, bool wanted) { load_16(x, from, wanted); }
inline void store_16(void* to, const unsigned (&x)[4], bool wanted = true) {
    if (!wanted) return;
    if ((unsigned long long)to % 16) abort();  // the instruction faults
    std::memcpy(to, x, 16);
}
