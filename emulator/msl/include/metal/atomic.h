// Atomic functions (6.16). The runtime answers clang's instrumentation of them (runtime/hooks.cpp).
#pragma once
#include "barrier.h"
#include "scalar.h"

namespace metal {

enum memory_order {
    memory_order_relaxed = __ATOMIC_RELAXED,
    memory_order_acquire = __ATOMIC_ACQUIRE,
    memory_order_release = __ATOMIC_RELEASE,
    memory_order_acq_rel = __ATOMIC_ACQ_REL,
    memory_order_seq_cst = __ATOMIC_SEQ_CST,
};
enum thread_scope {
    thread_scope_thread,
    thread_scope_simdgroup,
    thread_scope_threadgroup,
    thread_scope_device,
};

template <class T>
struct atomic {
    T emulator_value;
};
template <class T>
using _atomic = atomic<T>;

}  // namespace metal

namespace emulator {

// The integer of the same size: what the processor's atomic instructions know.
template <class T>
using atomic_bits = std::conditional_t<
    sizeof(T) == 1, uint8_t,
    std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;

template <class T>
EMULATOR_INLINE atomic_bits<T> *bits_of(const volatile metal::atomic<T> *object) {
    return (atomic_bits<T> *)object;
}

template <class T>
EMULATOR_INLINE bool compare_exchange(volatile metal::atomic<T> *object, T *expected, T desired) {
    atomic_bits<T> seen = as_type<atomic_bits<T>>(*expected);
    bool done = __atomic_compare_exchange_n(bits_of(object), &seen, as_type<atomic_bits<T>>(desired), true,
                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    *expected = as_type<T>(seen);
    return done;
}

// Reads, computes, writes; again if another lane came between.
template <class T, class F>
EMULATOR_INLINE T atomic_update(volatile metal::atomic<T> *object, F next) {
    T before = as_type<T>(__atomic_load_n(bits_of(object), __ATOMIC_RELAXED));
    while (!compare_exchange(object, &before, T(next(before)))) {}
    return before;
}

}  // namespace emulator

namespace metal {

template <class T>
EMULATOR_INLINE T atomic_load_explicit(const volatile atomic<T> *object, memory_order) {
    return as_type<T>(__atomic_load_n(emulator::bits_of(object), __ATOMIC_RELAXED));
}
template <class T>
EMULATOR_INLINE void atomic_store_explicit(volatile atomic<T> *object, std::common_type_t<T> value, memory_order) {
    __atomic_store_n(emulator::bits_of(object), as_type<emulator::atomic_bits<T>>(value), __ATOMIC_RELAXED);
}
template <class T>
EMULATOR_INLINE T atomic_exchange_explicit(volatile atomic<T> *object, std::common_type_t<T> value, memory_order) {
    auto bits = as_type<emulator::atomic_bits<T>>(value);
    return as_type<T>(__atomic_exchange_n(emulator::bits_of(object), bits, __ATOMIC_RELAXED));
}
template <class T>
EMULATOR_INLINE bool atomic_compare_exchange_weak_explicit(volatile atomic<T> *object, T *expected,
                                                           std::common_type_t<T> desired, memory_order, memory_order) {
    return emulator::compare_exchange(object, expected, desired);
}

#define EMULATOR_ATOMIC_FETCH(name, expression)                                                             \
    template <class T>                                                                                      \
    EMULATOR_INLINE T atomic_fetch_##name##_explicit(volatile atomic<T> *object, std::common_type_t<T> by,  \
                                                     memory_order) {                                        \
        return emulator::atomic_update(object, [by](T old) { return expression; });                         \
    }
EMULATOR_ATOMIC_FETCH(add, old + by)
EMULATOR_ATOMIC_FETCH(sub, old - by)
EMULATOR_ATOMIC_FETCH(min, old < by ? old : by)
EMULATOR_ATOMIC_FETCH(max, old > by ? old : by)
EMULATOR_ATOMIC_FETCH(and, old &by)
EMULATOR_ATOMIC_FETCH(or, old | by)
EMULATOR_ATOMIC_FETCH(xor, old ^ by)

EMULATOR_INLINE void atomic_min_explicit(volatile atomic<ulong> *object, ulong by, memory_order order) {
    atomic_fetch_min_explicit(object, by, order);
}
EMULATOR_INLINE void atomic_max_explicit(volatile atomic<ulong> *object, ulong by, memory_order order) {
    atomic_fetch_max_explicit(object, by, order);
}
// Lanes run one at a time and see each other's writes; races are found without it.
EMULATOR_INLINE void atomic_thread_fence(mem_flags, memory_order, thread_scope = thread_scope_device) {}

}  // namespace metal

using atomic_int = metal::atomic<int>;
using atomic_uint = metal::atomic<uint>;
using atomic_bool = metal::atomic<bool>;
using atomic_float = metal::atomic<float>;
using atomic_ulong = metal::atomic<ulong>;
namespace metal {
using ::atomic_int, ::atomic_uint, ::atomic_bool, ::atomic_float, ::atomic_ulong;
}
