// SIMD-group and quad-group functions (Metal Shading Language Specification, 6.9.2 and 6.9.3).
#pragma once

namespace metal {
struct simd_vote {
  typedef ulong vote_t;
  explicit constexpr simd_vote(vote_t = 0) {}
  explicit operator vote_t() const;
  bool all() const;
  bool any() const;
};
typedef simd_vote quad_vote;

// What SIMD-group functions take (MLX asks for it by this name).
template <class T> struct __is_valid_simdgroup_type : bool_constant<is_arithmetic<T>::value && sizeof(T) <= 4> {};
template <class T, int N> struct __is_valid_simdgroup_type<vec<T, N>> : __is_valid_simdgroup_type<T> {};

#define MSL_GROUP(GROUP)                                                                                             \
  template <class T> T GROUP##_broadcast(T, ushort);                                                                 \
  template <class T> T GROUP##_broadcast_first(T);                                                                   \
  template <class T> T GROUP##_shuffle(T, ushort);                                                                   \
  template <class T> T GROUP##_shuffle_down(T, ushort);                                                              \
  template <class T> T GROUP##_shuffle_up(T, ushort);                                                                \
  template <class T> T GROUP##_shuffle_xor(T, ushort);                                                               \
  template <class T> T GROUP##_shuffle_rotate_down(T, ushort);                                                       \
  template <class T> T GROUP##_shuffle_rotate_up(T, ushort);                                                         \
  template <class T> T GROUP##_shuffle_and_fill_down(T, T, ushort);                                                  \
  template <class T> T GROUP##_shuffle_and_fill_up(T, T, ushort);                                                    \
  template <class T> T GROUP##_shuffle_and_fill_down(T, T, ushort, ushort);                                          \
  template <class T> T GROUP##_shuffle_and_fill_up(T, T, ushort, ushort);                                            \
  template <class T> T GROUP##_sum(T);                                                                               \
  template <class T> T GROUP##_product(T);                                                                           \
  template <class T> T GROUP##_max(T);                                                                               \
  template <class T> T GROUP##_min(T);                                                                               \
  template <class T> T GROUP##_and(T);                                                                               \
  template <class T> T GROUP##_or(T);                                                                                \
  template <class T> T GROUP##_xor(T);                                                                               \
  template <class T> T GROUP##_prefix_exclusive_sum(T);                                                              \
  template <class T> T GROUP##_prefix_inclusive_sum(T);                                                              \
  template <class T> T GROUP##_prefix_exclusive_product(T);                                                          \
  template <class T> T GROUP##_prefix_inclusive_product(T);                                                          \
  bool GROUP##_all(bool);                                                                                            \
  bool GROUP##_any(bool);                                                                                            \
  bool GROUP##_is_first();                                                                                           \
  bool GROUP##_is_helper_thread();                                                                                   \
  GROUP##_vote GROUP##_ballot(bool);                                                                                 \
  GROUP##_vote GROUP##_active_threads_mask();
MSL_GROUP(simd)
MSL_GROUP(quad)
#undef MSL_GROUP
}  // namespace metal
