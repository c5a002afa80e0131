// Packing of normalised numbers (6.15).
#pragma once
#include "common.h"

namespace emulator {

// One component: `bits` wide, `highest` for 1.
EMULATOR_INLINE uint pack_unsigned(float x, uint bits, float highest) {
    return uint(__builtin_rintf(metal::saturate(x) * highest)) & ((1u << bits) - 1);
}
EMULATOR_INLINE uint pack_signed(float x, uint bits, float highest) {
    return uint(int(__builtin_rintf(metal::clamp(x, -1.0f, 1.0f) * highest))) & ((1u << bits) - 1);
}
EMULATOR_INLINE float unpack_signed(int x, float highest) { return metal::max(float(x) / highest, -1.0f); }

}  // namespace emulator

namespace metal {

EMULATOR_INLINE uint pack_float_to_unorm4x8(float4 v) {
    using emulator::pack_unsigned;
    return pack_unsigned(v.x, 8, 255) | pack_unsigned(v.y, 8, 255) << 8 | pack_unsigned(v.z, 8, 255) << 16 |
           pack_unsigned(v.w, 8, 255) << 24;
}
EMULATOR_INLINE uint pack_float_to_snorm4x8(float4 v) {
    using emulator::pack_signed;
    return pack_signed(v.x, 8, 127) | pack_signed(v.y, 8, 127) << 8 | pack_signed(v.z, 8, 127) << 16 |
           pack_signed(v.w, 8, 127) << 24;
}
EMULATOR_INLINE uint pack_float_to_unorm2x16(float2 v) {
    return emulator::pack_unsigned(v.x, 16, 65535) | emulator::pack_unsigned(v.y, 16, 65535) << 16;
}
EMULATOR_INLINE uint pack_float_to_snorm2x16(float2 v) {
    return emulator::pack_signed(v.x, 16, 32767) | emulator::pack_signed(v.y, 16, 32767) << 16;
}
EMULATOR_INLINE float4 unpack_unorm4x8_to_float(uint x) { return float4(as_type<uchar4>(x)) / 255.0f; }
EMULATOR_INLINE float4 unpack_snorm4x8_to_float(uint x) {
    return max(float4(as_type<char4>(x)) / 127.0f, float4(-1.0f));
}
EMULATOR_INLINE float2 unpack_unorm2x16_to_float(uint x) { return float2(as_type<ushort2>(x)) / 65535.0f; }
EMULATOR_INLINE float2 unpack_snorm2x16_to_float(uint x) {
    return max(float2(as_type<short2>(x)) / 32767.0f, float2(-1.0f));
}
EMULATOR_INLINE half4 unpack_unorm4x8_to_half(uint x) { return half4(unpack_unorm4x8_to_float(x)); }
EMULATOR_INLINE half2 unpack_unorm2x16_to_half(uint x) { return half2(unpack_unorm2x16_to_float(x)); }

}  // namespace metal
