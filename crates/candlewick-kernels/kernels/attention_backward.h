// Attention's gradients, from q, k, v, y, lse and dy, by the tiles of the forward. With p = exp(scale q k^T - lse) and
// D = dy y: ds = scale p (dy v^T - D), dq = ds k, dk = ds^T q, dv = p^T dy. No two groups write the same element, and
// sums are in a fixed order.
//
// attention_backward_rows  lse and D of every query and head, and the keys that every query sees
// attention_dq_2, _4       a group has 32 rows, each a query and a head, and walks over the keys
// attention_dkv_2, _4      a group has 32 keys, and walks over the queries and heads that see them
//                          for so many times 32 columns of a head; more are shared as in the forward
template <typename T, bool WIDE>
FUNCTION void attention_backward_rows(
    const GLOBAL u32 *spans, const GLOBAL T *y, const GLOBAL f32 *lse, const GLOBAL T *dy, GLOBAL f32 *rows,
    GLOBAL u32 *ranges, PARAMS_OF(AttentionParams, p), Here here) {
    const u64 row = u64(here.group) * (here.threads / 32) + here.team;
    if (row >= u64(p.queries) * p.heads) {
        return;
    }
    const u32 query = u32(row / p.heads), head = u32(row % p.heads);
    const u64 from = query * p.y_row + u64(head) * p.head;
    f32 dot = 0.0f;
    for (u32 first = 0; first < p.head; first += 256) {
        f32 y_share[8], dy_share[8];
        load_share<T, WIDE>(y + from + first, here.lane, 32, p.head - first, 0.0f, y_share);
        load_share<T, WIDE>(dy + from + first, here.lane, 32, p.head - first, 0.0f, dy_share);
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            dot += y_share[i] * dy_share[i];
        }
    }
    dot = lanes_sum(dot, 32);
    if (here.lane == 0) {
        rows[row * 2] = lse[row];
        rows[row * 2 + 1] = dot;
    }
    if (head == 0) {
        const Seen seen = keys_of(spans, p, query, here.lane);
        if (here.lane == 0) {
            ranges[u64(query) * 2] = seen.begin;
            ranges[u64(query) * 2 + 1] = seen.end;
        }
    }
}

// What row i of a tile sees, and its lse and D: in lane i, and in group memory for the others.
FUNCTION Seen load_rows(
    const GLOBAL f32 *rows, const GLOBAL u32 *ranges, PARAMS_OF(AttentionParams, p), TileRow at,
    GROUP_POINTER(f32) lses, GROUP_POINTER(f32) dots, Here here) {
    Seen seen;
    seen.begin = at.exists ? ranges[u64(at.query) * 2] : 0;
    seen.end = at.exists ? ranges[u64(at.query) * 2 + 1] : 0;
    if (here.team == 0) {
        const u64 row = u64(at.query) * p.heads + at.head;
        lses[here.lane] = at.exists ? rows[row * 2] : 0.0f;
        dots[here.lane] = at.exists ? rows[row * 2 + 1] : 0.0f;
    }
    return seen;
}

template <typename T, u32 CHUNKS, bool WIDE>
FUNCTION void attention_dq(
    const GLOBAL T *q, const GLOBAL T *k, const GLOBAL T *v, const GLOBAL T *dy, const GLOBAL f32 *rows,
    const GLOBAL u32 *ranges, GLOBAL T *dq, PARAMS_OF(AttentionParams, p), PART row_part, PART key_part, PART weights,
    GROUP_POINTER(f32) lses, GROUP_POINTER(f32) dots, GROUP_POINTER(u32) begins, GROUP_POINTER(u32) ends, Here here) {
    const u32 column = here.group % p.columns, head_block = here.group / p.columns % p.head_blocks;
    const u32 rest = here.group / p.columns / p.head_blocks, kv_head = rest % p.kv_heads;
    const u32 tile = p.tiles - 1 - rest / p.kv_heads;
    const Seen mine =
        load_rows(rows, ranges, p, tile_row(here.lane, tile, kv_head, head_block, p), lses, dots, here);
    if (here.team == 0) {
        begins[here.lane] = mine.begin;
        ends[here.lane] = mine.end;
    }
    const TileRow loads = tile_row(here.index / 4, tile, kv_head, head_block, p);
    const GLOBAL T *q_from = q + loads.query * p.q_row + u64(loads.head) * p.head;
    const GLOBAL T *dy_from = dy + loads.query * p.y_row + u64(loads.head) * p.head;
    const u32 first_row = here.index / 16 * 4, first_col = column * CHUNKS * 32;
    f32 sum[CHUNKS * 8];
    UNROLL
    for (u32 i = 0; i < CHUNKS * 8; i++) {
        sum[i] = 0.0f;
    }
    for (u32 first = next_seen(mine, 0); first != 0xffffffffu; first = next_seen(mine, first + 32)) {
        const u32 key = first + here.index / 4;
        const GLOBAL T *k_from = k + key * p.k_row + u64(kv_head) * p.head;
        const GLOBAL T *v_from = v + key * p.v_row + u64(kv_head) * p.head;
        f32 s[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
        f32 d[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
        for (u32 at = 0; at < p.head; at += 32) {
            group_barrier();
            load_part<T, WIDE>(q_from, loads.exists, at, p.head, row_part, here.index);
            load_part<T, WIDE>(k_from, key < p.keys, at, p.head, key_part, here.index);
            group_barrier();
            add_products(row_part, key_part, s, here.index);
            group_barrier();
            load_part<T, WIDE>(dy_from, loads.exists, at, p.head, row_part, here.index);
            load_part<T, WIDE>(v_from, key < p.keys, at, p.head, key_part, here.index);
            group_barrier();
            add_products(row_part, key_part, d, here.index);
        }
        Masks masks;
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            const u32 row = first_row + i;
            masks.of[i] = bits_between(begins[row], ends[row], first);
            UNROLL
            for (u32 j = 0; j < 2; j++) {
                const bool seen = (masks.of[i] >> (here.index % 16 + j * 16) & 1u) != 0;
                const f32 weight = exp_of(s[i * 2 + j] * p.scale - lses[row]);
                s[i * 2 + j] = seen ? p.scale * weight * (d[i * 2 + j] - dots[row]) : 0.0f;
            }
        }
        put_scores(weights, s, here.index);
        const bool all = all_see(mine, first);
        UNROLL
        for (u32 chunk = 0; chunk < CHUNKS; chunk++) {
            if (first_col + chunk * 32 < p.head) {
                group_barrier();
                load_part<T, WIDE>(k_from, key < p.keys, first_col + chunk * 32, p.head, key_part, here.index);
                group_barrier();
                if (all) {
                    add_weighted<false>(weights, key_part, masks, sum + chunk * 8, here.index);
                } else {
                    add_weighted<true>(weights, key_part, masks, sum + chunk * 8, here.index);
                }
            }
        }
    }
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const TileRow at = tile_row(first_row + i, tile, kv_head, head_block, p);
        GLOBAL T *to = dq + at.query * p.q_row + u64(at.head) * p.head;
        UNROLL
        for (u32 j = 0; j < CHUNKS * 2; j++) {
            const u32 col = first_col + j * 16 + here.index % 16;
            if (at.exists && col < p.head) {
                to[col] = rounded<T>(sum[j / 2 * 8 + i * 2 + j % 2]);
            }
        }
    }
}

// dk or dv: weights (keys by rows) times the rows of q or dy.
template <typename T, u32 CHUNKS, bool WIDE>
FUNCTION void add_rows(
    const GLOBAL T *from, bool exists, u32 first_col, u32 cols, PART weights, PART row_part, Masks masks, bool all,
    LOCAL f32 *sum, Here here) {
    UNROLL
    for (u32 chunk = 0; chunk < CHUNKS; chunk++) {
        if (first_col + chunk * 32 < cols) {
            group_barrier();
            load_part<T, WIDE>(from, exists, first_col + chunk * 32, cols, row_part, here.index);
            group_barrier();
            if (all) {
                add_weighted<false>(weights, row_part, masks, sum + chunk * 8, here.index);
            } else {
                add_weighted<true>(weights, row_part, masks, sum + chunk * 8, here.index);
            }
        }
    }
}

template <typename T, u32 CHUNKS>
FUNCTION void store_rows(
    const LOCAL f32 *sum, GLOBAL T *to, u64 row_length, u32 first_key, u32 keys, u32 first_col, u32 cols, Here here) {
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const u32 key = first_key + here.index / 16 * 4 + i;
        UNROLL
        for (u32 j = 0; j < CHUNKS * 2; j++) {
            const u32 col = first_col + j * 16 + here.index % 16;
            if (key < keys && col < cols) {
                to[key * row_length + col] = rounded<T>(sum[j / 2 * 8 + i * 2 + j % 2]);
            }
        }
    }
}

template <typename T, u32 CHUNKS, bool WIDE>
FUNCTION void attention_dkv(
    const GLOBAL T *q, const GLOBAL T *k, const GLOBAL T *v, const GLOBAL T *dy, const GLOBAL f32 *rows,
    const GLOBAL u32 *ranges, GLOBAL T *dk, GLOBAL T *dv, PARAMS_OF(AttentionParams, p), PART row_part, PART key_part,
    PART weights, GROUP_POINTER(f32) lses, GROUP_POINTER(f32) dots, Here here) {
    const u32 column = here.group % p.columns, kv_head = here.group / p.columns % p.kv_heads;
    const u32 first_key = here.group / p.columns / p.kv_heads * 32;
    const u32 first_col = column * CHUNKS * 32, col = here.index % 16;
    const u32 key = first_key + here.index / 4;
    const GLOBAL T *k_from = k + key * p.k_row + u64(kv_head) * p.head;
    const GLOBAL T *v_from = v + key * p.v_row + u64(kv_head) * p.head;
    f32 dk_sum[CHUNKS * 8], dv_sum[CHUNKS * 8];
    UNROLL
    for (u32 i = 0; i < CHUNKS * 8; i++) {
        dk_sum[i] = 0.0f;
        dv_sum[i] = 0.0f;
    }
    for (u32 block = 0; block < p.tiles * p.head_blocks; block++) {
        const u32 tile = block / p.head_blocks, head_block = block % p.head_blocks;
        const TileRow mine = tile_row(here.lane, tile, kv_head, head_block, p);
        Seen seen;
        seen.begin = mine.exists ? ranges[u64(mine.query) * 2] : 0;
        seen.end = mine.exists ? ranges[u64(mine.query) * 2 + 1] : 0;
        if (lanes_that(seen.begin < seen.end && seen.begin < first_key + 32 && seen.end > first_key) == 0) {
            continue;
        }
        load_rows(rows, ranges, p, mine, lses, dots, here);
        const TileRow loads = tile_row(here.index / 4, tile, kv_head, head_block, p);
        const GLOBAL T *q_from = q + loads.query * p.q_row + u64(loads.head) * p.head;
        const GLOBAL T *dy_from = dy + loads.query * p.y_row + u64(loads.head) * p.head;
        // Of keys by rows.
        f32 s[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
        f32 d[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
        for (u32 at = 0; at < p.head; at += 32) {
            group_barrier();
            load_part<T, WIDE>(k_from, key < p.keys, at, p.head, key_part, here.index);
            load_part<T, WIDE>(q_from, loads.exists, at, p.head, row_part, here.index);
            group_barrier();
            add_products(key_part, row_part, s, here.index);
            group_barrier();
            load_part<T, WIDE>(v_from, key < p.keys, at, p.head, key_part, here.index);
            load_part<T, WIDE>(dy_from, loads.exists, at, p.head, row_part, here.index);
            group_barrier();
            add_products(key_part, row_part, d, here.index);
        }
        // Bit r: row r sees the key. The lanes of a team have eight keys, half of them four.
        Masks masks;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 of = first_key + here.team * 8 + i;
            const u32 seeing = lanes_that(seen.begin <= of && of < seen.end);
            if (i / 4 == here.lane / 16) {
                masks.of[i % 4] = seeing;
            }
        }
        const bool all = lanes_that(mine.exists && (seen.begin > first_key || seen.end < first_key + 32)) == 0;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 row = col + i % 2 * 16;
            const bool counts = (masks.of[i / 2] >> row & 1u) != 0;
            const f32 weight = counts ? exp_of(s[i] * p.scale - lses[row]) : 0.0f;
            d[i] = counts ? p.scale * weight * (d[i] - dots[row]) : 0.0f;
            s[i] = weight;
        }
        put_scores(weights, s, here.index);
        add_rows<T, CHUNKS, WIDE>(
            dy_from, loads.exists, first_col, p.head, weights, row_part, masks, all, dv_sum, here);
        group_barrier();
        put_scores(weights, d, here.index);
        add_rows<T, CHUNKS, WIDE>(q_from, loads.exists, first_col, p.head, weights, row_part, masks, all, dk_sum, here);
    }
    store_rows<T, CHUNKS>(dk_sum, dk + u64(kv_head) * p.head, p.k_row, first_key, p.keys, first_col, p.head, here);
    store_rows<T, CHUNKS>(dv_sum, dv + u64(kv_head) * p.head, p.v_row, first_key, p.keys, first_col, p.head, here);
}

#define ATTENTION_BACKWARD_OF(suffix, T, WIDE, CHUNKS)                                                                 \
    KERNEL(                                                                                                            \
        attention_dq_##CHUNKS##_##suffix, 128, IN(T, q, 0), IN(T, k, 1), IN(T, v, 2), IN(T, dy, 3), IN(f32, rows, 4),  \
        IN(u32, ranges, 5), OUT(T, dq, 6), PARAMS(AttentionParams, p, 7)) {                                            \
        GROUP float4 row_part[PART_SIZE];                                                                              \
        GROUP float4 key_part[PART_SIZE];                                                                              \
        GROUP float4 weights[PART_SIZE];                                                                               \
        GROUP f32 lses[32];                                                                                            \
        GROUP f32 dots[32];                                                                                            \
        GROUP u32 begins[32];                                                                                          \
        GROUP u32 ends[32];                                                                                            \
        attention_dq<T, CHUNKS, WIDE>(                                                                                 \
            q, k, v, dy, rows, ranges, dq, p, row_part, key_part, weights, lses, dots, begins, ends, HERE);            \
    }                                                                                                                  \
    KERNEL(                                                                                                            \
        attention_dkv_##CHUNKS##_##suffix, 128, IN(T, q, 0), IN(T, k, 1), IN(T, v, 2), IN(T, dy, 3), IN(f32, rows, 4), \
        IN(u32, ranges, 5), OUT(T, dk, 6), OUT(T, dv, 7), PARAMS(AttentionParams, p, 8)) {                             \
        GROUP float4 row_part[PART_SIZE];                                                                              \
        GROUP float4 key_part[PART_SIZE];                                                                              \
        GROUP float4 weights[PART_SIZE];                                                                               \
        GROUP f32 lses[32];                                                                                            \
        GROUP f32 dots[32];                                                                                            \
        attention_dkv<T, CHUNKS, WIDE>(                                                                                \
            q, k, v, dy, rows, ranges, dk, dv, p, row_part, key_part, weights, lses, dots, HERE);                      \
    }
#define ATTENTION_BACKWARD(suffix, T, WIDE)                                                                            \
    KERNEL(                                                                                                            \
        attention_backward_rows_##suffix, 256, IN(u32, spans, 0), IN(T, y, 1), IN(f32, lse, 2), IN(T, dy, 3),          \
        OUT(f32, rows, 4), OUT(u32, ranges, 5), PARAMS(AttentionParams, p, 6)) {                                       \
        attention_backward_rows<T, WIDE>(spans, y, lse, dy, rows, ranges, p, HERE);                                    \
    }                                                                                                                  \
    ATTENTION_BACKWARD_OF(suffix, T, WIDE, 2)                                                                          \
    ATTENTION_BACKWARD_OF(suffix, T, WIDE, 4)

FOR_EACH_DTYPE_AND_ACCESS(ATTENTION_BACKWARD)
