// What the kernels of attention share: which keys a query sees, products of tiles in shared memory, and how masked
// weights keep what is no number out.

struct AttentionParams {
    u32 q_row; // elements between rows of q and dq
    u32 k_row; // of k and dk
    u32 v_row; // of v and dv
    u32 y_row; // of y and dy
    u32 queries;
    u32 keys;
    u32 sequences;
    u32 heads; // of q
    u32 group; // heads of q that share a head of k and v
    u32 head;  // elements of a head, a multiple of 8
    u32 causal;
    float scale;
};

#define ALL_LANES 0xffffffffu
#define NO_KEY 0xffffffffu
#define MINUS_INFINITY __int_as_float(0xff800000)
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

// 2^x to two units in the last place; below 2^-126 it is 0.
FUNCTION float exp2_of(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// Keys begin..end.
struct Seen {
    u32 begin, end;

    FUNCTION bool any() const {
        return begin < end;
    }
    FUNCTION bool has(u32 key) const {
        return key - begin < end - begin;
    }
    // Nothing has to be masked in these keys: a row that sees nothing is not written from them.
    FUNCTION bool whole(u32 first, u32 count) const {
        return !any() || (begin <= first && first + count <= end);
    }
    FUNCTION bool meets(u32 first, u32 count) const {
        return begin < first + count && first < end && any();
    }
    // What another lane has.
    FUNCTION Seen of_lane(int lane) const {
        return { __shfl_sync(ALL_LANES, begin, lane), __shfl_sync(ALL_LANES, end, lane) };
    }
};

// What the 32 N rows from `first_row` on see, each in the first span that it is in; each lane has every 32nd row. A span
// is (first query, queries, first key, keys). Each lane looks at a span, and those of these rows go around: most may be
// elsewhere.
template <int N> FUNCTION void find_keys(const u32 *spans, const AttentionParams &p, u32 first_row, Seen (&seen)[N]) {
    bool found[N];
    UNROLL
    for (int row = 0; row < N; row++) {
        found[row] = false, seen[row] = { 0, 0 };
    }
    for (u32 from = 0; from < p.sequences; from += 32) {
        const u32 i = from + threadIdx.x % 32;
        const uint4 span = i < p.sequences ? ((const uint4 *)spans)[i] : make_uint4(0, 0, 0, 0);
        const u32 first = min(span.x, p.queries), count = min(span.y, p.queries - first);
        const u32 key = min(span.z, p.keys), keys = min(span.w, p.keys - key);
        u32 here = __ballot_sync(ALL_LANES, first < first_row + 32 * N && first_row < first + count);
        while (here != 0) {
            const int lane = __ffs(here) - 1;
            here &= here - 1;
            const u32 its_first = __shfl_sync(ALL_LANES, first, lane), its_count = __shfl_sync(ALL_LANES, count, lane);
            const u32 its_key = __shfl_sync(ALL_LANES, key, lane), its_keys = __shfl_sync(ALL_LANES, keys, lane);
            UNROLL
            for (int row = 0; row < N; row++) {
                const u32 at = first_row + threadIdx.x % 32 + row * 32 - its_first, up_to = at + 1 + its_keys;
                if (!found[row] && at < its_count) {
                    found[row] = true;
                    seen[row] = { its_key, its_key + (p.causal == 0      ? its_keys
                                                      : up_to > its_count ? up_to - its_count
                                                                          : 0) };
                }
            }
        }
    }
}

// The next key from `from` on that one of the rows sees.
template <int N> FUNCTION u32 next_seen(const Seen (&mine)[N], u32 from) {
    u32 next = NO_KEY;
    UNROLL
    for (int i = 0; i < N; i++) {
        const u32 key = max(mine[i].begin, from);
        next = key < mine[i].end ? min(next, key) : next;
    }
    return __reduce_min_sync(ALL_LANES, next);
}

// Behind the last key that one of the rows sees.
template <int N> FUNCTION u32 end_of_seen(const Seen (&mine)[N]) {
    u32 end = 0;
    UNROLL
    for (int i = 0; i < N; i++) {
        end = max(end, mine[i].any() ? mine[i].end : 0);
    }
    return __reduce_max_sync(ALL_LANES, end);
}

// Whether one of them is infinite or no number.
FUNCTION bool is_odd(float a, float b) {
    return 0.0f * a + 0.0f * b != 0.0f;
}

// Tiles in shared memory: rows of heads, zero beyond the head's elements. So many threads copy one.
template <typename T, int HEAD, int THREADS> struct Tiles {
    static constexpr int PITCH = pitch(HEAD), STEPS = HEAD / 16, COLS = HEAD / 8, PIECES = HEAD / 8;
    static constexpr int AT_ONCE = THREADS / PIECES;

    // One head of a matrix, as a thread copies its rows: a piece of 16 bytes of every AT_ONCE-th row.
    struct Matrix {
        const char *from;
        u32 stride, bytes;

        FUNCTION Matrix(const T *matrix, u32 row, u32 head, u32 length) {
            const u32 at = threadIdx.x % PIECES * 8;
            from = (const char *)(matrix + head * length + at);
            stride = row * 2, bytes = min(max(int(length - at), 0), 8) * 2;
        }
        static FUNCTION u32 line() {
            return threadIdx.x / PIECES;
        }
        // `elements` further on.
        FUNCTION const char *piece(u32 row, u32 elements) const {
            return from + u64(row) * stride + elements * 2;
        }
        // Rows first .. first + ROWS, as far as they come before `end`.
        template <int ROWS> FUNCTION void copy(u32 to, u32 first, u32 end, u32 elements = 0) const {
            const u32 row = first + line();
            to += line() * PITCH + threadIdx.x % PIECES * 16;
            UNROLL
            for (int i = 0; i < ROWS; i += AT_ONCE) {
                copy_16(to + i * PITCH, piece(row + i, elements), row + i < end ? bytes : 0);
            }
        }
    };

    // sums += left right^T: 16 rows of one tile by 8 N rows of another, along the head.
    template <int N> static FUNCTION void multiply(u32 left, u32 right, int lane, float4 (&sums)[N]) {
        const int i = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;
        UNROLL
        for (int step = 0; step < STEPS; step++) {
            u32 a[4];
            load_4<false>(left + (low + i) * PITCH + (step * 16 + high) * 2, a[0], a[1], a[2], a[3]);
            UNROLL
            for (int n = 0; n < N; n += 2) {
                u32 b[2][2];
                const u32 at = right + (n * 8 + high + i) * PITCH + (step * 16 + low) * 2;
                load_4<false>(at, b[0][0], b[0][1], b[1][0], b[1][1]);
                multiply_16(sums[n], a, b[0], T());
                multiply_16(sums[n + 1], a, b[1], T());
            }
        }
    }

    // sums += weights tile: the weights as `multiply` leaves them, the tile's rows along the sum.
    template <int K> static FUNCTION void add(const float4 (&weights)[K], u32 tile, int lane, float4 (&sums)[COLS]) {
        const int i = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;
        UNROLL
        for (int step = 0; step < K / 2; step++) {
            const float4 &w = weights[step * 2], &x = weights[step * 2 + 1];
            const u32 a[4] = { round_2<T>(w.x, w.y), round_2<T>(w.z, w.w), round_2<T>(x.x, x.y), round_2<T>(x.z, x.w) };
            UNROLL
            for (int n = 0; n < COLS; n += 2) {
                u32 b[2][2];
                const u32 at = tile + (step * 16 + low + i) * PITCH + (n * 8 + high) * 2;
                load_4<true>(at, b[0][0], b[0][1], b[1][0], b[1][1]);
                multiply_16(sums[n], a, b[0], T());
                multiply_16(sums[n + 1], a, b[1], T());
            }
        }
    }

    // The same, one row of the tile after the other, and only what `sees` says: (block of 8 rows, row in it, whether of
    // the weights' upper or lower row). A weight of zero times a NaN that nobody sees would be one.
    template <int K, typename Sees>
    static FUNCTION void add_seen(const float4 (&weights)[K], const char *tile, int lane, float4 (&sums)[COLS], Sees sees) {
        UNROLL
        for (int block = 0; block < K; block++) {
            const float4 w = weights[block];
            _Pragma("unroll 1")
            for (int j = 0; j < 8; j++) {
                const int from = lane / 4 * 4 + j / 2;
                const float upper = __shfl_sync(ALL_LANES, j % 2 ? w.y : w.x, from);
                const float lower = __shfl_sync(ALL_LANES, j % 2 ? w.w : w.z, from);
                const bool above = sees(block, j, true), below = sees(block, j, false);
                const char *row = tile + (block * 8 + j) * PITCH + lane % 4 * 4;
                UNROLL
                for (int n = 0; n < COLS; n++) {
                    const u32 pair = *(const u32 *)(row + n * 16);
                    const float x = f32_of(T { u16(pair) }), y = f32_of(T { u16(pair >> 16) });
                    sums[n].x += above ? upper * x : 0.0f, sums[n].y += above ? upper * y : 0.0f;
                    sums[n].z += below ? lower * x : 0.0f, sums[n].w += below ? lower * y : 0.0f;
                }
            }
        }
    }

    // Two halves of the block's warps have sums of the same rows: each keeps one half of the columns, whose sums its peer
    // sends by way of `place`, where each warp has room for COLS / 2 tiles.
    static constexpr int KEPT = COLS / 2;
    static FUNCTION void send(const float4 (&sums)[COLS], float4 *place, int half) {
        UNROLL
        for (int n = 0; n < KEPT; n++) {
            place[n * 32] = half == 0 ? sums[KEPT + n] : sums[n];
        }
    }
    static FUNCTION void keep(const float4 (&sums)[COLS], float4 (&kept)[KEPT], int half) {
        UNROLL
        for (int n = 0; n < KEPT; n++) {
            kept[n] = half == 0 ? sums[n] : sums[KEPT + n];
        }
    }

    // 16 rows of N tiles of sums from column `first` on, of which `rows` are there.
    template <int N> static FUNCTION void write(T *to, u32 row, int rows, int cols, const float4 (&sums)[N], int lane) {
        const int g = lane / 4, col = lane % 4 * 2;
        T *upper = to + g * row + col, *lower = upper + 8 * row;
        UNROLL
        for (int n = 0; n < N; n++) {
            if (n * 8 < cols && g < rows) {
                *(u32 *)(upper + n * 8) = round_2<T>(sums[n].x, sums[n].y);
            }
            if (n * 8 < cols && g + 8 < rows) {
                *(u32 *)(lower + n * 8) = round_2<T>(sums[n].z, sums[n].w);
            }
        }
    }
};

template <int N> FUNCTION void set_zero(float4 (&sums)[N]) {
    UNROLL
    for (int n = 0; n < N; n++) {
        sums[n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

// Sets bit i of `mask` where some of a span's queries 64 i .. may see one of the 64 keys from `first_key` on.
FUNCTION void mark_tiles(u32 *mask, uint4 span, u32 first_key, const AttentionParams &p) {
    const u32 first = min(span.x, p.queries), count = min(span.y, p.queries - first);
    const u32 key = min(span.z, p.keys), keys = min(span.w, p.keys - key);
    if (key < first_key + 64 && first_key < key + keys) {
        // Of the span's queries those that see the first of the keys, or the first of the span.
        const u32 before = count + max(first_key, key) - key;
        u32 query = first + (p.causal != 0 && before > keys ? before - keys : 0);
        for (; query < first + count; query = (query / 64 + 1) * 64) {
            atomicOr(mask + query / 64 / 32, 1u << query / 64 % 32);
        }
    }
}
// The first bit of such a mask from one on, or none.
FUNCTION u32 next_tile(const u32 *mask, u32 from, u32 queries) {
    for (u32 word = from / 32; word * 32 * 64 < queries; word++) {
        const u32 bits = word == from / 32 ? mask[word] & ~0u << from % 32 : mask[word];
        if (bits != 0) {
            return word * 32 + __ffs(bits) - 1;
        }
    }
    return NO_KEY;
}
