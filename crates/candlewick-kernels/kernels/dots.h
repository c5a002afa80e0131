// Products with few rows on one side, as dot products along the stored rows of the other side:
// C(i, o) = alpha sum over p of few(i, p) many(o, p) + factor sum over r of h(i, r) e(o, r) + bias(o) + beta C(i, o).
// This is a matrix-vector product where there is one few row; x A^T of LoRA, where the few rows are A's or x's; and
// the whole LoRA layer of few rows, with h = x A^T made before.
//
// dots_1, dots_4, dots_8  for so many few rows at a time: each team of 32 lanes holds the sums of a tile of
// C, walks along p, and adds up its lanes at the end. Where C is small, teams share a tile and split p.
struct DotsParams {
    u64 many_row;
    u64 few_row;
    u64 few_col;       // from few(i, p) to few(i, p + 1)
    u64 c_few;         // from C(i, o) to C(i + 1, o)
    u64 c_many;        // to C(i, o + 1)
    u64 e_row;
    u64 many_batch[3];
    u64 few_batch[3];
    u64 c_batch[3];
    u32 batch[3];
    u32 few;           // rows
    u32 many;
    u32 k;
    u32 rank;
    u32 share;         // teams that share a tile: a power of two
    u32 few_is_f32;
    u32 c_is_f32;
    u32 few_across;    // eight few(i, p) with successive i lie side by side, at a multiple of 16 bytes
    u32 has_bias;
    f32 alpha;
    f32 beta;
    f32 factor;
    u32 unused;
};

// A tile of C: four many rows from `first_many` on by FEW few rows. A tile may end beyond the last row: the sums there
// are of a row that exists, and are not written.
struct DotsTile {
    u32 first_few;
    u32 first_many;
    u32 slice; // of p, which `share` teams divide
};
// The tile of this team, and in which of the products.
struct DotsPlace {
    DotsTile tile;
    u32 index;
};
template <u32 FEW> FUNCTION DotsPlace place_of_team(PARAMS_OF(DotsParams, p), Here here) {
    const u32 tiles = here.threads / 32 / p.share;
    const u32 blocks = (p.many + tiles * 4 - 1) / (tiles * 4), few_blocks = (p.few + FEW - 1) / FEW;
    // Groups that run side by side read the same many rows.
    const u32 few_block = here.group % few_blocks, block = here.group / few_blocks % blocks;
    DotsPlace place;
    place.index = here.group / few_blocks / blocks;
    place.tile.first_few = few_block * FEW;
    place.tile.first_many = (block * tiles + here.team / p.share) * 4;
    place.tile.slice = here.team % p.share;
    return place;
}

// How few(i, p) lies.
enum Few {
    few_along,  // stored along p, as the other side
    few_across, // eight successive i side by side
    few_apart,  // anyhow
};

// FEW by eight elements of the few rows, in one order or the other, against four by eight of the many.
template <typename T, u32 FEW, bool WIDE, Few LIES>
FUNCTION void add_few(
    const GLOBAL T *few, PARAMS_OF(DotsParams, p), u32 first_few, u32 first, const LOCAL f32 *rows, LOCAL f32 *sum,
    u32 lane) {
    UNROLL
    for (u32 u = 0; u < (LIES == few_across ? 8 : FEW); u++) {
        f32 x[8];
        if (LIES == few_along) {
            const u64 row = within(first_few + u, p.few) * p.few_row;
            load_share<T, WIDE>(few + row + first, lane, 32, p.k - first, 0.0f, x);
        } else if (LIES == few_across) {
            const u32 at = first + place_of<WIDE>(u, lane, 32);
            load_share<T, true>(few + at * p.few_col + first_few, 0, 1, at < p.k ? 8 : 0, 0.0f, x);
        } else {
            const u64 row = within(first_few + u, p.few) * p.few_row;
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                const u32 at = first + place_of<WIDE>(j, lane, 32);
                x[j] = at < p.k ? element(few, row + at * p.few_col, p.few_is_f32 != 0) : 0.0f;
            }
        }
        UNROLL
        for (u32 v = 0; v < (LIES == few_across ? FEW : 8); v++) {
            const u32 i = LIES == few_across ? v : u, j = LIES == few_across ? u : v;
            UNROLL
            for (u32 o = 0; o < 4; o++) {
                sum[i * 4 + o] += x[v] * rows[o * 8 + j];
            }
        }
    }
}

// Adds alpha few(i, p) many(o, p) of this lane's p.
template <typename T, u32 FEW, bool WIDE, Few LIES>
FUNCTION void add_dots(
    const GLOBAL T *many, const GLOBAL T *few, PARAMS_OF(DotsParams, p), DotsTile tile, LOCAL f32 *sum, Here here) {
    for (u32 first = tile.slice * 256; first < p.k; first += p.share * 256) {
        f32 rows[4 * 8];
        UNROLL
        for (u32 o = 0; o < 4; o++) {
            const u64 row = within(tile.first_many + o, p.many) * p.many_row;
            load_share<T, WIDE>(many + row + first, here.lane, 32, p.k - first, 0.0f, rows + o * 8);
        }
        add_few<T, FEW, WIDE, LIES>(few, p, tile.first_few, first, rows, sum, here.lane);
    }
    UNROLL
    for (u32 i = 0; i < FEW * 4; i++) {
        sum[i] *= p.alpha;
    }
}

// Adds factor h(i, r) e(o, r) of this lane's r.
template <typename T, u32 FEW>
FUNCTION void add_extension(
    const GLOBAL f32 *h, const GLOBAL T *e, PARAMS_OF(DotsParams, p), DotsTile tile, LOCAL f32 *sum, Here here) {
    for (u32 r = here.lane; r < p.rank; r += 32) {
        f32 rows[4];
        UNROLL
        for (u32 o = 0; o < 4; o++) {
            rows[o] = p.factor * f32_of(e[within(tile.first_many + o, p.many) * p.e_row + r]);
        }
        UNROLL
        for (u32 i = 0; i < FEW; i++) {
            const f32 x = h[u64(within(tile.first_few + i, p.few)) * p.rank + r];
            UNROLL
            for (u32 o = 0; o < 4; o++) {
                sum[i * 4 + o] += x * rows[o];
            }
        }
    }
}

// The many rows of one product are often weights: they can be on their way while the kernel that makes x works.
template <typename T, u32 FEW>
FUNCTION void bring_rows(const GLOBAL T *many, PARAMS_OF(DotsParams, p), Here here) {
    const DotsPlace place = place_of_team<FEW>(p, here);
    if (place.index != 0) {
        return;
    }
    for (u32 first = place.tile.slice * 256; first < p.k; first += p.share * 256) {
        // 32 bytes a lane: 16 of them reach over 512.
        const u32 at = first + here.lane % 16 * 16;
        UNROLL
        for (u32 o = 0; o < 4; o += 2) {
            const u64 row = within(place.tile.first_many + o + here.lane / 16, p.many) * p.many_row;
            if (at < p.k) {
                bring(many + row + at);
            }
        }
    }
}

template <typename T, u32 FEW, bool WIDE>
FUNCTION void dots(
    const GLOBAL T *many, const GLOBAL T *few, GLOBAL T *c, const GLOBAL f32 *h, const GLOBAL T *e,
    const GLOBAL T *bias, PARAMS_OF(DotsParams, p), GROUP_POINTER(f32) sums, Here here) {
    const DotsPlace place = place_of_team<FEW>(p, here);
    const DotsTile tile = place.tile;
    const u32 index = place.index;
    many += batch_offset(index, p.batch[1], p.batch[2], p.many_batch[0], p.many_batch[1], p.many_batch[2]);
    const u64 few_at = batch_offset(index, p.batch[1], p.batch[2], p.few_batch[0], p.few_batch[1], p.few_batch[2]);
    // Of the right type, so that the offset counts its elements.
    few = p.few_is_f32 != 0 ? (const GLOBAL T *)((const GLOBAL f32 *)few + few_at) : few + few_at;

    f32 sum[FEW * 4];
    UNROLL
    for (u32 i = 0; i < FEW * 4; i++) {
        sum[i] = 0.0f;
    }
    if (p.few_col == 1 && p.few_is_f32 == 0) {
        add_dots<T, FEW, WIDE, few_along>(many, few, p, tile, sum, here);
    } else if (WIDE && FEW == 8 && p.few_across != 0) {
        add_dots<T, FEW, WIDE, few_across>(many, few, p, tile, sum, here);
    } else {
        add_dots<T, FEW, WIDE, few_apart>(many, few, p, tile, sum, here);
    }
    if (tile.slice == 0) {
        add_extension<T, FEW>(h, e, p, tile, sum, here);
    }
    reduce_sums<FEW * 4>(sum, here.lane);
    if (here.lane % (8 / FEW) == 0) {
        sums[here.team * FEW * 4 + here.lane / (8 / FEW)] = sum[0];
    }
    group_barrier();
    const u32 i = tile.first_few + here.lane / 4, o = tile.first_many + here.lane % 4;
    if (tile.slice == 0 && here.lane < FEW * 4 && i < p.few && o < p.many) {
        f32 all = 0.0f;
        for (u32 team = here.team; team < here.team + p.share; team++) {
            all += sums[team * FEW * 4 + here.lane];
        }
        const u64 to = batch_offset(index, p.batch[1], p.batch[2], p.c_batch[0], p.c_batch[1], p.c_batch[2])
            + i * p.c_few + o * p.c_many;
        const f32 before = p.beta == 0.0f ? 0.0f : p.beta * element(c, to, p.c_is_f32 != 0);
        set_element(c, to, p.c_is_f32 != 0, all + (p.has_bias ? f32_of(bias[o]) : 0.0f) + before);
    }
}

#define DOTS_SLOTS(T)                                                                                      \
    IN(T, many, 0), IN(T, few, 1), OUT(T, c, 2), IN(f32, h, 3), IN(T, e, 4), IN(T, bias, 5),               \
        PARAMS(DotsParams, p, 6)

#define DOTS_OF(suffix, T, WIDE, FEW)                                   \
    KERNEL(dots_##FEW##_##suffix, 256, DOTS_SLOTS(T)) {                 \
        GROUP f32 sums[8 * FEW * 4];                                    \
        bring_rows<T, FEW>(many, p, BEFORE);                            \
        dots<T, FEW, WIDE>(many, few, c, h, e, bias, p, sums, HERE); \
    }
#define DOTS(suffix, T, WIDE)   \
    DOTS_OF(suffix, T, WIDE, 1) \
    DOTS_OF(suffix, T, WIDE, 4) \
    DOTS_OF(suffix, T, WIDE, 8)

FOR_EACH_DTYPE_AND_ACCESS(DOTS)
