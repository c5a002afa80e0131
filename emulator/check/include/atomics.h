// Atomic functions (Metal Shading Language Specification, 6.15): on device and threadgroup memory only.
#pragma once

namespace metal {
enum memory_order {
  memory_order_relaxed, memory_order_acquire, memory_order_release, memory_order_acq_rel, memory_order_seq_cst
};
enum thread_scope {
  thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device
};

template <class T> struct atomic { T msl_value; };
template <class T> using _atomic = atomic<T>;
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<ulong> atomic_ulong;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;

#define MSL_ATOMICS(SPACE)                                                                                          \
  template <class T> T atomic_load_explicit(volatile SPACE const atomic<T> *, memory_order);                        \
  template <class T> void atomic_store_explicit(volatile SPACE atomic<T> *, typename type_identity<T>::type,        \
                                                memory_order);                                                      \
  template <class T> T atomic_exchange_explicit(volatile SPACE atomic<T> *, typename type_identity<T>::type,        \
                                                memory_order);                                                      \
  template <class T> bool atomic_compare_exchange_weak_explicit(volatile SPACE atomic<T> *, thread T *,             \
      typename type_identity<T>::type, memory_order, memory_order);
MSL_EACH_SHARED_SPACE(MSL_ATOMICS)
#undef MSL_ATOMICS

#define MSL_ATOMIC_FETCH(NAME)                                                                                      \
  template <class T> T atomic_fetch_##NAME##_explicit(volatile device atomic<T> *, typename type_identity<T>::type, \
                                                      memory_order);                                                \
  template <class T> T atomic_fetch_##NAME##_explicit(volatile threadgroup atomic<T> *,                             \
                                                      typename type_identity<T>::type, memory_order);
MSL_ATOMIC_FETCH(add) MSL_ATOMIC_FETCH(and) MSL_ATOMIC_FETCH(max) MSL_ATOMIC_FETCH(min) MSL_ATOMIC_FETCH(or)
MSL_ATOMIC_FETCH(sub) MSL_ATOMIC_FETCH(xor)
#undef MSL_ATOMIC_FETCH
void atomic_max_explicit(volatile device atomic_ulong *, ulong, memory_order);
void atomic_min_explicit(volatile device atomic_ulong *, ulong, memory_order);
}  // namespace metal
