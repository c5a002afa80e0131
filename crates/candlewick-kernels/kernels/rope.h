// Rotary position embedding: in each head of each row, pair i turns by positions[row] frequencies[i], backward by the
// negative angle. y may be x.
struct RopeParams {
    u64 x_row;       // elements between rows of what is read
    u64 y_row;       // of what is written
    u32 rows;
    u32 heads;
    u32 head;        // elements of one
    u32 rotary;      // leading elements of a head that turn
    u32 interleaved; // pairs are 2 i and 2 i + 1, not i and i + rotary / 2
    u32 block;       // heads that a thread turns by the same angles
    u32 lanes;       // threads that share the pairs of a row
    f32 direction;   // 1 or -1
};

// The first element of pair `pair` of a head, and from there to the second.
FUNCTION u32 place_of_pair(u32 pair, PARAMS_OF(RopeParams, p)) {
    return p.interleaved != 0 ? pair * 2 : pair;
}
FUNCTION u32 within_pair(PARAMS_OF(RopeParams, p)) {
    return p.interleaved != 0 ? 1 : p.rotary / 2;
}

// The first and second elements of a thread's eight pairs, of which `left` from `first` on are there.
template <typename T, bool WIDE>
FUNCTION void load_pairs(
    const GLOBAL T *x, LOCAL f32 *a, LOCAL f32 *b, u32 first, u32 lane, u32 left, PARAMS_OF(RopeParams, p)) {
    if (!WIDE) {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 pair = place_of<WIDE>(i, lane, p.lanes), at = place_of_pair(first + pair, p);
            a[i] = pair < left ? f32_of(x[at]) : 0.0f;
            b[i] = pair < left ? f32_of(x[at + within_pair(p)]) : 0.0f;
        }
    } else if (p.interleaved == 0) {
        load_8(x + first + lane * 8, a);
        load_8(x + first + lane * 8 + p.rotary / 2, b);
    } else {
        f32 both[16];
        load_8(x + (first + lane * 8) * 2, both);
        load_8(x + (first + lane * 8) * 2 + 8, both + 8);
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            a[i] = both[i * 2], b[i] = both[i * 2 + 1];
        }
    }
}
template <typename T, bool WIDE>
FUNCTION void store_pairs(
    const LOCAL f32 *a, const LOCAL f32 *b, GLOBAL T *y, u32 first, u32 lane, u32 left, PARAMS_OF(RopeParams, p)) {
    if (!WIDE) {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 pair = place_of<WIDE>(i, lane, p.lanes), at = place_of_pair(first + pair, p);
            if (pair < left) {
                y[at] = rounded<T>(a[i]);
                y[at + within_pair(p)] = rounded<T>(b[i]);
            }
        }
    } else if (p.interleaved == 0) {
        store_8(a, y + first + lane * 8);
        store_8(b, y + first + lane * 8 + p.rotary / 2);
    } else {
        f32 both[16];
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            both[i * 2] = a[i], both[i * 2 + 1] = b[i];
        }
        store_8(both, y + (first + lane * 8) * 2);
        store_8(both + 8, y + (first + lane * 8) * 2 + 8);
    }
}

template <typename T, bool WIDE>
FUNCTION void rope(
    const GLOBAL T *x, const GLOBAL u32 *positions, const GLOBAL f32 *frequencies, GLOBAL T *y,
    PARAMS_OF(RopeParams, p), Here here) {
    const u32 blocks = (p.heads + p.block - 1) / p.block, pairs = p.rotary / 2;
    // Heads without pairs have elements to copy all the same.
    const Share at = share_of(p.rows * blocks, pairs == 0 ? 1 : pairs, p.lanes, here);
    if (at.left == 0) {
        return;
    }
    const u32 row = at.row / blocks, first_head = at.row % blocks * p.block;
    const u32 end = p.heads - first_head < p.block ? p.heads : first_head + p.block;
    const u32 left = pairs == 0 ? 0 : at.left;
    const f32 position = f32(positions[row]);
    SinCos by[8];
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const u32 pair = place_of<WIDE>(i, at.lane, p.lanes);
        // Few pairs are one for each lane: the others' angles cost nothing.
        if (pair < left) {
            by[i] = sin_cos(position * frequencies[at.first + pair]);
            by[i].sin *= p.direction;
        }
    }
    for (u32 head = first_head; head < end; head++) {
        const GLOBAL T *from = x + row * p.x_row + u64(head) * p.head;
        GLOBAL T *to = y + row * p.y_row + u64(head) * p.head;
        if (!WIDE || at.lane * 8 < left) {
            f32 a[8], b[8];
            load_pairs<T, WIDE>(from, a, b, at.first, at.lane, left, p);
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                const f32 one = a[i];
                a[i] = one * by[i].cos - b[i] * by[i].sin;
                b[i] = one * by[i].sin + b[i] * by[i].cos;
            }
            store_pairs<T, WIDE>(a, b, to, at.first, at.lane, left, p);
        }
        if (at.first == 0) {
            for (u32 i = p.rotary + at.lane; i < p.head; i += p.lanes) {
                to[i] = from[i];
            }
        }
    }
}

#define ROPE(suffix, T, WIDE)                                                                                  \
    KERNEL(                                                                                                    \
        rope_##suffix, 256, IN_PLACE(T, x, 0), IN(u32, positions, 1), IN(f32, frequencies, 2), OUT(T, y, 3),   \
        PARAMS(RopeParams, p, 4)) {                                                                            \
        rope<T, WIDE>(x, positions, frequencies, y, p, HERE);                                                  \
    }

FOR_EACH_DTYPE_AND_ACCESS(ROPE)
