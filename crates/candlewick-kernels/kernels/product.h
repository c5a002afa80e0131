// Every matrix product, without matrix instructions:
// C = alpha A B + factor H E + bias + beta C, with A [m, k], B [k, n], H [m, rank] in f32, E [rank, n], batched and
// summed over batches. H E is LoRA's rank extension: with H = x A^T and E = B^T the delta is part of the same sum.
//
// product_64, product_32  tiles of C of that many rows and columns, of 256 threads each
// product_sum             adds up the splits of a long sum, in order, with bias and beta C
struct ProductParams {
    u64 a_row;      // elements from A(i, p) to A(i + 1, p)
    u64 a_col;      // to A(i, p + 1); one of both is 1
    u64 b_row;
    u64 b_col;
    u64 c_row;
    u64 e_row;
    u64 e_col;
    u64 a_batch[3]; // from one product of the batch to the next, along three dimensions
    u64 b_batch[3];
    u64 c_batch[3];
    u64 a_sum[3];   // from one term of a sum over batches to the next
    u64 b_sum[3];
    u32 batch[3];
    u32 sum[3];
    u32 m;
    u32 n;
    u32 k;
    u32 rank;
    u32 k_steps;    // of one term: 16 deep for tiles of 64, 32 deep for tiles of 32
    u32 steps;      // of all terms
    u32 splits;     // of the steps; more than one: their sums go to `partial`
    u32 split;      // steps of each
    u32 a_is_f32;   // A, B, C may be f32 whatever the dtype
    u32 b_is_f32;
    u32 c_is_f32;
    u32 has_bias;
    f32 alpha;
    f32 beta;
    f32 factor;
    u32 unused;
};

// A thread's part of DEPTH columns of TILE rows of A, or of columns of B, from (first, p) on; zeros beyond the ends.
// Consecutive threads read consecutive elements, whichever way the matrix lies.
template <typename T, u32 TILE, u32 DEPTH>
FUNCTION void load_tile(
    LOCAL f32 *part, const GLOBAL T *from, bool is_f32, u64 row, u64 col, u32 first, u32 rows, u32 p, u32 cols,
    f32 factor, Here here) {
    UNROLL
    for (u32 u = 0; u < TILE * DEPTH / 256; u++) {
        const u32 i = here.index + 256 * u;
        const u32 along = col == 1 ? i % DEPTH : i / TILE, across = col == 1 ? i / DEPTH : i % TILE;
        const bool inside = first + across < rows && p + along < cols;
        part[u] = inside ? factor * element(from, (first + across) * row + (p + along) * col, is_f32) : 0.0f;
    }
}
template <u32 TILE, u32 DEPTH>
FUNCTION void store_tile(const LOCAL f32 *part, GROUP_POINTER(f32) tile, u64 col, Here here) {
    UNROLL
    for (u32 u = 0; u < TILE * DEPTH / 256; u++) {
        const u32 i = here.index + 256 * u;
        const u32 along = col == 1 ? i % DEPTH : i / TILE, across = col == 1 ? i / DEPTH : i % TILE;
        tile[along * (TILE + 1) + across] = part[u];
    }
}

// Adds the product of two tiles to a thread's part of C: rows thread / 16 + 16 u, columns thread % 16 + 16 v.
template <u32 TILE, u32 DEPTH>
FUNCTION void multiply_tiles(GROUP_POINTER(f32) a, GROUP_POINTER(f32) b, LOCAL f32 *c, Here here) {
    const u32 SIDE = TILE / 16;
    UNROLL_4
    for (u32 p = 0; p < DEPTH; p++) {
        f32 row[4], col[4];
        UNROLL
        for (u32 u = 0; u < SIDE; u++) {
            row[u] = a[p * (TILE + 1) + here.index / 16 + 16 * u];
            col[u] = b[p * (TILE + 1) + here.index % 16 + 16 * u];
        }
        UNROLL
        for (u32 u = 0; u < SIDE; u++) {
            UNROLL
            for (u32 v = 0; v < SIDE; v++) {
                c[u * SIDE + v] += row[u] * col[v];
            }
        }
    }
}

// The tiles of one step of the sum over p, and over terms.
template <typename T, u32 TILE, u32 DEPTH>
FUNCTION void load_step(
    const GLOBAL T *a, const GLOBAL T *b, PARAMS_OF(ProductParams, p), u32 step, u32 first_row, u32 first_col,
    LOCAL f32 *a_part, LOCAL f32 *b_part, Here here) {
    const u32 term = step / p.k_steps, at = step % p.k_steps * DEPTH;
    const u64 a_at = batch_offset(term, p.sum[1], p.sum[2], p.a_sum[0], p.a_sum[1], p.a_sum[2]);
    const u64 b_at = batch_offset(term, p.sum[1], p.sum[2], p.b_sum[0], p.b_sum[1], p.b_sum[2]);
    load_tile<T, TILE, DEPTH>(
        a_part, p.a_is_f32 ? (const GLOBAL T *)((const GLOBAL f32 *)a + a_at) : a + a_at, p.a_is_f32 != 0, p.a_row,
        p.a_col, first_row, p.m, at, p.k, 1.0f, here);
    load_tile<T, TILE, DEPTH>(
        b_part, p.b_is_f32 ? (const GLOBAL T *)((const GLOBAL f32 *)b + b_at) : b + b_at, p.b_is_f32 != 0, p.b_col,
        p.b_row, first_col, p.n, at, p.k, 1.0f, here);
}

template <typename T, u32 TILE, u32 DEPTH>
FUNCTION void product(
    const GLOBAL T *a, const GLOBAL T *b, GLOBAL T *c, const GLOBAL f32 *h, const GLOBAL T *e, const GLOBAL T *bias,
    GLOBAL f32 *partial, PARAMS_OF(ProductParams, p), GROUP_POINTER(f32) a_tile, GROUP_POINTER(f32) b_tile, Here here) {
    const u32 SIDE = TILE / 16;
    const u32 tile_cols = (p.n + TILE - 1) / TILE, tile_rows = (p.m + TILE - 1) / TILE;
    u32 rest = here.group;
    const u32 first_col = rest % tile_cols * TILE;
    rest /= tile_cols;
    const u32 first_row = rest % tile_rows * TILE;
    rest /= tile_rows;
    const u32 split = rest % p.splits, index = rest / p.splits;

    a += batch_offset(index, p.batch[1], p.batch[2], p.a_batch[0], p.a_batch[1], p.a_batch[2]);
    b += batch_offset(index, p.batch[1], p.batch[2], p.b_batch[0], p.b_batch[1], p.b_batch[2]);
    f32 sums[SIDE * SIDE], a_part[TILE * DEPTH / 256], b_part[TILE * DEPTH / 256];
    UNROLL
    for (u32 i = 0; i < SIDE * SIDE; i++) {
        sums[i] = 0.0f;
    }
    const u32 begin = split * p.split;
    const u32 end = begin + p.split < p.steps ? begin + p.split : p.steps;
    if (begin < end) {
        load_step<T, TILE, DEPTH>(a, b, p, begin, first_row, first_col, a_part, b_part, here);
    }
    for (u32 step = begin; step < end; step++) {
        store_tile<TILE, DEPTH>(a_part, a_tile, p.a_col, here);
        store_tile<TILE, DEPTH>(b_part, b_tile, p.b_row, here);
        group_barrier();
        // The next step's loads are under way while this one multiplies.
        if (step + 1 < end) {
            load_step<T, TILE, DEPTH>(a, b, p, step + 1, first_row, first_col, a_part, b_part, here);
        }
        multiply_tiles<TILE, DEPTH>(a_tile, b_tile, sums, here);
        group_barrier();
    }
    UNROLL
    for (u32 i = 0; i < SIDE * SIDE; i++) {
        sums[i] *= p.alpha;
    }
    for (u32 r = 0; r < p.rank && split == 0; r += DEPTH) {
        load_tile<f32, TILE, DEPTH>(a_part, h, true, p.rank, 1, first_row, p.m, r, p.rank, p.factor, here);
        load_tile<T, TILE, DEPTH>(b_part, e, false, p.e_col, p.e_row, first_col, p.n, r, p.rank, 1.0f, here);
        store_tile<TILE, DEPTH>(a_part, a_tile, 1, here);
        store_tile<TILE, DEPTH>(b_part, b_tile, p.e_row, here);
        group_barrier();
        multiply_tiles<TILE, DEPTH>(a_tile, b_tile, sums, here);
        group_barrier();
    }

    const u64 to = batch_offset(index, p.batch[1], p.batch[2], p.c_batch[0], p.c_batch[1], p.c_batch[2]);
    UNROLL
    for (u32 u = 0; u < SIDE; u++) {
        UNROLL
        for (u32 v = 0; v < SIDE; v++) {
            const u32 i = first_row + here.index / 16 + 16 * u, j = first_col + here.index % 16 + 16 * v;
            if (i < p.m && j < p.n) {
                const f32 sum = sums[u * SIDE + v];
                if (p.splits > 1) {
                    const u64 products = u64(p.batch[0]) * p.batch[1] * p.batch[2];
                    partial[((split * products + index) * p.m + i) * p.n + j] = sum;
                } else {
                    const u64 at = to + i * p.c_row + j;
                    const f32 before = p.beta == 0.0f ? 0.0f : p.beta * element(c, at, p.c_is_f32 != 0);
                    set_element(c, at, p.c_is_f32 != 0, sum + (p.has_bias ? f32_of(bias[j]) : 0.0f) + before);
                }
            }
        }
    }
}

struct ProductSumParams {
    u64 c_row;
    u64 c_col;
    u64 c_batch[3];
    u32 batch[3];
    u32 m;
    u32 n;
    u32 count;    // elements of all products
    u32 splits;
    u32 c_is_f32;
    u32 has_bias;
    f32 beta;
};

// Partial sums lie [split, product, i, j].
template <typename T>
FUNCTION void product_sum(
    const GLOBAL f32 *partial, const GLOBAL T *bias, GLOBAL T *c, PARAMS_OF(ProductSumParams, p), Here here) {
    const u32 at = here.group * here.threads + here.index;
    if (at < p.count) {
        f32 sum = 0.0f;
        for (u32 split = 0; split < p.splits; split++) {
            sum += partial[u64(split) * p.count + at];
        }
        const u32 j = at % p.n, i = at / p.n % p.m, index = at / p.n / p.m;
        const u64 to = batch_offset(index, p.batch[1], p.batch[2], p.c_batch[0], p.c_batch[1], p.c_batch[2])
            + i * p.c_row + j * p.c_col;
        const f32 before = p.beta == 0.0f ? 0.0f : p.beta * element(c, to, p.c_is_f32 != 0);
        set_element(c, to, p.c_is_f32 != 0, sum + (p.has_bias ? f32_of(bias[j]) : 0.0f) + before);
    }
}

#define PRODUCT_SLOTS(T)                                                                                      \
    IN(T, a, 0), IN(T, b, 1), OUT(T, c, 2), IN(f32, h, 3), IN(T, e, 4), IN(T, bias, 5), OUT(f32, partial, 6), \
        PARAMS(ProductParams, p, 7)

#define PRODUCT(suffix, T)                                                                                         \
    KERNEL(product_64_##suffix, 256, PRODUCT_SLOTS(T)) {                                                           \
        GROUP f32 a_tile[16 * 65];                                                                                 \
        GROUP f32 b_tile[16 * 65];                                                                                 \
        product<T, 64, 16>(a, b, c, h, e, bias, partial, p, a_tile, b_tile, HERE);                                     \
    }                                                                                                              \
    KERNEL(product_32_##suffix, 256, PRODUCT_SLOTS(T)) {                                                           \
        GROUP f32 a_tile[32 * 33];                                                                                 \
        GROUP f32 b_tile[32 * 33];                                                                                 \
        product<T, 32, 32>(a, b, c, h, e, bias, partial, p, a_tile, b_tile, HERE);                                     \
    }                                                                                                              \
    KERNEL(                                                                                                        \
        product_sum_##suffix, 256, IN(f32, partial, 0), IN(T, bias, 1), OUT(T, c, 2),                              \
        PARAMS(ProductSumParams, p, 3)) {                                                                          \
        product_sum<T>(partial, bias, c, p, HERE);                                                                 \
    }

FOR_EACH_DTYPE(PRODUCT)
