// y = softmax(scale q k^T) v, by tiles: a group has 32 rows, each a query and a head of the heads that share k and v,
// and walks over the keys that any of them sees, 32 at a time. It keeps y in registers, and the maximum and the sum of
// each row's exponentials so far (Dao et al., "FlashAttention", 2022, section 3.1).
//
// attention_2, attention_4  for so many times 32 columns of a head; where a head has more, groups share its columns,
//                           and each makes the scores for itself
template <typename T, u32 CHUNKS, bool WIDE>
FUNCTION void attention(
    const GLOBAL T *q, const GLOBAL T *k, const GLOBAL T *v, const GLOBAL u32 *spans, GLOBAL T *y, GLOBAL f32 *lse,
    PARAMS_OF(AttentionParams, p), PART q_part, PART kv_part, PART weights, GROUP_POINTER(f32) factors,
    GROUP_POINTER(u32) begins, GROUP_POINTER(u32) ends, Here here) {
    const u32 column = here.group % p.columns, head_block = here.group / p.columns % p.head_blocks;
    const u32 rest = here.group / p.columns / p.head_blocks, kv_head = rest % p.kv_heads;
    // Those that see most come first.
    const u32 tile = p.tiles - 1 - rest / p.kv_heads;
    for (u32 i = here.team; i < p.tile_queries; i += 4) {
        const Seen seen = keys_of(spans, p, tile * p.tile_queries + i, here.lane);
        const u32 row = i * p.tile_heads + here.lane;
        if (here.lane < p.tile_heads) {
            const bool exists = tile_row(row, tile, kv_head, head_block, p).exists;
            begins[row] = exists ? seen.begin : 0;
            ends[row] = exists ? seen.end : 0;
        }
    }
    if (here.index < 32 && here.index >= p.tile_queries * p.tile_heads) {
        begins[here.index] = 0;
        ends[here.index] = 0;
    }
    group_barrier();
    Seen mine;
    mine.begin = begins[here.lane];
    mine.end = ends[here.lane];

    // This thread loads a quarter of this row, and works on four others; its team makes weights of eight.
    const TileRow loads = tile_row(here.index / 4, tile, kv_head, head_block, p);
    const GLOBAL T *q_from = q + loads.query * p.q_row + u64(loads.head) * p.head;
    const u32 first_row = here.index / 16 * 4, first_col = column * CHUNKS * 32;
    f32 sum[CHUNKS * 8], max[8], total[8];
    UNROLL
    for (u32 i = 0; i < CHUNKS * 8; i++) {
        sum[i] = 0.0f;
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        max[i] = -infinity();
        total[i] = 0.0f;
    }
    for (u32 first = next_seen(mine, 0); first != 0xffffffffu; first = next_seen(mine, first + 32)) {
        const u32 key = first + here.index / 4;
        const GLOBAL T *k_from = k + key * p.k_row + u64(kv_head) * p.head;
        const GLOBAL T *v_from = v + key * p.v_row + u64(kv_head) * p.head;
        f32 s[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
        for (u32 at = 0; at < p.head; at += 32) {
            group_barrier();
            load_part<T, WIDE>(q_from, loads.exists, at, p.head, q_part, here.index);
            load_part<T, WIDE>(k_from, key < p.keys, at, p.head, kv_part, here.index);
            group_barrier();
            add_products(q_part, kv_part, s, here.index);
        }
        put_scores(weights, s, here.index);
        group_barrier();
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            const u32 row = here.team * 8 + i;
            GROUP_POINTER(f32) score = (GROUP_POINTER(f32))(weights + row * 9) + here.lane;
            const bool seen = first + here.lane >= begins[row] && first + here.lane < ends[row];
            const f32 x = seen ? *score * p.scale : -infinity();
            const f32 larger_max = larger(max[i], lanes_max(x, 32)), shift = shift_of(larger_max);
            const f32 weight = seen ? exp_of(x - shift) : 0.0f, factor = weight_of(max[i], shift);
            total[i] = total[i] * factor + lanes_sum(weight, 32);
            max[i] = larger_max;
            *score = weight;
            if (here.lane == 0) {
                factors[row] = factor;
            }
        }
        const bool all = all_see(mine, first);
        Masks masks;
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            masks.of[i] = bits_between(begins[first_row + i], ends[first_row + i], first);
        }
        UNROLL
        for (u32 chunk = 0; chunk < CHUNKS; chunk++) {
            if (chunk == 0 || first_col + chunk * 32 < p.head) {
                group_barrier();
                load_part<T, WIDE>(v_from, key < p.keys, first_col + chunk * 32, p.head, kv_part, here.index);
                group_barrier();
                UNROLL
                for (u32 i = 0; i < 8; i++) {
                    sum[chunk * 8 + i] *= factors[first_row + i / 2];
                }
                if (all) {
                    add_weighted<false>(weights, kv_part, masks, sum + chunk * 8, here.index);
                } else {
                    add_weighted<true>(weights, kv_part, masks, sum + chunk * 8, here.index);
                }
            }
        }
        // The next scores and factors go where these were.
        group_barrier();
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const u32 row = here.team * 8 + i;
        if (here.lane == 0) {
            factors[row] = 1.0f / total[i];
            const TileRow at = tile_row(row, tile, kv_head, head_block, p);
            if (at.exists && column == 0) {
                const f32 some = max[i] == -infinity() ? not_a_number() : max[i] + log_of(total[i]);
                lse[u64(at.query) * p.heads + at.head] = begins[row] < ends[row] ? some : -infinity();
            }
        }
    }
    group_barrier();
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const u32 row = first_row + i;
        const TileRow at = tile_row(row, tile, kv_head, head_block, p);
        if (at.exists) {
            const bool any = begins[row] < ends[row];
            GLOBAL T *to = y + at.query * p.y_row + u64(at.head) * p.head;
            UNROLL
            for (u32 j = 0; j < CHUNKS * 2; j++) {
                const u32 col = first_col + j * 16 + here.index % 16;
                if (col < p.head) {
                    to[col] = rounded<T>(any ? sum[j / 2 * 8 + i * 2 + j % 2] * factors[row] : 0.0f);
                }
            }
        }
    }
}

#define ATTENTION_OF(suffix, T, WIDE, CHUNKS)                                                                         \
    KERNEL(                                                                                                           \
        attention_##CHUNKS##_##suffix, 128, IN(T, q, 0), IN(T, k, 1), IN(T, v, 2), IN(u32, spans, 3), OUT(T, y, 4),   \
        OUT(f32, lse, 5), PARAMS(AttentionParams, p, 6)) {                                                            \
        GROUP float4 q_part[PART_SIZE];                                                                               \
        GROUP float4 kv_part[PART_SIZE];                                                                              \
        GROUP float4 weights[PART_SIZE];                                                                              \
        GROUP f32 factors[32];                                                                                        \
        GROUP u32 begins[32];                                                                                         \
        GROUP u32 ends[32];                                                                                           \
        attention<T, CHUNKS, WIDE>(                                                                                   \
            q, k, v, spans, y, lse, p, q_part, kv_part, weights, factors, begins, ends, HERE);                        \
    }
#define ATTENTION(suffix, T, WIDE)   \
    ATTENTION_OF(suffix, T, WIDE, 2) \
    ATTENTION_OF(suffix, T, WIDE, 4)

FOR_EACH_DTYPE_AND_ACCESS(ATTENTION)
