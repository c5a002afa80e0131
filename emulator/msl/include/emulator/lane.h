// What the headers ask of the runtime (runtime/scheduler.cpp).
#pragma once
#include "abi.h"

// Never inlined, so that its return address tells the place in the kernel; never duplicated by the optimiser, because
// lanes meet at that place; not instrumented, because it works on the runtime's own memory.
#define EMULATOR_OPERATION __attribute__((noinline, convergent, no_sanitize("thread")))
// Disappears into its caller, which alone is instrumented.
#define EMULATOR_INLINE inline __attribute__((always_inline))

// Threadgroup variables (src/rewrite/threadgroup.rs). A section of this name takes no room in the file; `used` tells
// the optimiser that others write them: the runtime fills them with NaN.
#define EMULATOR_THREADGROUP static __attribute__((section(".bss.threadgroup"), used, aligned(16)))

namespace emulator {

// One lane's value in an exchange between the lanes of a SIMD group.
struct alignas(64) ExchangeSlot {
    char bytes[64];
};

// What the lanes that met have put there.
struct Exchange {
    const ExchangeSlot *slots;
    uint32_t active;  // one bit per lane

    bool has(uint32_t lane) const { return lane < simd_width && (active >> lane & 1); }
    template <class T>
    T get(uint32_t lane) const {
        T value;
        __builtin_memcpy(&value, slots[lane].bytes, sizeof(T));
        return value;
    }
};

// Gives a value to the other lanes of the SIMD group and waits for theirs. `place` tells operations apart.
Exchange exchange(const void *value, size_t size, const void *place);

enum BarrierScope { simdgroup_scope, threadgroup_scope };
// Flags as metal::mem_flags has them.
void barrier(BarrierScope scope, uint32_t flags, const void *place);

// The index of the current lane in its SIMD group.
[[gnu::const]] uint32_t lane_in_simdgroup();

// The values of the built-in arguments ([[thread_position_in_grid]] and the like), in three dimensions.
struct LaneValues {
    uint32_t thread_position_in_grid[3];
    uint32_t thread_position_in_threadgroup[3];
    uint32_t threadgroup_position_in_grid[3];
    uint32_t threads_per_threadgroup[3];
    uint32_t dispatch_threads_per_threadgroup[3];
    uint32_t threads_per_grid[3];
    uint32_t threadgroups_per_grid[3];
    uint32_t thread_index_in_threadgroup[3];
    uint32_t simdgroup_index_in_threadgroup[3];
    uint32_t thread_index_in_simdgroup[3];
    uint32_t threads_per_simdgroup[3];
    uint32_t thread_execution_width[3];
    uint32_t simdgroups_per_threadgroup[3];
    uint32_t dispatch_simdgroups_per_threadgroup[3];
    uint32_t thread_index_in_quadgroup[3];
    uint32_t quadgroup_index_in_threadgroup[3];
    uint32_t quadgroups_per_threadgroup[3];
    uint32_t grid_origin[3];
    uint32_t grid_size[3];
};
void fill(LaneValues &values);

// Where an argument points; an unbound one points where any access is a fault. One that does not exist, by a function
// constant, may be read in vain: kernels do, where Metal's compiler takes the dead code out.
void *buffer_argument(uint32_t slot, bool exists);
void *threadgroup_argument(uint32_t slot, bool exists);

}  // namespace emulator
