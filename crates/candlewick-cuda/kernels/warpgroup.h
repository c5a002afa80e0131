// The warpgroup's matrix instruction of sm_90a, whose factors are read from shared memory: 128 threads, 64 rows.

// A factor in shared memory: rows of 64 elements, 128 bytes, whose pieces of 16 bytes are exchanged by the row's number
// modulo 8 (PTX ISA, "Matrix descriptor": 128-byte swizzle; 1024 bytes from eight rows to the next eight).
FUNCTION u64 factor_at(u32 address) {
    return u64(address >> 4 & 0x3fffu) | u64(1) << 16 | u64(64) << 32 | u64(1) << 62;
}

// What was written to shared memory is seen by the instruction; call it before the barrier.
FUNCTION void shared_to_warpgroup() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
FUNCTION void warpgroup_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
FUNCTION void warpgroup_end_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
FUNCTION void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// s += a b for a [64, 16] and b [16, 8 TILES]: s holds tiles of 16 x 8 for each warp, as `multiply_16` does.
template <int TILES> struct Warpgroup;

#define FRAGMENT(i) "+f"(s[i].x), "+f"(s[i].y), "+f"(s[i].z), "+f"(s[i].w)
#define MULTIPLY(N, TYPE, REGISTERS, A, B, ...)                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" REGISTERS "}, %" #A ", %" #B \
                 ", 1, 1, 1, 0, 0;"                                                                          \
                 : __VA_ARGS__                                                                               \
                 : "l"(a), "l"(b))
#define WARPGROUP(TILES, N, REGISTERS, A, B, ...)                                            \
    template <> struct Warpgroup<TILES> {                                                    \
        static FUNCTION void multiply(float4 (&s)[TILES], u64 a, u64 b, bf16) {              \
            MULTIPLY(N, "bf16", REGISTERS, A, B, __VA_ARGS__);                               \
        }                                                                                    \
        static FUNCTION void multiply(float4 (&s)[TILES], u64 a, u64 b, f16) {               \
            MULTIPLY(N, "f16", REGISTERS, A, B, __VA_ARGS__);                                \
        }                                                                                    \
    };

#define REGISTERS_24 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, " \
    "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23"
#define REGISTERS_32 REGISTERS_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_40 REGISTERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define REGISTERS_44 REGISTERS_40 ", %40, %41, %42, %43"
#define REGISTERS_48 REGISTERS_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define REGISTERS_56 REGISTERS_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define REGISTERS_64 REGISTERS_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_72 REGISTERS_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define REGISTERS_80 REGISTERS_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define FRAGMENTS_6 FRAGMENT(0), FRAGMENT(1), FRAGMENT(2), FRAGMENT(3), FRAGMENT(4), FRAGMENT(5)
#define FRAGMENTS_8 FRAGMENTS_6, FRAGMENT(6), FRAGMENT(7)
#define FRAGMENTS_10 FRAGMENTS_8, FRAGMENT(8), FRAGMENT(9)
#define FRAGMENTS_11 FRAGMENTS_10, FRAGMENT(10)
#define FRAGMENTS_12 FRAGMENTS_10, FRAGMENT(10), FRAGMENT(11)
#define FRAGMENTS_14 FRAGMENTS_12, FRAGMENT(12), FRAGMENT(13)
#define FRAGMENTS_16 FRAGMENTS_14, FRAGMENT(14), FRAGMENT(15)
#define FRAGMENTS_18 FRAGMENTS_16, FRAGMENT(16), FRAGMENT(17)
#define FRAGMENTS_20 FRAGMENTS_18, FRAGMENT(18), FRAGMENT(19)

WARPGROUP(6, 48, REGISTERS_24, 24, 25, FRAGMENTS_6)
WARPGROUP(8, 64, REGISTERS_32, 32, 33, FRAGMENTS_8)
WARPGROUP(10, 80, REGISTERS_40, 40, 41, FRAGMENTS_10)
WARPGROUP(11, 88, REGISTERS_44, 44, 45, FRAGMENTS_11)
WARPGROUP(12, 96, REGISTERS_48, 48, 49, FRAGMENTS_12)
WARPGROUP(14, 112, REGISTERS_56, 56, 57, FRAGMENTS_14)
WARPGROUP(16, 128, REGISTERS_64, 64, 65, FRAGMENTS_16)
WARPGROUP(18, 144, REGISTERS_72, 72, 73, FRAGMENTS_18)
WARPGROUP(20, 160, REGISTERS_80, 80, 81, FRAGMENTS_20)
