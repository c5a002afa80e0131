// What attention's kernels for the warpgroup's instruction share: tiles of 64 rows of heads in shared memory, a panel for
// every 64 elements of the head as `factor_at` says, and products of them. A product's right factor is a tile, turned or
// not; its left factor a tile, or weights as the product before has left them in registers.

#define RESULT(i) "=f"(s[i].x), "=f"(s[i].y), "=f"(s[i].z), "=f"(s[i].w)
#define RESULTS_8 RESULT(0), RESULT(1), RESULT(2), RESULT(3), RESULT(4), RESULT(5), RESULT(6), RESULT(7)
// s = a b for a [64, 16] and b [16, 64]: the first of a sum.
#define MULTIPLY_FIRST(TYPE)                                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" REGISTERS_32 "}, %32, " \
                 "%33, 0, 1, 1, 0, 0;"                                                                    \
                 : RESULTS_8                                                                              \
                 : "l"(a), "l"(b))
FUNCTION void multiply_first(float4 (&s)[8], u64 a, u64 b, bf16) {
    MULTIPLY_FIRST("bf16");
}
FUNCTION void multiply_first(float4 (&s)[8], u64 a, u64 b, f16) {
    MULTIPLY_FIRST("f16");
}
// s += a b for a in registers, as `multiply_16` has it, and b's rows of 64 elements one after the other.
#define MULTIPLY_TURNED(TYPE)                                                                         \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " {" REGISTERS_32 "}, {" \
                 "%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                              \
                 : FRAGMENTS_8                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
FUNCTION void multiply_turned(float4 (&s)[8], const u32 (&a)[4], u64 b, bf16) {
    MULTIPLY_TURNED("bf16");
}
FUNCTION void multiply_turned(float4 (&s)[8], const u32 (&a)[4], u64 b, f16) {
    MULTIPLY_TURNED("f16");
}

// When products are done, `settle` what they have written, and what they have read: for the compiler the instruction is over
// when it is issued.
template <int N> FUNCTION void settle(float4 (&s)[N]) {
    UNROLL
    for (int n = 0; n < N; n++) {
        asm volatile("" : FRAGMENT(n)::"memory");
    }
}
FUNCTION void settle(u32 (&a)[4][4]) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
    }
}

// Whether a warp's sums are, in the rows that count.
template <int N> FUNCTION bool any_odd(const float4 (&sums)[N], bool above, bool below) {
    bool odd = false;
    UNROLL
    for (int n = 0; n < N; n++) {
        odd |= above && is_odd(sums[n].x, sums[n].y);
        odd |= below && is_odd(sums[n].z, sums[n].w);
    }
    return odd;
}

// p = exp(scale q k^T - lse) of the gradients, with lse of powers of two and negative.
FUNCTION float weight_of(float score, float factor, float lse) {
    return exp2_of(score * factor + lse);
}

// Which of so many tiles of rows is the one at place `i` of an order in which those come after each other that lie at the
// same place of their sequences, as if these were of one length: the longest walks are to begin first.
FUNCTION u32 tile_at(u32 i, u32 tiles, u32 sequences) {
    const u32 each = tiles / max(sequences, 1u);
    return i < each * sequences ? i % sequences * each + i / sequences : i;
}

// Every function is for the 128 threads of a warpgroup, whose warp i has rows 16 i .. of what is written.
template <typename T, int HEAD> struct GroupTile {
    static constexpr int ROWS = 64, PANELS = HEAD / 64, PANEL = ROWS * 128, BYTES = PANELS * PANEL;
    static constexpr int COLS = HEAD / 8, PIECES = HEAD / 8;
    typedef float4 Panel[8];
    static_assert(HEAD % 64 == 0, "whole panels");

    static FUNCTION int warp() {
        return threadIdx.x / 32 % 4;
    }
    static FUNCTION int lane() {
        return threadIdx.x % 32;
    }
    // Where a row has so many pieces of 16 bytes.
    static FUNCTION u32 place(u32 row, u32 piece) {
        return piece / 8 * PANEL + row * 128 + ((piece ^ row) % 8) * 16;
    }

    // One head of a matrix, as a thread copies its rows: a piece of every AT_ONCE-th of its warp's.
    struct Matrix {
        static constexpr int AT_ONCE = 32 / PIECES;
        const T *matrix;
        u32 row, head, length; // elements between rows, which head, elements of one

        // The 64 rows from `first` on, as far as they come before `end`, `heads` further on.
        FUNCTION void copy(u32 to, u32 first, u32 end, u32 heads = 0) const {
            const u32 line = warp() * 16 + lane() / PIECES, piece = lane() % PIECES;
            const T *from = matrix + (u64(first + line) * row + (head + heads) * length + piece * 8);
            const u32 stop = piece * 8 < length ? end : 0;
            UNROLL
            for (int i = 0; i < 16; i += AT_ONCE) {
                copy_16(to + place(line + i, piece), from + u64(row) * i, first + line + i < stop ? 16 : 0);
            }
        }
    };

    // `factor_at`, further on by so many bytes, in a way that costs little for each product.
    static FUNCTION u64 factor(u32 tile, u32 bytes) {
        const u32 low = (tile >> 4) + (u32(factor_at(0)) + bytes / 16);
        return u64(low) | (factor_at(0) >> 32 << 32);
    }

    // s = left right^T along the head.
    static FUNCTION void multiply(u32 left, u32 right, float4 (&s)[8]) {
        UNROLL
        for (int step = 0; step < HEAD / 16; step++) {
            const u32 at = step / 4 * PANEL + step % 4 * 32;
            if (step == 0) {
                multiply_first(s, factor(left, at), factor(right, at), T());
            } else {
                Warpgroup<8>::multiply(s, factor(left, at), factor(right, at), T());
            }
        }
    }
    // What `multiply` has left, as a left factor.
    static FUNCTION void round(const float4 (&s)[8], u32 (&a)[4][4]) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const float4 &low = s[i * 2], &high = s[i * 2 + 1];
            a[i][0] = round_2<T>(low.x, low.y), a[i][1] = round_2<T>(low.z, low.w);
            a[i][2] = round_2<T>(high.x, high.y), a[i][3] = round_2<T>(high.z, high.w);
        }
    }
    // sums += a tile: the tile's rows along the sum.
    static FUNCTION void add(const u32 (&a)[4][4], u32 tile, float4 (&sums)[COLS]) {
        UNROLL
        for (int panel = 0; panel < PANELS; panel++) {
            UNROLL
            for (int i = 0; i < 4; i++) {
                multiply_turned(*(Panel *)(sums + panel * 8), a[i], factor(tile, panel * PANEL + i * 16 * 128), T());
            }
        }
    }

    // The same, one row of the tile after the other, and only what `sees` says: (row, whether of the weights' upper or
    // lower row). A weight of zero times a NaN that nobody sees would be one.
    template <typename Sees>
    static FUNCTION void add_seen(const float4 (&weights)[8], const char *tile, float4 (&sums)[COLS], Sees sees) {
        UNROLL
        for (int block = 0; block < 8; block++) {
            const float4 w = weights[block];
            _Pragma("unroll 1")
            for (int j = 0; j < 8; j++) {
                const int row = block * 8 + j, from = lane() / 4 * 4 + j / 2;
                const float upper = __shfl_sync(ALL_LANES, j % 2 ? w.y : w.x, from);
                const float lower = __shfl_sync(ALL_LANES, j % 2 ? w.w : w.z, from);
                const bool above = sees(row, true), below = sees(row, false);
                UNROLL
                for (int n = 0; n < COLS; n++) {
                    const u32 pair = *(const u32 *)(tile + place(row, n) + lane() % 4 * 4);
                    const float x = f32_of(T { u16(pair) }), y = f32_of(T { u16(pair >> 16) });
                    sums[n].x += above ? upper * x : 0.0f, sums[n].y += above ? upper * y : 0.0f;
                    sums[n].z += below ? lower * x : 0.0f, sums[n].w += below ? lower * y : 0.0f;
                }
            }
        }
    }

    // The warp's rows of one tile by the same rows of another, along the head: lane 4 g + t has those of g and g + 8. They
    // are the diagonal of a product, which costs less than to add up by lanes.
    static FUNCTION float2 dots(u32 left, u32 right) {
        const int i = lane() % 8, low = lane() / 8 % 2, high = lane() / 16, g = lane() / 4;
        const u32 row = warp() * 16 + i;
        float4 sums[2] = { make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f) };
        UNROLL
        for (int step = 0; step < HEAD / 16; step++) {
            u32 a[4], b[2][2];
            load_4<false>(left + place(row + low * 8, step * 2 + high), a[0], a[1], a[2], a[3]);
            load_4<false>(right + place(row + high * 8, step * 2 + low), b[0][0], b[0][1], b[1][0], b[1][1]);
            multiply_16(sums[0], a, b[0], T());
            multiply_16(sums[1], a, b[1], T());
        }
        const int from = g * 4 + g / 2;
        const float above = __shfl_sync(ALL_LANES, g % 2 ? sums[0].y : sums[0].x, from);
        const float below = __shfl_sync(ALL_LANES, g % 2 ? sums[1].w : sums[1].z, from);
        return make_float2(above, below);
    }

    // The warp's rows of sums, of which `rows` are there: by way of a tile, in whole lines.
    static FUNCTION void write(T *to, u32 stride, int rows, int length, const float4 (&sums)[COLS], char *tile) {
        const int g = lane() / 4, t = lane() % 4, piece = lane() % PIECES;
        const u32 row = warp() * 16;
        UNROLL
        for (int n = 0; n < COLS; n++) {
            *(u32 *)(tile + place(row + g, n) + t * 4) = round_2<T>(sums[n].x, sums[n].y);
            *(u32 *)(tile + place(row + g + 8, n) + t * 4) = round_2<T>(sums[n].z, sums[n].w);
        }
        __syncwarp();
        UNROLL
        for (int i = 0; i < 16; i += 32 / PIECES) {
            const int line = i + lane() / PIECES;
            if (line < rows && piece * 8 < length) {
                *(uint4 *)(to + u64(line) * stride + piece * 8) = *(const uint4 *)(tile + place(row + line, piece));
            }
        }
    }
};
