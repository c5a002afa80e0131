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

struct SinCos {
    f32 sin;
    f32 cos;
};

// To 1e-7, whatever the angle. An angle a beyond pi / 4 is M 2^e with a whole M: of 2 / pi 2^e those 64 bits that stand
// for quarters of a turn below four are multiplied by M modulo four quarters (Payne and Hanek, 1983), here in integers.
// The rest is within pi / 4 of zero, where Taylor's polynomials of degree 9 and 10 are off by less than 2e-9.
FUNCTION SinCos sin_cos(f32 angle) {
    const u32 bits = bits_of(angle), exponent = bits >> 23 & 0xffu;
    f32 r = f32_of_bits(bits & 0x7fffffffu);
    u32 quarter = 0;
    if (exponent == 0xffu) {
        // Infinity minus itself.
        r = r - r;
    } else if (exponent >= 126) {
        // 2 / pi, rounded down, in units of 2^-192.
        const u64 high = 0xa2f9836e4e441529ul, middle = 0xfc2757d1f534ddc0ul, low = 0xdb6295993c439041ul;
        const u64 mantissa = (bits & 0x7fffffu) | 0x800000u;
        // e = exponent - 150, and the unit of the window is 2^-62 quarters.
        const u32 shift = 280 - exponent, by = shift % 64;
        const u64 above = shift < 64 ? middle : shift < 128 ? high : 0, below = shift < 64 ? low : shift < 128 ? middle : high;
        const u64 turns = mantissa * (by == 0 ? below : below >> by | above << (64 - by));
        quarter = u32((turns + (u64(1) << 61)) >> 62);
        r = f32(i64(turns - (u64(quarter) << 62))) * 3.4061215800865545e-19f;
    }
    const f32 s = r * r;
    const f32 sin = r + r * s * (-1.6666667e-1f + s * (8.3333333e-3f + s * (-1.9841270e-4f + s * 2.7557319e-6f)));
    const f32 cos = 1.0f
        + s * (-0.5f + s * (4.1666667e-2f + s * (-1.3888889e-3f + s * (2.4801587e-5f + s * -2.7557319e-7f))));
    SinCos turned;
    turned.sin = (quarter & 1) != 0 ? cos : sin;
    turned.cos = (quarter & 1) != 0 ? sin : cos;
    turned.sin = ((quarter & 2) != 0) != ((bits >> 31) != 0) ? -turned.sin : turned.sin;
    turned.cos = ((quarter + 1) & 2) != 0 ? -turned.cos : turned.cos;
    return turned;
}

// The elements of a thread's eight pairs: a first, b second of each.
template <typename T, bool WIDE>
FUNCTION void turn(
    const GLOBAL T *x, GLOBAL T *y, const LOCAL SinCos *by, u32 lane, u32 pairs_left, u32 first, PARAMS_OF(RopeParams, p)) {
    f32 a[8], b[8];
    if (WIDE && p.interleaved != 0) {
        if (lane * 8 < pairs_left) {
            const u64 at = (first + lane * 8) * 2;
            f32 low[8], high[8];
            load_8(x + at, low);
            load_8(x + at + 8, high);
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                a[i] = i < 4 ? low[i % 4 * 2] : high[i % 4 * 2];
                b[i] = i < 4 ? low[i % 4 * 2 + 1] : high[i % 4 * 2 + 1];
            }
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                const f32 one = a[i] * by[i].cos - b[i] * by[i].sin, other = a[i] * by[i].sin + b[i] * by[i].cos;
                if (i < 4) {
                    low[i % 4 * 2] = one, low[i % 4 * 2 + 1] = other;
                } else {
                    high[i % 4 * 2] = one, high[i % 4 * 2 + 1] = other;
                }
            }
            store_8(low, y + at);
            store_8(high, y + at + 8);
        }
        return;
    }
    if (WIDE) {
        if (lane * 8 < pairs_left) {
            const u32 at = first + lane * 8, other = at + p.rotary / 2;
            load_8(x + at, a);
            load_8(x + other, b);
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                const f32 one = a[i];
                a[i] = one * by[i].cos - b[i] * by[i].sin;
                b[i] = one * by[i].sin + b[i] * by[i].cos;
            }
            store_8(a, y + at);
            store_8(b, y + other);
        }
        return;
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const u32 pair = place_of<WIDE>(i, lane, p.lanes);
        if (pair < pairs_left) {
            const u32 at = p.interleaved != 0 ? (first + pair) * 2 : first + pair;
            const u32 other = p.interleaved != 0 ? at + 1 : at + p.rotary / 2;
            const f32 one = f32_of(x[at]), two = f32_of(x[other]);
            y[at] = rounded<T>(one * by[i].cos - two * by[i].sin);
            y[other] = rounded<T>(one * by[i].sin + two * by[i].cos);
        }
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
        by[i] = sin_cos(pair < left ? position * frequencies[at.first + pair] : 0.0f);
        by[i].sin *= p.direction;
    }
    for (u32 head = first_head; head < end; head++) {
        const GLOBAL T *from = x + row * p.x_row + u64(head) * p.head;
        GLOBAL T *to = y + row * p.y_row + u64(head) * p.head;
        turn<T, WIDE>(from, to, by, at.lane, left, at.first, p);
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
