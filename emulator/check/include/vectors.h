// Vector types (Metal Shading Language Specification, 2.2): clang's own, with swizzles, operators and broadcasts.
#pragma once

namespace metal {
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));

// Clang has no vectors of bool in this mode, and its comparisons give vectors of int.
#define MSL_VECTORS(T)                                               \
  typedef vec<T, 2> T##2;                                            \
  typedef vec<T, 3> T##3;                                            \
  typedef vec<T, 4> T##4;                                            \
  typedef T packed_##T##2 __attribute__((ext_vector_type(2)));       \
  typedef T packed_##T##3 __attribute__((ext_vector_type(3)));       \
  typedef T packed_##T##4 __attribute__((ext_vector_type(4)));
MSL_VECTORS(char) MSL_VECTORS(uchar) MSL_VECTORS(short) MSL_VECTORS(ushort) MSL_VECTORS(int) MSL_VECTORS(uint)
MSL_VECTORS(long) MSL_VECTORS(ulong) MSL_VECTORS(half) MSL_VECTORS(bfloat) MSL_VECTORS(float)
#undef MSL_VECTORS
typedef int bool2 __attribute__((ext_vector_type(2)));
typedef int bool3 __attribute__((ext_vector_type(3)));
typedef int bool4 __attribute__((ext_vector_type(4)));

template <class T> struct vec_elements : integral_constant<int, 1> {};
template <class T, int N> struct vec_elements<vec<T, N>> : integral_constant<int, N> {};
template <class T> constexpr constant int vec_elements_v = vec_elements<T>::value;

template <class T> struct is_vector : false_type {};
template <class T, int N> struct is_vector<vec<T, N>> : true_type {};
template <class T> constexpr constant bool is_vector_v = is_vector<T>::value;
template <class T> struct make_scalar { using type = T; };
template <class T, int N> struct make_scalar<vec<T, N>> { using type = T; };
template <class T> using make_scalar_t = typename make_scalar<T>::type;

template <class To, class From> constexpr To as_type(From from) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs types of the same size");
  return To();
}

// A value that is the same for all threads.
template <class T> using uniform = T;
template <class T> constexpr T make_uniform(T value) { return value; }

template <class T, size_t N> struct array {
  T elements[N];
#define MSL_INDEX(SPACE)                                                                  \
  constexpr SPACE T &operator[](size_t i) SPACE { return elements[i]; }                   \
  constexpr const SPACE T &operator[](size_t i) const SPACE { return elements[i]; }
  MSL_EACH_WRITABLE_SPACE(MSL_INDEX)
#undef MSL_INDEX
  constexpr const constant T &operator[](size_t i) const constant { return elements[i]; }
  constexpr size_t size() const { return N; }
};
}  // namespace metal

// Vector types need no namespace.
#define MSL_GLOBAL(T)                                \
  using metal::T##2, metal::T##3, metal::T##4;       \
  using metal::packed_##T##2, metal::packed_##T##3, metal::packed_##T##4;
MSL_GLOBAL(char) MSL_GLOBAL(uchar) MSL_GLOBAL(short) MSL_GLOBAL(ushort) MSL_GLOBAL(int) MSL_GLOBAL(uint)
MSL_GLOBAL(long) MSL_GLOBAL(ulong) MSL_GLOBAL(half) MSL_GLOBAL(bfloat) MSL_GLOBAL(float)
#undef MSL_GLOBAL
using metal::bool2, metal::bool3, metal::bool4;
using metal::as_type;

namespace msl {
// float4(v.xy, 1, 2) is written make<float4>(v.xy, 1, 2) before clang reads it: clang has no such constructors.
template <class T, class... A> constexpr T make(A... a) {
  if constexpr (metal::is_vector<T>::value) {
    constexpr int given = (metal::vec_elements<A>::value + ...);
    constexpr bool broadcast = sizeof...(A) == 1 && given == 1;
    static_assert(broadcast || given == metal::vec_elements<T>::value, "wrong number of components for this vector");
    return T();
  } else {
    return T(a...);
  }
}
}  // namespace msl
