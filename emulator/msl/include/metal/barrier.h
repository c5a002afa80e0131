// Barriers (6.10.1).
#pragma once
#include "scalar.h"

namespace metal {

enum class mem_flags : uint {
    mem_none = 0,
    mem_device = 1,
    mem_threadgroup = 2,
    mem_texture = 4,
    mem_threadgroup_imageblock = 8,
    mem_object_data = 16,
};
EMULATOR_INLINE constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(uint(a) | uint(b)); }
EMULATOR_INLINE constexpr mem_flags operator&(mem_flags a, mem_flags b) { return mem_flags(uint(a) & uint(b)); }

EMULATOR_OPERATION static void threadgroup_barrier(mem_flags flags) {
    emulator::barrier(emulator::threadgroup_scope, uint(flags), __builtin_return_address(0));
}
EMULATOR_OPERATION static void simdgroup_barrier(mem_flags flags) {
    emulator::barrier(emulator::simdgroup_scope, uint(flags), __builtin_return_address(0));
}

}  // namespace metal
