// Packed vectors (2.2.3): aligned as their components are.
#pragma once
#include "vector.h"

namespace metal {

template <class T, int N>
struct packed_components;
template <class T>
struct packed_components<T, 2> {
    T x, y;
};
template <class T>
struct packed_components<T, 3> {
    T x, y, z;
};
template <class T>
struct packed_components<T, 4> {
    T x, y, z, w;
};

template <class T, int N>
struct packed_vec : packed_components<T, N> {
    packed_vec() = default;
    EMULATOR_INLINE constexpr packed_vec(const vec<T, N> &v) { *this = v; }
    template <class S, emulator::if_number<S> = 0>
    EMULATOR_INLINE constexpr packed_vec(S s) {
        *this = vec<T, N>(s);
    }
    template <class... S, std::enable_if_t<sizeof...(S) == N && N != 1, int> = 0>
    EMULATOR_INLINE constexpr packed_vec(S... s) : packed_components<T, N>{T(s)...} {}

    EMULATOR_INLINE constexpr operator vec<T, N>() const {
        return emulator::map<T, N>([](T c) { return c; }, *this);
    }
    EMULATOR_INLINE constexpr packed_vec &operator=(const vec<T, N> &v) {
        this->x = v.x, this->y = v.y;
        if constexpr (N > 2) this->z = v.z;
        if constexpr (N > 3) this->w = v.w;
        return *this;
    }
    EMULATOR_INLINE T &operator[](int i) { return (&this->x)[i]; }
    EMULATOR_INLINE const T &operator[](int i) const { return (&this->x)[i]; }
};

#define EMULATOR_PACKED_BINARY(op)                                                                       \
    template <class T, int N>                                                                            \
    EMULATOR_INLINE constexpr vec<T, N> operator op(const packed_vec<T, N> &a, const packed_vec<T, N> &b) { \
        return vec<T, N>(a) op vec<T, N>(b);                                                             \
    }                                                                                                    \
    template <class T, int N, class B>                                                                   \
    EMULATOR_INLINE constexpr vec<T, N> operator op(const packed_vec<T, N> &a, const B &b) {             \
        return vec<T, N>(a) op b;                                                                        \
    }                                                                                                    \
    template <class T, int N, class A>                                                                   \
    EMULATOR_INLINE constexpr vec<T, N> operator op(const A &a, const packed_vec<T, N> &b) {             \
        return a op vec<T, N>(b);                                                                        \
    }                                                                                                    \
    template <class T, int N, class B>                                                                   \
    EMULATOR_INLINE constexpr packed_vec<T, N> &operator op##=(packed_vec<T, N> &a, const B &b) {        \
        return a = vec<T, N>(a) op b;                                                                    \
    }
EMULATOR_PACKED_BINARY(+)
EMULATOR_PACKED_BINARY(-)
EMULATOR_PACKED_BINARY(*)
EMULATOR_PACKED_BINARY(/)

}  // namespace metal

#define EMULATOR_PACKED_NAMES(T)                       \
    using packed_##T##2 = metal::packed_vec<T, 2>;     \
    using packed_##T##3 = metal::packed_vec<T, 3>;     \
    using packed_##T##4 = metal::packed_vec<T, 4>;     \
    namespace metal {                                  \
    using ::packed_##T##2, ::packed_##T##3, ::packed_##T##4; \
    }
EMULATOR_PACKED_NAMES(bool)
EMULATOR_PACKED_NAMES(char)
EMULATOR_PACKED_NAMES(uchar)
EMULATOR_PACKED_NAMES(short)
EMULATOR_PACKED_NAMES(ushort)
EMULATOR_PACKED_NAMES(int)
EMULATOR_PACKED_NAMES(uint)
EMULATOR_PACKED_NAMES(long)
EMULATOR_PACKED_NAMES(ulong)
EMULATOR_PACKED_NAMES(half)
EMULATOR_PACKED_NAMES(bfloat)
EMULATOR_PACKED_NAMES(float)
