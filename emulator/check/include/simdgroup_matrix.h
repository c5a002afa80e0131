// SIMD-group matrices (Metal Shading Language Specification, 2.3.2 and 6.7).
#pragma once

namespace metal {
template <class T, int Columns, int Rows = Columns> struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "SIMD-group matrices are 8 by 8");
  static_assert(is_floating_point<T>::value, "SIMD-group matrices hold half, bfloat or float");
  simdgroup_matrix() = default;
  explicit simdgroup_matrix(T);
  thread vec<T, 2> &thread_elements() const;

 private:
  vec<T, 2> msl_elements;
};
template <class T> constexpr constant bool is_simdgroup_matrix_v = false;

typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;

template <class T, int C, int R = C> simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T);
template <class T, int C, int R = C> simdgroup_matrix<T, C, R> make_diagonal_simdgroup_matrix(T);

#define MSL_LOAD_STORE(SPACE)                                                                                       \
  template <class T, int C, int R> void simdgroup_load(thread simdgroup_matrix<T, C, R> &, const SPACE T *,         \
      ulong elements_per_row = C, ulong2 origin = 0, bool transpose = false);                                       \
  template <class T, int C, int R> void simdgroup_load(thread simdgroup_matrix<T, C, R> &, const volatile SPACE T *, \
      ulong elements_per_row = C, ulong2 origin = 0, bool transpose = false);                                       \
  template <class T, int C, int R> void simdgroup_store(simdgroup_matrix<T, C, R>, SPACE T *,                       \
      ulong elements_per_row = C, ulong2 origin = 0, bool transpose = false);
MSL_EACH_SHARED_SPACE(MSL_LOAD_STORE)
#undef MSL_LOAD_STORE

template <class D, class A, class B, int C, int R, int K>
void simdgroup_multiply(thread simdgroup_matrix<D, C, R> &, simdgroup_matrix<A, K, R>, simdgroup_matrix<B, C, K>);
template <class D, class A, class B, class E, int C, int R, int K>
void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, C, R> &, simdgroup_matrix<A, K, R>,
                                   simdgroup_matrix<B, C, K>, simdgroup_matrix<E, C, R>);
template <class T, int C, int R, int K>
simdgroup_matrix<T, C, R> operator*(simdgroup_matrix<T, K, R>, simdgroup_matrix<T, C, K>);
}  // namespace metal
