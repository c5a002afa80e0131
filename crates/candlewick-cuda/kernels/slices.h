// What the kernels share: slices of matrices in shared memory, and sums as fragments.

// Bytes from row to row of a slice with so many elements.
__host__ __device__ constexpr int pitch(int elements) {
    return elements * 2 + 16;
}

// One thread's share of copying slices: LINES lines of LENGTH elements each, in pieces of 16 bytes, zero where nothing
// is. All pieces of a thread lie at the same place of their lines, so that little is computed per piece.
template <int LINES, int LENGTH, int THREADS, bool SWIZZLED = false> struct Slice {
    static constexpr int PIECES = LENGTH / 8, AT_ONCE = THREADS / PIECES, PASSES = (LINES + AT_ONCE - 1) / AT_ONCE;
    static constexpr int PITCH = SWIZZLED ? 128 : pitch(LENGTH);
    static_assert(THREADS % PIECES == 0, "threads share a line evenly");
    static_assert(!SWIZZLED || (LENGTH == 64 && AT_ONCE % 8 == 0), "as the warpgroup's instruction reads it");

    const char *from; // of the next slice
    u64 stride;       // bytes from line to line
    u32 to;           // in a slice
    int line, at;

    template <typename T> FUNCTION void start(const T *first, u64 line_stride, u32 thread = threadIdx.x) {
        line = thread / PIECES, at = thread % PIECES * 16;
        stride = line_stride * 2;
        from = (const char *)first + line * stride + at;
        to = line * PITCH + (SWIZZLED ? at ^ line % 8 * 16 : at);
    }

    // Of `lines` lines of `length` elements. Nothing is read where `bytes` is zero, wherever the address is.
    FUNCTION void copy(u32 slice, int lines, int length) const {
        const int bytes = min(max(length * 2 - at, 0), 16);
        UNROLL
        for (int i = 0; i < PASSES; i++) {
            if (LINES % AT_ONCE == 0 || line + i * AT_ONCE < LINES) {
                const u32 here = line + i * AT_ONCE < lines ? bytes : 0;
                copy_16(slice + to + i * AT_ONCE * PITCH, from + i * AT_ONCE * stride, here);
            }
        }
    }

    // Goes on to the next slice.
    FUNCTION void advance(u64 bytes) {
        from += bytes;
    }
};

FUNCTION float4 sum_of(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// The sum of a tile's COPIES, `stride` tiles apart; a tile is a float4 for each lane.
template <int COPIES> FUNCTION float4 add_up(const float4 *tiles, int lane, int tile, int stride) {
    float4 sum = tiles[tile * 32 + lane];
    UNROLL
    for (int i = 1; i < COPIES; i++) {
        sum = sum_of(sum, tiles[(tile + i * stride) * 32 + lane]);
    }
    return sum;
}

// The sums of h for ranks 8 r .. as the left factor of `multiply_8`, zero beyond the rank.
FUNCTION void left_factor(float4 sums, float factor, int lane, u32 r, u32 rank, u32 (&h)[4]) {
    const bool even = r * 8 + lane % 4 * 2 < rank, odd = r * 8 + lane % 4 * 2 + 1 < rank;
    h[0] = even ? tf32_of(factor * sums.x) : 0, h[2] = odd ? tf32_of(factor * sums.y) : 0;
    h[1] = even ? tf32_of(factor * sums.z) : 0, h[3] = odd ? tf32_of(factor * sums.w) : 0;
}
// A pair of elements of E, side by side along the rank, as the right one.
template <typename T> FUNCTION void right_factor(u32 pair, u32 (&e)[2]) {
    e[0] = __float_as_uint(f32_of(T { u16(pair) })), e[1] = __float_as_uint(f32_of(T { u16(pair >> 16) }));
}

// Where h(row, r) is between launches: as the fragments that read it lie, along the rows.
FUNCTION u64 hidden_at(u32 row, u32 r, u32 rank) {
    return u64(row / 16 * 32 + r % 8 * 4 + row % 16 / 4) * (rank / 2) + r / 8 * 4 + row % 4;
}
// A fragment of it, 16 rows from `row` on by 8 ranks from `r` on, zero from row `rows` on. Pairs along the rank become
// pairs of rows.
template <typename T>
FUNCTION void keep_hidden(T *to, float4 sum, float factor, u32 row, u32 r, u32 rows, u32 rank, int lane) {
    const u32 g = lane / 4, t = lane % 4;
    const u32 high = transposed(row + g < rows ? round_2<T>(factor * sum.x, factor * sum.y) : 0);
    const u32 low = transposed(row + g + 8 < rows ? round_2<T>(factor * sum.z, factor * sum.w) : 0);
    *(u32 *)(to + hidden_at(row + t * 2, r + g, rank)) = high;
    *(u32 *)(to + hidden_at(row + t * 2 + 8, r + g, rank)) = low;
}
