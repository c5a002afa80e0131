// Copies of tiles by the tensor memory accelerator of sm_90a, and the barriers in shared memory that they complete.

// A tensor's address, sizes and strides, and the tile that is copied at a time, as the driver encodes them
// (cuTensorMapEncodeTiled).
struct __align__(64) TensorMap {
    u64 words[16];
};

// A barrier's phase is over once `arrivals` have arrived and the announced bytes are there.
FUNCTION void barrier_start(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// What was started is seen by copies and by the cluster's blocks, once they have met.
FUNCTION void barriers_started() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Arrives, and announces bytes.
FUNCTION void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
FUNCTION void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Waits for the end of the first phase (parity 0), the second (1), the third (0) ..
FUNCTION void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{ .reg .pred done; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra AGAIN; }"
        ::"r"(barrier), "r"(parity)
        : "memory");
}

// Where in a ring of slices someone is, and the parity of the phase of its barriers. Who fills them begins as if each had
// been emptied: with parity 1.
template <int STAGES> struct RingPlace {
    u32 slot, parity;

    FUNCTION void next() {
        slot++;
        if (slot == STAGES) {
            slot = 0, parity ^= 1;
        }
    }
};

FUNCTION void prefetch_map(const TensorMap &map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// The tile that begins at (along, line); what is outside the tensor is zero.
FUNCTION void copy_tile(u32 to, const TensorMap &map, u32 along, u32 line, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
        ::"r"(to), "l"(&map), "r"(along), "r"(line), "r"(barrier)
        : "memory");
}
// The same for both blocks of a cluster of two: to this place in each, where a barrier at this place counts it.
FUNCTION void copy_tile_to_both(u32 to, const TensorMap &map, u32 along, u32 line, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%2, %3}], [%4], %5;"
        ::"r"(to), "l"(&map), "r"(along), "r"(line), "r"(barrier), "h"(u16(3))
        : "memory");
}
// Bytes side by side.
FUNCTION void copy_bytes(u32 to, const void *from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

// A number that other blocks wait for: what was written before `announce` is seen after `await`, by copies too.
FUNCTION void announce(u32 *number) {
    asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(number) : "memory");
}
FUNCTION void await(const u32 *number) {
    u32 announced = 0;
    while (announced == 0) {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(announced) : "l"(number) : "memory");
    }
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

// The blocks of a cluster have come so far. It orders what was started, and nothing else.
FUNCTION void cluster_meet() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;" ::: "memory");
}
// The same place in another block's shared memory.
FUNCTION u32 address_in_block(u32 address, u32 block) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(block));
    return there;
}
// Arrives at a barrier of another block. It orders nothing but what the block itself does: with `.release.cluster` it would
// wait for a fence of the whole GPU.
FUNCTION void barrier_arrive_in_block(u32 barrier_there) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier_there) : "memory");
}
// To an address in another block, one of whose barriers counts the 16 bytes: a barrier of the cluster would have to
// order the writes before it, which costs a fence of the whole GPU.
FUNCTION void send_to_block(u32 there, u32 barrier_there, float4 x) {
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, [%1];"
        ::"r"(there), "r"(barrier_there), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
        : "memory");
}
// THREADS of the block wait for each other at one of its 16 barriers.
template <int THREADS> FUNCTION void threads_wait(int barrier) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}
