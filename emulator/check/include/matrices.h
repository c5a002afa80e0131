// Matrices (Metal Shading Language Specification, 2.3): columns of vectors.
#pragma once

namespace metal {
template <class T, int Columns, int Rows> struct matrix {
  vec<T, Rows> columns[Columns];

  matrix() = default;
  explicit constexpr matrix(T) : columns() {}
  template <class... V, class = enable_if_t<(sizeof...(V) > 1)>> constexpr matrix(V...) : columns() {
    static_assert((vec_elements<V>::value + ...) == Columns * Rows, "wrong number of components for this matrix");
  }
  template <class U> explicit constexpr matrix(matrix<U, Columns, Rows>) : columns() {}

#define MSL_INDEX(SPACE)                                                                            \
  constexpr SPACE vec<T, Rows> &operator[](int i) SPACE & { return columns[i]; }                    \
  constexpr const SPACE vec<T, Rows> &operator[](int i) const SPACE & { return columns[i]; }
  MSL_EACH_WRITABLE_SPACE(MSL_INDEX)
#undef MSL_INDEX
  constexpr const constant vec<T, Rows> &operator[](int i) const constant & { return columns[i]; }
  // A temporary lies in no address space.
  constexpr vec<T, Rows> operator[](int i) && { return columns[i]; }
};

template <class T, int C, int R> matrix<T, C, R> operator+(matrix<T, C, R>, matrix<T, C, R>);
template <class T, int C, int R> matrix<T, C, R> operator-(matrix<T, C, R>, matrix<T, C, R>);
template <class T, int C, int R> matrix<T, C, R> operator-(matrix<T, C, R>);
template <class T, int C, int R, int K> matrix<T, K, R> operator*(matrix<T, C, R>, matrix<T, K, C>);
template <class T, int C, int R> vec<T, R> operator*(matrix<T, C, R>, vec<T, C>);
template <class T, int C, int R> vec<T, C> operator*(vec<T, R>, matrix<T, C, R>);
template <class T, int C, int R> matrix<T, C, R> operator*(matrix<T, C, R>, typename type_identity<T>::type);
template <class T, int C, int R> matrix<T, C, R> operator*(typename type_identity<T>::type, matrix<T, C, R>);
template <class T, int C, int R> bool operator==(matrix<T, C, R>, matrix<T, C, R>);
#define MSL_ASSIGN(SPACE)                                                                                    \
  template <class T, int C, int R> SPACE matrix<T, C, R> &operator+=(SPACE matrix<T, C, R> &, matrix<T, C, R>); \
  template <class T, int C, int R> SPACE matrix<T, C, R> &operator-=(SPACE matrix<T, C, R> &, matrix<T, C, R>); \
  template <class T, int C, int R> SPACE matrix<T, C, R> &operator*=(SPACE matrix<T, C, R> &, T);
MSL_EACH_WRITABLE_SPACE(MSL_ASSIGN)
#undef MSL_ASSIGN
template <class T, int N> T determinant(matrix<T, N, N>);
template <class T, int C, int R> matrix<T, R, C> transpose(matrix<T, C, R>);

#define MSL_MATRICES(T)                                                                        \
  typedef matrix<T, 2, 2> T##2x2; typedef matrix<T, 2, 3> T##2x3; typedef matrix<T, 2, 4> T##2x4; \
  typedef matrix<T, 3, 2> T##3x2; typedef matrix<T, 3, 3> T##3x3; typedef matrix<T, 3, 4> T##3x4; \
  typedef matrix<T, 4, 2> T##4x2; typedef matrix<T, 4, 3> T##4x3; typedef matrix<T, 4, 4> T##4x4;
MSL_MATRICES(half) MSL_MATRICES(float)
#undef MSL_MATRICES
}  // namespace metal

using metal::half2x2, metal::half2x3, metal::half2x4, metal::half3x2, metal::half3x3, metal::half3x4;
using metal::half4x2, metal::half4x3, metal::half4x4, metal::float2x2, metal::float2x3, metal::float2x4;
using metal::float3x2, metal::float3x3, metal::float3x4, metal::float4x2, metal::float4x3, metal::float4x4;
