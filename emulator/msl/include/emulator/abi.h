// What the compiled library and the Rust side (src/abi.rs) both know. Keep the two in step.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace emulator {

constexpr uint32_t slot_count = 31;   // MTLDevice: 31 buffers per compute function
constexpr uint32_t simd_width = 32;   // threadExecutionWidth of Apple GPUs
constexpr uint32_t max_lanes = 1024;  // maxTotalThreadsPerThreadgroup of Apple GPUs
constexpr uint32_t max_faults = 16;

enum class ParameterKind : uint32_t { buffer, threadgroup, value };

struct Parameter {
    ParameterKind kind;
    uint32_t index;
    uint32_t writable;
    uint32_t optional;
    uint32_t alignment;
    uint32_t size;
    const char *name;
};

struct Kernel {
    const char *name;
    const void *function;
    void (*enter)(const void *function);  // fetches the arguments of the current lane and calls the function
    const Parameter *parameters;
    uint32_t parameter_count;
    uint32_t max_total_threads;  // 0: not said
};

struct FunctionConstant {
    const char *name;
    const char *type_name;
    void *address;
    uint64_t size;
    uint32_t index;
    bool *defined;
};

enum class MemoryKind : uint32_t { buffer, threadgroup };

struct Memory {
    MemoryKind kind;
    uint8_t *address;
    uint64_t length;
};

struct ConstantValue {
    uint32_t index;
    const void *bytes;
    uint64_t size;
};

enum class FaultKind : uint32_t { out_of_bounds, not_bound, race, divergent_barrier, deadlock, stack_overflow };
enum class Remedy : uint32_t { threadgroup_barrier, simdgroup_barrier, split };

constexpr uint32_t unknown = ~0u;

struct Thread {
    uint32_t threadgroup[3];  // the first is `unknown` where only "another threadgroup" is known
    uint32_t index;
};

struct Fault {
    FaultKind kind;
    uint32_t memory;  // index into Launch::memories, or `unknown`
    int64_t offset;
    uint64_t bytes;  // of a barrier: the lanes that wait there
    const void *code;
    Thread first;
    Thread second;  // who did the access; of a barrier: its threadgroup
    uint32_t first_wrote;
    uint32_t second_wrote;
    Remedy remedy;
    uint32_t slot;     // of an argument that is not bound
    uint32_t returned;  // of a barrier: the lanes that had returned
    uint32_t lanes;    // of a barrier: all lanes
};

enum class Use : uint32_t { read, write, atomic };

struct Launch {
    const Kernel *kernel;
    const Memory *memories;
    uint64_t memory_count;
    void *buffers[slot_count];
    void *threadgroup[slot_count];
    const ConstantValue *constants;
    uint64_t constant_count;
    const uint8_t *threadgroup_variables[2];  // where those of all kernels of the library lie
    uint32_t threads_per_grid[3];
    uint32_t threads_per_threadgroup[3];
    uint64_t seed;
    void *context;
    void (*accessed)(void *context, uint32_t memory, Use use, uint64_t start, uint64_t end);
    uint64_t fault_count;
    Fault faults[max_faults];
};

}  // namespace emulator
