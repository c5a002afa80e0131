// GGUF's quantised blocks (ggml's `dequantize_row_*`): their numbers, and products with them.
//
// dequantize_<format>     a thread decodes a piece of 16 numbers
// quant_embedding_<format>  the same of the rows of a table that ids name; NaN where an id names none
// quant_linear_1_<format>, _4_, _8_
//                         y = x W^T, or added to y, for so many rows of x at a time. A team has four rows of W, walks along them
//                         piece by piece, and adds up its lanes at the end; every byte of W is read once for those
//                         rows of x. Where W has few rows, teams share them and divide the pieces.
struct QuantParams {
    u64 x_row;  // elements between rows of x
    u64 y_row;  // of y
    u32 rows;   // of x and y; of the blocks for dequantize
    u32 outs;   // rows of W
    u32 pieces; // in a row of W
    u32 share;  // teams that share four rows of W: a power of two
    u32 accumulate; // whether y is added to
    u32 unused;
};

// Sixteen numbers of a row, in two runs of eight side by side: they share eight bytes of nibbles, or are the halves of
// sixteen bytes.
struct Piece {
    u32 first; // columns of the two runs
    u32 second;
    f32 number[16];
};

// Little-endian numbers at even addresses (SIXTEEN: the operand starts at a multiple of 16 bytes, and a block has an
// even number of them), or anywhere.
template <bool SIXTEEN>
FUNCTION u32 u16_at(const GLOBAL u8 *from) {
    return SIXTEEN ? u32(*(const GLOBAL unsigned short *)from) : u32(from[0]) | u32(from[1]) << 8;
}
template <bool SIXTEEN>
FUNCTION f32 f16_at(const GLOBAL u8 *from) {
    return f32_of(of_bits(u16_at<SIXTEEN>(from), (LOCAL f16 *)0));
}
// Two words of four bytes.
template <bool SIXTEEN>
FUNCTION void words_at(const GLOBAL u8 *from, LOCAL u32 *words) {
    words[0] = u16_at<SIXTEEN>(from) | u16_at<SIXTEEN>(from + 2) << 16;
    words[1] = u16_at<SIXTEEN>(from + 4) | u16_at<SIXTEEN>(from + 6) << 16;
}
FUNCTION f32 nibble(const LOCAL u32 *words, u32 index, u32 upper) {
    return f32(words[index / 4] >> (index % 4 * 8 + upper * 4) & 15u);
}
FUNCTION f32 signed_byte(u32 byte) {
    return f32(byte & 255u) - ((byte & 128u) != 0 ? 256.0f : 0.0f);
}

struct Q4_0 {
    template <bool SIXTEEN>
    static FUNCTION void decode(const GLOBAL u8 *row, u32 piece, LOCAL Piece &to) {
        const GLOBAL u8 *block = row + u64(piece / 2) * 18;
        const f32 d = f16_at<SIXTEEN>(block);
        u32 words[2];
        words_at<SIXTEEN>(block + 2 + piece % 2 * 8, words);
        to.first = piece / 2 * 32 + piece % 2 * 8;
        to.second = to.first + 16;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            to.number[i] = (nibble(words, i, 0) - 8.0f) * d;
            to.number[8 + i] = (nibble(words, i, 1) - 8.0f) * d;
        }
    }
};
struct Q4_1 {
    template <bool SIXTEEN>
    static FUNCTION void decode(const GLOBAL u8 *row, u32 piece, LOCAL Piece &to) {
        const GLOBAL u8 *block = row + u64(piece / 2) * 20;
        const f32 d = f16_at<SIXTEEN>(block), m = f16_at<SIXTEEN>(block + 2);
        u32 words[2];
        words_at<SIXTEEN>(block + 4 + piece % 2 * 8, words);
        to.first = piece / 2 * 32 + piece % 2 * 8;
        to.second = to.first + 16;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            to.number[i] = nibble(words, i, 0) * d + m;
            to.number[8 + i] = nibble(words, i, 1) * d + m;
        }
    }
};
struct Q8_0 {
    template <bool SIXTEEN>
    static FUNCTION void decode(const GLOBAL u8 *row, u32 piece, LOCAL Piece &to) {
        const GLOBAL u8 *block = row + u64(piece / 2) * 34;
        const f32 d = f16_at<SIXTEEN>(block);
        u32 words[4];
        words_at<SIXTEEN>(block + 2 + piece % 2 * 16, words);
        words_at<SIXTEEN>(block + 2 + piece % 2 * 16 + 8, words + 2);
        to.first = piece * 16;
        to.second = to.first + 8;
        UNROLL
        for (u32 i = 0; i < 16; i++) {
            to.number[i] = signed_byte(words[i / 4] >> (i % 4 * 8)) * d;
        }
    }
};
struct Q4_K {
    template <bool SIXTEEN>
    static FUNCTION void decode(const GLOBAL u8 *row, u32 piece, LOCAL Piece &to) {
        const GLOBAL u8 *block = row + u64(piece / 16) * 144;
        const u32 within = piece % 16, pair = within / 4;
        // d, dmin, and twelve bytes of scales and minima of 6 bits: words 1 to 3.
        u32 head[4], words[2];
        if (SIXTEEN) {
            const uint4 all = *(const GLOBAL uint4 *)block;
            head[0] = all.x, head[1] = all.y, head[2] = all.z, head[3] = all.w;
            const uint2 eight = *(const GLOBAL uint2 *)(block + 16 + within * 8);
            words[0] = eight.x, words[1] = eight.y;
        } else {
            words_at<SIXTEEN>(block, head);
            words_at<SIXTEEN>(block + 8, head + 2);
            words_at<SIXTEEN>(block + 16 + within * 8, words);
        }
        const f32 d = f32_of(of_bits(head[0] & 0xffffu, (LOCAL f16 *)0));
        const f32 least = f32_of(of_bits(head[0] >> 16, (LOCAL f16 *)0));
        to.first = piece / 16 * 256 + pair * 64 + within % 4 * 8;
        to.second = to.first + 32;
        UNROLL
        for (u32 upper = 0; upper < 2; upper++) {
            // Group pair * 2 + upper: below four its scale and minimum are the lower 6 bits of a byte each; from four
            // on their lower 4 bits share a byte, and the upper 2 are on top of those of the group four before.
            const u32 by = (pair % 2 * 2 + upper) * 8;
            const u32 scale_byte = head[1] >> by, min_byte = head[2] >> by, last_byte = head[3] >> by;
            const u32 scale = pair < 2 ? scale_byte & 63u : (last_byte & 15u) | (scale_byte >> 6 & 3u) << 4;
            const u32 minimum = pair < 2 ? min_byte & 63u : (last_byte >> 4 & 15u) | (min_byte >> 6 & 3u) << 4;
            const f32 factor = d * f32(scale), m = least * f32(minimum);
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                to.number[upper * 8 + i] = factor * nibble(words, i, upper) - m;
            }
        }
    }
};
struct Q6_K {
    template <bool SIXTEEN>
    static FUNCTION void decode(const GLOBAL u8 *row, u32 piece, LOCAL Piece &to) {
        const GLOBAL u8 *block = row + u64(piece / 16) * 210;
        const u32 within = piece % 16, part = within / 8, half_of_part = within / 4 % 2, eight = within % 4 * 8;
        u32 words[2], pairs[2];
        words_at<SIXTEEN>(block + part * 64 + half_of_part * 32 + eight, words);
        words_at<SIXTEEN>(block + 128 + part * 32 + eight, pairs);
        const f32 d = f16_at<SIXTEEN>(block + 208);
        to.first = piece / 16 * 256 + part * 128 + half_of_part * 32 + eight;
        to.second = to.first + 64;
        UNROLL
        for (u32 upper = 0; upper < 2; upper++) {
            const u32 quarter = half_of_part + upper * 2;
            const f32 factor = d * signed_byte(block[192 + part * 8 + quarter * 2 + eight / 16]);
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                const f32 high = f32(pairs[i / 4] >> (i % 4 * 8 + quarter * 2) & 3u);
                to.number[upper * 8 + i] = factor * (nibble(words, i, upper) + 16.0f * high - 32.0f);
            }
        }
    }
};

// Bytes of `pieces` pieces, which are whole blocks.
FUNCTION u64 bytes_of(u32 pieces, LOCAL Q4_0 *) {
    return u64(pieces / 2) * 18;
}
FUNCTION u64 bytes_of(u32 pieces, LOCAL Q4_1 *) {
    return u64(pieces / 2) * 20;
}
FUNCTION u64 bytes_of(u32 pieces, LOCAL Q8_0 *) {
    return u64(pieces / 2) * 34;
}
FUNCTION u64 bytes_of(u32 pieces, LOCAL Q4_K *) {
    return u64(pieces / 16) * 144;
}
FUNCTION u64 bytes_of(u32 pieces, LOCAL Q6_K *) {
    return u64(pieces / 16) * 210;
}

template <typename T, typename FORMAT, bool WIDE>
FUNCTION void dequantize(const GLOBAL u8 *blocks, GLOBAL T *y, PARAMS_OF(QuantParams, p), Here here) {
    // Rows of 256 threads' pieces, so that nothing is counted beyond 32 bits.
    const u32 parts = (p.pieces + here.threads - 1) / here.threads;
    const u32 row = here.group / parts, piece = here.group % parts * here.threads + here.index;
    if (piece >= p.pieces) {
        return;
    }
    Piece decoded;
    FORMAT::template decode<WIDE>(blocks + row * bytes_of(p.pieces, (LOCAL FORMAT *)0), piece, decoded);
    GLOBAL T *to = y + u64(row) * p.pieces * 16;
    store_share<T, WIDE>(decoded.number, to + decoded.first, 0, 1, 8);
    store_share<T, WIDE>(decoded.number + 8, to + decoded.second, 0, 1, 8);
}

// Rows are tokens, outs the rows of the table.
template <typename T, typename FORMAT, bool WIDE>
FUNCTION void quant_embedding(
    const GLOBAL u32 *ids, const GLOBAL u8 *table, GLOBAL T *y, PARAMS_OF(QuantParams, p), Here here) {
    const u32 parts = (p.pieces + here.threads - 1) / here.threads;
    const u32 row = here.group / parts, piece = here.group % parts * here.threads + here.index;
    if (piece >= p.pieces) {
        return;
    }
    const u32 id = ids[row];
    Piece decoded;
    if (id < p.outs) {
        FORMAT::template decode<WIDE>(table + id * bytes_of(p.pieces, (LOCAL FORMAT *)0), piece, decoded);
    } else {
        decoded.first = piece * 16;
        decoded.second = piece * 16 + 8;
        UNROLL
        for (u32 i = 0; i < 16; i++) {
            decoded.number[i] = not_a_number();
        }
    }
    GLOBAL T *to = y + u64(row) * p.pieces * 16;
    store_share<T, WIDE>(decoded.number, to + decoded.first, 0, 1, 8);
    store_share<T, WIDE>(decoded.number + 8, to + decoded.second, 0, 1, 8);
}

template <typename T, typename FORMAT, u32 ROWS, bool WIDE>
FUNCTION void quant_linear(
    const GLOBAL T *x, const GLOBAL u8 *w, GLOBAL T *y, PARAMS_OF(QuantParams, p), GROUP_POINTER(f32) sums, Here here) {
    const u32 tiles = here.threads / 32 / p.share, blocks = (p.rows + ROWS - 1) / ROWS;
    // Groups that run side by side read the same rows of W.
    const u32 first_row = here.group % blocks * ROWS;
    const u32 first_out = (here.group / blocks * tiles + here.team / p.share) * 4, slice = here.team % p.share;
    const u64 row_bytes = bytes_of(p.pieces, (LOCAL FORMAT *)0);
    f32 sum[ROWS * 4];
    UNROLL
    for (u32 i = 0; i < ROWS * 4; i++) {
        sum[i] = 0.0f;
    }
    for (u32 piece = slice * 32 + here.lane; piece < p.pieces; piece += p.share * 32) {
        Piece decoded[4];
        UNROLL
        for (u32 o = 0; o < 4; o++) {
            // Beyond the last row of W its last one again, whose sums are not written.
            const u32 out = first_out + o < p.outs ? first_out + o : p.outs - 1;
            FORMAT::template decode<WIDE>(w + out * row_bytes, piece, decoded[o]);
        }
        UNROLL
        for (u32 r = 0; r < ROWS; r++) {
            const u32 row = first_row + r < p.rows ? first_row + r : p.rows - 1;
            const GLOBAL T *from = x + row * p.x_row;
            f32 numbers[16];
            load_share<T, WIDE>(from + decoded[0].first, 0, 1, 8, 0.0f, numbers);
            load_share<T, WIDE>(from + decoded[0].second, 0, 1, 8, 0.0f, numbers + 8);
            UNROLL
            for (u32 o = 0; o < 4; o++) {
                UNROLL
                for (u32 i = 0; i < 16; i++) {
                    sum[r * 4 + o] += numbers[i] * decoded[o].number[i];
                }
            }
        }
    }
    UNROLL
    for (u32 i = 0; i < ROWS * 4; i++) {
        const f32 all = lanes_sum(sum[i], 32);
        if (here.lane == i % 32) {
            sums[here.team * ROWS * 4 + i] = all;
        }
    }
    group_barrier();
    const u32 row = first_row + here.lane / 4, out = first_out + here.lane % 4;
    if (slice == 0 && here.lane < ROWS * 4 && row < p.rows && out < p.outs) {
        f32 all = 0.0f;
        for (u32 team = here.team; team < here.team + p.share; team++) {
            all += sums[team * ROWS * 4 + here.lane];
        }
        const f32 before = p.accumulate ? f32_of(y[row * p.y_row + out]) : 0.0f;
        y[row * p.y_row + out] = rounded<T>(all + before);
    }
}

#define QUANT_LINEAR(suffix, T, WIDE, name, FORMAT, ROWS)                                                      \
    KERNEL(                                                                                                    \
        quant_linear_##ROWS##_##name##_##suffix, 256, IN(T, x, 0), IN(u8, w, 1), OUT(T, y, 2),                 \
        PARAMS(QuantParams, p, 3)) {                                                                           \
        GROUP f32 sums[8 * ROWS * 4];                                                                          \
        quant_linear<T, FORMAT, ROWS, WIDE>(x, w, y, p, sums, HERE);                                           \
    }
#define QUANT_OF(suffix, T, WIDE, name, FORMAT)                                                                \
    KERNEL(dequantize_##name##_##suffix, 256, IN(u8, blocks, 0), OUT(T, y, 1), PARAMS(QuantParams, p, 2)) {    \
        dequantize<T, FORMAT, WIDE>(blocks, y, p, HERE);                                                       \
    }                                                                                                          \
    KERNEL(                                                                                                    \
        quant_embedding_##name##_##suffix, 256, IN(u32, ids, 0), IN(u8, table, 1), OUT(T, y, 2),               \
        PARAMS(QuantParams, p, 3)) {                                                                           \
        quant_embedding<T, FORMAT, WIDE>(ids, table, y, p, HERE);                                              \
    }                                                                                                          \
    QUANT_LINEAR(suffix, T, WIDE, name, FORMAT, 1)                                                             \
    QUANT_LINEAR(suffix, T, WIDE, name, FORMAT, 4)                                                             \
    QUANT_LINEAR(suffix, T, WIDE, name, FORMAT, 8)
#define QUANT(suffix, T, WIDE)                \
    QUANT_OF(suffix, T, WIDE, q4_0, Q4_0)     \
    QUANT_OF(suffix, T, WIDE, q4_1, Q4_1)     \
    QUANT_OF(suffix, T, WIDE, q8_0, Q8_0)     \
    QUANT_OF(suffix, T, WIDE, q4_k, Q4_K)     \
    QUANT_OF(suffix, T, WIDE, q6_k, Q6_K)

FOR_EACH_DTYPE_AND_ACCESS(QUANT)
