// What the kernels of attention share: which keys a query sees, and tiles of 32 rows by 32 columns in group memory, on
// which 128 threads work, each on four rows by two columns.

struct AttentionParams {
    u64 q_row;        // elements between rows of q and dq
    u64 k_row;        // of k and dk
    u64 v_row;        // of v and dv
    u64 y_row;        // of y and dy
    u32 queries;
    u32 keys;
    u32 sequences;
    u32 heads;        // of q
    u32 kv_heads;
    u32 group;        // heads of q that share a head of k and v
    u32 head;         // elements of a head
    u32 causal;
    u32 tiles;        // of queries
    u32 tile_queries; // of a tile, whose rows are these queries by
    u32 tile_heads;   // so many heads; decode: of a group
    u32 head_blocks;  // that the heads of a head of k and v are cut into
    u32 columns;      // blocks that the columns of a head are cut into
    u32 ahead;        // decode: no kernel ahead writes the spans
    u32 splits;       // decode: groups that share the keys of a query
    f32 scale;
};

// Keys begin..end.
struct Seen {
    u32 begin;
    u32 end;
};
FUNCTION u32 at_most(u32 x, u32 most) {
    return x < most ? x : most;
}

// What a query sees: in the first span that it is in. All lanes of a team ask for the same query; they look at 32 spans
// at a time, so any number of sequences will do, and the time grows by a step for every 32 of them.
FUNCTION Seen keys_of(const GLOBAL u32 *spans, PARAMS_OF(AttentionParams, p), u32 query, u32 lane) {
    const u32 none = 0xffffffffu;
    u32 found = none;
    NO_UNROLL
    for (u32 i = lane; i < p.sequences && found == none; i += 32) {
        const u32 first = at_most(spans[u64(i) * 4], p.queries);
        const u32 count = at_most(spans[u64(i) * 4 + 1], p.queries - first);
        found = query >= first && query - first < count ? i : none;
    }
    found = lanes_min(found);
    Seen seen;
    seen.begin = 0;
    seen.end = 0;
    if (found != none) {
        const GLOBAL u32 *span = spans + u64(found) * 4;
        const u32 first = at_most(span[0], p.queries), count = at_most(span[1], p.queries - first);
        const u32 key = at_most(span[2], p.keys), keys = at_most(span[3], p.keys - key);
        const u32 up_to = query - first + 1 + keys;
        seen.begin = key;
        seen.end = key + (p.causal == 0 ? keys : up_to > count ? up_to - count : 0);
    }
    return seen;
}

// A score that nothing weighs: the largest of none is -inf, and exp(-inf - -inf) has to be 0.
FUNCTION f32 shift_of(f32 max) {
    return max == -infinity() ? 0.0f : max;
}

// A row of a tile: a query and a head of it.
struct TileRow {
    u32 query;
    u32 head;
    bool exists;
};
FUNCTION TileRow tile_row(u32 row, u32 tile, u32 kv_head, u32 head_block, PARAMS_OF(AttentionParams, p)) {
    const u32 in_group = head_block * p.tile_heads + row % p.tile_heads;
    TileRow at;
    at.query = tile * p.tile_queries + row / p.tile_heads;
    at.head = kv_head * p.group + in_group;
    at.exists = row < p.tile_queries * p.tile_heads && at.query < p.queries && in_group < p.group;
    return at;
}

// 32 rows of 32 numbers, in rows of 9 times 4, so that lanes side by side read different banks.
#define PART GROUP_POINTER(float4)
#define PART_SIZE (32 * 9)

// Loads 32 columns from `first` on of the row that this thread's quarter belongs to, number index / 4; 0 beyond.
template <typename T, bool WIDE>
FUNCTION void load_part(const GLOBAL T *row, bool exists, u32 first, u32 cols, PART part, u32 index) {
    const u32 lane = index % 4;
    f32 share[8];
    load_share<T, WIDE>(row + first, lane, 4, exists && first < cols ? cols - first : 0, 0.0f, share);
    GROUP_POINTER(f32) to = (GROUP_POINTER(f32))(part + index / 4 * 9);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        to[place_of<WIDE>(i, lane, 4)] = share[i];
    }
}

// s[i * 2 + j] += the product of row index / 16 * 4 + i of a and row index % 16 + 16 j of b.
FUNCTION void add_products(PART a, PART b, LOCAL f32 *s, u32 index) {
    PART rows = a + index / 16 * 36;
    PART cols = b + index % 16 * 9;
    UNROLL
    for (u32 at = 0; at < 8; at++) {
        const float4 y = cols[at], z = cols[16 * 9 + at];
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            const float4 x = rows[i * 9 + at];
            s[i * 2] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
            s[i * 2 + 1] += x.x * z.x + x.y * z.y + x.z * z.z + x.w * z.w;
        }
    }
}

// Puts s where `add_products` has it from.
FUNCTION void put_scores(PART part, const LOCAL f32 *s, u32 index) {
    GROUP_POINTER(f32) to = (GROUP_POINTER(f32))(part + index / 16 * 36) + index % 16;
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        to[i * 36] = s[i * 2];
        to[i * 36 + 16] = s[i * 2 + 1];
    }
}

// Of this thread's four rows: bit k says that weight k counts.
struct Masks {
    u32 of[4];
};

// sum[i * 2 + j] += weights(row i, k) values(k, column index % 16 + 16 j) over the 32 k. CAREFUL: only over those that
// the masks name, because 0 times a NaN of a row that is not seen would be one.
template <bool CAREFUL>
FUNCTION void add_weighted(PART weights, PART values, Masks masks, LOCAL f32 *sum, u32 index) {
    PART rows = weights + index / 16 * 36;
    GROUP_POINTER(f32) cols = (GROUP_POINTER(f32))values + index % 16;
    NO_UNROLL
    for (u32 at = 0; at < 8; at++) {
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            const float4 four = rows[i * 9 + at];
            const f32 w[4] = { four.x, four.y, four.z, four.w };
            UNROLL
            for (u32 k = 0; k < 4; k++) {
                const u32 row = at * 4 + k;
                if (!CAREFUL || (masks.of[i] >> row & 1u) != 0) {
                    sum[i * 2] += w[k] * cols[row * 36];
                    sum[i * 2 + 1] += w[k] * cols[row * 36 + 16];
                }
            }
        }
    }
}

// Bits begin - first .. end - first.
FUNCTION u32 bits_between(u32 begin, u32 end, u32 first) {
    const u32 from = begin > first ? begin - first : 0, to = end > first ? end - first : 0;
    const u32 below_to = to >= 32 ? 0xffffffffu : (1u << to) - 1u;
    const u32 below_from = from >= 32 ? 0xffffffffu : (1u << from) - 1u;
    return below_to & ~below_from;
}

// The next key from `from` on that some row sees, where lane i has what row i sees; 0xffffffff: none.
FUNCTION u32 next_seen(Seen mine, u32 from) {
    const u32 next = mine.begin > from ? mine.begin : from;
    return lanes_min(next < mine.end ? next : 0xffffffffu);
}

// Whether every row that sees anything sees all of the 32 keys from `first` on.
FUNCTION bool all_see(Seen mine, u32 first) {
    return lanes_that(mine.begin < mine.end && (mine.begin > first || mine.end < first + 32)) == 0;
}
