// numeric_limits (<metal_limits>).
#pragma once

namespace metal {
template <class T> struct _numeric_limits_impl {
  static constexpr constant bool is_specialized = is_arithmetic<T>::value;
  static constexpr constant bool is_signed = metal::is_signed<T>::value;
  static constexpr constant bool is_integer = is_integral<T>::value;
  static constexpr constant bool is_exact = is_integer;
  static constexpr constant bool has_infinity = !is_integer;
  static constexpr constant bool has_quiet_NaN = !is_integer;
  static constexpr constant bool has_signaling_NaN = !is_integer;
  static constexpr constant bool is_iec559 = !is_integer;
  static constexpr constant bool is_bounded = true;
  static constexpr constant int radix = 2;
  static constexpr constant int digits = is_integer ? sizeof(T) * 8 - is_signed : sizeof(T) == 4 ? 24 : 11;
  static constexpr constant int digits10 = is_integer ? digits * 3 / 10 : digits == 24 ? 6 : 3;
  static constexpr constant int max_exponent = is_integer ? 0 : sizeof(T) == 4 ? 128 : 16;
  static constexpr constant int min_exponent = is_integer ? 0 : sizeof(T) == 4 ? -125 : -13;

  // The bounds of the integers are exact, since array sizes may be made of them.
  static constexpr T max() {
    if constexpr (is_same<T, bool>::value) return true;
    else if constexpr (is_signed && is_integer) return T((1ul << (sizeof(T) * 8 - 1)) - 1);
    else if constexpr (is_integer) return T(-1);
    else return T(sizeof(T) == 4 ? 0x1.fffffep127f : is_same<T, half>::value ? 65504.0f : 0x1.fep127f);
  }
  static constexpr T lowest() {
    if constexpr (is_integer) return min();
    else return T(-max());
  }
  static constexpr T min() {
    if constexpr (is_signed && is_integer) return T(-max() - 1);
    else if constexpr (is_integer) return T(0);
    else return T(is_same<T, half>::value ? 0x1p-14f : 0x1p-126f);
  }
  static constexpr T epsilon() {
    return T(is_integer ? 0.0f : sizeof(T) == 4 ? 0x1p-23f : is_same<T, half>::value ? 0x1p-10f : 0x1p-7f);
  }
  static constexpr T round_error() { return is_integer ? T(0) : T(0.5f); }
  static constexpr T denorm_min() { return min(); }
  static constexpr T infinity() {
    if constexpr (is_integer) return T(0);
    else return T(__builtin_inff());
  }
  static constexpr T quiet_NaN() {
    if constexpr (is_integer) return T(0);
    else return T(__builtin_nanf(""));
  }
  static constexpr T signaling_NaN() { return quiet_NaN(); }
};
template <class T> struct numeric_limits : _numeric_limits_impl<T> {};
}  // namespace metal
