// Exact accesses and races.
#include "shadow.h"
#include <string.h>
#include <sys/mman.h>

namespace emulator {

namespace {

constexpr uint32_t max_memories = 256;
constexpr uint32_t max_races = 4;
constexpr uint32_t widest_cell = 2;  // four bytes

ShadowedMemory memories[max_memories];
uint32_t memory_count;
ShadowedMemory *last_found;

void *map_zeroed(uint64_t bytes) {
    void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) __builtin_trap();
    return at;
}

uint64_t page_count(const ShadowedMemory &memory) { return (memory.length >> page_shift) + 1; }

}  // namespace

// The cells must be no wider than this access: an offset or a length, or both combined by `|`.
static uint32_t width_for(uint64_t access) {
    uint32_t zeros = __builtin_ctzll(access | 1u << widest_cell);
    return zeros < widest_cell ? zeros : widest_cell;
}

void ShadowedMemory::map(uint64_t first_access) {
    shift = width_for(first_access);
    cells = static_cast<Cell *>(map_zeroed(cell_count() * sizeof(Cell)));
    touched = static_cast<uint8_t *>(map_zeroed(page_count(*this)));
}

void ShadowedMemory::split(uint64_t access) {
    ShadowedMemory wide = *this;
    shift = width_for(access);
    uint32_t parts = 1u << (wide.shift - shift);
    cells = static_cast<Cell *>(map_zeroed(cell_count() * sizeof(Cell)));
    uint64_t per_page = 1u << (page_shift - wide.shift);
    for (uint64_t i = 0; i < wide.cell_count(); i++) {
        if (!touched[i / per_page]) {
            i += per_page - 1;  // to the next page
            continue;
        }
        for (uint32_t part = 0; part < parts && i * parts + part < cell_count(); part++) {
            cells[i * parts + part] = wide.cells[i];
        }
    }
    munmap(wide.cells, wide.cell_count() * sizeof(Cell));
}

void ShadowedMemory::release() {
    if (!cells) return;
    munmap(cells, cell_count() * sizeof(Cell));
    munmap(touched, page_count(*this));
}

namespace {

// Joins neighbouring pieces before they are reported.
struct Ranges {
    uint32_t memory;
    Use use;
    uint64_t start = 0, end = 0;

    void add(uint64_t from, uint64_t to) {
        if (from == end && start != end) {
            end = to;
            return;
        }
        flush();
        start = from;
        end = to;
    }
    void flush() {
        if (start != end) launch->accessed(launch->context, memory, use, start, end);
        start = end = 0;
    }
};

}  // namespace

void ShadowedMemory::report(uint32_t index) const {
    if (!cells) return;
    Ranges reads{index, Use::read}, writes{index, Use::write}, atomics{index, Use::atomic};
    uint64_t per_page = 1u << (page_shift - shift);
    for (uint64_t page = 0; page < page_count(*this); page++) {
        if (!touched[page]) continue;
        for (uint64_t i = page * per_page; i < (page + 1) * per_page && i < cell_count(); i++) {
            uint64_t start = i << shift, end = start + (1u << shift);
            if (end > length) end = length;
            if (cells[i].reads.ever_plain) reads.add(start, end);
            if (cells[i].write.ever_plain) writes.add(start, end);
            if (cells[i].write.ever_atomic) atomics.add(start, end);
        }
    }
    reads.flush();
    writes.flush();
    atomics.flush();
}

void prepare_shadow() {
    memory_count = launch->memory_count < max_memories ? launch->memory_count : max_memories;
    for (uint32_t i = 0; i < memory_count; i++) {
        const Memory &memory = launch->memories[i];
        memories[i] = {memory.address, memory.length, nullptr, nullptr, 0, memory.kind};
    }
    last_found = memories;
}

void finish_shadow() {
    for (uint32_t i = 0; i < memory_count; i++) {
        if (memories[i].kind == MemoryKind::buffer) memories[i].report(i);
        memories[i].release();
    }
    memory_count = 0;
}

inline ShadowedMemory *find_memory(uintptr_t at, uint64_t bytes) {
    if (last_found->contains(at, bytes)) return last_found;
    for (uint32_t i = 0; i < memory_count; i++) {
        if (memories[i].contains(at, bytes)) return last_found = &memories[i];
    }
    return nullptr;
}

// ---- races

namespace {

// What the current access is checked against.
struct Now {
    uint32_t time, threadgroup_start, lane, order;
    MemoryKind kind;

    explicit Now(MemoryKind kind)
        : time(clocks[uint32_t(kind)].now),
          threadgroup_start(clocks[uint32_t(kind)].threadgroup_start),
          lane(current->index),
          order(current_simdgroup().order[uint32_t(kind)] & 0xFFF),
          kind(kind) {}

    // Threadgroup memory of the threadgroups before this one is not this memory.
    bool in_other_threadgroup(uint32_t then) const { return then && then < threadgroup_start && kind == MemoryKind::buffer; }
    bool same_simdgroup(uint32_t other) const { return other / simd_width == lane / simd_width; }
    bool races_with(uint32_t then, uint32_t other, uint32_t then_order) const {
        if (then < threadgroup_start) return in_other_threadgroup(then);
        if (then != time || other == lane) return false;
        return !same_simdgroup(other) || then_order == order;
    }
};

bool races(const Now &now, const LastReads &reads) {
    if (reads.other_threadgroups && now.kind == MemoryKind::buffer) return true;
    if (reads.time != now.time || reads.readers == one_lane) {
        return reads.time && now.races_with(reads.time, reads.lane, reads.order);
    }
    return reads.readers == several_simdgroups || !now.same_simdgroup(reads.lane) || reads.order == now.order;
}

void note_read(const Now &now, LastReads &reads, bool atomic) {
    if (reads.time != now.time) {
        reads.other_threadgroups |= now.in_other_threadgroup(reads.time) && !reads.only_atomic;
        reads.time = now.time;
        reads.readers = one_lane;
        reads.only_atomic = atomic;
        reads.lane = now.lane;
        reads.order = now.order;
    } else {
        reads.only_atomic &= atomic;
        if (!now.same_simdgroup(reads.lane)) {
            reads.readers = several_simdgroups;
        } else if (reads.order != now.order) {  // what was read before the simdgroup_barrier is over for this SIMD group
            reads.lane = now.lane;
            reads.order = now.order;
        } else if (reads.lane != now.lane && reads.readers == one_lane) {
            reads.readers = one_simdgroup;
        }
    }
    reads.ever_plain |= !atomic;
}

// The thread of an earlier access, as far as its cell tells.
Thread thread_then(const Now &now, uint32_t time, uint32_t lane, bool known) {
    Thread thread = current_thread();
    if (time < now.threadgroup_start) threadgroup_at(time, thread.threadgroup);
    thread.index = known ? lane : unknown;
    return thread;
}

Remedy remedy_for(const Now &now, uint32_t time, uint32_t lane, bool known) {
    if (time < now.threadgroup_start) return Remedy::split;
    return known && now.same_simdgroup(lane) ? Remedy::simdgroup_barrier : Remedy::threadgroup_barrier;
}

// One fault for each place of the code and memory: further bytes widen it.
[[gnu::noinline, gnu::cold]] void report_race(ShadowedMemory &memory, uint64_t offset, uint64_t bytes, const void *code,
                                             Thread first, bool first_wrote, bool second_wrote, Remedy remedy) {
    uint32_t index = &memory - memories, races = 0;
    for (uint64_t i = 0; i < launch->fault_count; i++) {
        Fault &fault = launch->faults[i];
        if (fault.kind != FaultKind::race) continue;
        races++;
        if (fault.code != code || fault.memory != index) continue;
        int64_t end = fault.offset + fault.bytes, new_end = offset + bytes;
        if (int64_t(offset) < fault.offset) fault.offset = offset;
        fault.bytes = (end > new_end ? end : new_end) - fault.offset;
        return;
    }
    Fault *fault = races < max_races ? new_fault(FaultKind::race, code) : nullptr;
    if (!fault) return;
    fault->memory = index;
    fault->offset = offset;
    fault->bytes = bytes;
    fault->first = first;
    fault->first_wrote = first_wrote;
    fault->second_wrote = second_wrote;
    fault->remedy = remedy;
}

[[gnu::noinline, gnu::cold]] void race_with_write(ShadowedMemory &memory, uint64_t offset, uint64_t bytes, const void *code,
                                                 const Now &now, LastWrite then, bool wrote) {
    Thread first = thread_then(now, then.time, then.lane, true);
    report_race(memory, offset, bytes, code, first, true, wrote, remedy_for(now, then.time, then.lane, true));
}

[[gnu::noinline, gnu::cold]] void race_with_reads(ShadowedMemory &memory, uint64_t offset, uint64_t bytes, const void *code,
                                                 const Now &now, LastReads then) {
    bool elsewhere = then.other_threadgroups && !now.races_with(then.time, then.lane, then.order);
    bool known = !elsewhere && then.lane != now.lane;
    Thread first = thread_then(now, then.time, then.lane, known);
    if (elsewhere) first.threadgroup[0] = unknown;
    Remedy remedy = elsewhere ? Remedy::split : remedy_for(now, then.time, then.lane, known);
    report_race(memory, offset, bytes, code, first, false, true, remedy);
}

}  // namespace

template <bool write, bool atomic>
inline void record(ShadowedMemory &memory, uint64_t offset, uint64_t bytes, const void *code) {
    uint64_t access = offset | bytes;
    if (__builtin_expect(!memory.cells, 0)) memory.map(access);
    if (__builtin_expect(access & ((1u << memory.shift) - 1), 0)) memory.split(access);
    for (uint64_t page = offset >> page_shift; page <= (offset + bytes - 1) >> page_shift; page++) memory.touched[page] = 1;
    Now now(memory.kind);
    uint64_t end = (offset + bytes) >> memory.shift, width = 1u << memory.shift;
    for (uint64_t i = offset >> memory.shift; i < end; i++) {
        Cell &cell = memory.cells[i];
        LastWrite last = cell.write;
        if (last.time && now.races_with(last.time, last.lane, last.order) && !(atomic && last.atomic)) {
            race_with_write(memory, i << memory.shift, width, code, now, last, write);
        }
        if (write) {
            LastReads reads = cell.reads;
            if (races(now, reads) && !(atomic && reads.only_atomic)) {
                race_with_reads(memory, i << memory.shift, width, code, now, reads);
            }
            // The lane's own plain write may still race with another lane's atomic operation: keep it.
            bool keep = atomic && !last.atomic && last.time == now.time && last.lane == now.lane;
            if (!keep) {
                last.time = now.time;
                last.lane = now.lane;
                last.order = now.order;
                last.atomic = atomic;
            }
            last.ever_plain |= !atomic;
            last.ever_atomic |= atomic;
            cell.write = last;
        } else {
            note_read(now, cell.reads, atomic);
            if (atomic) cell.write.ever_atomic = true;
        }
    }
}

// ---- accesses that no memory holds

namespace {

// Pointers with these top bits are of no process: the place where arguments point to which nothing is bound.
constexpr uintptr_t unbound_base = 0xA000000000000000, unbound_kind_bit = 1ull << 59;
constexpr uint32_t unbound_slot_shift = 52;
constexpr int64_t near_limit = 1ll << 32;

void *unbound(uint32_t slot, MemoryKind kind) {
    uintptr_t middle = 1ull << (unbound_slot_shift - 1);  // so that small negative offsets stay with the slot
    uintptr_t bit = kind == MemoryKind::threadgroup ? unbound_kind_bit : 0;
    return reinterpret_cast<void *>(unbound_base | bit | uintptr_t(slot) << unbound_slot_shift | middle);
}

// Where arguments point that do not exist: NaN to read, and a fault to write.
constexpr uint32_t absent_size = 4096;
alignas(16) uint8_t absent[slot_count][absent_size];

void *argument(void *bound, uint32_t slot, MemoryKind kind, bool exists) {
    if (bound) return bound;
    if (exists) return unbound(slot, kind);
    if (absent[slot][0] != 0xFF) memset(absent[slot], 0xFF, absent_size);
    return absent[slot];
}

[[noreturn]] void not_bound(uint32_t slot, MemoryKind kind, const void *code) {
    if (Fault *fault = new_fault(FaultKind::not_bound, code)) {
        fault->slot = slot;
        fault->memory = uint32_t(kind);
    }
    abandon();
}

}  // namespace

void *buffer_argument(uint32_t slot, bool exists) {
    return argument(launch->buffers[slot], slot, MemoryKind::buffer, exists);
}

void *threadgroup_argument(uint32_t slot, bool exists) {
    return argument(launch->threadgroup[slot], slot, MemoryKind::threadgroup, exists);
}

// The linker's names for the start and the end of the library: its constants lie there.
extern "C" HIDDEN const char __ehdr_start, _end;

[[gnu::noinline]] void outside(uintptr_t at, uint64_t bytes, bool write, const void *code) {
    auto within = [at](const void *start, const void *end) {
        return at >= reinterpret_cast<uintptr_t>(start) && at < reinterpret_cast<uintptr_t>(end);
    };
    const uint8_t *const(&variables)[2] = launch->threadgroup_variables;
    if (!write && within(&__ehdr_start, &_end) && !within(variables[0], variables[1])) return;
    if ((at & 0xF000000000000000) == unbound_base) {
        bool of_threadgroup = at & unbound_kind_bit;
        not_bound(at >> unbound_slot_shift & 0x1F, of_threadgroup ? MemoryKind::threadgroup : MemoryKind::buffer, code);
    }
    if (within(absent, absent + slot_count)) {
        uint32_t slot = (at - reinterpret_cast<uintptr_t>(absent)) / absent_size;
        not_bound(slot, MemoryKind::buffer, code);
    }
    uint32_t nearest = unknown;
    int64_t distance = near_limit;
    for (uint32_t i = 0; i < memory_count; i++) {
        int64_t offset = at - reinterpret_cast<uintptr_t>(memories[i].address);
        int64_t away = offset < 0 ? -offset : offset < int64_t(memories[i].length) ? 0 : offset - memories[i].length + 1;
        if (away < distance) {
            distance = away;
            nearest = i;
        }
    }
    if (Fault *fault = new_fault(FaultKind::out_of_bounds, code)) {
        fault->memory = nearest;
        fault->offset = nearest == unknown ? 0 : at - reinterpret_cast<uintptr_t>(memories[nearest].address);
        fault->bytes = bytes;
        fault->second_wrote = write;
    }
    abandon();
}

}  // namespace emulator
