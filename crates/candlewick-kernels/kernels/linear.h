// A frozen linear layer of few rows with what stands around it in a model, in one launch: y = f(x) W^T + bias, or added
// to y. A decoding step is mostly such layers, and each launch less is a microsecond.
//
// linear_plain_1, linear_plain_4  f(x) = x, for so many rows at a time
// linear_norm_1, linear_norm_4    RMSNorm of x: its r multiplies the sums, as the squares are added up on the way
// linear_silu_1, linear_silu_4    silu(x) up
// linear_join_1, linear_join_4    x is what splits of attention have left (prelude/splits.h), put together
// linear_turn_1, linear_turn_4    as norm, where W is q's, k's and v's: q and k are turned (rope.h), and k and v go to
//                                 their rows of a cache (copy_rows.h)
//
// Each team of 32 lanes walks along four rows of W; where W is small, teams share them and each takes some of k. W, bias,
// tables and slots are read before the kernels ahead are done, which therefore must not write them.
struct LinearParams {
    u64 x_row;    // elements between rows of x
    u64 up_row;   // of up
    u64 y_row;    // of y, or q
    u32 rows;
    u32 ins;      // columns of x: a multiple of 8
    u32 outs;
    u32 share;    // teams that share rows of W: a power of two
    u32 has_bias;
    u32 accumulate;
    u32 heads;    // of q
    u32 kv_heads; // of k and v
    u32 head;     // elements of a head: a multiple of 8 where splits are joined; all of them turn, a multiple of 4
    u32 capacity; // rows of the cache
    f32 eps;
    u32 splits;   // of attention: at most 8
};

enum Ahead {
    ahead_plain,
    ahead_norm,
    ahead_silu,
    ahead_join,
    ahead_norm_then_turn,
};

// The row of W that is number `o` of a tile's four. Of rows that turn a tile has two pairs.
template <bool TURN>
FUNCTION u32 linear_row(u32 tile, u32 o, PARAMS_OF(LinearParams, p)) {
    if (!TURN || tile * 4 >= (p.heads + p.kv_heads) * p.head) {
        return tile * 4 + o;
    }
    const u32 tiles = p.head / 4;
    return tile / tiles * p.head + tile % tiles * 2 + o % 2 + o / 2 * (p.head / 2);
}

// Eight elements of each row of a tile.
template <typename T, bool TURN>
FUNCTION void load_rows(
    const GLOBAL T *w, u32 tile, u32 first, PARAMS_OF(LinearParams, p), u32 lane, LOCAL f32 *rows) {
    UNROLL
    for (u32 o = 0; o < 4; o++) {
        const u64 row = within(linear_row<TURN>(tile, o, p), p.outs);
        load_share<T, true>(w + row * p.ins + first, lane, 32, first < p.ins ? p.ins - first : 0, 0.0f, rows + o * 8);
    }
}

// What a thread has before the kernels ahead are done.
struct Early {
    u32 tile;
    u32 slice;      // of k, which `share` teams divide
    u32 row;        // of x, and
    u32 out;        // column of y, for which
    bool writes;    // this thread writes
    f32 rows[32];   // of W, the first of them
    f32 weights[8]; // of RMSNorm
    f32 bias;
    u32 slot;
    SinCos turn;
};

template <typename T, u32 FEW, Ahead AHEAD>
FUNCTION void linear_early(
    const GLOBAL T *second, const GLOBAL T *w, const GLOBAL T *bias, const GLOBAL u32 *positions,
    const GLOBAL f32 *frequencies, const GLOBAL u32 *slots, PARAMS_OF(LinearParams, p), LOCAL Early &early, Here here) {
    const bool turns = AHEAD == ahead_norm_then_turn, norms = turns || AHEAD == ahead_norm;
    const u32 o = here.lane % 4;
    early.tile = here.group * (here.threads / 32 / p.share) + here.team / p.share;
    early.slice = here.team % p.share;
    const u32 first = early.slice * 256;
    load_rows<T, turns>(w, early.tile, first, p, here.lane, early.rows);
    if (norms) {
        load_share<T, true>(second + first, here.lane, 32, first < p.ins ? p.ins - first : 0, 0.0f, early.weights);
    }
    early.row = here.lane / 4;
    early.out = linear_row<turns>(early.tile, o, p);
    early.writes = early.slice == 0 && early.row < FEW && early.row < p.rows && early.tile * 4 + o < p.outs;
    early.bias = early.writes && p.has_bias != 0 ? f32_of(bias[early.out]) : 0.0f;
    if (turns && early.writes) {
        early.slot = slots[early.row];
        const u32 pair = early.tile % (p.head / 4) * 2 + o % 2;
        if (early.out < (p.heads + p.kv_heads) * p.head) {
            early.turn = sin_cos(f32(positions[early.row]) * frequencies[pair]);
        }
    }
    // What comes behind the first eight elements of each lane is at least on its way.
    NO_UNROLL
    for (u32 next = first + p.share * 256; next < p.ins; next += p.share * 256) {
        const u32 at = next + here.lane % 16 * 16;
        UNROLL
        for (u32 i = 0; i < 4; i += 2) {
            const u64 row = within(linear_row<turns>(early.tile, i + here.lane / 16, p), p.outs);
            if (at < p.ins) {
                bring(w + row * p.ins + at);
            }
        }
    }
}

// Eight columns of attention's y from `col` on. Every split is loaded before any is looked at, with or without keys.
FUNCTION void join_splits(const GLOBAL f32 *partial, u32 row, u32 col, PARAMS_OF(LinearParams, p), LOCAL f32 *value) {
    const GLOBAL f32 *found = partial_of(partial, row * p.heads + col / p.head, 0, p.head, p.splits);
    const u32 length = split_length(p.head);
    f32 parts[8][8];
    Running running[8];
    UNROLL
    for (u32 s = 0; s < 8; s++) {
        running[s].max = -infinity();
        running[s].sum = 0.0f;
        if (s < p.splits) {
            running[s].max = found[s * length + p.head];
            running[s].sum = found[s * length + p.head + 1];
            load_8(found + s * length + col % p.head, parts[s]);
        }
    }
    f32 max = -infinity(), sum = 0.0f;
    UNROLL
    for (u32 s = 0; s < 8; s++) {
        max = larger(max, running[s].max);
    }
    UNROLL
    for (u32 j = 0; j < 8; j++) {
        value[j] = 0.0f;
    }
    UNROLL
    for (u32 s = 0; s < 8; s++) {
        // A split without keys has left no values.
        const f32 weight = weight_of(running[s].max, max == -infinity() ? 0.0f : max);
        sum += running[s].sum * weight;
        UNROLL
        for (u32 j = 0; j < 8; j++) {
            value[j] += weight == 0.0f ? 0.0f : weight * parts[s][j];
        }
    }
    const f32 inverse = running[0].sum == NOTHING_SEEN ? 0.0f : 1.0f / sum;
    UNROLL
    for (u32 j = 0; j < 8; j++) {
        value[j] *= inverse;
    }
}

// sum[i * 4 + o] += f(x)(row i) W(row o) of this lane's columns from `first` on; squares of x.
template <typename T, u32 FEW, Ahead AHEAD>
FUNCTION void add_linear(
    const GLOBAL T *x, const GLOBAL T *second, u32 first, PARAMS_OF(LinearParams, p), const LOCAL Early &early, u32 lane,
    LOCAL f32 *sum, LOCAL f32 *square) {
    UNROLL
    for (u32 i = 0; i < FEW; i++) {
        const u32 row = within(i, p.rows);
        f32 few[8];
        if (AHEAD == ahead_join) {
            const u32 col = first + lane * 8;
            join_splits((const GLOBAL f32 *)x, row, col < p.ins ? col : 0, p, few);
        } else {
            load_share<T, true>(x + row * p.x_row + first, lane, 32, p.ins - first, 0.0f, few);
        }
        if (AHEAD == ahead_silu) {
            f32 up[8];
            load_share<T, true>(second + row * p.up_row + first, lane, 32, p.ins - first, 0.0f, up);
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                few[j] = few[j] * inverse_of(1.0f + exp_of(-few[j])) * up[j];
            }
        } else if (AHEAD == ahead_norm || AHEAD == ahead_norm_then_turn) {
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                square[i] += few[j] * few[j];
                few[j] *= early.weights[j];
            }
        }
        UNROLL
        for (u32 o = 0; o < 4; o++) {
            UNROLL
            for (u32 j = 0; j < 8; j++) {
                sum[i * 4 + o] += few[j] * early.rows[o * 8 + j];
            }
        }
    }
}

template <typename T, u32 FEW, Ahead AHEAD>
FUNCTION void linear(
    const GLOBAL T *x, const GLOBAL T *second, const GLOBAL T *w, GLOBAL T *y, GLOBAL T *keys, GLOBAL T *values,
    PARAMS_OF(LinearParams, p), GROUP_POINTER(f32) sums, GROUP_POINTER(f32) squares, LOCAL Early &early, Here here) {
    const bool turns = AHEAD == ahead_norm_then_turn, norms = turns || AHEAD == ahead_norm;
    GLOBAL T *to = y + early.row * p.y_row + early.out;
    const f32 before = early.writes && p.accumulate != 0 ? f32_of(*to) : 0.0f;
    f32 sum[FEW * 4], square[FEW];
    UNROLL
    for (u32 i = 0; i < FEW * 4; i++) {
        sum[i] = 0.0f;
    }
    UNROLL
    for (u32 i = 0; i < FEW; i++) {
        square[i] = 0.0f;
    }
    NO_UNROLL
    for (u32 first = early.slice * 256; first < p.ins;) {
        add_linear<T, FEW, AHEAD>(x, second, first, p, early, here.lane, sum, square);
        first += p.share * 256;
        if (first < p.ins) {
            load_rows<T, turns>(w, early.tile, first, p, here.lane, early.rows);
            if (norms) {
                load_share<T, true>(second + first, here.lane, 32, p.ins - first, 0.0f, early.weights);
            }
        }
    }
    reduce_sums<FEW * 4>(sum, here.lane);
    if (here.lane % (8 / FEW) == 0) {
        sums[here.team * FEW * 4 + here.lane / (8 / FEW)] = sum[0];
    }
    if (norms) {
        UNROLL
        for (u32 i = 0; i < FEW; i++) {
            square[i] = lanes_sum(square[i], 32);
            if (here.lane == 0) {
                squares[here.team * FEW + i] = square[i];
            }
        }
    }
    group_barrier();
    if (early.slice != 0) {
        return;
    }
    f32 all = 0.0f, all_squares = 0.0f;
    if (here.lane < FEW * 4) {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            if (i < p.share) {
                all += sums[(here.team + i) * FEW * 4 + here.lane];
                all_squares += norms ? squares[(here.team + i) * FEW + here.lane / 4] : 0.0f;
            }
        }
    }
    if (norms) {
        all *= inverse_sqrt_of(all_squares / f32(p.ins) + p.eps);
    }
    all += early.bias + before;
    if (turns) {
        // The other element of the pair is two lanes away.
        const f32 other = lane_xor(all, 2), sin = here.lane / 2 % 2 == 0 ? -early.turn.sin : early.turn.sin;
        const u32 width = p.heads * p.head, kv_width = p.kv_heads * p.head;
        const bool is_value = early.out >= width + kv_width;
        all = is_value ? all : all * early.turn.cos + other * sin;
        if (early.out >= width) {
            to = (is_value ? values - kv_width : keys) + u64(early.slot) * kv_width + (early.out - width);
            early.writes = early.writes && early.slot < p.capacity;
        }
    }
    if (early.writes) {
        *to = rounded<T>(all);
    }
}

#define LINEAR_SLOTS(T)                                                                                            \
    IN(T, x, 0), IN(T, second, 1), IN(T, w, 2), IN(T, bias, 3), IN(u32, positions, 4), IN(f32, frequencies, 5),    \
        IN(u32, slots, 6), OUT(T, y, 7), OUT(T, keys, 8), OUT(T, values, 9), PARAMS(LinearParams, p, 10)

// `second` is RMSNorm's weight, or up.
#define LINEAR_OF(suffix, T, NAME, FEW, AHEAD)                                                                     \
    KERNEL(linear_##NAME##_##FEW##_##suffix, 256, LINEAR_SLOTS(T)) {                                               \
        GROUP f32 sums[8 * FEW * 4];                                                                               \
        GROUP f32 squares[8 * FEW];                                                                                \
        Early early = {};                                                                                          \
        linear_early<T, FEW, AHEAD>(second, w, bias, positions, frequencies, slots, p, early, BEFORE);             \
        linear<T, FEW, AHEAD>(x, second, w, y, keys, values, p, sums, squares, early, HERE);                       \
    }
// They have 16-byte accesses alone.
#define LINEAR(suffix, T)                                                \
    LINEAR_OF(suffix##_wide, T, plain, 1, ahead_plain)                   \
    LINEAR_OF(suffix##_wide, T, plain, 4, ahead_plain)                   \
    LINEAR_OF(suffix##_wide, T, norm, 1, ahead_norm)                     \
    LINEAR_OF(suffix##_wide, T, norm, 4, ahead_norm)                     \
    LINEAR_OF(suffix##_wide, T, silu, 1, ahead_silu)                     \
    LINEAR_OF(suffix##_wide, T, silu, 4, ahead_silu)                     \
    LINEAR_OF(suffix##_wide, T, join, 1, ahead_join)                     \
    LINEAR_OF(suffix##_wide, T, join, 4, ahead_join)                     \
    LINEAR_OF(suffix##_wide, T, turn, 1, ahead_norm_then_turn)           \
    LINEAR_OF(suffix##_wide, T, turn, 4, ahead_norm_then_turn)

FOR_EACH_DTYPE(LINEAR)
