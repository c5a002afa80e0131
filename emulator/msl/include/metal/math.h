// Math functions (6.5): computed in float by the C library, rounded to the type of the argument.
#pragma once
#include "limits.h"
#include "vector.h"

// A function of one, two or three scalars x, y, z, for half, bfloat and vectors too.
#define EMULATOR_MATH_1(name, expression)                                             \
    EMULATOR_INLINE float name(float x) { return expression; }                        \
    EMULATOR_INLINE half name(half x16) {                                             \
        float x = x16;                                                                \
        return half(expression);                                                      \
    }                                                                                 \
    EMULATOR_INLINE bfloat name(bfloat x16) {                                         \
        float x = float(x16);                                                         \
        return bfloat(expression);                                                    \
    }                                                                                 \
    template <class S, emulator::if_integer<S> = 0>                                   \
    EMULATOR_INLINE float name(S integer) {                                           \
        return name(float(integer));                                                  \
    }                                                                                 \
    template <class T, int N>                                                         \
    EMULATOR_INLINE vec<T, N> name(const vec<T, N> &v) {                              \
        return emulator::map<T, N>([](T c) { return name(c); }, v);                   \
    }
#define EMULATOR_MATH_2(name, expression)                                             \
    EMULATOR_INLINE float name(float x, float y) { return expression; }               \
    EMULATOR_INLINE half name(half x16, half y16) {                                   \
        float x = x16, y = y16;                                                       \
        return half(expression);                                                      \
    }                                                                                 \
    EMULATOR_INLINE bfloat name(bfloat x16, bfloat y16) {                             \
        float x = float(x16), y = float(y16);                                         \
        return bfloat(expression);                                                    \
    }                                                                                 \
    template <class A, class B, emulator::if_number<A> = 0, emulator::if_number<B> = 0, \
              class = std::enable_if_t<!std::is_same_v<A, B> || std::is_integral_v<A>>> \
    EMULATOR_INLINE float name(A a, B b) {                                            \
        return name(float(a), float(b));                                              \
    }                                                                                 \
    template <class T, int N>                                                         \
    EMULATOR_INLINE vec<T, N> name(const vec<T, N> &a, const vec<T, N> &b) {          \
        return emulator::map<T, N>([](T c, T d) { return name(c, d); }, a, b);        \
    }                                                                                 \
    template <class T, int N, class S, emulator::if_number<S> = 0>                    \
    EMULATOR_INLINE vec<T, N> name(const vec<T, N> &a, S b) {                         \
        return name(a, vec<T, N>(b));                                                 \
    }

namespace emulator {

EMULATOR_INLINE float sign(float x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }
EMULATOR_INLINE float fract(float x) {
    float f = x - __builtin_floorf(x);
    return f < 0x1.fffffep-1f ? f : 0x1.fffffep-1f;  // 6.5: the result is below one
}
// Exact at the multiples of a quarter turn, unlike the product with a rounded pi.
EMULATOR_INLINE float sinpi(float x) { return float(__builtin_sin(3.14159265358979323846L * __builtin_remainder(x, 2.0L))); }
EMULATOR_INLINE float cospi(float x) { return float(__builtin_cos(3.14159265358979323846L * __builtin_remainder(x, 2.0L))); }

}  // namespace emulator

// What Metal has in three variants (metal::, fast:: and precise::); here they are the same.
#define EMULATOR_MATH_VARIANTS                                                                            \
    EMULATOR_MATH_1(acos, __builtin_acosf(x))                                                             \
    EMULATOR_MATH_1(acosh, __builtin_acoshf(x))                                                           \
    EMULATOR_MATH_1(asin, __builtin_asinf(x))                                                             \
    EMULATOR_MATH_1(asinh, __builtin_asinhf(x))                                                           \
    EMULATOR_MATH_1(atan, __builtin_atanf(x))                                                             \
    EMULATOR_MATH_1(atanh, __builtin_atanhf(x))                                                           \
    EMULATOR_MATH_1(ceil, __builtin_ceilf(x))                                                             \
    EMULATOR_MATH_1(cos, __builtin_cosf(x))                                                               \
    EMULATOR_MATH_1(cosh, __builtin_coshf(x))                                                             \
    EMULATOR_MATH_1(cospi, emulator::cospi(x))                                                            \
    EMULATOR_MATH_1(erf, __builtin_erff(x))                                                               \
    EMULATOR_MATH_1(erfc, __builtin_erfcf(x))                                                             \
    EMULATOR_MATH_1(exp, __builtin_expf(x))                                                               \
    EMULATOR_MATH_1(exp10, __builtin_exp10f(x))                                                           \
    EMULATOR_MATH_1(exp2, __builtin_exp2f(x))                                                             \
    EMULATOR_MATH_1(expm1, __builtin_expm1f(x))                                                           \
    EMULATOR_MATH_1(fabs, __builtin_fabsf(x))                                                             \
    EMULATOR_MATH_1(floor, __builtin_floorf(x))                                                           \
    EMULATOR_MATH_1(fract, emulator::fract(x))                                                            \
    EMULATOR_MATH_1(log, __builtin_logf(x))                                                               \
    EMULATOR_MATH_1(log10, __builtin_log10f(x))                                                           \
    EMULATOR_MATH_1(log1p, __builtin_log1pf(x))                                                           \
    EMULATOR_MATH_1(log2, __builtin_log2f(x))                                                             \
    EMULATOR_MATH_1(rint, __builtin_rintf(x))                                                             \
    EMULATOR_MATH_1(round, __builtin_roundf(x))                                                           \
    EMULATOR_MATH_1(rsqrt, 1.0f / __builtin_sqrtf(x))                                                     \
    EMULATOR_MATH_1(saturate, x > 0 ? (x < 1 ? x : 1.0f) : 0.0f)                                          \
    EMULATOR_MATH_1(sign, emulator::sign(x))                                                              \
    EMULATOR_MATH_1(sin, __builtin_sinf(x))                                                               \
    EMULATOR_MATH_1(sinh, __builtin_sinhf(x))                                                             \
    EMULATOR_MATH_1(sinpi, emulator::sinpi(x))                                                            \
    EMULATOR_MATH_1(sqrt, __builtin_sqrtf(x))                                                             \
    EMULATOR_MATH_1(tan, __builtin_tanf(x))                                                               \
    EMULATOR_MATH_1(tanh, __builtin_tanhf(x))                                                             \
    EMULATOR_MATH_1(tanpi, emulator::sinpi(x) / emulator::cospi(x))                                       \
    EMULATOR_MATH_1(trunc, __builtin_truncf(x))                                                           \
    EMULATOR_MATH_2(atan2, __builtin_atan2f(x, y))                                                        \
    EMULATOR_MATH_2(copysign, __builtin_copysignf(x, y))                                                  \
    EMULATOR_MATH_2(divide, x / y)                                                                        \
    EMULATOR_MATH_2(fdim, __builtin_fdimf(x, y))                                                          \
    EMULATOR_MATH_2(fmax, __builtin_fmaxf(x, y))                                                          \
    EMULATOR_MATH_2(fmin, __builtin_fminf(x, y))                                                          \
    EMULATOR_MATH_2(fmod, __builtin_fmodf(x, y))                                                          \
    EMULATOR_MATH_2(nextafter, __builtin_nextafterf(x, y))                                                \
    EMULATOR_MATH_2(pow, __builtin_powf(x, y))                                                            \
    EMULATOR_MATH_2(powr, __builtin_powf(x, y))                                                           \
    EMULATOR_MATH_2(step, y < x ? 0.0f : 1.0f)                                                            \
    template <class T>                                                                                    \
    EMULATOR_INLINE T sincos(T x, T &cosine) {                                                            \
        cosine = cos(x);                                                                                  \
        return sin(x);                                                                                    \
    }

namespace metal {

EMULATOR_MATH_VARIANTS
namespace precise {
EMULATOR_MATH_VARIANTS
}
namespace fast {
EMULATOR_MATH_VARIANTS
}

template <class T, emulator::if_floating<T> = 0>
EMULATOR_INLINE T fma(T a, T b, T c) {
    return T(__builtin_fmaf(float(a), float(b), float(c)));
}
template <class T, int N>
EMULATOR_INLINE vec<T, N> fma(const vec<T, N> &a, const vec<T, N> &b, const vec<T, N> &c) {
    return emulator::map<T, N>([](T x, T y, T z) { return fma(x, y, z); }, a, b, c);
}
template <class T, emulator::if_floating<T> = 0>
EMULATOR_INLINE T frexp(T x, int &exponent) {
    return T(__builtin_frexpf(float(x), &exponent));
}
template <class T, emulator::if_floating<T> = 0>
EMULATOR_INLINE T ldexp(T x, int exponent) {
    return T(__builtin_ldexpf(float(x), exponent));
}
template <class T, emulator::if_floating<T> = 0>
EMULATOR_INLINE int ilogb(T x) {
    return __builtin_ilogbf(float(x));
}
template <class T, emulator::if_floating<T> = 0>
EMULATOR_INLINE T modf(T x, T &whole) {
    whole = trunc(x);
    return x - whole;
}

}  // namespace metal
