// SIMD-group and quad-group functions (6.10.2, 6.10.3): the lanes that meet at one place exchange their values.
#pragma once
#include "barrier.h"
#include "common.h"

namespace emulator {

// What an exchange gives to a lane that asks for the value of one that is not there: undefined, so make it show.
template <class T>
EMULATOR_INLINE T undefined_value() {
    T value;
    __builtin_memset(&value, 0xFF, sizeof(T));
    return value;
}

template <class T>
EMULATOR_INLINE Exchange meet(const T &value, const void *place) {
    static_assert(sizeof(T) <= sizeof(ExchangeSlot), "too large for a SIMD-group function");
    return exchange(&value, sizeof(T), place);
}

template <class T>
EMULATOR_INLINE T value_of(const Exchange &all, uint32_t lane) {
    return all.has(lane) ? all.get<T>(lane) : undefined_value<T>();
}

// Joins the values of the active lanes from `first` to before `end`.
template <class T, class F>
EMULATOR_INLINE T reduce(const Exchange &all, uint32_t first, uint32_t end, T start, F join) {
    T result = start;
    for (uint32_t i = first; i < end; i++) {
        if (all.has(i)) result = T(join(result, all.get<T>(i)));
    }
    return result;
}

// The same without a value to start from; there is at least one active lane: this one.
template <class T, class F>
EMULATOR_INLINE T reduce(const Exchange &all, uint32_t first, uint32_t end, F join) {
    while (!all.has(first)) first++;
    return reduce(all, first + 1, end, all.get<T>(first), join);
}

EMULATOR_INLINE uint32_t first_of_quad() { return lane_in_simdgroup() & ~3u; }

}  // namespace emulator

namespace metal {

// Apple's header has this trait; Candle's kernels use it.
template <class T>
struct __is_valid_simdgroup_type : bool_constant<is_arithmetic_v<T> && sizeof(T) <= 4> {};
template <class T, int N>
struct __is_valid_simdgroup_type<vec<T, N>> : __is_valid_simdgroup_type<T> {};

#define EMULATOR_REDUCTION(name, expression)                                                                 \
    template <class T>                                                                                       \
    EMULATOR_OPERATION T simd_##name(T value) {                                                              \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));                                       \
        return emulator::reduce<T>(all, 0, emulator::simd_width, [](T a, T b) { return T(expression); });    \
    }                                                                                                        \
    template <class T>                                                                                       \
    EMULATOR_OPERATION T quad_##name(T value) {                                                              \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));                                       \
        uint first = emulator::first_of_quad();                                                              \
        return emulator::reduce<T>(all, first, first + 4, [](T a, T b) { return T(expression); });           \
    }
EMULATOR_REDUCTION(sum, a + b)
EMULATOR_REDUCTION(product, a *b)
EMULATOR_REDUCTION(min, min(a, b))
EMULATOR_REDUCTION(max, max(a, b))
EMULATOR_REDUCTION(and, a &b)
EMULATOR_REDUCTION(or, a | b)
EMULATOR_REDUCTION(xor, a ^ b)

#define EMULATOR_PREFIX(name, start, expression)                                                             \
    template <class T>                                                                                       \
    EMULATOR_OPERATION T simd_prefix_inclusive_##name(T value) {                                             \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));                                       \
        uint end = emulator::lane_in_simdgroup() + 1;                                                        \
        return emulator::reduce(all, 0, end, T(start), [](T a, T b) { return T(expression); });              \
    }                                                                                                        \
    template <class T>                                                                                       \
    EMULATOR_OPERATION T simd_prefix_exclusive_##name(T value) {                                             \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));                                       \
        uint end = emulator::lane_in_simdgroup();                                                            \
        return emulator::reduce(all, 0, end, T(start), [](T a, T b) { return T(expression); });              \
    }                                                                                                        \
    template <class T>                                                                                       \
    EMULATOR_OPERATION T quad_prefix_inclusive_##name(T value) {                                             \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));                                       \
        uint end = emulator::lane_in_simdgroup() + 1;                                                        \
        return emulator::reduce(all, emulator::first_of_quad(), end, T(start), [](T a, T b) { return T(expression); }); \
    }                                                                                                        \
    template <class T>                                                                                       \
    EMULATOR_OPERATION T quad_prefix_exclusive_##name(T value) {                                             \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));                                       \
        uint end = emulator::lane_in_simdgroup();                                                            \
        return emulator::reduce(all, emulator::first_of_quad(), end, T(start), [](T a, T b) { return T(expression); }); \
    }
EMULATOR_PREFIX(sum, 0, a + b)
EMULATOR_PREFIX(product, 1, a *b)

// `l` is this lane, `n` the operand. A lane outside the SIMD group leaves the value as it is (simd_shuffle_up, _down);
// an inactive one has none.
#define EMULATOR_SHUFFLE(name, lane)                                             \
    template <class T>                                                           \
    EMULATOR_OPERATION T name(T value, ushort n) {                               \
        emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));           \
        uint l = emulator::lane_in_simdgroup(), from = (lane);                   \
        return from < emulator::simd_width ? emulator::value_of<T>(all, from) : value; \
    }
EMULATOR_SHUFFLE(simd_shuffle, (void(l), n))
EMULATOR_SHUFFLE(simd_broadcast, (void(l), n))
EMULATOR_SHUFFLE(simd_shuffle_xor, l ^ n)
EMULATOR_SHUFFLE(simd_shuffle_down, l + n)
EMULATOR_SHUFFLE(simd_shuffle_up, l - n)
EMULATOR_SHUFFLE(simd_shuffle_rotate_down, (l + n) % 32)
EMULATOR_SHUFFLE(simd_shuffle_rotate_up, (l - n) % 32)
EMULATOR_SHUFFLE(quad_shuffle, (l & ~3u) + (n & 3u))
EMULATOR_SHUFFLE(quad_broadcast, (l & ~3u) + (n & 3u))
EMULATOR_SHUFFLE(quad_shuffle_xor, l ^ (n & 3u))
EMULATOR_SHUFFLE(quad_shuffle_down, (l & 3u) + n < 4 ? l + n : l)
EMULATOR_SHUFFLE(quad_shuffle_up, (l & 3u) >= n ? l - n : l)
EMULATOR_SHUFFLE(quad_shuffle_rotate_down, (l & ~3u) + (l + n) % 4)
EMULATOR_SHUFFLE(quad_shuffle_rotate_up, (l & ~3u) + (l - n) % 4)

// Shuffles within pieces of `modulo` lanes; what would come from outside a piece comes from `filling`.
template <class T>
EMULATOR_OPERATION T simd_shuffle_and_fill_down(T value, T filling, ushort delta, ushort modulo = 32) {
    T both[2] = {value, filling};
    emulator::Exchange all = emulator::meet(both, __builtin_return_address(0));
    uint lane = emulator::lane_in_simdgroup(), at = lane % modulo + delta;
    struct Both {
        T of[2];
    };
    return emulator::value_of<Both>(all, lane / modulo * modulo + at % modulo).of[at >= modulo];
}
template <class T>
EMULATOR_OPERATION T simd_shuffle_and_fill_up(T value, T filling, ushort delta, ushort modulo = 32) {
    T both[2] = {value, filling};
    emulator::Exchange all = emulator::meet(both, __builtin_return_address(0));
    uint lane = emulator::lane_in_simdgroup(), at = lane % modulo;
    struct Both {
        T of[2];
    };
    return emulator::value_of<Both>(all, lane / modulo * modulo + (at - delta) % modulo).of[at < delta];
}

template <class T>
EMULATOR_OPERATION T simd_broadcast_first(T value) {
    emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));
    return all.get<T>(__builtin_ctz(all.active));
}
template <class T>
EMULATOR_OPERATION T quad_broadcast_first(T value) {
    emulator::Exchange all = emulator::meet(value, __builtin_return_address(0));
    uint first = emulator::first_of_quad();
    return all.get<T>(first + __builtin_ctz(all.active >> first));
}

// A set of lanes.
class simd_vote {
   public:
    using vote_t = ulong;
    constexpr explicit simd_vote(vote_t bits = 0) : bits(bits) {}
    constexpr explicit operator vote_t() const { return bits; }
    constexpr bool all() const { return bits == 0xFFFFFFFF; }
    constexpr bool any() const { return bits != 0; }

   private:
    vote_t bits;
};

}  // namespace metal

namespace emulator {

// The active lanes with `value`.
EMULATOR_INLINE uint32_t lanes_with(bool value, const void *place, uint32_t *active) {
    Exchange all = meet(value, place);
    uint32_t lanes = 0;
    for (uint32_t i = 0; i < simd_width; i++) lanes |= uint32_t(all.has(i) && all.get<bool>(i)) << i;
    *active = all.active;
    return lanes;
}

}  // namespace emulator

namespace metal {

EMULATOR_OPERATION static simd_vote simd_ballot(bool value) {
    uint active;
    return simd_vote(emulator::lanes_with(value, __builtin_return_address(0), &active));
}
EMULATOR_OPERATION static simd_vote simd_active_threads_mask() {
    uint active;
    emulator::lanes_with(true, __builtin_return_address(0), &active);
    return simd_vote(active);
}
EMULATOR_OPERATION static bool simd_any(bool value) {
    uint active;
    return emulator::lanes_with(value, __builtin_return_address(0), &active) != 0;
}
EMULATOR_OPERATION static bool simd_all(bool value) {
    uint active;
    return emulator::lanes_with(value, __builtin_return_address(0), &active) == active;
}
EMULATOR_OPERATION static bool simd_is_first() {
    uint active;
    emulator::lanes_with(true, __builtin_return_address(0), &active);
    return emulator::lane_in_simdgroup() == uint(__builtin_ctz(active));
}
EMULATOR_OPERATION static bool quad_any(bool value) {
    uint active;
    return emulator::lanes_with(value, __builtin_return_address(0), &active) >> emulator::first_of_quad() & 0xF;
}
EMULATOR_OPERATION static bool quad_all(bool value) {
    uint active, lanes = emulator::lanes_with(value, __builtin_return_address(0), &active);
    return ((lanes ^ active) >> emulator::first_of_quad() & 0xF) == 0;
}
EMULATOR_INLINE bool simd_is_helper_thread() { return false; }

}  // namespace metal
