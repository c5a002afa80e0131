// The calls that clang's ThreadSanitizer instrumentation makes (llvm/lib/Transforms/Instrumentation/ThreadSanitizer.cpp
// names them), answered by our shadow memory instead of the sanitizer's runtime.
#include <string.h>
#include "shadow.h"

namespace emulator {

template <bool write, bool atomic = false>
inline __attribute__((always_inline)) void access(const volatile void *address, uint64_t bytes, const void *code) {
    uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (at - current->stack < current->stack_size || !bytes) return;  // private memory
    ShadowedMemory *memory = find_memory(at, bytes);
    if (!memory) return outside(at, bytes, write, code);
    record<write, atomic>(*memory, at - reinterpret_cast<uintptr_t>(memory->address), bytes, code);
}

constexpr uintptr_t stack_reserve = 8 << 10;

}  // namespace emulator

using emulator::access;

#define HOOK extern "C" HIDDEN
#define CALLER __builtin_return_address(0)

#define ACCESSES(size)                                                                                     \
    HOOK void __tsan_read##size(void *at) { access<false>(at, size, CALLER); }                             \
    HOOK void __tsan_write##size(void *at) { access<true>(at, size, CALLER); }                             \
    HOOK void __tsan_unaligned_read##size(void *at) { access<false>(at, size, CALLER); }                   \
    HOOK void __tsan_unaligned_write##size(void *at) { access<true>(at, size, CALLER); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

HOOK void *__tsan_memcpy(void *to, const void *from, size_t bytes) {
    access<false>(from, bytes, CALLER);
    access<true>(to, bytes, CALLER);
    return memcpy(to, from, bytes);
}
HOOK void *__tsan_memmove(void *to, const void *from, size_t bytes) {
    access<false>(from, bytes, CALLER);
    access<true>(to, bytes, CALLER);
    return memmove(to, from, bytes);
}
HOOK void *__tsan_memset(void *to, int value, size_t bytes) {
    access<true>(to, bytes, CALLER);
    return memset(to, value, bytes);
}

HOOK void __tsan_init() {}
HOOK void __tsan_func_exit() {}
HOOK void __tsan_func_entry(void *) {
    using namespace emulator;
    uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    if (__builtin_expect(here >= current->stack + stack_reserve, 1)) return;
    new_fault(FaultKind::stack_overflow, CALLER);
    abandon();
}

// ---- atomic operations: lanes share one thread, so a plain operation is atomic

namespace emulator {

constexpr uint32_t patience = 64;

// A lane that does nothing but load waits for another lane: let it run.
inline void waits() {
    if (++current->waiting_loads % patience == 0) yield();
}

inline void wrote() {
    atomic_writes++;
    current->waiting_loads = 0;
}

template <class T, class F>
inline __attribute__((always_inline)) T update(volatile T *at, const void *code, F next) {
    access<true, true>(at, sizeof(T), code);
    T before = *at;
    *at = next(before);
    wrote();
    return before;
}

template <class T>
inline __attribute__((always_inline)) T load(const volatile T *at, const void *code) {
    waits();
    access<false, true>(at, sizeof(T), code);
    return *at;
}

template <class T>
inline __attribute__((always_inline)) bool exchange_if_equal(volatile T *at, T *expected, T desired, const void *code) {
    access<true, true>(at, sizeof(T), code);
    T before = *at;
    if (before == *expected) {
        *at = desired;
        wrote();
        return true;
    }
    *expected = before;
    waits();
    return false;
}

}  // namespace emulator

#define ATOMIC_UPDATE(bits, name, next)                                                             \
    HOOK uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, uint##bits##_t by, int) { \
        return emulator::update(at, CALLER, [by](uint##bits##_t old) { return uint##bits##_t(next); });       \
    }
#define ATOMICS(bits)                                                                                          \
    HOOK uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int) {                   \
        return emulator::load(at, CALLER);                                                                     \
    }                                                                                                          \
    HOOK void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value, int) {            \
        emulator::update(at, CALLER, [value](uint##bits##_t) { return value; });                               \
    }                                                                                                          \
    HOOK uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile uint##bits##_t *at,                \
                                                                   uint##bits##_t expected, uint##bits##_t desired, \
                                                                   int, int) {                                 \
        emulator::exchange_if_equal(at, &expected, desired, CALLER);                                           \
        return expected;                                                                                       \
    }                                                                                                          \
    ATOMIC_UPDATE(bits, exchange, (void(old), by))                                                             \
    ATOMIC_UPDATE(bits, fetch_add, old + by)                                                                   \
    ATOMIC_UPDATE(bits, fetch_sub, old - by)                                                                   \
    ATOMIC_UPDATE(bits, fetch_and, old &by)                                                                    \
    ATOMIC_UPDATE(bits, fetch_or, old | by)                                                                    \
    ATOMIC_UPDATE(bits, fetch_xor, old ^ by)
ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)
HOOK void __tsan_atomic_thread_fence(int) {}
HOOK void __tsan_atomic_signal_fence(int) {}
