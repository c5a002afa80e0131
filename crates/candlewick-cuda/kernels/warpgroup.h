// The warpgroup's matrix instruction of sm_90a, whose factors are read from shared memory: 128 threads, 64 rows.

// A factor in shared memory: rows of 64 elements, 128 bytes, whose pieces of 16 bytes are exchanged by the row's number
// modulo 8 (PTX ISA, "Matrix descriptor": 128-byte swizzle; 1024 bytes from eight rows to the next eight). Where rows go along
// the sum, the next 64 columns are so many bytes away.
FUNCTION u64 factor_at(u32 address, u32 apart = 16) {
    return u64(address >> 4 & 0x3fffu) | u64(apart >> 4) << 16 | u64(64) << 32 | u64(1) << 62;
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
// All but the last PENDING groups are done.
template <int PENDING = 0> FUNCTION void warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// The threads of a warpgroup give registers back to the block, or take more.
template <bool MORE, int REGISTERS> FUNCTION void registers_become() {
    if (MORE) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
    }
}

// s += a b for a [64, 16] and b [16, 8 TILES]: s holds tiles of 16 x 8 for each warp, as `multiply_16` does. TURNED: b's rows
// of 64 elements lie one after the other.
template <int TILES> struct Warpgroup;

#define FRAGMENT(i) "+f"(s[i].x), "+f"(s[i].y), "+f"(s[i].z), "+f"(s[i].w)
#define MULTIPLY(N, TYPE, REGISTERS, A, B, TURN, ...)                                                        \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" REGISTERS "}, %" #A ", %" #B \
                 ", 1, 1, 1, 0, %" #TURN ";"                                                                 \
                 : __VA_ARGS__                                                                               \
                 : "l"(a), "l"(b), "n"(TURNED ? 1 : 0))
#define WARPGROUP(TILES, N, REGISTERS, A, B, TURN, ...)                                                        \
    template <> struct Warpgroup<TILES> {                                                                      \
        template <bool TURNED = false> static FUNCTION void multiply(float4 (&s)[TILES], u64 a, u64 b, bf16) { \
            MULTIPLY(N, "bf16", REGISTERS, A, B, TURN, __VA_ARGS__);                                           \
        }                                                                                                      \
        template <bool TURNED = false> static FUNCTION void multiply(float4 (&s)[TILES], u64 a, u64 b, f16) {  \
            MULTIPLY(N, "f16", REGISTERS, A, B, TURN, __VA_ARGS__);                                            \
        }                                                                                                      \
    };

#define REGISTERS_4 "%0, %1, %2, %3"
#define REGISTERS_8 REGISTERS_4 ", %4, %5, %6, %7"
#define REGISTERS_12 REGISTERS_8 ", %8, %9, %10, %11"
#define REGISTERS_16 REGISTERS_12 ", %12, %13, %14, %15"
#define REGISTERS_20 REGISTERS_16 ", %16, %17, %18, %19"
#define REGISTERS_24 REGISTERS_20 ", %20, %21, %22, %23"
#define REGISTERS_28 REGISTERS_24 ", %24, %25, %26, %27"
#define REGISTERS_32 REGISTERS_28 ", %28, %29, %30, %31"
#define REGISTERS_36 REGISTERS_32 ", %32, %33, %34, %35"
#define REGISTERS_40 REGISTERS_36 ", %36, %37, %38, %39"
#define REGISTERS_44 REGISTERS_40 ", %40, %41, %42, %43"
#define REGISTERS_48 REGISTERS_44 ", %44, %45, %46, %47"
#define REGISTERS_52 REGISTERS_48 ", %48, %49, %50, %51"
#define REGISTERS_56 REGISTERS_52 ", %52, %53, %54, %55"
#define REGISTERS_60 REGISTERS_56 ", %56, %57, %58, %59"
#define REGISTERS_64 REGISTERS_60 ", %60, %61, %62, %63"
#define REGISTERS_68 REGISTERS_64 ", %64, %65, %66, %67"
#define REGISTERS_72 REGISTERS_68 ", %68, %69, %70, %71"
#define REGISTERS_76 REGISTERS_72 ", %72, %73, %74, %75"
#define REGISTERS_80 REGISTERS_76 ", %76, %77, %78, %79"
#define REGISTERS_84 REGISTERS_80 ", %80, %81, %82, %83"
#define REGISTERS_88 REGISTERS_84 ", %84, %85, %86, %87"
#define REGISTERS_92 REGISTERS_88 ", %88, %89, %90, %91"
#define REGISTERS_96 REGISTERS_92 ", %92, %93, %94, %95"
#define REGISTERS_100 REGISTERS_96 ", %96, %97, %98, %99"
#define REGISTERS_104 REGISTERS_100 ", %100, %101, %102, %103"
#define REGISTERS_108 REGISTERS_104 ", %104, %105, %106, %107"
#define REGISTERS_112 REGISTERS_108 ", %108, %109, %110, %111"
#define REGISTERS_116 REGISTERS_112 ", %112, %113, %114, %115"
#define REGISTERS_120 REGISTERS_116 ", %116, %117, %118, %119"
#define REGISTERS_124 REGISTERS_120 ", %120, %121, %122, %123"
#define REGISTERS_128 REGISTERS_124 ", %124, %125, %126, %127"
#define FRAGMENTS_1 FRAGMENT(0)
#define FRAGMENTS_2 FRAGMENTS_1, FRAGMENT(1)
#define FRAGMENTS_3 FRAGMENTS_2, FRAGMENT(2)
#define FRAGMENTS_4 FRAGMENTS_3, FRAGMENT(3)
#define FRAGMENTS_5 FRAGMENTS_4, FRAGMENT(4)
#define FRAGMENTS_6 FRAGMENTS_5, FRAGMENT(5)
#define FRAGMENTS_7 FRAGMENTS_6, FRAGMENT(6)
#define FRAGMENTS_8 FRAGMENTS_7, FRAGMENT(7)
#define FRAGMENTS_9 FRAGMENTS_8, FRAGMENT(8)
#define FRAGMENTS_10 FRAGMENTS_9, FRAGMENT(9)
#define FRAGMENTS_11 FRAGMENTS_10, FRAGMENT(10)
#define FRAGMENTS_12 FRAGMENTS_11, FRAGMENT(11)
#define FRAGMENTS_13 FRAGMENTS_12, FRAGMENT(12)
#define FRAGMENTS_14 FRAGMENTS_13, FRAGMENT(13)
#define FRAGMENTS_15 FRAGMENTS_14, FRAGMENT(14)
#define FRAGMENTS_16 FRAGMENTS_15, FRAGMENT(15)
#define FRAGMENTS_17 FRAGMENTS_16, FRAGMENT(16)
#define FRAGMENTS_18 FRAGMENTS_17, FRAGMENT(17)
#define FRAGMENTS_19 FRAGMENTS_18, FRAGMENT(18)
#define FRAGMENTS_20 FRAGMENTS_19, FRAGMENT(19)
#define FRAGMENTS_21 FRAGMENTS_20, FRAGMENT(20)
#define FRAGMENTS_22 FRAGMENTS_21, FRAGMENT(21)
#define FRAGMENTS_23 FRAGMENTS_22, FRAGMENT(22)
#define FRAGMENTS_24 FRAGMENTS_23, FRAGMENT(23)
#define FRAGMENTS_25 FRAGMENTS_24, FRAGMENT(24)
#define FRAGMENTS_26 FRAGMENTS_25, FRAGMENT(25)
#define FRAGMENTS_27 FRAGMENTS_26, FRAGMENT(26)
#define FRAGMENTS_28 FRAGMENTS_27, FRAGMENT(27)
#define FRAGMENTS_29 FRAGMENTS_28, FRAGMENT(28)
#define FRAGMENTS_30 FRAGMENTS_29, FRAGMENT(29)
#define FRAGMENTS_31 FRAGMENTS_30, FRAGMENT(30)
#define FRAGMENTS_32 FRAGMENTS_31, FRAGMENT(31)

WARPGROUP(1, 8, REGISTERS_4, 4, 5, 6, FRAGMENTS_1)
WARPGROUP(2, 16, REGISTERS_8, 8, 9, 10, FRAGMENTS_2)
WARPGROUP(3, 24, REGISTERS_12, 12, 13, 14, FRAGMENTS_3)
WARPGROUP(4, 32, REGISTERS_16, 16, 17, 18, FRAGMENTS_4)
WARPGROUP(5, 40, REGISTERS_20, 20, 21, 22, FRAGMENTS_5)
WARPGROUP(6, 48, REGISTERS_24, 24, 25, 26, FRAGMENTS_6)
WARPGROUP(7, 56, REGISTERS_28, 28, 29, 30, FRAGMENTS_7)
WARPGROUP(8, 64, REGISTERS_32, 32, 33, 34, FRAGMENTS_8)
WARPGROUP(9, 72, REGISTERS_36, 36, 37, 38, FRAGMENTS_9)
WARPGROUP(10, 80, REGISTERS_40, 40, 41, 42, FRAGMENTS_10)
WARPGROUP(11, 88, REGISTERS_44, 44, 45, 46, FRAGMENTS_11)
WARPGROUP(12, 96, REGISTERS_48, 48, 49, 50, FRAGMENTS_12)
WARPGROUP(13, 104, REGISTERS_52, 52, 53, 54, FRAGMENTS_13)
WARPGROUP(14, 112, REGISTERS_56, 56, 57, 58, FRAGMENTS_14)
WARPGROUP(15, 120, REGISTERS_60, 60, 61, 62, FRAGMENTS_15)
WARPGROUP(16, 128, REGISTERS_64, 64, 65, 66, FRAGMENTS_16)
WARPGROUP(17, 136, REGISTERS_68, 68, 69, 70, FRAGMENTS_17)
WARPGROUP(18, 144, REGISTERS_72, 72, 73, 74, FRAGMENTS_18)
WARPGROUP(19, 152, REGISTERS_76, 76, 77, 78, FRAGMENTS_19)
WARPGROUP(20, 160, REGISTERS_80, 80, 81, 82, FRAGMENTS_20)
WARPGROUP(21, 168, REGISTERS_84, 84, 85, 86, FRAGMENTS_21)
WARPGROUP(22, 176, REGISTERS_88, 88, 89, 90, FRAGMENTS_22)
WARPGROUP(23, 184, REGISTERS_92, 92, 93, 94, FRAGMENTS_23)
WARPGROUP(24, 192, REGISTERS_96, 96, 97, 98, FRAGMENTS_24)
WARPGROUP(25, 200, REGISTERS_100, 100, 101, 102, FRAGMENTS_25)
WARPGROUP(26, 208, REGISTERS_104, 104, 105, 106, FRAGMENTS_26)
WARPGROUP(27, 216, REGISTERS_108, 108, 109, 110, FRAGMENTS_27)
WARPGROUP(28, 224, REGISTERS_112, 112, 113, 114, FRAGMENTS_28)
WARPGROUP(29, 232, REGISTERS_116, 116, 117, 118, FRAGMENTS_29)
WARPGROUP(30, 240, REGISTERS_120, 120, 121, 122, FRAGMENTS_30)
WARPGROUP(31, 248, REGISTERS_124, 124, 125, 126, FRAGMENTS_31)
WARPGROUP(32, 256, REGISTERS_128, 128, 129, 130, FRAGMENTS_32)
