// What the kernels of both GPUs build on, in the words of the prelude above: numbers, shares of a row, reductions.

// Where a thread is. A team is 32 lanes that run side by side: a SIMD group, a warp.
struct Here {
    u32 group;    // of the grid
    u32 threads;  // of the group
    u32 index;    // in the group
    u32 lane;     // in the team
    u32 team;     // in the group
};

FUNCTION f32 f32_of(f32 x) {
    return x;
}
FUNCTION f32 f32_of(bf16 x) {
    return f32_of_bits(u32(x.bits) << 16);
}
FUNCTION f32 round_to(f32 x, LOCAL f32 *) {
    return x;
}
FUNCTION u32 bits_of(bf16 x) {
    return x.bits;
}
FUNCTION bf16 of_bits(u32 bits, LOCAL bf16 *) {
    bf16 x;
    x.bits = bits;
    return x;
}

// To nearest even.
template <typename T>
FUNCTION T rounded(f32 x) {
    return round_to(x, (LOCAL T *)0);
}

FUNCTION f32 infinity() {
    return f32_of_bits(0x7f800000u);
}
FUNCTION f32 not_a_number() {
    return f32_of_bits(0x7fc00000u);
}
// exp(a - b), where both may be -inf: what has seen nothing weighs nothing.
FUNCTION f32 weight_of(f32 a, f32 b) {
    return a == -infinity() ? 0.0f : exp_of(a - b);
}

// Eight successive elements at an address that is a multiple of 16 bytes.
FUNCTION void load_8(const GLOBAL f32 *from, LOCAL f32 *to) {
    const GLOBAL uint4 *words = (const GLOBAL uint4 *)from;
    const uint4 a = words[0], b = words[1];
    to[0] = f32_of_bits(a.x), to[1] = f32_of_bits(a.y), to[2] = f32_of_bits(a.z), to[3] = f32_of_bits(a.w);
    to[4] = f32_of_bits(b.x), to[5] = f32_of_bits(b.y), to[6] = f32_of_bits(b.z), to[7] = f32_of_bits(b.w);
}
FUNCTION void store_8(const LOCAL f32 *from, GLOBAL f32 *to) {
    GLOBAL uint4 *words = (GLOBAL uint4 *)to;
    uint4 a, b;
    a.x = bits_of(from[0]), a.y = bits_of(from[1]), a.z = bits_of(from[2]), a.w = bits_of(from[3]);
    b.x = bits_of(from[4]), b.y = bits_of(from[5]), b.z = bits_of(from[6]), b.w = bits_of(from[7]);
    words[0] = a;
    words[1] = b;
}

// Two elements of 16 bits in a word, the first in its lower half.
template <typename T>
FUNCTION void unpack_2(u32 word, LOCAL f32 *to) {
    to[0] = f32_of(of_bits(word & 0xffffu, (LOCAL T *)0));
    to[1] = f32_of(of_bits(word >> 16, (LOCAL T *)0));
}
template <typename T>
FUNCTION u32 pack_2(const LOCAL f32 *from) {
    return bits_of(rounded<T>(from[0])) | bits_of(rounded<T>(from[1])) << 16;
}
template <typename T>
FUNCTION void load_8(const GLOBAL T *from, LOCAL f32 *to) {
    const uint4 words = *(const GLOBAL uint4 *)from;
    unpack_2<T>(words.x, to), unpack_2<T>(words.y, to + 2), unpack_2<T>(words.z, to + 4), unpack_2<T>(words.w, to + 6);
}
template <typename T>
FUNCTION void store_8(const LOCAL f32 *from, GLOBAL T *to) {
    uint4 words;
    words.x = pack_2<T>(from), words.y = pack_2<T>(from + 2), words.z = pack_2<T>(from + 4);
    words.w = pack_2<T>(from + 6);
    *(GLOBAL uint4 *)to = words;
}

// A lane's share of a row is eight elements. WIDE: they lie side by side, and go as 16 bytes at once; the row has a
// multiple of eight elements, at an address that is a multiple of 16 bytes. Else the lanes' elements alternate.
template <bool WIDE>
FUNCTION u32 place_of(u32 element, u32 lane, u32 lanes) {
    return WIDE ? lane * 8 + element : element * lanes + lane;
}

// A lane's share of a row of `count` elements; what is beyond the end is `fill`. WIDE: a share that has one of the
// elements is read whole.
template <typename T, bool WIDE>
FUNCTION void load_share(const GLOBAL T *row, u32 lane, u32 lanes, u32 count, f32 fill, LOCAL f32 *share) {
    if (WIDE) {
        if (lane * 8 < count) {
            load_8(row + lane * 8, share);
        } else {
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                share[i] = fill;
            }
        }
    } else {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 at = place_of<WIDE>(i, lane, lanes);
            share[i] = at < count ? f32_of(row[at]) : fill;
        }
    }
}

template <typename T, bool WIDE>
FUNCTION void store_share(const LOCAL f32 *share, GLOBAL T *row, u32 lane, u32 lanes, u32 count) {
    if (WIDE) {
        if (lane * 8 < count) {
            store_8(share, row + lane * 8);
        }
    } else {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 at = place_of<WIDE>(i, lane, lanes);
            if (at < count) {
                row[at] = rounded<T>(share[i]);
            }
        }
    }
}

// Over the `lanes` (a power of two, at most 32) lanes of a team that share a row. All 32 take part.
FUNCTION f32 lanes_sum(f32 x, u32 lanes) {
    for (u32 bits = lanes / 2; bits > 0; bits /= 2) {
        x += lane_xor(x, bits);
    }
    return x;
}
FUNCTION f32 lanes_max(f32 x, u32 lanes) {
    for (u32 bits = lanes / 2; bits > 0; bits /= 2) {
        x = larger(x, lane_xor(x, bits));
    }
    return x;
}

FUNCTION u32 lanes_min(u32 x) {
    for (u32 bits = 16; bits > 0; bits /= 2) {
        const u32 other = lane_xor(x, bits);
        x = other < x ? other : x;
    }
    return x;
}

// A lane gives half of its 2 KEPT sums to the lane that keeps that half, and adds what it gets to the other half.
template <u32 KEPT>
FUNCTION void give_half(LOCAL f32 *sum, u32 lane, u32 bits) {
    const bool upper = (lane & bits) != 0;
    UNROLL
    for (u32 i = 0; i < KEPT; i++) {
        const f32 keep = upper ? sum[i + KEPT] : sum[i], give = upper ? sum[i] : sum[i + KEPT];
        sum[i] = keep + lane_xor(give, bits);
    }
}

// COUNT sums of every lane become one over all lanes: `sum[0]` of lane l is sum number l / (32 / COUNT). It takes COUNT
// exchanges or so, where one sum after the other would take five times as many.
template <u32 COUNT>
FUNCTION void reduce_sums(LOCAL f32 *sum, u32 lane) {
    if (COUNT >= 32) {
        give_half<16>(sum, lane, 16 * 32 / COUNT);
    }
    if (COUNT >= 16) {
        give_half<8>(sum, lane, 8 * 32 / COUNT);
    }
    if (COUNT >= 8) {
        give_half<4>(sum, lane, 4 * 32 / COUNT);
    }
    give_half<2>(sum, lane, 2 * 32 / COUNT);
    give_half<1>(sum, lane, 32 / COUNT);
    sum[0] = lanes_sum(sum[0], 32 / COUNT);
}

// Over all threads of the group, whose number is a multiple of 32. `parts` is group memory for one number per team.
FUNCTION f32 group_sum(f32 x, GROUP_POINTER(f32) parts, Here here) {
    x = lanes_sum(x, 32);
    if (here.lane == 0) {
        parts[here.team] = x;
    }
    group_barrier();
    const u32 teams = here.threads / 32;
    x = lanes_sum(here.lane < teams ? parts[here.lane] : 0.0f, 32);
    // The next reduction may use the same memory.
    group_barrier();
    return x;
}
FUNCTION f32 group_max(f32 x, GROUP_POINTER(f32) parts, Here here) {
    x = lanes_max(x, 32);
    if (here.lane == 0) {
        parts[here.team] = x;
    }
    group_barrier();
    const u32 teams = here.threads / 32;
    x = lanes_max(here.lane < teams ? parts[here.lane] : -infinity(), 32);
    group_barrier();
    return x;
}
