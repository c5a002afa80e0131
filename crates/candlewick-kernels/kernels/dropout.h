// y = x m with m 0 or `factor` by chance. y may be x.
struct DropoutParams {
    u64 x_row; // elements between rows
    u64 y_row;
    u32 rows;
    u32 cols;
    u32 lanes;     // threads that share a block of a row
    u32 stream;
    u32 threshold; // random words below it drop their element
    f32 factor;
};

struct RandomWords {
    u32 word[4];
};

// Philox4x32-10 (Salmon et al., 2011).
FUNCTION RandomWords philox(u64 block, u32 stream, u32 key_0, u32 key_1) {
    u32 a = u32(block), b = u32(block >> 32), c = stream, d = 0;
    UNROLL
    for (u32 round = 0; round < 10; round++) {
        const u64 p = u64(a) * 0xd2511f53u, q = u64(c) * 0xcd9e8d57u;
        a = u32(q >> 32) ^ b ^ key_0;
        c = u32(p >> 32) ^ d ^ key_1;
        b = u32(q);
        d = u32(p);
        key_0 += 0x9e3779b9u;
        key_1 += 0xbb67ae85u;
    }
    RandomWords words;
    words.word[0] = a, words.word[1] = b, words.word[2] = c, words.word[3] = d;
    return words;
}

// WIDE: rows have whole blocks of four.
template <typename T, bool WIDE>
FUNCTION void dropout(
    const GLOBAL T *x, const GLOBAL u32 *seed, GLOBAL T *y, PARAMS_OF(DropoutParams, p), Here here) {
    const Share at = share_of(p.rows, p.cols, p.lanes, here);
    const u32 key_0 = seed[0], key_1 = seed[1];
    const u64 first = u64(at.row) * p.cols + at.first;
    f32 share[8];
    load_share<T, WIDE>(x + at.row * p.x_row + at.first, at.lane, p.lanes, at.left, 0.0f, share);
    UNROLL
    for (u32 i = 0; i < 8; i += WIDE ? 4 : 1) {
        const u64 element = first + place_of<WIDE>(i, at.lane, p.lanes);
        const RandomWords words = philox(element / 4, p.stream, key_0, key_1);
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            if (WIDE || element % 4 == j) {
                share[WIDE ? i + j : i] *= words.word[j] < p.threshold ? 0.0f : p.factor;
            }
        }
    }
    store_share<T, WIDE>(share, y + at.row * p.y_row + at.first, at.lane, p.lanes, at.left);
}

#define DROPOUT(suffix, T, WIDE)                                                                                \
    KERNEL(                                                                                                     \
        dropout_##suffix, 256, IN_PLACE(T, x, 0), IN(u32, seed, 1), OUT(T, y, 2), PARAMS(DropoutParams, p, 3)) { \
        dropout<T, WIDE>(x, seed, y, p, HERE);                                                                  \
    }

FOR_EACH_DTYPE_AND_ACCESS(DROPOUT)
