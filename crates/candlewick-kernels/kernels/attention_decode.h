// Attention of few queries over many keys. A group has one query and up to eight heads that share k and v; some lanes
// share a key, and hold its part of the queries and of y in registers, so each row of k and v is read once. Where that
// leaves cores without work, groups share the keys of a query, and leave what they found in `partial`: for each split
// the maximum, the sum of exponentials, and their sum of rows of v.
//
// attention_decode_1, attention_decode_4, attention_decode_8  for so many heads at a time
// attention_combine                                           puts the splits together
struct Running {
    f32 max;
    f32 sum;
};

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

template <typename T, u32 HEADS, u32 KEYS, bool WIDE>
FUNCTION void attention_decode(
    const GLOBAL T *q, const GLOBAL T *k, const GLOBAL T *v, const GLOBAL u32 *spans, GLOBAL T *y, GLOBAL f32 *lse,
    GLOBAL f32 *partial, PARAMS_OF(AttentionParams, p), GROUP_POINTER(f32) values, GROUP_POINTER(Running) runnings,
    Here here) {
    const u32 split = here.group % p.splits, head_block = here.group / p.splits % p.head_blocks;
    const u32 rest = here.group / p.splits / p.head_blocks, kv_head = rest % p.kv_heads, query = rest / p.kv_heads;
    const u32 lane = here.lane % p.lanes, teams = here.threads / 32, step = here.threads / p.lanes;
    const Seen seen = keys_of(spans, p, query, here.lane);
    const u32 each = keys_of_split(seen, p);
    const u32 first = at_most(seen.begin + split * each, seen.end), end = at_most(first + each, seen.end);
    if (first == end && split > 0) {
        return;
    }
    const u32 first_head = kv_head * p.group + head_block * HEADS, last_head = kv_head * p.group + p.group - 1;

    f32 queries[HEADS][8], sum[HEADS][8];
    Running running[HEADS];
    UNROLL
    for (u32 h = 0; h < HEADS; h++) {
        // Beyond the last head the last one again, which is not written.
        const u32 head = at_most(first_head + h, last_head);
        load_share<T, WIDE>(q + query * p.q_row + u64(head) * p.head, lane, p.lanes, p.head, 0.0f, queries[h]);
        running[h].max = -infinity();
        running[h].sum = 0.0f;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            sum[h][i] = 0.0f;
        }
    }
    for (u32 base = first; base < end; base += step * KEYS) {
        const u32 mine = base + here.index / p.lanes;
        f32 rows[KEYS][8], values_of[KEYS][8], scores[KEYS][HEADS];
        UNROLL
        for (u32 u = 0; u < KEYS; u++) {
            const u32 key = mine + u * step;
            const GLOBAL T *from = k + key * p.k_row + u64(kv_head) * p.head;
            load_share<T, WIDE>(from, lane, p.lanes, key < end ? p.head : 0, 0.0f, rows[u]);
        }
        // Before they are needed: all of it is on its way at once.
        UNROLL
        for (u32 u = 0; u < KEYS; u++) {
            const u32 key = mine + u * step;
            const GLOBAL T *from = v + key * p.v_row + u64(kv_head) * p.head;
            load_share<T, WIDE>(from, lane, p.lanes, key < end ? p.head : 0, 0.0f, values_of[u]);
        }
        UNROLL
        for (u32 u = 0; u < KEYS; u++) {
            UNROLL
            for (u32 h = 0; h < HEADS; h++) {
                f32 dot = 0.0f;
                UNROLL
                for (u32 i = 0; i < 8; i++) {
                    dot += queries[h][i] * rows[u][i];
                }
                dot = lanes_sum(dot, p.lanes) * p.scale;
                scores[u][h] = mine + u * step < end ? dot : -infinity();
            }
        }
        UNROLL
        for (u32 h = 0; h < HEADS; h++) {
            f32 max = running[h].max;
            UNROLL
            for (u32 u = 0; u < KEYS; u++) {
                max = larger(max, scores[u][h]);
            }
            const f32 shift = shift_of(max), factor = weight_of(running[h].max, shift);
            running[h].max = max;
            running[h].sum *= factor;
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                sum[h][i] *= factor;
            }
            UNROLL
            for (u32 u = 0; u < KEYS; u++) {
                const f32 weight = exp_of(scores[u][h] - shift);
                running[h].sum += weight;
                UNROLL
                for (u32 i = 0; i < 8; i++) {
                    sum[h][i] += weight * values_of[u][i];
                }
            }
        }
    }
    UNROLL
    for (u32 h = 0; h < HEADS; h++) {
        // The lanes of a team that have other keys, then the teams.
        f32 max = running[h].max;
        for (u32 bits = p.lanes; bits < 32; bits *= 2) {
            max = larger(max, lane_xor(max, bits));
        }
        const f32 weight = weight_of(running[h].max, shift_of(max));
        running[h].sum *= weight;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            sum[h][i] *= weight;
        }
        for (u32 bits = p.lanes; bits < 32; bits *= 2) {
            running[h].sum += lane_xor(running[h].sum, bits);
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                sum[h][i] += lane_xor(sum[h][i], bits);
            }
        }
        group_barrier();
        if (here.lane < p.lanes) {
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                values[here.team * 256 + place_of<WIDE>(i, lane, p.lanes)] = sum[h][i];
            }
        }
        if (here.lane == 0) {
            runnings[here.team].max = max;
            runnings[here.team].sum = running[h].sum;
        }
        group_barrier();
        Running all;
        all.max = -infinity();
        for (u32 team = 0; team < teams; team++) {
            all.max = larger(all.max, runnings[team].max);
        }
        all.sum = 0.0f;
        for (u32 team = 0; team < teams; team++) {
            all.sum += runnings[team].sum * weight_of(runnings[team].max, shift_of(all.max));
        }
        const u32 head = first_head + h;
        if (head <= last_head) {
            const bool any = seen.begin < seen.end;
            const u64 row = u64(query) * p.heads + head;
            GLOBAL f32 *found = partial + (row * p.splits + split) * (p.head + 2);
            for (u32 col = here.index; col < p.head; col += here.threads) {
                f32 value = 0.0f;
                for (u32 team = 0; team < teams; team++) {
                    value += values[team * 256 + col] * weight_of(runnings[team].max, shift_of(all.max));
                }
                if (p.splits == 1) {
                    write_value(y + query * p.y_row + u64(head) * p.head + col, all, value, any);
                } else {
                    found[2 + col] = value;
                }
            }
            if (here.index == 0) {
                if (p.splits == 1) {
                    lse[row] = lse_of(all, any);
                } else {
                    found[0] = all.max;
                    found[1] = all.sum;
                }
            }
        }
    }
}

template <typename T>
FUNCTION void attention_combine(
    const GLOBAL f32 *partial, const GLOBAL u32 *spans, GLOBAL T *y, GLOBAL f32 *lse, PARAMS_OF(AttentionParams, p),
    Here here) {
    const u32 query = here.group / p.heads, head = here.group % p.heads;
    const Seen seen = keys_of(spans, p, query, here.lane);
    const bool any = seen.begin < seen.end;
    const u64 length = p.head + 2;
    const GLOBAL f32 *found = partial + u64(here.group) * p.splits * length;
    // Those that were begun.
    const u32 each = keys_of_split(seen, p), splits = any ? (seen.end - seen.begin + each - 1) / each : 1;
    Running all;
    all.max = -infinity();
    for (u32 split = here.lane; split < splits; split += 32) {
        all.max = larger(all.max, found[split * length]);
    }
    all.max = lanes_max(all.max, 32);
    all.sum = 0.0f;
    for (u32 split = here.lane; split < splits; split += 32) {
        all.sum += found[split * length + 1] * weight_of(found[split * length], shift_of(all.max));
    }
    all.sum = lanes_sum(all.sum, 32);
    for (u32 col = here.index; col < p.head; col += here.threads) {
        f32 value = 0.0f;
        UNROLL_4
        for (u32 split = 0; split < splits; split++) {
            value += found[split * length + 2 + col] * weight_of(found[split * length], shift_of(all.max));
        }
        write_value(y + query * p.y_row + u64(head) * p.head + col, all, value, any);
    }
    if (here.index == 0) {
        lse[here.group] = lse_of(all, any);
    }
}

#define ATTENTION_DECODE_OF(suffix, T, WIDE, HEADS, KEYS)                                                             \
    KERNEL(                                                                                                           \
        attention_decode_##HEADS##_##suffix, 128, IN(T, q, 0), IN(T, k, 1), IN(T, v, 2), IN(u32, spans, 3),           \
        OUT(T, y, 4), OUT(f32, lse, 5), OUT(f32, partial, 6), PARAMS(AttentionParams, p, 7)) {                        \
        GROUP f32 values[4 * 256];                                                                                    \
        GROUP Running runnings[4];                                                                                    \
        attention_decode<T, HEADS, KEYS, WIDE>(q, k, v, spans, y, lse, partial, p, values, runnings, HERE);           \
    }
#define ATTENTION_DECODE(suffix, T, WIDE)      \
    ATTENTION_DECODE_OF(suffix, T, WIDE, 1, 4) \
    ATTENTION_DECODE_OF(suffix, T, WIDE, 4, 4) \
    ATTENTION_DECODE_OF(suffix, T, WIDE, 8, 2)
#define ATTENTION_COMBINE(suffix, T)                                                                                  \
    KERNEL(                                                                                                           \
        attention_combine_##suffix, 128, IN(f32, partial, 0), IN(u32, spans, 1), OUT(T, y, 2), OUT(f32, lse, 3),      \
        PARAMS(AttentionParams, p, 4)) {                                                                              \
        attention_combine<T>(partial, spans, y, lse, p, HERE);                                                        \
    }

FOR_EACH_DTYPE_AND_ACCESS(ATTENTION_DECODE)
FOR_EACH_DTYPE(ATTENTION_COMBINE)
