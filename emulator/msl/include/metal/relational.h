// Relational functions (6.6).
#pragma once
#include "vector.h"

#define EMULATOR_CLASSIFY(name, expression)                                      \
    template <class T, emulator::if_floating<T> = 0>                             \
    EMULATOR_INLINE bool name(T value) {                                         \
        float x = float(value);                                                  \
        return expression;                                                       \
    }                                                                            \
    template <class T, int N>                                                    \
    EMULATOR_INLINE vec<bool, N> name(const vec<T, N> &v) {                      \
        return emulator::map<bool, N>([](T c) { return name(c); }, v);           \
    }

namespace metal {

EMULATOR_CLASSIFY(isnan, __builtin_isnan(x))
EMULATOR_CLASSIFY(isinf, __builtin_isinf(x))
EMULATOR_CLASSIFY(isfinite, __builtin_isfinite(x))
EMULATOR_CLASSIFY(signbit, __builtin_signbit(x))

template <class T, emulator::if_floating<T> = 0>
EMULATOR_INLINE bool isnormal(T value) {
    float magnitude = __builtin_fabsf(float(value));
    return __builtin_isfinite(magnitude) && magnitude >= float(numeric_limits<T>::min());
}
template <class T>
EMULATOR_INLINE auto isunordered(T a, T b) {
    return isnan(a) || isnan(b);
}
template <class T>
EMULATOR_INLINE auto isordered(T a, T b) {
    return !isunordered(a, b);
}

EMULATOR_INLINE constexpr bool any(bool b) { return b; }
EMULATOR_INLINE constexpr bool all(bool b) { return b; }
template <int N>
EMULATOR_INLINE constexpr bool any(const vec<bool, N> &v) {
    return emulator::fold([](bool a, bool b) { return a || b; }, v);
}
template <int N>
EMULATOR_INLINE constexpr bool all(const vec<bool, N> &v) {
    return emulator::fold([](bool a, bool b) { return a && b; }, v);
}

template <class T, class U>
EMULATOR_INLINE constexpr T select(T a, U b, bool condition) {
    return condition ? T(b) : a;
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> select(const vec<T, N> &a, const vec<T, N> &b, const vec<bool, N> &condition) {
    return emulator::map<T, N>([](T x, T y, bool c) { return c ? y : x; }, a, b, condition);
}

}  // namespace metal
