// Attention of few queries over many keys. A group has one query and some heads that share k and v; each team of 32 lanes
// has one of these heads, and one of every few runs of keys. LANES lanes share a key, and hold its part of the query and of
// y in registers. Where keys are many and that leaves cores without work, groups share the keys of a query, and leave what
// they found in `partial`. The code is short on purpose: a decoding step meets it cold, and waits for every line of it.
//
// attention_decode_L  L lanes: heads of up to 8 L elements
// attention_combine   puts the splits together

// The output of a query and head: `all` and `value` over all keys that it sees.
template <typename T>
FUNCTION void write_value(GLOBAL T *y, Running all, f32 value, bool any) {
    *y = rounded<T>(any ? value / all.sum : 0.0f);
}
FUNCTION f32 lse_of(Running all, bool any) {
    const f32 some = all.max == -infinity() ? not_a_number() : all.max + log_of(all.sum);
    return any ? some : -infinity();
}

// Keys of a split: all of them share what a query sees, but a split is not begun for a few.
FUNCTION u32 keys_of_split(Seen seen, PARAMS_OF(AttentionParams, p)) {
    const u32 each = (seen.end - seen.begin + p.splits - 1) / p.splits;
    return each < 64 ? 64 : each;
}

// Keys that a lane looks at before it adds up what they weigh: their loads are under way at once.
#define KEYS 4
// The most teams of a group.
#define TEAMS 16

// Which query a group has.
FUNCTION u32 query_of(PARAMS_OF(AttentionParams, p), Here here) {
    return here.group / p.splits / p.head_blocks / p.kv_heads;
}

template <typename T, u32 LANES, bool WIDE>
FUNCTION void attention_decode(
    const GLOBAL T *q, const GLOBAL T *k, const GLOBAL T *v, const GLOBAL u32 *spans, GLOBAL T *y, GLOBAL f32 *lse,
    GLOBAL f32 *partial, PARAMS_OF(AttentionParams, p), GROUP_POINTER(f32) values, GROUP_POINTER(Running) runnings,
    Seen seen, Here here) {
    const u32 split = here.group % p.splits, head_block = here.group / p.splits % p.head_blocks;
    const u32 kv_head = here.group / p.splits / p.head_blocks % p.kv_heads, query = query_of(p, here);
    const u32 lane = here.lane % LANES, heads = p.tile_heads, parts = here.threads / 32 / heads;
    const u32 first_head = kv_head * p.group + head_block * heads, last_head = kv_head * p.group + p.group - 1;
    // Beyond the last head the last one again, which is not written.
    const u32 head = at_most(first_head + here.team % heads, last_head);

    f32 mine[8], sum[8];
    load_share<T, WIDE>(q + query * p.q_row + u64(head) * p.head, lane, LANES, p.head, 0.0f, mine);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        sum[i] = 0.0f;
    }
    Running running;
    running.max = -infinity();
    running.sum = 0.0f;
    if (p.ahead == 0) {
        seen = keys_of(spans, p, query, here.lane);
    }
    const u32 each = keys_of_split(seen, p);
    const u32 first = at_most(seen.begin + split * each, seen.end), end = at_most(first + each, seen.end);
    const bool any = seen.begin < seen.end;
    const u64 first_row = u64(query) * p.heads + first_head;
    if (first == end && p.splits > 1) {
        if (here.index < heads && first_head + here.index <= last_head) {
            GLOBAL f32 *found = partial_of(partial, first_row + here.index, split, p.head, p.splits);
            found[p.head] = -infinity();
            found[p.head + 1] = any ? 0.0f : NOTHING_SEEN;
        }
        return;
    }
    // A team has a run of keys, one of every `step` in each of its parts; then the next team's.
    const u32 step = 32 / LANES;
    NO_UNROLL
    for (u32 base = first + here.team / heads * step * KEYS; base < end; base += parts * step * KEYS) {
        f32 rows[KEYS][8], values_of[KEYS][8], scores[KEYS], max = running.max;
        UNROLL
        for (u32 u = 0; u < KEYS; u++) {
            const u32 key = base + here.lane / LANES + u * step, count = key < end ? p.head : 0;
            load_share<T, WIDE>(k + key * p.k_row + u64(kv_head) * p.head, lane, LANES, count, 0.0f, rows[u]);
            // Before they are needed: all of it is on its way at once.
            load_share<T, WIDE>(v + key * p.v_row + u64(kv_head) * p.head, lane, LANES, count, 0.0f, values_of[u]);
        }
        UNROLL
        for (u32 u = 0; u < KEYS; u++) {
            f32 dot = 0.0f;
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                dot += mine[i] * rows[u][i];
            }
            dot = lanes_sum(dot, LANES) * p.scale;
            scores[u] = base + here.lane / LANES + u * step < end ? dot : -infinity();
            max = larger(max, scores[u]);
        }
        const f32 shift = shift_of(max), factor = weight_of(running.max, shift);
        running.max = max;
        running.sum *= factor;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            sum[i] *= factor;
        }
        UNROLL
        for (u32 u = 0; u < KEYS; u++) {
            const f32 weight = exp_of(scores[u] - shift);
            running.sum += weight;
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                sum[i] += weight * values_of[u][i];
            }
        }
    }
    // The lanes of a team that have other keys: each keeps some columns.
    f32 max = running.max;
    UNROLL
    for (u32 bits = LANES; bits < 32; bits *= 2) {
        max = larger(max, lane_xor(max, bits));
    }
    const f32 weight = weight_of(running.max, shift_of(max));
    running.sum *= weight;
    UNROLL
    for (u32 bits = LANES; bits < 32; bits *= 2) {
        running.sum += lane_xor(running.sum, bits);
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        sum[i] *= weight;
    }
    u32 kept = 0;
    if (LANES <= 16) {
        give_half<4>(sum, here.lane, 16);
        kept += here.lane / 16 * 4;
    }
    if (LANES <= 8) {
        give_half<2>(sum, here.lane, 8);
        kept += here.lane / 8 % 2 * 2;
    }
    UNROLL
    for (u32 i = 0; i < LANES / 4; i++) {
        values[here.team * LANES * 8 + place_of<WIDE>(kept + i, lane, LANES)] = sum[i];
    }
    if (here.lane == 0) {
        runnings[here.team].max = max;
        runnings[here.team].sum = running.sum;
    }
    group_barrier();
    // Then the teams of a head.
    NO_UNROLL
    for (u32 i = here.index; i < heads * LANES * 8; i += here.threads) {
        const u32 h = i / (LANES * 8), col = i % (LANES * 8);
        if (first_head + h > last_head || col >= p.head) {
            continue;
        }
        Running all;
        all.max = -infinity();
        NO_UNROLL
        for (u32 team = h; team < parts * heads; team += heads) {
            all.max = larger(all.max, runnings[team].max);
        }
        const f32 shift = shift_of(all.max);
        all.sum = 0.0f;
        f32 value = 0.0f;
        NO_UNROLL
        for (u32 team = h; team < parts * heads; team += heads) {
            const f32 of_team = weight_of(runnings[team].max, shift);
            all.sum += runnings[team].sum * of_team;
            value += values[team * LANES * 8 + col] * of_team;
        }
        if (p.splits > 1) {
            GLOBAL f32 *found = partial_of(partial, first_row + h, split, p.head, p.splits);
            found[col] = value;
            if (col == 0) {
                found[p.head] = all.max;
                found[p.head + 1] = all.sum;
            }
        } else {
            write_value(y + query * p.y_row + u64(first_head + h) * p.head + col, all, value, any);
            if (col == 0) {
                lse[first_row + h] = lse_of(all, any);
            }
        }
    }
}

template <typename T>
FUNCTION void attention_combine(
    const GLOBAL f32 *partial, GLOBAL T *y, GLOBAL f32 *lse, PARAMS_OF(AttentionParams, p), Here here) {
    const u32 query = here.group / p.heads, head = here.group % p.heads;
    const GLOBAL f32 *found = partial_of(partial, here.group, 0, p.head, p.splits);
    const u32 length = split_length(p.head);
    const bool any = found[p.head + 1] != NOTHING_SEEN;
    Running all;
    all.max = -infinity();
    for (u32 split = here.lane; split < p.splits; split += 32) {
        all.max = larger(all.max, found[split * length + p.head]);
    }
    all.max = lanes_max(all.max, 32);
    const f32 shift = shift_of(all.max);
    all.sum = 0.0f;
    for (u32 split = here.lane; split < p.splits; split += 32) {
        all.sum += found[split * length + p.head + 1] * weight_of(found[split * length + p.head], shift);
    }
    all.sum = lanes_sum(all.sum, 32);
    for (u32 col = here.index; col < p.head; col += here.threads) {
        f32 value = 0.0f;
        UNROLL_4
        for (u32 split = 0; split < p.splits; split++) {
            const f32 weight = weight_of(found[split * length + p.head], shift);
            // A split without keys has left no values.
            value += weight == 0.0f ? 0.0f : found[split * length + col] * weight;
        }
        write_value(y + query * p.y_row + u64(head) * p.head + col, all, value, any);
    }
    if (here.index == 0) {
        lse[here.group] = lse_of(all, any);
    }
}

#define ATTENTION_DECODE_OF(suffix, T, WIDE, LANES)                                                                   \
    KERNEL(                                                                                                           \
        attention_decode_##LANES##_##suffix, 32 * TEAMS, IN(T, q, 0), IN(T, k, 1), IN(T, v, 2), IN(u32, spans, 3),    \
        OUT(T, y, 4), OUT(f32, lse, 5), OUT(f32, partial, 6), PARAMS(AttentionParams, p, 7)) {                        \
        GROUP f32 values[TEAMS * LANES * 8];                                                                          \
        GROUP Running runnings[TEAMS];                                                                                \
        const Here early = BEFORE;                                                                                    \
        Seen seen = {};                                                                                               \
        if (p.ahead != 0) {                                                                                           \
            seen = keys_of(spans, p, query_of(p, early), early.lane);                                                 \
        }                                                                                                             \
        attention_decode<T, LANES, WIDE>(q, k, v, spans, y, lse, partial, p, values, runnings, seen, HERE);           \
    }
#define ATTENTION_DECODE(suffix, T, WIDE)    \
    ATTENTION_DECODE_OF(suffix, T, WIDE, 8)  \
    ATTENTION_DECODE_OF(suffix, T, WIDE, 16) \
    ATTENTION_DECODE_OF(suffix, T, WIDE, 32)
#define ATTENTION_COMBINE(suffix, T)                                                                                  \
    KERNEL(                                                                                                           \
        attention_combine_##suffix, 128, IN(f32, partial, 0), OUT(T, y, 1), OUT(f32, lse, 2),                         \
        PARAMS(AttentionParams, p, 3)) {                                                                              \
        attention_combine<T>(partial, y, lse, p, HERE);                                                               \
    }

FOR_EACH_DTYPE_AND_ACCESS(ATTENTION_DECODE)
FOR_EACH_DTYPE(ATTENTION_COMBINE)
