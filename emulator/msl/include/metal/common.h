// Common functions (6.3), with min and max of all types.
#pragma once
#include "math.h"

namespace metal {

#define EMULATOR_MIN_MAX(name, op, of_floats)                                                             \
    template <class A, class B, emulator::if_number<A> = 0, emulator::if_number<B> = 0>                   \
    EMULATOR_INLINE constexpr emulator::common<A, B> name(A a, B b) {                                     \
        using C = emulator::common<A, B>;                                                                 \
        if constexpr (emulator::is_floating<C>) return C(of_floats(float(a), float(b)));                  \
        else return C(a) op C(b) ? C(a) : C(b);                                                           \
    }                                                                                                     \
    template <class T, int N>                                                                             \
    EMULATOR_INLINE vec<T, N> name(const vec<T, N> &a, const vec<T, N> &b) {                              \
        return emulator::map<T, N>([](T x, T y) { return T(name(x, y)); }, a, b);                         \
    }                                                                                                     \
    template <class T, int N, class S, emulator::if_number<S> = 0>                                        \
    EMULATOR_INLINE vec<T, N> name(const vec<T, N> &a, S b) {                                             \
        return name(a, vec<T, N>(b));                                                                     \
    }                                                                                                     \
    template <class T, int N, class S, emulator::if_number<S> = 0>                                        \
    EMULATOR_INLINE vec<T, N> name(S a, const vec<T, N> &b) {                                             \
        return name(vec<T, N>(a), b);                                                                     \
    }                                                                                                     \
    template <class T>                                                                                    \
    EMULATOR_INLINE constexpr T name##3(T a, T b, T c) {                                                  \
        return name(name(a, b), c);                                                                       \
    }
EMULATOR_MIN_MAX(min, <, __builtin_fminf)
EMULATOR_MIN_MAX(max, >, __builtin_fmaxf)

template <class T>
EMULATOR_INLINE constexpr T median3(T a, T b, T c) {
    return max(min(a, b), min(max(a, b), c));
}
template <class T, class Low, class High>
EMULATOR_INLINE constexpr T clamp(T x, Low low, High high) {
    return T(min(max(x, T(low)), T(high)));
}
template <class T, class U>
EMULATOR_INLINE constexpr T mix(T a, T b, U t) {
    return a + (b - a) * T(t);
}
template <class T>
EMULATOR_INLINE T smoothstep(T low, T high, T x) {
    T t = saturate((x - low) / (high - low));
    return t * t * (T(3) - T(2) * t);
}

template <class T, emulator::if_number<T> = 0>
EMULATOR_INLINE constexpr T abs(T x) {
    if constexpr (emulator::is_floating<T>) return T(__builtin_fabsf(float(x)));
    else if constexpr (std::is_unsigned_v<T>) return x;
    else return x < 0 ? T(-x) : x;
}
template <class T, int N>
EMULATOR_INLINE vec<T, N> abs(const vec<T, N> &v) {
    return emulator::map<T, N>([](T x) { return abs(x); }, v);
}

namespace fast {
using metal::abs, metal::clamp, metal::fma, metal::max, metal::min, metal::mix, metal::smoothstep;
}
namespace precise {
using metal::abs, metal::clamp, metal::fma, metal::max, metal::min, metal::mix, metal::smoothstep;
}

}  // namespace metal
