// Scalar types (2.1), traits and reinterpretation (2.18).
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <type_traits>
#include "../emulator/lane.h"

#define METAL_FUNC inline __attribute__((always_inline))
#define METAL_INTERNAL inline __attribute__((always_inline))
#define METAL_CONST const

typedef _Float16 half;
typedef __bf16 bfloat;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

// The suffixes H, bf and BF are not for C++ programs: src/rewrite/words.rs rewrites them.
constexpr half operator""h(long double value) { return half(value); }

namespace emulator {

template <class T>
constexpr bool is_floating = std::is_floating_point_v<T> || std::is_same_v<std::remove_cv_t<T>, half> ||
                             std::is_same_v<std::remove_cv_t<T>, bfloat>;
template <class T>
constexpr bool is_number = std::is_integral_v<T> || is_floating<T> || std::is_enum_v<T>;

template <class T>
using if_number = std::enable_if_t<is_number<T>, int>;
template <class T>
using if_integer = std::enable_if_t<std::is_integral_v<T>, int>;
template <class T>
using if_floating = std::enable_if_t<is_floating<T>, int>;

template <class A, class B>
constexpr auto common_type() {
    if constexpr (std::is_same_v<A, B>) return A();
    else if constexpr (is_floating<A> && !is_floating<B>) return A();
    else if constexpr (is_floating<B> && !is_floating<A>) return B();
    else if constexpr (is_floating<A> && is_floating<B> && sizeof(A) == 2 && sizeof(B) == 2) return float();
    else return decltype(A() + B())();
}
// The type in which two scalars are compared: floating point wins, as in min(x, 0).
template <class A, class B>
using common = decltype(common_type<A, B>());

// static_cast, which clang's C++ does not have between half and bfloat.
template <class To, class From>
EMULATOR_INLINE constexpr To cast(From &&from) {
    using Plain = std::remove_cv_t<std::remove_reference_t<From>>;
    constexpr bool widen = is_floating<To> && is_floating<Plain> && sizeof(To) == 2 && sizeof(Plain) == 2;
    if constexpr (widen) return To(float(from));
    else return static_cast<To>(static_cast<From &&>(from));
}

}  // namespace emulator

template <class To, class From>
EMULATOR_INLINE constexpr To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type needs two types of the same size");
    return __builtin_bit_cast(To, from);
}

namespace metal {

using ::as_type;
using std::add_const_t, std::bool_constant, std::conditional, std::conditional_t, std::decay_t, std::enable_if;
using std::enable_if_t, std::false_type, std::integral_constant, std::is_base_of, std::is_base_of_v, std::is_const_v;
using std::is_convertible, std::is_convertible_v, std::is_enum_v, std::is_integral, std::is_integral_v;
using std::is_pointer_v, std::is_same, std::is_same_v, std::is_signed, std::is_signed_v, std::is_unsigned;
using std::is_unsigned_v, std::make_signed_t, std::make_unsigned_t, std::remove_const_t, std::remove_cv;
using std::remove_cv_t, std::remove_pointer_t, std::remove_reference, std::remove_reference_t, std::true_type;
using std::underlying_type_t, std::void_t;

template <class T>
struct is_floating_point : bool_constant<emulator::is_floating<T>> {};
template <class T>
constexpr bool is_floating_point_v = emulator::is_floating<T>;
template <class T>
struct is_arithmetic : bool_constant<std::is_integral_v<T> || emulator::is_floating<T>> {};
template <class T>
constexpr bool is_arithmetic_v = is_arithmetic<T>::value;
template <class T>
struct is_scalar : is_arithmetic<T> {};
template <class T>
constexpr bool is_scalar_v = is_arithmetic<T>::value;

}  // namespace metal
