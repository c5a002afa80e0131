// numeric_limits and the constants of the standard library (4.3, 6.5).
#pragma once
#include <limits>
#include "scalar.h"

#define INFINITY __builtin_inff()
#define HUGE_VALF __builtin_inff()
#define HUGE_VALH half(__builtin_inff())
#define NAN __builtin_nanf("")
#define MAXFLOAT 3.402823466e+38f
#define MAXHALF half(65504.0f)
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define FLT_DIG 6
#define FLT_MANT_DIG 24
#define HALF_MAX half(65504.0f)
#define HALF_MIN half(6.103515625e-05f)
#define HALF_EPSILON half(0.0009765625f)
#define CHAR_BIT 8
#define CHAR_MAX 127
#define CHAR_MIN (-128)
#define SCHAR_MAX 127
#define SCHAR_MIN (-128)
#define UCHAR_MAX 255
#define SHRT_MAX 32767
#define SHRT_MIN (-32768)
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295u
#define LONG_MAX 9223372036854775807l
#define LONG_MIN (-9223372036854775807l - 1)
#define ULONG_MAX 18446744073709551615ul
#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.434294481903251827651f
#define M_LN2_F 0.693147180559945309417f
#define M_LN10_F 2.30258509299404568402f
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_4_F 0.785398163397448309616f
#define M_1_PI_F 0.318309886183790671538f
#define M_2_PI_F 0.636619772367581343076f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.707106781186547524401f
#define M_PI_H half(3.14159265358979323846f)
#define M_PI_2_H half(1.57079632679489661923f)
#define M_SQRT2_H half(1.41421356237309504880f)
#define M_LN2_H half(0.693147180559945309417f)
#define M_LOG2E_H half(1.44269504088896340736f)

namespace metal {

// Sources specialise this one, as Apple's header allows.
template <class T>
struct _numeric_limits_impl : std::numeric_limits<T> {};

// A 16-bit floating-point type, given by its bit patterns.
template <class T, uint16_t Max, uint16_t Lowest, uint16_t Min, uint16_t Epsilon, uint16_t Infinity, uint16_t Quiet,
          uint16_t Denormal, int Digits>
struct emulator_limits_16 : std::numeric_limits<float> {
    static constexpr int digits = Digits;
    static constexpr T max() { return __builtin_bit_cast(T, Max); }
    static constexpr T lowest() { return __builtin_bit_cast(T, Lowest); }
    static constexpr T min() { return __builtin_bit_cast(T, Min); }
    static constexpr T epsilon() { return __builtin_bit_cast(T, Epsilon); }
    static constexpr T infinity() { return __builtin_bit_cast(T, Infinity); }
    static constexpr T quiet_NaN() { return __builtin_bit_cast(T, Quiet); }
    static constexpr T denorm_min() { return __builtin_bit_cast(T, Denormal); }
};
template <>
struct _numeric_limits_impl<half>
    : emulator_limits_16<half, 0x7BFF, 0xFBFF, 0x0400, 0x1400, 0x7C00, 0x7E00, 0x0001, 11> {};
template <>
struct _numeric_limits_impl<bfloat>
    : emulator_limits_16<bfloat, 0x7F7F, 0xFF7F, 0x0080, 0x3C00, 0x7F80, 0x7FC0, 0x0001, 8> {};

template <class T>
struct numeric_limits : _numeric_limits_impl<T> {};

template <class T>
struct _fp_encoding_traits {};
template <>
struct _fp_encoding_traits<float> {
    static constexpr uint sign_mask = 0x80000000, inf_mask = 0x7F800000, exponent_mask = 0x7F800000;
    static constexpr uint mantissa_mask = 0x007FFFFF;
};

}  // namespace metal
