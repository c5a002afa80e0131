// The LoRA delta of rows that each name their adapter: y(i, :) += (scale x(i, :) A^T) B^T, with A, B and the scale of
// slot i. In two launches, whatever number of adapters there are:
//
// lora_rows_down  h(i, r) = scale x(i, :) A(r, :)
// lora_rows_up    y(i, o) += h(i, :) B(o, :)
//
// Rows of one adapter share what is read of it, up to four at a time: a piece. Every group finds its piece in the
// slots by itself: the one that begins with its row, or none, and then it ends. How a row is summed depends on that row
// and its adapter alone.
struct LoraRowsParams {
    u64 x_row; // elements between rows of x
    u64 y_row;
    u32 rows;
    u32 in_features;
    u32 out_features;
    u32 rank;
    u32 adapters;
    u32 window; // a piece lies within so many successive rows: finding it takes no longer where there are more
};

struct LoraPiece {
    u32 rows; // 1 to 4; 0 where none begins
    u32 slot;
    u32 row[4]; // those that are not there are the last that is
};

// The piece that begins with `row`: where the number of rows before it with its slot is a multiple of four. All lanes
// of a team take part.
FUNCTION LoraPiece piece_of(const GLOBAL u32 *slots, u32 row, PARAMS_OF(LoraRowsParams, p), Here here) {
    LoraPiece piece;
    piece.rows = 0;
    piece.slot = slots[row];
    if (piece.slot >= p.adapters) {
        return piece;
    }
    const u32 first = row / p.window * p.window;
    const u32 end = p.rows - first < p.window ? p.rows : first + p.window;
    f32 before = 0.0f;
    for (u32 at = first + here.lane; at < row; at += 32) {
        before += slots[at] == piece.slot ? 1.0f : 0.0f;
    }
    if (u32(lanes_sum(before, 32)) % 4 != 0) {
        return piece;
    }
    piece.rows = 1;
    piece.row[0] = row;
    UNROLL
    for (u32 i = 1; i < 4; i++) {
        const u32 none = 0xffffffffu;
        u32 next = none;
        for (u32 at = piece.row[i - 1] + 1 + here.lane; at < end && next == none; at += 32) {
            next = slots[at] == piece.slot ? at : none;
        }
        next = lanes_min(next);
        piece.row[i] = next == none ? piece.row[i - 1] : next;
        piece.rows += next == none ? 0 : 1;
    }
    return piece;
}

// Four of the rank by the rows of a piece per group; its teams divide the sum.
template <typename T, bool WIDE>
FUNCTION void lora_rows_down(
    const GLOBAL T *x, const GLOBAL T *a, const GLOBAL f32 *scales, const GLOBAL u32 *slots, GLOBAL f32 *h,
    PARAMS_OF(LoraRowsParams, p), GROUP_POINTER(f32) sums, Here here) {
    const u32 blocks = (p.rank + 3) / 4, row = here.group / blocks, first_rank = here.group % blocks * 4;
    const LoraPiece piece = piece_of(slots, row, p, here);
    if (piece.rows == 0) {
        return;
    }
    const u32 ranks = p.rank - first_rank < 4 ? p.rank - first_rank : 4, k = p.in_features;
    a += (u64(piece.slot) * p.rank + first_rank) * k;
    f32 sum[16];
    UNROLL
    for (u32 i = 0; i < 16; i++) {
        sum[i] = 0.0f;
    }
    for (u32 first = here.team * 256; first < k; first += here.threads * 8) {
        f32 rows[4 * 8];
        UNROLL
        for (u32 r = 0; r < 4; r++) {
            // What is not there is one that is, and is not written.
            const u64 at = u64(r < ranks ? r : ranks - 1) * k + first;
            load_share<T, WIDE>(a + at, here.lane, 32, k - first, 0.0f, rows + r * 8);
        }
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            f32 some[8];
            load_share<T, WIDE>(x + piece.row[i] * p.x_row + first, here.lane, 32, k - first, 0.0f, some);
            UNROLL
            for (u32 r = 0; r < 4; r++) {
                UNROLL
                for (u32 j = 0; j < 8; j++) {
                    sum[i * 4 + r] += some[j] * rows[r * 8 + j];
                }
            }
        }
    }
    UNROLL
    for (u32 i = 0; i < 16; i++) {
        const f32 all = lanes_sum(sum[i], 32);
        if (here.lane == i) {
            sums[here.team * 16 + i] = all;
        }
    }
    group_barrier();
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const u32 r = here.index % 4;
        if (here.index / 4 == i && i < piece.rows && r < ranks) {
            f32 all = 0.0f;
            for (u32 team = 0; team < here.threads / 32; team++) {
                all += sums[team * 16 + here.index];
            }
            h[u64(piece.row[i]) * p.rank + first_rank + r] = scales[piece.slot] * all;
        }
    }
}

// 256 columns of the rows of a piece per group: h is shared, a thread keeps to its row of B. WIDE: the rank is a
// multiple of eight.
template <typename T, bool WIDE>
FUNCTION void lora_rows_up(
    const GLOBAL f32 *h, const GLOBAL T *b, const GLOBAL u32 *slots, GLOBAL T *y, PARAMS_OF(LoraRowsParams, p),
    GROUP_POINTER(f32) tile, Here here) {
    const u32 blocks = (p.out_features + 255) / 256, row = here.group / blocks;
    const u32 col = here.group % blocks * 256 + here.index;
    const LoraPiece piece = piece_of(slots, row, p, here);
    if (piece.rows == 0) {
        return;
    }
    // Columns that are not there are one that is, and are not written.
    b += (u64(piece.slot) * p.out_features + (col < p.out_features ? col : p.out_features - 1)) * p.rank;
    f32 sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    for (u32 first = 0; first < p.rank; first += 64) {
        // 64 of the rank of four rows: one element per thread.
        const u32 r = first + here.index % 64;
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            if (here.index / 64 == i) {
                tile[here.index] = r < p.rank ? h[u64(piece.row[i]) * p.rank + r] : 0.0f;
            }
        }
        group_barrier();
        const u32 count = p.rank - first < 64 ? p.rank - first : 64;
        for (u32 from = 0; from < count; from += 8) {
            f32 some[8];
            load_share<T, WIDE>(b + first + from, 0, 1, count - from, 0.0f, some);
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                UNROLL
                for (u32 i = 0; i < 4; i++) {
                    sum[i] += tile[i * 64 + from + j] * some[j];
                }
            }
        }
        group_barrier();
    }
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        if (i < piece.rows && col < p.out_features) {
            const u64 at = piece.row[i] * p.y_row + col;
            y[at] = rounded<T>(f32_of(y[at]) + sum[i]);
        }
    }
}

#define LORA_ROWS(suffix, T, WIDE)                                                                                     \
    KERNEL(                                                                                                            \
        lora_rows_down_##suffix, 256, IN(T, x, 0), IN(T, a, 1), IN(f32, scales, 2), IN(u32, slots, 3), OUT(f32, h, 4), \
        PARAMS(LoraRowsParams, p, 5)) {                                                                                \
        GROUP f32 sums[8 * 16];                                                                                        \
        lora_rows_down<T, WIDE>(x, a, scales, slots, h, p, sums, HERE);                                                \
    }                                                                                                                  \
    KERNEL(                                                                                                            \
        lora_rows_up_##suffix, 256, IN(f32, h, 0), IN(T, b, 1), IN(u32, slots, 2), OUT(T, y, 3),                       \
        PARAMS(LoraRowsParams, p, 4)) {                                                                                \
        GROUP f32 tile[256];                                                                                           \
        lora_rows_up<T, WIDE>(h, b, slots, y, p, tile, HERE);                                                          \
    }

FOR_EACH_DTYPE_AND_ACCESS(LORA_ROWS)
