// Numbers of every dtype as f32, and back. Metal Shading Language 3.0 (macOS 13). Compile without fast math.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

// The upper half of a float. MSL's own `bfloat` needs version 3.1 (macOS 14).
struct bf16 {
    ushort bits;
};

inline float wide(float x) {
    return x;
}
inline float wide(half x) {
    return float(x);
}
inline float wide(bf16 x) {
    return as_type<float>(uint(x.bits) << 16);
}

// To nearest even; a NaN stays one.
inline void narrow(float x, device float *to) {
    *to = x;
}
inline void narrow(float x, device half *to) {
    *to = half(x);
}
inline void narrow(float x, device bf16 *to) {
    const uint bits = as_type<uint>(x);
    const uint rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    to->bits = ushort(isnan(x) ? bits >> 16 | 0x40u : rounded);
}

// A matrix or a batch of them: elements from one row, one column to the next. One of both is 1.
struct Matrix {
    ulong row;
    ulong col;
    ulong batch[3];
};
