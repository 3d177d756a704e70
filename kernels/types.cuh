// Storage types. f16 and bf16 are bits: arithmetic is float (convert.cuh). No header of the CUDA toolkit is needed.
#pragma once

struct f16 { unsigned short bits; };
struct bf16 { unsigned short bits; };
typedef unsigned char u8;
typedef signed char i8;
typedef int i32;
typedef long long i64;
typedef bool b8;

// N values moved by one access of up to 16 bytes
template <class T, int N> struct alignas(sizeof(T) * N) Pack { T lane[N]; };
