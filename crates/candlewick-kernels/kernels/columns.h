// Products with few rows on one side, where the other side's stored rows run along C:
// C(i, o) = alpha sum over p of few(i, p) many(p, o) + factor sum over r of h(i, r) e(r, o) + beta C(i, o).
// This is x W for a W stored [k, n]; the gradients of LoRA's A and B, sums over all rows of x; and dx of few rows.
//
// columns_1, columns_4, columns_8  for so many few rows at a time: a team of 32 lanes holds 256 columns of them, and
// takes every so manieth p; the teams of a group are added up through group memory, the groups that split p by
// product_sum.
struct ColumnsParams {
    u64 many_row;
    u64 few_row;
    u64 few_col;       // from few(i, p) to few(i, p + 1)
    u64 c_few;         // from C(i, o) to C(i + 1, o)
    u64 c_many;        // to C(i, o + 1)
    u64 e_row;
    u64 partial_few;   // the same in `partial`
    u64 partial_many;
    u64 many_batch[3];
    u64 few_batch[3];
    u64 c_batch[3];
    u32 batch[3];
    u32 few;           // rows
    u32 many;          // columns
    u32 k;
    u32 rank;
    u32 splits;        // of p; more than one: their sums go to `partial`
    u32 few_is_f32;
    u32 few_across;    // eight few(i, p) with successive i lie side by side, at a multiple of 16 bytes
    u32 c_is_f32;
    f32 alpha;
    f32 beta;
    f32 factor;
};

// Adds factor few(i, p) many(p, o) for every so manieth p below `count`, of 256 columns of which `left` are there and
// FEW rows of which `few_left` are.
template <typename T, typename F, u32 FEW, bool WIDE>
FUNCTION void add_columns(
    const GLOBAL T *many, u64 many_row, const GLOBAL F *few, u64 few_row, u64 few_col, bool few_across, u32 few_left,
    u32 left, u32 first, u32 step, u32 count, f32 factor, LOCAL f32 *sum, Here here) {
    // So many loads are under way at once, as far as there are registers.
    const u32 AHEAD = FEW > 4 ? 2 : 4;
    for (u32 at = first; at < count; at += AHEAD * step) {
        f32 row[AHEAD][8];
        UNROLL
        for (u32 u = 0; u < AHEAD; u++) {
            const u32 p = at + u * step;
            load_share<T, WIDE>(many + p * many_row, here.lane, 32, p < count ? left : 0, 0.0f, row[u]);
        }
        UNROLL
        for (u32 u = 0; u < AHEAD; u++) {
            const u32 p = at + u * step;
            f32 x[8];
            if (FEW == 8 && few_across) {
                load_share<F, true>(few + p * few_col, 0, 1, p < count ? 8 : 0, 0.0f, x);
            } else {
                UNROLL
                for (u32 i = 0; i < FEW; i++) {
                    // Sums of rows that are not there are of one that is, and are not written.
                    const u64 few_at = (i < few_left ? i : 0) * few_row + p * few_col;
                    x[i] = p < count ? f32_of(few[few_at]) : 0.0f;
                }
            }
            UNROLL
            for (u32 i = 0; i < FEW; i++) {
                UNROLL
                for (u32 j = 0; j < 8; j++) {
                    sum[i * 8 + j] += factor * x[i] * row[u][j];
                }
            }
        }
    }
}

template <typename T, u32 FEW, bool WIDE>
FUNCTION void columns(
    const GLOBAL T *many, const GLOBAL T *few, GLOBAL T *c, const GLOBAL f32 *h, const GLOBAL T *e,
    GLOBAL f32 *partial, PARAMS_OF(ColumnsParams, p), GROUP_POINTER(f32) sums, Here here) {
    const u32 blocks = (p.many + 255) / 256, few_blocks = (p.few + FEW - 1) / FEW;
    u32 rest = here.group;
    // Groups that run side by side read the same columns.
    const u32 first_few = rest % few_blocks * FEW;
    rest /= few_blocks;
    const u32 first_col = rest % blocks * 256;
    rest /= blocks;
    const u32 split = rest % p.splits, index = rest / p.splits;
    const u32 teams = here.threads / 32, left = p.many - first_col, few_left = p.few - first_few;
    many += batch_offset(index, p.batch[1], p.batch[2], p.many_batch[0], p.many_batch[1], p.many_batch[2]) + first_col;
    const u64 few_at = batch_offset(index, p.batch[1], p.batch[2], p.few_batch[0], p.few_batch[1], p.few_batch[2])
        + first_few * p.few_row;
    f32 sum[FEW * 8];
    UNROLL
    for (u32 i = 0; i < FEW * 8; i++) {
        sum[i] = 0.0f;
    }
    const u32 first = split * teams + here.team, step = p.splits * teams;
    // Each way is a loop of its own, in which nothing is asked.
    const bool across = FEW == 8 && p.few_across != 0;
    if (p.few_is_f32 == 0 && !across) {
        add_columns<T, T, FEW, WIDE>(
            many, p.many_row, few + few_at, p.few_row, p.few_col, false, few_left, left, first, step, p.k, p.alpha, sum,
            here);
    } else if (p.few_is_f32 == 0) {
        add_columns<T, T, FEW, WIDE>(
            many, p.many_row, few + few_at, p.few_row, p.few_col, true, few_left, left, first, step, p.k, p.alpha, sum,
            here);
    } else if (!across) {
        add_columns<T, f32, FEW, WIDE>(
            many, p.many_row, (const GLOBAL f32 *)few + few_at, p.few_row, p.few_col, false, few_left, left, first,
            step, p.k, p.alpha, sum, here);
    } else {
        add_columns<T, f32, FEW, WIDE>(
            many, p.many_row, (const GLOBAL f32 *)few + few_at, p.few_row, p.few_col, true, few_left, left, first, step,
            p.k, p.alpha, sum, here);
    }
    add_columns<T, f32, FEW, WIDE>(
        e + first_col, p.e_row, h + u64(first_few) * p.rank, p.rank, 1, false, few_left, left, first, step, p.rank,
        p.factor, sum, here);

    const u64 to = batch_offset(index, p.batch[1], p.batch[2], p.c_batch[0], p.c_batch[1], p.c_batch[2]);
    const u64 products = u64(p.batch[0]) * p.batch[1] * p.batch[2];
    UNROLL
    for (u32 i = 0; i < FEW; i++) {
        UNROLL
        for (u32 j = 0; j < 8; j++) {
            sums[here.team * 256 + place_of<WIDE>(j, here.lane, 32)] = sum[i * 8 + j];
        }
        group_barrier();
        for (u32 col = here.index; col < 256 && col < left && i < few_left; col += here.threads) {
            f32 all = 0.0f;
            for (u32 team = 0; team < teams; team++) {
                all += sums[team * 256 + col];
            }
            const u32 row = first_few + i, o = first_col + col;
            if (p.splits > 1) {
                const u64 part = (split * products + index) * p.few * p.many;
                partial[part + row * p.partial_few + o * p.partial_many] = all;
            } else {
                const u64 at = to + row * p.c_few + o * p.c_many;
                const f32 before = p.beta == 0.0f ? 0.0f : p.beta * element(c, at, p.c_is_f32 != 0);
                set_element(c, at, p.c_is_f32 != 0, all + before);
            }
        }
        group_barrier();
    }
}

#define COLUMNS_SLOTS(T)                                                                          \
    IN(T, many, 0), IN(T, few, 1), OUT(T, c, 2), IN(f32, h, 3), IN(T, e, 4), OUT(f32, partial, 5), \
        PARAMS(ColumnsParams, p, 6)

#define COLUMNS_OF(suffix, T, WIDE, FEW)                                          \
    KERNEL(columns_##FEW##_##suffix, 256, COLUMNS_SLOTS(T)) {                     \
        GROUP f32 sums[8 * 256];                                                  \
        columns<T, FEW, WIDE>(many, few, c, h, e, partial, p, sums, HERE);        \
    }
#define COLUMNS(suffix, T, WIDE)      \
    COLUMNS_OF(suffix, T, WIDE, 1)    \
    COLUMNS_OF(suffix, T, WIDE, 4)    \
    COLUMNS_OF(suffix, T, WIDE, 8)

FOR_EACH_DTYPE_AND_ACCESS(COLUMNS)
