// The words of the kernels in the Metal Shading Language, version 3.0 (macOS 13). Compile without fast math: NaN and
// infinities are part of what the operations promise.
#include <metal_stdlib>

// Sizes and places of numbers in parameters, the same on both GPUs.
typedef uint u32;
typedef ulong u64;
typedef long i64;
typedef uchar u8;
typedef float f32;
typedef half f16;
// The upper half of an f32. MSL's own `bfloat` needs version 3.1 (macOS 14); two integer instructions do without it.
struct bf16 {
    ushort bits;
};

#define GLOBAL device
#define GROUP threadgroup
#define GROUP_POINTER(T) threadgroup T *
#define LOCAL thread
#define FUNCTION inline
#define UNROLL _Pragma("clang loop unroll(full)")
// For loops whose length is not known: several loads are under way at once.
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
// For loops whose body is long: unrolled, they would only take time to compile.
#define NO_UNROLL _Pragma("clang loop unroll(disable)")

// An entry point: KERNEL(name, most threads per group, arguments..). Every argument names its slot.
#define KERNEL(name, max_threads, ...)                                                                                \
    [[kernel, max_total_threads_per_threadgroup(max_threads)]] void name(                                             \
        __VA_ARGS__, uint here_group [[threadgroup_position_in_grid]], uint here_threads [[threads_per_threadgroup]], \
        uint here_thread [[thread_index_in_threadgroup]], uint here_lane [[thread_index_in_simdgroup]],               \
        uint here_team [[simdgroup_index_in_threadgroup]])
#define IN(T, name, slot) const device T *name [[buffer(slot)]]
#define OUT(T, name, slot) device T *name [[buffer(slot)]]
// An input that an output may lie on: the compiler must not take them for apart.
#define IN_PLACE(T, name, slot) const device T *name [[buffer(slot)]]
#define PARAMS(T, name, slot) constant T &name [[buffer(slot)]]
// Parameters as an argument of a function.
#define PARAMS_OF(T, name) constant T &name
// Where a thread is, inside a kernel.
#define HERE \
    Here { here_group, here_threads, here_thread, here_lane, here_team }
// Nothing is begun before the kernels ahead are done: there is nothing to bring early.
#define BEFORE HERE
FUNCTION void bring(const GLOBAL void *) {
}

// Every thread of the group has come this far, and sees what the others wrote to group memory.
FUNCTION void group_barrier() {
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);
}

// The value of the lane whose number differs in these bits.
FUNCTION f32 lane_xor(f32 value, u32 bits) {
    return metal::simd_shuffle_xor(value, ushort(bits));
}

FUNCTION u32 lane_xor(u32 value, u32 bits) {
    return metal::simd_shuffle_xor(value, ushort(bits));
}
// Bit i: what lane i says.
FUNCTION u32 lanes_that(bool value) {
    return u32(metal::simd_vote::vote_t(metal::simd_ballot(value)));
}

FUNCTION f32 exp_of(f32 x) {
    return metal::precise::exp(x);
}
FUNCTION f32 log_of(f32 x) {
    return metal::precise::log(x);
}
FUNCTION f32 sqrt_of(f32 x) {
    return metal::precise::sqrt(x);
}
FUNCTION f32 inverse_sqrt_of(f32 x) {
    return 1.0f / metal::precise::sqrt(x);
}
FUNCTION f32 inverse_of(f32 x) {
    return 1.0f / x;
}
// The larger; of a NaN and a number, the number.
FUNCTION f32 larger(f32 a, f32 b) {
    return metal::fmax(a, b);
}

FUNCTION u32 bits_of(f32 x) {
    return as_type<u32>(x);
}
FUNCTION f32 f32_of_bits(u32 bits) {
    return as_type<f32>(bits);
}

// f16 <-> f32: the hardware's own, to nearest even.
FUNCTION f32 f32_of(f16 x) {
    return f32(x);
}
FUNCTION f16 round_to(f32 x, LOCAL f16 *) {
    return f16(x);
}
FUNCTION u32 bits_of(f16 x) {
    return as_type<ushort>(x);
}
FUNCTION f16 of_bits(u32 bits, LOCAL f16 *) {
    return as_type<half>(ushort(bits));
}

// f32 to bf16, to nearest even; a NaN stays one.
FUNCTION bf16 round_to(f32 x, LOCAL bf16 *) {
    const u32 bits = bits_of(x);
    const u32 rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return bf16 { ushort(nan ? bits >> 16 | 0x40u : rounded) };
}
