// metal::array (2.13) and pair.
#pragma once
#include "scalar.h"

namespace metal {

template <class T, size_t N>
struct array {
    T elements[N];

    static constexpr size_t size() { return N; }
    EMULATOR_INLINE constexpr T &operator[](size_t i) { return elements[i]; }
    EMULATOR_INLINE constexpr const T &operator[](size_t i) const { return elements[i]; }
    EMULATOR_INLINE constexpr T *data() { return elements; }
    EMULATOR_INLINE constexpr const T *data() const { return elements; }
    EMULATOR_INLINE constexpr T *begin() { return elements; }
    EMULATOR_INLINE constexpr T *end() { return elements + N; }
    EMULATOR_INLINE constexpr const T *begin() const { return elements; }
    EMULATOR_INLINE constexpr const T *end() const { return elements + N; }
};

template <class A, class B>
struct pair {
    A first;
    B second;
};

}  // namespace metal
