// Rotary position embedding: in each head of each row, pair i turns by positions[row] frequencies[i], backward by the
// negative angle. y may be x. A second tensor may be turned beside the first by the same tables: k beside q.
struct RopeParams {
    u64 x_row;       // elements between rows of what is read
    u64 y_row;       // of what is written
    u64 other_x_row; // of the second tensor
    u64 other_y_row;
    u32 rows;
    u32 heads;
    u32 other_heads;
    u32 head;        // elements of one
    u32 rotary;      // leading elements of a head that turn
    u32 interleaved; // pairs are 2 i and 2 i + 1, not i and i + rotary / 2
    u32 block;       // heads that a group turns
    u32 blocks;      // of heads
    u32 other_blocks;
    u32 chunks;      // of a head's pairs
    u32 lanes_log2;  // threads of a group that share a row, each with the angle of one pair of the chunk
    f32 direction;   // 1 or -1
};

// A thread's pairs, from a pair of a head on: eight (WIDE) or one.
struct Pairs {
    f32 first[8];
    f32 second[8];
};
template <typename T, bool WIDE>
FUNCTION void load_pairs(const GLOBAL T *head, u32 pair, LOCAL Pairs &pairs, PARAMS_OF(RopeParams, p)) {
    if (!WIDE) {
        const u32 at = p.interleaved != 0 ? pair * 2 : pair;
        pairs.first[0] = f32_of(head[at]);
        pairs.second[0] = f32_of(head[at + (p.interleaved != 0 ? 1 : p.rotary / 2)]);
    } else if (p.interleaved == 0) {
        load_8(head + pair, pairs.first);
        load_8(head + pair + p.rotary / 2, pairs.second);
    } else {
        f32 both[16];
        load_8(head + pair * 2, both);
        load_8(head + pair * 2 + 8, both + 8);
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            pairs.first[i] = both[i * 2], pairs.second[i] = both[i * 2 + 1];
        }
    }
}
template <typename T, bool WIDE>
FUNCTION void store_pairs(const LOCAL Pairs &pairs, GLOBAL T *head, u32 pair, PARAMS_OF(RopeParams, p)) {
    if (!WIDE) {
        const u32 at = p.interleaved != 0 ? pair * 2 : pair;
        head[at] = rounded<T>(pairs.first[0]);
        head[at + (p.interleaved != 0 ? 1 : p.rotary / 2)] = rounded<T>(pairs.second[0]);
    } else if (p.interleaved == 0) {
        store_8(pairs.first, head + pair);
        store_8(pairs.second, head + pair + p.rotary / 2);
    } else {
        f32 both[16];
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            both[i * 2] = pairs.first[i], both[i * 2 + 1] = pairs.second[i];
        }
        store_8(both, head + pair * 2);
        store_8(both + 8, head + pair * 2 + 8);
    }
}

// What a thread has: the angle of one pair, and pairs to turn in some heads. Where it turns eight pairs of a head, the
// threads that share a row are for eight heads.
struct RopeShare {
    bool other;      // of the second tensor
    u32 row;
    u32 pair;        // whose angle it works out, from the chunk's first on
    u32 turns;       // the first that it turns, likewise
    u32 first_pair;
    u32 pairs;       // of the chunk
    u32 head;        // the first that it turns, and from there to the next
    u32 heads_apart;
    u32 first_head;  // of the group, and behind the last
    u32 end_head;
};
template <bool WIDE>
FUNCTION RopeShare rope_share(PARAMS_OF(RopeParams, p), Here here) {
    const u32 lanes = 1u << p.lanes_log2, lane = here.index & (lanes - 1), all_pairs = p.rotary / 2;
    const u32 heads_log2 = WIDE ? 3 : 0, threads_log2 = WIDE ? p.lanes_log2 - 3 : p.lanes_log2;
    const u32 all_blocks = p.blocks + p.other_blocks, rest = here.group / all_blocks;
    RopeShare share;
    share.other = here.group % all_blocks >= p.blocks;
    const u32 block = here.group % all_blocks - (share.other ? p.blocks : 0);
    const u32 heads = share.other ? p.other_heads : p.heads;
    share.row = rest / p.chunks * (here.threads >> p.lanes_log2) + (here.index >> p.lanes_log2);
    share.pair = lane;
    share.turns = (lane & ((1u << threads_log2) - 1)) << heads_log2;
    share.first_pair = (rest % p.chunks) << p.lanes_log2;
    share.pairs = all_pairs - share.first_pair < lanes ? all_pairs - share.first_pair : lanes;
    share.first_head = block * p.block;
    share.head = share.first_head + (lane >> threads_log2);
    share.heads_apart = 1u << heads_log2;
    share.end_head = heads - share.first_head < p.block ? heads : share.first_head + p.block;
    return share;
}

// A group has some rows, a block of heads, and a chunk of the pairs. Each thread works out one angle, and the group's
// heads are turned by them; what a thread turns first it asks for before.
template <typename T, bool WIDE>
FUNCTION void rope(
    const GLOBAL T *x, const GLOBAL u32 *positions, const GLOBAL f32 *frequencies, GLOBAL T *y,
    PARAMS_OF(RopeParams, p), GROUP_POINTER(f32) sines, GROUP_POINTER(f32) cosines, RopeShare share, Here here) {
    const bool exists = share.row < p.rows, turns = exists && share.turns < share.pairs;
    const u32 pair = share.first_pair + share.turns, each = WIDE ? 8 : 1;
    const GLOBAL T *from = x + share.row * (share.other ? p.other_x_row : p.x_row);
    GLOBAL T *to = y + share.row * (share.other ? p.other_y_row : p.y_row);
    u32 head = share.head;
    Pairs turned;
    if (turns && head < share.end_head) {
        load_pairs<T, WIDE>(from + head * p.head, pair, turned, p);
    }
    if (exists && share.pair < share.pairs) {
        const SinCos by = sin_cos(f32(positions[share.row]) * frequencies[share.first_pair + share.pair]);
        sines[here.index] = by.sin * p.direction;
        cosines[here.index] = by.cos;
    }
    group_barrier();
    const u32 angle = here.index - share.pair + share.turns;
    while (turns && head < share.end_head) {
        UNROLL
        for (u32 i = 0; i < each; i++) {
            const f32 sin = sines[angle + i], cos = cosines[angle + i], first = turned.first[i];
            turned.first[i] = first * cos - turned.second[i] * sin;
            turned.second[i] = first * sin + turned.second[i] * cos;
        }
        store_pairs<T, WIDE>(turned, to + head * p.head, pair, p);
        head += share.heads_apart;
        if (head < share.end_head) {
            load_pairs<T, WIDE>(from + head * p.head, pair, turned, p);
        }
    }
    if (exists && share.first_pair == 0 && p.rotary < p.head) {
        for (u32 other = share.first_head; other < share.end_head; other++) {
            for (u32 i = p.rotary + share.pair; i < p.head; i += 1u << p.lanes_log2) {
                to[other * p.head + i] = from[other * p.head + i];
            }
        }
    }
}

#define ROPE(suffix, T, WIDE)                                                                                  \
    KERNEL(                                                                                                    \
        rope_##suffix, 256, IN_PLACE(T, x, 0), IN(u32, positions, 1), IN(f32, frequencies, 2),                 \
        IN_PLACE(T, other_x, 3), OUT(T, y, 4), OUT(T, other_y, 5), PARAMS(RopeParams, p, 6)) {                 \
        GROUP f32 sines[256];                                                                                  \
        GROUP f32 cosines[256];                                                                                \
        const RopeShare share = rope_share<WIDE>(p, BEFORE);                                                   \
        rope<T, WIDE>(                                                                                         \
            share.other ? other_x : x, positions, frequencies, share.other ? other_y : y, p, sines, cosines,   \
            share, HERE);                                                                                      \
    }

FOR_EACH_DTYPE_AND_ACCESS(ROPE)
