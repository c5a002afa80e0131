// Integer functions (6.4).
#pragma once
#include "common.h"

namespace emulator {

template <class T>
using wide = std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                                std::conditional_t<std::is_signed_v<T>, long, unsigned long>>;
template <class T>
constexpr int bits = 8 * sizeof(T);

template <class T>
EMULATOR_INLINE constexpr T saturate(wide<T> value) {
    constexpr wide<T> low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
    return T(value < low ? low : value > high ? high : value);
}

}  // namespace emulator

// A function of integers, and of each component of vectors.
#define EMULATOR_INTEGER_1(name, expression)                                         \
    template <class T, emulator::if_integer<T> = 0>                                  \
    EMULATOR_INLINE constexpr T name(T x) {                                          \
        using U = std::make_unsigned_t<T>;                                           \
        (void)U();                                                                   \
        return T(expression);                                                        \
    }                                                                                \
    template <class T, int N>                                                        \
    EMULATOR_INLINE constexpr vec<T, N> name(const vec<T, N> &v) {                   \
        return emulator::map<T, N>([](T c) { return name(c); }, v);                  \
    }
#define EMULATOR_INTEGER_2(name, expression)                                         \
    template <class T, emulator::if_integer<T> = 0>                                  \
    EMULATOR_INLINE constexpr T name(T x, std::common_type_t<T> y) {                 \
        using U = std::make_unsigned_t<T>;                                           \
        using W = emulator::wide<T>;                                                 \
        (void)U(), (void)W();                                                        \
        return T(expression);                                                        \
    }                                                                                \
    template <class T, int N>                                                        \
    EMULATOR_INLINE constexpr vec<T, N> name(const vec<T, N> &a, const vec<T, N> &b) { \
        return emulator::map<T, N>([](T c, T d) { return name(c, d); }, a, b);       \
    }
#define EMULATOR_INTEGER_3(name, expression)                                         \
    template <class T, emulator::if_integer<T> = 0>                                  \
    EMULATOR_INLINE constexpr T name(T x, std::common_type_t<T> y, std::common_type_t<T> z) { \
        using W = emulator::wide<T>;                                                 \
        (void)W();                                                                   \
        return T(expression);                                                        \
    }                                                                                \
    template <class T, int N>                                                        \
    EMULATOR_INLINE constexpr vec<T, N> name(const vec<T, N> &a, const vec<T, N> &b, const vec<T, N> &c) { \
        return emulator::map<T, N>([](T d, T e, T f) { return name(d, e, f); }, a, b, c); \
    }

namespace emulator {

template <class U>
EMULATOR_INLINE constexpr U reverse_bits(U x) {
    U reversed = 0;
    for (int i = 0; i < bits<U>; i++) reversed = U(reversed << 1 | (x >> i & 1));
    return reversed;
}

}  // namespace emulator

namespace metal {

EMULATOR_INTEGER_1(popcount, __builtin_popcountll(U(x)))
EMULATOR_INTEGER_1(clz, x ? __builtin_clzll(U(x)) - (64 - emulator::bits<T>) : emulator::bits<T>)
EMULATOR_INTEGER_1(ctz, x ? __builtin_ctzll(U(x)) : emulator::bits<T>)
EMULATOR_INTEGER_1(reverse_bits, emulator::reverse_bits(U(x)))
EMULATOR_INTEGER_2(absdiff, x > y ? U(x) - U(y) : U(y) - U(x))
EMULATOR_INTEGER_2(addsat, emulator::saturate<T>(W(x) + W(y)))
EMULATOR_INTEGER_2(subsat, std::is_unsigned_v<T> && x < y ? 0 : emulator::saturate<T>(W(x) - W(y)))
EMULATOR_INTEGER_2(hadd, (W(x) + W(y)) >> 1)
EMULATOR_INTEGER_2(rhadd, (W(x) + W(y) + 1) >> 1)
EMULATOR_INTEGER_2(mulhi, (W(x) * W(y)) >> emulator::bits<T>)
EMULATOR_INTEGER_2(rotate, U(x) << (U(y) % emulator::bits<T>) | U(x) >> ((emulator::bits<T> - U(y) % emulator::bits<T>) % emulator::bits<T>))
EMULATOR_INTEGER_2(mul24, x *y)
EMULATOR_INTEGER_3(mad24, x *y + z)
EMULATOR_INTEGER_3(madhi, mulhi(x, y) + z)
EMULATOR_INTEGER_3(madsat, emulator::saturate<T>(W(x) * W(y) + W(z)))

template <class T, emulator::if_integer<T> = 0>
EMULATOR_INLINE constexpr T extract_bits(T x, uint offset, uint count) {
    if (count == 0) return 0;
    // A signed type extends the sign of what it takes out.
    uint unused = emulator::bits<T> - count;
    return T(T(std::make_unsigned_t<T>(x) << (unused - offset)) >> unused);
}
template <class T, emulator::if_integer<T> = 0>
EMULATOR_INLINE constexpr T insert_bits(T base, T insert, uint offset, uint count) {
    using U = std::make_unsigned_t<T>;
    if (count == 0) return base;
    U mask = U(U(~U(0)) >> (emulator::bits<T> - count)) << offset;
    return T((U(base) & ~mask) | (U(U(insert) << offset) & mask));
}

}  // namespace metal
