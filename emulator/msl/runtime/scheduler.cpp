// Lanes as fibers: they run until they meet at a barrier or a SIMD-group operation.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "state.h"

namespace emulator {

// The library's own initialisers run while it is loaded: all memory is private to them.
static Lane host = {nullptr, 0, ~uintptr_t(0), nullptr, 0, {}, State::ready, 0, 0};

Launch *launch;
Lane *current = &host;
Threadgroup threadgroup;
SimdGroup simdgroups[max_lanes / simd_width];
Clock clocks[2];
uint64_t atomic_writes;

namespace {

Lane lanes[max_lanes];
void *scheduler_stack;
bool over;  // a fault ended the dispatch
uint32_t threads_per_grid_in_groups[3];

// For each threadgroup that ran: what the device clock showed at its start, and which one it was.
struct Start {
    uint32_t time;
    uint32_t index;
};
Start *starts;
uint32_t start_count;

constexpr uintptr_t lane_stack_size = 256 << 10;
// A little more than the stack, so that the tops of the stacks do not share a cache set.
constexpr uintptr_t stack_pitch = lane_stack_size + 4096 + 320;
constexpr uintptr_t stack_guard = 64 << 20;  // a frame too large for a stack ends here, not in foreign memory
uint8_t *stacks;

uint64_t random_state;
// xorshift64 (Marsaglia 2003)
uint64_t random_number() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

template <class T>
void shuffle(T *items, uint32_t count) {
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = random_number() % i;
        T item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}

}  // namespace

// Saves the registers that a call preserves, changes the stack, restores.
extern "C" HIDDEN void emulator_switch(void **from, void *to);
__asm__(
    ".text\n.hidden emulator_switch\n.globl emulator_switch\n.type emulator_switch, @function\nemulator_switch:\n"
    "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size emulator_switch, .-emulator_switch\n");

[[noreturn]] void abandon() {
    over = true;
    emulator_switch(&current->stack_pointer, scheduler_stack);
    __builtin_unreachable();
}

void yield() { emulator_switch(&current->stack_pointer, scheduler_stack); }

static void wait(State state, const void *place) {
    current->state = state;
    current->place = place;
    emulator_switch(&current->stack_pointer, scheduler_stack);
}

static void lane_main() {
    launch->kernel->enter(launch->kernel->function);
    current->state = State::returned;
    threadgroup.returned++;
    emulator_switch(&current->stack_pointer, scheduler_stack);
    __builtin_unreachable();
}

// ---- what the headers ask for

Exchange exchange(const void *value, size_t size, const void *place) {
    SimdGroup &group = current_simdgroup();
    memcpy(group.slots[group.filling][current->index % simd_width].bytes, value, size);
    wait(State::waits_for_simdgroup, place);
    return {group.slots[group.filling ^ 1], group.active};
}

// metal::mem_flags
constexpr uint32_t mem_device = 1, mem_threadgroup = 2;

void barrier(BarrierScope scope, uint32_t flags, const void *place) {
    current->barrier_flags = flags;
    wait(scope == threadgroup_scope ? State::waits_for_threadgroup : State::waits_for_simdgroup, place);
    current->barrier_flags = 0;
}

uint32_t lane_in_simdgroup() { return current->index % simd_width; }

void fill(LaneValues &values) {
    const Threadgroup &group = threadgroup;
    uint32_t nominal = 1;
    for (int d = 0; d < 3; d++) {
        nominal *= launch->threads_per_threadgroup[d];
        values.thread_position_in_threadgroup[d] = current->position[d];
        values.threadgroup_position_in_grid[d] = group.position[d];
        values.thread_position_in_grid[d] = group.position[d] * launch->threads_per_threadgroup[d] + current->position[d];
        values.threads_per_threadgroup[d] = group.size[d];
        values.dispatch_threads_per_threadgroup[d] = launch->threads_per_threadgroup[d];
        values.threads_per_grid[d] = values.grid_size[d] = launch->threads_per_grid[d];
        values.threadgroups_per_grid[d] = threads_per_grid_in_groups[d];
        values.grid_origin[d] = 0;
    }
    auto scalar = [](uint32_t(&value)[3], uint32_t x) { value[0] = x, value[1] = value[2] = 0; };
    scalar(values.thread_index_in_threadgroup, current->index);
    scalar(values.simdgroup_index_in_threadgroup, current->index / simd_width);
    scalar(values.thread_index_in_simdgroup, current->index % simd_width);
    scalar(values.threads_per_simdgroup, simd_width);
    scalar(values.thread_execution_width, simd_width);
    scalar(values.simdgroups_per_threadgroup, group.simdgroup_count);
    scalar(values.dispatch_simdgroups_per_threadgroup, (nominal + simd_width - 1) / simd_width);
    scalar(values.thread_index_in_quadgroup, current->index % 4);
    scalar(values.quadgroup_index_in_threadgroup, current->index / 4);
    scalar(values.quadgroups_per_threadgroup, (group.count + 3) / 4);
}

// ---- faults

Fault *new_fault(FaultKind kind, const void *code) {
    if (launch->fault_count == max_faults) return nullptr;
    Fault &fault = launch->faults[launch->fault_count++];
    fault = {};
    fault.kind = kind;
    fault.code = code;
    fault.second = current_thread();
    return &fault;
}

Thread current_thread() {
    Thread thread;
    for (int d = 0; d < 3; d++) thread.threadgroup[d] = threadgroup.position[d];
    thread.index = current->index;
    return thread;
}

static void position_of(uint32_t index, uint32_t (&position)[3]) {
    const uint32_t *count = threads_per_grid_in_groups;
    position[0] = index % count[0];
    position[1] = index / count[0] % count[1];
    position[2] = index / count[0] / count[1];
}

void threadgroup_at(uint32_t time, uint32_t (&position)[3]) {
    uint32_t low = 0, high = start_count;  // the last start at or before `time` is in low..high
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        (starts[middle].time <= time ? low : high) = middle;
    }
    position_of(starts[low].index, position);
}

// ---- one threadgroup

static void start_lanes() {
    uint32_t count = threadgroup.count;
    threadgroup.simdgroup_count = (count + simd_width - 1) / simd_width;
    threadgroup.returned = 0;
    for (uint32_t i = 0; i < threadgroup.simdgroup_count; i++) {
        uint32_t first = i * simd_width;
        SimdGroup &group = simdgroups[i];
        group.lanes = lanes + first;
        group.count = count - first < simd_width ? count - first : simd_width;
        group.filling = 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        Lane &lane = lanes[i];
        lane.index = i;
        lane.state = State::ready;
        lane.barrier_flags = 0;
        lane.waiting_loads = 0;
        lane.position[0] = i % threadgroup.size[0];
        lane.position[1] = i / threadgroup.size[0] % threadgroup.size[1];
        lane.position[2] = i / threadgroup.size[0] / threadgroup.size[1];
        lane.stack = reinterpret_cast<uintptr_t>(stacks + stack_guard + stack_pitch * i);
        lane.stack_size = lane_stack_size;
        // The stack is 8 below a multiple of 16 where a function starts; emulator_switch pops six registers first.
        void **top = reinterpret_cast<void **>((lane.stack + lane_stack_size) & ~uintptr_t(15)) - 2;
        *top = reinterpret_cast<void *>(lane_main);
        lane.stack_pointer = top - 6;
    }
}

// Lets the lanes of one place go on that wait for their SIMD group: of the place that comes first in the code, so that
// a branch is finished before what follows it.
static bool release_simdgroup(SimdGroup &group) {
    const void *place = nullptr;
    for (uint32_t i = 0; i < group.count; i++) {
        const Lane &lane = group.lanes[i];
        if (lane.state == State::ready) return false;
        if (lane.state == State::waits_for_simdgroup && (!place || lane.place < place)) place = lane.place;
    }
    if (!place) return false;
    group.filling ^= 1;  // what was filled becomes readable
    group.active = 0;
    uint32_t flags = 0;
    for (uint32_t i = 0; i < group.count; i++) {
        Lane &lane = group.lanes[i];
        if (lane.state != State::waits_for_simdgroup) continue;
        if (lane.place == place) {
            group.active |= 1u << i;
            flags |= lane.barrier_flags;
            lane.state = State::ready;
        } else {
            group.slots[group.filling][i] = group.slots[group.filling ^ 1][i];  // still waits with its value
        }
    }
    if (flags & mem_device) group.order[uint32_t(MemoryKind::buffer)]++;
    if (flags & mem_threadgroup) group.order[uint32_t(MemoryKind::threadgroup)]++;
    return true;
}

// Runs each lane that can run once, as far as it gets; `true` if one got to another state.
static bool run_ready_lanes(SimdGroup &group) {
    uint8_t order[simd_width];
    for (uint32_t i = 0; i < group.count; i++) order[i] = i;
    if (launch->seed) shuffle(order, group.count);
    bool changed = false;
    for (uint32_t i = 0; i < group.count; i++) {
        Lane &lane = group.lanes[order[i]];
        if (lane.state != State::ready) continue;
        current = &lane;
        emulator_switch(&scheduler_stack, lane.stack_pointer);
        if (over) return true;
        changed |= lane.state != State::ready;
    }
    return changed;
}

// Runs a SIMD group for some rounds: until all its lanes wait for the threadgroup or have returned, or have nothing to
// do but wait for other lanes' atomic operations.
static bool run_simdgroup(SimdGroup &group, uint32_t rounds) {
    bool changed = false;
    while (rounds-- && !over) {
        bool moved = run_ready_lanes(group);
        moved |= release_simdgroup(group);
        changed |= moved;
        if (!moved) break;
    }
    return changed;
}

// Lets all lanes go on that wait at the barrier; all others have returned.
static void release_threadgroup() {
    Lane *first = nullptr;
    uint32_t at_first = 0, flags = 0;
    for (uint32_t i = 0; i < threadgroup.count; i++) {
        Lane &lane = lanes[i];
        if (lane.state != State::waits_for_threadgroup) continue;
        if (!first) first = &lane;
        at_first += lane.place == first->place;
        flags |= lane.barrier_flags;
        lane.state = State::ready;
    }
    if (flags & mem_device) clocks[uint32_t(MemoryKind::buffer)].now++;
    if (flags & mem_threadgroup) clocks[uint32_t(MemoryKind::threadgroup)].now++;
    if (at_first == threadgroup.count) return;
    for (uint64_t i = 0; i < launch->fault_count; i++) {
        if (launch->faults[i].code == first->place) return;  // said before
    }
    current = first;
    if (Fault *fault = new_fault(FaultKind::divergent_barrier, first->place)) {
        fault->bytes = at_first;
        fault->returned = threadgroup.returned;
        fault->lanes = threadgroup.count;
    }
}

constexpr uint32_t rounds_without_change = 1000;
constexpr uint32_t all_rounds = ~0u;

static void run_threadgroup() {
    start_lanes();
    uint8_t order[max_lanes / simd_width];
    for (uint32_t i = 0; i < threadgroup.simdgroup_count; i++) order[i] = i;
    uint32_t idle = 0;
    while (threadgroup.returned < threadgroup.count) {
        uint32_t rounds = all_rounds;
        if (launch->seed) {
            shuffle(order, threadgroup.simdgroup_count);
            if (random_number() & 1) rounds = 1 + random_number() % 4;  // SIMD groups in turns, none runs far ahead
        }
        uint64_t writes_before = atomic_writes;
        bool changed = false;
        for (uint32_t i = 0; i < threadgroup.simdgroup_count; i++) {
            changed |= run_simdgroup(simdgroups[order[i]], rounds);
            if (over) return;
        }
        uint32_t waiting = 0;
        for (uint32_t i = 0; i < threadgroup.count; i++) waiting += lanes[i].state == State::waits_for_threadgroup;
        if (waiting && waiting + threadgroup.returned == threadgroup.count) {
            release_threadgroup();
            changed = true;
        }
        idle = changed || atomic_writes != writes_before ? 0 : idle + 1;
        if (idle == rounds_without_change) {
            new_fault(FaultKind::deadlock, current->place);
            over = true;
            return;
        }
    }
}

// ---- a launch

// What src/rewrite/tables.rs appends to each source.
extern "C" const FunctionConstant emulator_constants[];
extern "C" const uint32_t emulator_constant_count;
extern "C" HIDDEN void emulator_derive_constants();

// Uninitialised threadgroup memory is NaN, so that its use shows.
static void poison_threadgroup_memory() {
    for (uint64_t i = 0; i < launch->memory_count; i++) {
        const Memory &memory = launch->memories[i];
        if (memory.kind == MemoryKind::threadgroup) memset(memory.address, 0xFF, memory.length);
    }
}

static void enter_threadgroup(uint32_t index) {
    position_of(index, threadgroup.position);
    threadgroup.count = 1;
    for (int d = 0; d < 3; d++) {
        uint32_t size = launch->threads_per_threadgroup[d];
        uint32_t left = launch->threads_per_grid[d] - threadgroup.position[d] * size;
        threadgroup.size[d] = left < size ? left : size;
        threadgroup.count *= threadgroup.size[d];
    }
    for (Clock &clock : clocks) clock.threadgroup_start = ++clock.now;
    starts[start_count++] = {clocks[uint32_t(MemoryKind::buffer)].now, index};
    poison_threadgroup_memory();
}

static void map_stacks() {
    if (stacks) return;
    void *at = mmap(nullptr, stack_guard + stack_pitch * max_lanes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) __builtin_trap();
    stacks = static_cast<uint8_t *>(at);
}

__attribute__((destructor)) static void unmap_stacks() {
    if (stacks) munmap(stacks, stack_guard + stack_pitch * max_lanes);
}

static void set_function_constants() {
    for (uint32_t i = 0; i < emulator_constant_count; i++) {
        const FunctionConstant &constant = emulator_constants[i];
        memset(constant.address, 0, constant.size);
        *constant.defined = false;
        for (uint64_t j = 0; j < launch->constant_count; j++) {
            const ConstantValue &value = launch->constants[j];
            if (value.index != constant.index) continue;
            memcpy(constant.address, value.bytes, value.size < constant.size ? value.size : constant.size);
            *constant.defined = true;
        }
    }
    emulator_derive_constants();
}

static void run(Launch &to_run) {
    launch = &to_run;
    set_function_constants();
    over = false;
    random_state = to_run.seed;
    uint32_t count = 1;
    for (int d = 0; d < 3; d++) {
        uint32_t size = to_run.threads_per_threadgroup[d];
        threads_per_grid_in_groups[d] = (to_run.threads_per_grid[d] + size - 1) / size;
        count *= threads_per_grid_in_groups[d];
    }
    map_stacks();
    prepare_shadow();
    for (Clock &clock : clocks) clock = {0, 0};
    starts = static_cast<Start *>(malloc(count * sizeof(Start)));
    start_count = 0;
    uint32_t *order = static_cast<uint32_t *>(malloc(count * sizeof(uint32_t)));
    for (uint32_t i = 0; i < count; i++) order[i] = i;
    if (to_run.seed) shuffle(order, count);
    for (uint32_t i = 0; i < count && !over; i++) {
        enter_threadgroup(order[i]);
        run_threadgroup();
    }
    finish_shadow();
    free(order);
    free(starts);
    current = &host;
}

}  // namespace emulator

extern "C" __attribute__((visibility("default"))) void emulator_launch(emulator::Launch *launch) { emulator::run(*launch); }
