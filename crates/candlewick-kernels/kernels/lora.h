// LoRA with many rows: y = factor h E + beta y for h [rows, rank] in f32 and E(r, o), from x A^T to the delta, and from
// dh to dx. And LoRA with few rows in one launch.
//
// lora_up     256 columns of 8 rows per group: h is shared, a thread keeps to its column of E
// lora_layer  y = x W^T + bias + factor (x A^T) B^T, or added to y, for one row: every group makes h for itself, in group memory, and
//             then its share of y. It costs reading A once per group, and saves a launch and the wait for it.
struct LoraUpParams {
    u64 y_row;
    u64 e_rank; // from E(r, o) to E(r + 1, o)
    u64 e_col;  // to E(r, o + 1)
    u32 rows;
    u32 cols;
    u32 rank;
    u32 unused;
    f32 factor;
    f32 beta;
};

// WIDE: the rank is a multiple of 8 and runs along the rows of E: B as it is stored.
template <typename T, bool WIDE>
FUNCTION void lora_up(
    const GLOBAL f32 *h, const GLOBAL T *e, GLOBAL T *y, PARAMS_OF(LoraUpParams, p), GROUP_POINTER(f32) tile,
    Here here) {
    const u32 blocks = (p.cols + 255) / 256;
    const u32 first_row = here.group / blocks * 8, col = here.group % blocks * 256 + here.index;
    const u32 rows = p.rows - first_row < 8 ? p.rows - first_row : 8;
    // Columns that are not there are one that is, and are not written.
    e += (col < p.cols ? col : p.cols - 1) * p.e_col;
    f32 sum[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    for (u32 first = 0; first < p.rank; first += 32) {
        // 8 rows of 32, side by side for each r: one element per thread.
        const u32 row = here.index % 8, r = first + here.index / 8;
        tile[here.index] = row < rows && r < p.rank ? p.factor * h[u64(first_row + row) * p.rank + r] : 0.0f;
        group_barrier();
        const u32 count = p.rank - first < 32 ? p.rank - first : 32;
        for (u32 from = 0; from < count; from += 8) {
            f32 b[8];
            UNROLL
            for (u32 j = 0; j < 8 && !WIDE; j++) {
                b[j] = from + j < count ? f32_of(e[(first + from + j) * p.e_rank]) : 0.0f;
            }
            if (WIDE) {
                load_8(e + first + from, b);
            }
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                UNROLL
                for (u32 i = 0; i < 8; i++) {
                    sum[i] += tile[(from + j) * 8 + i] * b[j];
                }
            }
        }
        group_barrier();
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        if (i < rows && col < p.cols) {
            const u64 at = (first_row + i) * p.y_row + col;
            const f32 before = p.beta == 0.0f ? 0.0f : p.beta * f32_of(y[at]);
            y[at] = rounded<T>(sum[i] + before);
        }
    }
}

struct LoraLayerParams {
    u32 in_features;
    u32 out_features;
    u32 rank;     // at most 128
    u32 outputs;  // that each group makes
    u32 has_bias;
    u32 accumulate; // whether y is added to
    f32 factor;
};

// The sum of x(p) row(p), in every lane.
template <typename T, bool WIDE>
FUNCTION f32 dot_of(const GLOBAL T *x, const GLOBAL T *row, u32 count, Here here) {
    f32 sum = 0.0f;
    UNROLL_4
    for (u32 first = 0; first < count; first += 256) {
        f32 a[8], b[8];
        load_share<T, WIDE>(x + first, here.lane, 32, count - first, 0.0f, a);
        load_share<T, WIDE>(row + first, here.lane, 32, count - first, 0.0f, b);
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            sum += a[i] * b[i];
        }
    }
    return lanes_sum(sum, 32);
}

template <typename T, bool WIDE>
FUNCTION void lora_layer(
    const GLOBAL T *x, const GLOBAL T *w, const GLOBAL T *bias, const GLOBAL T *a, const GLOBAL T *b, GLOBAL T *y,
    PARAMS_OF(LoraLayerParams, p), GROUP_POINTER(f32) h, Here here) {
    const u32 teams = here.threads / 32, first = here.group * p.outputs;
    for (u32 r = here.team; r < p.rank; r += teams) {
        const f32 sum = dot_of<T, WIDE>(x, a + u64(r) * p.in_features, p.in_features, here);
        if (here.lane == 0) {
            h[r] = p.factor * sum;
        }
    }
    group_barrier();
    const u32 end = p.out_features - first < p.outputs ? p.out_features : first + p.outputs;
    for (u32 o = first + here.team; o < end; o += teams) {
        f32 delta = 0.0f;
        for (u32 r = here.lane; r < p.rank; r += 32) {
            delta += h[r] * f32_of(b[u64(o) * p.rank + r]);
        }
        const f32 sum = dot_of<T, WIDE>(x, w + u64(o) * p.in_features, p.in_features, here) + lanes_sum(delta, 32);
        if (here.lane == 0) {
            const f32 before = p.accumulate ? f32_of(y[o]) : 0.0f;
            y[o] = rounded<T>(sum + (p.has_bias ? f32_of(bias[o]) : 0.0f) + before);
        }
    }
}

#define LORA(suffix, T, WIDE)                                                                             \
    KERNEL(lora_up_##suffix, 256, IN(f32, h, 0), IN(T, e, 1), OUT(T, y, 2), PARAMS(LoraUpParams, p, 3)) { \
        GROUP f32 tile[256];                                                                              \
        lora_up<T, WIDE>(h, e, y, p, tile, HERE);                                                         \
    }                                                                                                     \
    KERNEL(                                                                                               \
        lora_layer_##suffix, 1024, IN(T, x, 0), IN(T, w, 1), IN(T, bias, 2), IN(T, a, 3), IN(T, b, 4),    \
        OUT(T, y, 5), PARAMS(LoraLayerParams, p, 6)) {                                                    \
        GROUP f32 h[128];                                                                                 \
        lora_layer<T, WIDE>(x, w, bias, a, b, y, p, h, HERE);                                             \
    }

FOR_EACH_DTYPE_AND_ACCESS(LORA)
