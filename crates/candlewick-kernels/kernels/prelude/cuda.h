// The words of the kernels in CUDA C++, as NVRTC compiles it without any header.

// Sizes and places of numbers in parameters, the same on both GPUs.
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned char u8;
typedef float f32;
// Their bits; conversions below are instructions, so that no header of CUDA is needed.
struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

#define GLOBAL
#define GROUP __shared__
#define GROUP_POINTER(T) T *
#define LOCAL
#define FUNCTION __device__ __forceinline__
#define UNROLL _Pragma("unroll")
// For loops whose length is not known: several loads are under way at once.
#define UNROLL_4 _Pragma("unroll 4")
// For loops whose body is long: unrolled, they would only take time to compile.
#define NO_UNROLL _Pragma("unroll 1")

// An entry point: KERNEL(name, most threads per group, arguments..). Arguments are given in the order of their slots.
#define KERNEL(name, max_threads, ...) extern "C" __global__ void __launch_bounds__(max_threads) name(__VA_ARGS__)
#ifndef DEPENDENT_LAUNCH
#define IN(T, name, slot) const T *__restrict__ name
#else
// Loads must not move ahead of the wait in HERE, as they may where nothing else can point to the same memory.
#define IN(T, name, slot) const T *name
#endif
#define OUT(T, name, slot) T *name
// An input that an output may lie on: the compiler must not take them for apart.
#define IN_PLACE(T, name, slot) const T *name
#define PARAMS(T, name, slot) const __grid_constant__ T name
// Parameters as an argument of a function.
#define PARAMS_OF(T, name) const T &name
// With programmatic dependent launch (sm_90) a kernel starts before the one ahead of it has ended: here it waits until
// that has, and sees what it wrote. Nothing is read before (PTX ISA, "griddepcontrol") but what no kernel ahead writes, as
// those are told that ask for BEFORE. Then the next one may come, once all groups have. (To let it come before the wait
// made a chain of LoRA layers 1.6 times slower on an H100.)
FUNCTION void wait_for_kernel_ahead() {
#ifdef DEPENDENT_LAUNCH
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Brings the line of an address into the level-two cache. It changes nothing that can be seen, so it is legal while the
// kernels ahead still write, and takes the way to memory off the time behind them.
FUNCTION void bring(const GLOBAL void *address) {
#ifdef DEPENDENT_LAUNCH
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}
// Where a thread is, inside a kernel: the first thing that a kernel asks.
#define HERE (wait_for_kernel_ahead(), BEFORE)
// The same before the kernels ahead are done: for `bring`.
#define BEFORE (Here { blockIdx.x, blockDim.x, threadIdx.x, threadIdx.x % 32, threadIdx.x / 32 })

// Every thread of the group has come this far, and sees what the others wrote to group memory.
FUNCTION void group_barrier() {
    __syncthreads();
}

// The value of the lane whose number differs in these bits.
FUNCTION f32 lane_xor(f32 value, u32 bits) {
    return __shfl_xor_sync(0xffffffffu, value, bits);
}

FUNCTION u32 lane_xor(u32 value, u32 bits) {
    return __shfl_xor_sync(0xffffffffu, value, bits);
}
// Bit i: what lane i says.
FUNCTION u32 lanes_that(bool value) {
    return __ballot_sync(0xffffffffu, value);
}

FUNCTION f32 exp_of(f32 x) {
    return __expf(x);
}
FUNCTION f32 log_of(f32 x) {
    return logf(x);
}
FUNCTION f32 sqrt_of(f32 x) {
    return sqrtf(x);
}
FUNCTION f32 inverse_sqrt_of(f32 x) {
    return 1.0f / sqrtf(x);
}
// To a last bit or so, in one instruction.
FUNCTION f32 inverse_of(f32 x) {
    f32 inverse;
    asm("rcp.approx.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
}
// The larger; of a NaN and a number, the number.
FUNCTION f32 larger(f32 a, f32 b) {
    return fmaxf(a, b);
}

FUNCTION u32 bits_of(f32 x) {
    return __float_as_uint(x);
}
FUNCTION f32 f32_of_bits(u32 bits) {
    return __uint_as_float(bits);
}

// f16 <-> f32: the hardware's own, to nearest even.
FUNCTION f32 f32_of(f16 x) {
    f32 wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
FUNCTION f16 round_to(f32 x, LOCAL f16 *) {
    f16 narrow;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
}
FUNCTION u32 bits_of(f16 x) {
    return x.bits;
}
FUNCTION f16 of_bits(u32 bits, LOCAL f16 *) {
    return f16 { (unsigned short)bits };
}

// f32 to bf16, to nearest even; a NaN stays one. An instruction since sm_80.
FUNCTION bf16 round_to(f32 x, LOCAL bf16 *) {
#if __CUDA_ARCH__ >= 800
    bf16 narrow;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
    return narrow;
#else
    const u32 bits = bits_of(x);
    const u32 rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return bf16 { (unsigned short)(nan ? bits >> 16 | 0x40u : rounded) };
#endif
}
