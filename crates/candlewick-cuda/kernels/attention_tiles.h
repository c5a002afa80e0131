// What the kernels of attention share: which keys a query sees, products of tiles in shared memory, and how masked
// weights keep what is no number out.

struct AttentionParams {
    u64 q_row; // elements between rows of q and dq
    u64 k_row; // of k and dk
    u64 v_row; // of v and dv
    u64 y_row; // of y and dy
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

// Keys begin..end.
struct Seen {
    u32 begin, end;

    FUNCTION bool any() const {
        return begin < end;
    }
    FUNCTION bool has(u32 key) const {
        return begin <= key && key < end;
    }
    // Nothing has to be masked in these keys: a row that sees nothing is not written from them.
    FUNCTION bool whole(u32 first, u32 count) const {
        return !any() || (begin <= first && first + count <= end);
    }
};

// What each of the block's rows sees: in the first span that it is in. A span is (first query, queries, first key, keys).
// Each thread looks at some spans, not at some rows: there may be as many spans as rows, and most are elsewhere.
FUNCTION void find_keys(const u32 *spans, const AttentionParams &p, u32 first_row, u32 rows, u32 *owners, Seen *seen) {
    if (threadIdx.x < 64) {
        owners[threadIdx.x] = p.sequences;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < p.sequences; i += blockDim.x) {
        const uint2 queries = ((const uint2 *)spans)[i * 2];
        const u32 first = min(queries.x, p.queries), end = min(first + min(queries.y, p.queries - first), first_row + rows);
        for (u32 row = max(first, first_row); row < end; row++) {
            atomicMin(owners + row - first_row, i);
        }
    }
    __syncthreads();
    if (threadIdx.x < 64) {
        Seen found = { 0, 0 };
        if (owners[threadIdx.x] < p.sequences) {
            const uint4 span = ((const uint4 *)spans)[owners[threadIdx.x]];
            const u32 first = min(span.x, p.queries), count = min(span.y, p.queries - first);
            const u32 key = min(span.z, p.keys), keys = min(span.w, p.keys - key);
            const u32 up_to = first_row + threadIdx.x - first + 1 + keys;
            found = { key, key + (p.causal == 0 ? keys : up_to > count ? up_to - count : 0) };
        }
        seen[threadIdx.x] = found;
    }
    __syncthreads();
}

// The next key from `from` on that one of 64 rows sees, two of which each lane has.
FUNCTION u32 next_seen(const Seen (&mine)[2], u32 from) {
    u32 next = NO_KEY;
    UNROLL
    for (int i = 0; i < 2; i++) {
        const u32 key = max(mine[i].begin, from);
        next = key < mine[i].end ? min(next, key) : next;
    }
    return __reduce_min_sync(ALL_LANES, next);
}

FUNCTION bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}
// Two elements side by side: their exponents' bits.
FUNCTION u32 exponent_of(bf16) {
    return 0x7f80u;
}
FUNCTION u32 exponent_of(f16) {
    return 0x7c00u;
}

// Tiles in shared memory: rows of heads, zero beyond the head's elements. So many threads copy one.
template <typename T, int HEAD, int THREADS> struct Tiles {
    static constexpr int PITCH = pitch(HEAD), STEPS = HEAD / 16, COLS = HEAD / 8, PIECES = HEAD / 8;

    template <int ROWS> static FUNCTION void copy(u32 to, const T *from, u64 row, u32 rows, u32 head) {
        Slice<ROWS, HEAD, THREADS> slice;
        slice.start(from, row, threadIdx.x % THREADS);
        slice.copy(to, rows, head);
    }

    // So many rows of k from `first` on, and as many of v behind them; both are at their head.
    template <int KEYS>
    static FUNCTION void copy_keys(u32 to, const T *k, const T *v, u32 first, const AttentionParams &p) {
        const u32 count = min(p.keys - first, u32(KEYS));
        copy<KEYS>(to, k + first * p.k_row, p.k_row, count, p.head);
        copy<KEYS>(to + KEYS * PITCH, v + first * p.v_row, p.v_row, count, p.head);
    }

    // Whether rows of a tile have NaN or infinities: the lanes of a warp look at them together.
    template <int ROWS> static FUNCTION bool is_odd(const char *tile, int lane) {
        const u32 bits = exponent_of(T());
        bool odd = false;
        for (int i = lane; i < ROWS * PIECES; i += 32) {
            const uint4 piece = *(const uint4 *)(tile + i / PIECES * PITCH + i % PIECES * 16);
            const u32 pairs[4] = { piece.x, piece.y, piece.z, piece.w };
            UNROLL
            for (int j = 0; j < 4; j++) {
                odd |= (pairs[j] & bits) == bits || (pairs[j] >> 16 & bits) == bits;
            }
        }
        return __any_sync(ALL_LANES, odd);
    }

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

    // 16 rows of sums, of which `rows` are there.
    static FUNCTION void write(T *to, u64 row, int rows, u32 head, const float4 (&sums)[COLS], int lane) {
        const int g = lane / 4, col = lane % 4 * 2;
        UNROLL
        for (int n = 0; n < COLS; n++) {
            if (n * 8 < int(head)) {
                if (g < rows) {
                    *(u32 *)(to + g * row + n * 8 + col) = round_2<T>(sums[n].x, sums[n].y);
                }
                if (g + 8 < rows) {
                    *(u32 *)(to + (g + 8) * row + n * 8 + col) = round_2<T>(sums[n].z, sums[n].w);
                }
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
