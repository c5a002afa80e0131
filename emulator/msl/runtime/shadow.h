// Shadow memory: for each few bytes of a memory, who touched them last.
#pragma once
#include "state.h"

namespace emulator {

// The last write, and whether there ever was one of either sort.
struct LastWrite {
    uint64_t time : 32;  // 0: none yet
    uint64_t lane : 10;
    uint64_t order : 12;  // simdgroup_barriers of its SIMD group
    uint64_t atomic : 1;
    uint64_t ever_plain : 1;
    uint64_t ever_atomic : 1;
};

enum Readers : uint64_t { one_lane, one_simdgroup, several_simdgroups };

// The reads since the threadgroup's last barrier: one lane and how many more there are.
struct LastReads {
    uint64_t time : 32;
    uint64_t lane : 10;
    uint64_t order : 12;
    uint64_t readers : 2;
    uint64_t only_atomic : 1;
    uint64_t other_threadgroups : 1;  // plain reads in threadgroups before this one
    uint64_t ever_plain : 1;
};

struct Cell {
    LastWrite write;
    LastReads reads;
};
static_assert(sizeof(Cell) == 16);

constexpr uint32_t page_shift = 12;

// A memory with its cells. Cells are as wide as the first access needs and are split when a narrower one comes.
struct ShadowedMemory {
    uint8_t *address;
    uint64_t length;
    Cell *cells;  // mapped on first use
    uint8_t *touched;  // one byte per page of the memory
    uint32_t shift;    // a cell stands for 1 << shift bytes
    MemoryKind kind;

    bool contains(uintptr_t at, uint64_t bytes) const {
        uint64_t offset = at - reinterpret_cast<uintptr_t>(address);
        return offset < length && bytes <= length - offset;
    }
    uint64_t cell_count() const { return (length + (1u << shift) - 1) >> shift; }
    void map(uint64_t first_access);
    void split(uint64_t access);
    void release();
    void report(uint32_t index) const;
};

// The memory that holds an access, or nothing.
ShadowedMemory *find_memory(uintptr_t at, uint64_t bytes);
// Records an access inside a memory and looks for races.
template <bool write, bool atomic>
void record(ShadowedMemory &memory, uint64_t offset, uint64_t bytes, const void *code);
// An access that no memory holds: allowed to the library's own constants, else a fault that ends the dispatch.
void outside(uintptr_t at, uint64_t bytes, bool write, const void *code);

}  // namespace emulator
