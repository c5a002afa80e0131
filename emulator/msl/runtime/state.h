// The state of the launch that runs. One launch runs at a time in a library; all its lanes share one thread.
#pragma once
#include "../include/emulator/lane.h"

#define HIDDEN __attribute__((visibility("hidden")))

namespace emulator {

enum class State : uint8_t { ready, waits_for_simdgroup, waits_for_threadgroup, returned };

// One thread of the grid: a fiber.
struct Lane {
    void *stack_pointer;
    uintptr_t stack;  // its lowest address
    uintptr_t stack_size;
    const void *place;
    uint32_t index;
    uint32_t position[3];
    State state;
    uint32_t barrier_flags;  // of the barrier where it waits
    uint32_t waiting_loads;  // atomic loads since the last write: a lane that waits for another one
};

// Counts what orders accesses to one kind of memory inside a dispatch.
struct Clock {
    uint32_t now;
    uint32_t threadgroup_start;
};

struct SimdGroup {
    Lane *lanes;
    uint32_t count;
    uint32_t active;
    uint32_t filling;  // which of the two sets of slots takes the next values
    uint32_t order[2];  // simdgroup_barriers so far, by MemoryKind
    ExchangeSlot slots[2][simd_width];
};

struct Threadgroup {
    uint32_t position[3];
    uint32_t size[3];
    uint32_t count;
    uint32_t returned;
    uint32_t simdgroup_count;
};

extern HIDDEN Launch *launch;
extern HIDDEN Lane *current;  // `host` outside of launches
extern HIDDEN Threadgroup threadgroup;
extern HIDDEN SimdGroup simdgroups[max_lanes / simd_width];
extern HIDDEN Clock clocks[2];  // by MemoryKind
extern HIDDEN uint64_t atomic_writes;

inline SimdGroup &current_simdgroup() { return simdgroups[current->index / simd_width]; }

// Ends the dispatch: no lane runs again.
[[noreturn]] void abandon();
// Lets other lanes run.
void yield();
// The position of the threadgroup that ran when the device clock showed this.
void threadgroup_at(uint32_t time, uint32_t (&position)[3]);

// A free entry, or nothing when there are enough.
Fault *new_fault(FaultKind kind, const void *code);
Thread current_thread();

// Shadow memory (runtime/shadow.h)
void prepare_shadow();
void finish_shadow();

}  // namespace emulator
