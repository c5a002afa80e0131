// What the hardware does and C++ has no word for, as functions; no header is needed. sm_80 and later; what is sm_90's
// own is empty before it, and its kernels are not made there.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
// As the shared kernels call them, for what is taken from there.
typedef long long i64;
typedef float f32;

#define FUNCTION __device__ __forceinline__
#define UNROLL _Pragma("unroll")

struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

FUNCTION u32 bits_of(f32 x) {
    return __float_as_uint(x);
}
FUNCTION f32 f32_of_bits(u32 bits) {
    return __uint_as_float(bits);
}
FUNCTION float f32_of(f16 x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
FUNCTION float f32_of(bf16 x) {
    return __uint_as_float(u32(x.bits) << 16);
}
// To nearest even: one, and two side by side, the first in the lower half.
FUNCTION void round_to(float x, f16 &to) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}
FUNCTION void round_to(float x, bf16 &to) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x));
}
FUNCTION u32 round_2_to(float x, float y, f16) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}
FUNCTION u32 round_2_to(float x, float y, bf16) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(y), "f"(x));
    return pair;
}
template <typename T> FUNCTION u32 round_2(float x, float y) {
    return round_2_to(x, y, T());
}
// tf32 has the exponent of f32 and 11 bits: every f16 and bf16 is one.
FUNCTION u32 tf32_of(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// Addresses in shared memory are 32-bit numbers.
FUNCTION u32 shared_address(const void *pointer) {
    return u32(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory while the thread goes on: `bytes` of them are read, the others are zero.
FUNCTION void copy_16(u32 to, const void *from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// Copies are waited for in groups: all but the last PENDING groups have arrived.
FUNCTION void copies_end_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int PENDING> FUNCTION void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
FUNCTION void copies_wait_all() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// Four 8x8 matrices of 16-bit elements; each lane gives the address of a row. TURNED: each is transposed on the way.
template <bool TURNED> FUNCTION void load_4(u32 address, u32 &a, u32 &b, u32 &c, u32 &d) {
    if (TURNED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                     : "r"(address)
                     : "memory");
    }
}
template <bool TURNED> FUNCTION void load_2(u32 address, u32 &a, u32 &b) {
    if (TURNED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(a), "=r"(b)
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(a), "=r"(b)
                     : "r"(address)
                     : "memory");
    }
}

// An 8x8 matrix of 16-bit elements, transposed: lane 4 g + t has elements 2 t and 2 t + 1 of row g, before and after.
FUNCTION u32 transposed(u32 pair) {
    u32 other;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(other) : "r"(pair));
    return other;
}

// c += a b for a [16, 16] and b [16, 8], one warp. With lane = 4 g + t, c holds (g, 2t), (g, 2t + 1), (g + 8, 2t),
// (g + 8, 2t + 1).
FUNCTION void multiply_16(float4 &c, const u32 a[4], const u32 b[2], bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c.x), "+f"(c.y), "+f"(c.z), "+f"(c.w)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
FUNCTION void multiply_16(float4 &c, const u32 a[4], const u32 b[2], f16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c.x), "+f"(c.y), "+f"(c.z), "+f"(c.w)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same in tf32 for a [16, 8]: a holds (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); b holds (t, g), (t + 4, g).
FUNCTION void multiply_8(float4 &c, const u32 a[4], const u32 b[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c.x), "+f"(c.y), "+f"(c.z), "+f"(c.w)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Programmatic dependent launch: what was launched before is done and seen. Then the next launch may start its blocks,
// which wait here in turn.
FUNCTION void wait_for_earlier_launches() {
#ifdef DEPENDENT_LAUNCH
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// A cluster's blocks run side by side and write each other's shared memory.
FUNCTION u32 block_of_cluster() {
    u32 rank = 0;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}
FUNCTION u32 blocks_of_cluster() {
    u32 blocks = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
#endif
    return blocks;
}
FUNCTION void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
FUNCTION void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// To the same place in another block's shared memory.
FUNCTION void store_in_block(u32 address, u32 block, float4 x) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; "
        "st.shared::cluster.v4.f32 [there], {%2, %3, %4, %5}; }"
        ::"r"(address), "r"(block), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
        : "memory");
#endif
}
