// y = softmax(scale x), by rows, and dx = scale y (dy - sum(y dy)). Outputs may lie on inputs of equal strides. With a
// mask, the elements of a row that do not count are never read as numbers, and their results are 0.
//
// softmax_lanes   up to 32 lanes share a row, which stays in their registers: a share each
// softmax_team_2, softmax_team_3, softmax_team_4
//                 32 lanes share a row, which stays in their registers: so many shares each
// softmax_group   a group shares a row, which stays in their registers: up to two shares each
// softmax_looped  a group walks over a row of any length: once for maximum and sum, once to write
// softmax_partial, softmax_write
//                 as looped, for few and long rows: groups share a row; the first leaves the maximum and the sum of
//                 each segment in `parts`, the second puts them together
// softmax_backward_lanes, softmax_backward_team_2, .._3, .._4, softmax_backward_group, softmax_backward_looped
struct SoftmaxParams {
    u64 x_row;    // elements between rows of x and dx
    u64 y_row;    // of y and dy
    u32 rows;
    u32 cols;
    u32 queries;  // rows per sequence of a causal mask; 0: no mask
    u32 lanes;    // that share a row: a power of two up to 32, or the whole group
    u32 segments; // that a row is cut into
    u32 segment;  // elements of each, a multiple of 8
    f32 scale;
    u32 unused;
};

// How many leading elements of a row count.
FUNCTION u32 counting(PARAMS_OF(SoftmaxParams, p), u32 row) {
    return p.queries == 0 ? p.cols : row % p.queries + 1 + p.cols - p.queries;
}

// exp(scale x - max), and the sum of the share.
FUNCTION f32 exponentials(LOCAL f32 *share, f32 max) {
    f32 sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        share[i] = exp_of(share[i] - max);
        sum += share[i];
    }
    return sum;
}

// Loads scale x, -inf where nothing counts.
template <typename T, bool WIDE>
FUNCTION f32 load_scaled(const GLOBAL T *row, u32 lane, u32 lanes, u32 count, f32 scale, LOCAL f32 *share) {
    load_share<T, WIDE>(row, lane, lanes, count, 0.0f, share);
    f32 max = -infinity();
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        share[i] = place_of<WIDE>(i, lane, lanes) < count ? share[i] * scale : -infinity();
        max = larger(max, share[i]);
    }
    return max;
}

// Multiplies, and puts 0 where nothing counts: there the exponential is 0, but the factor may be NaN or infinite.
template <bool WIDE>
FUNCTION void scale_share(LOCAL f32 *share, f32 factor, u32 lane, u32 lanes, u32 count) {
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        share[i] = place_of<WIDE>(i, lane, lanes) < count ? share[i] * factor : 0.0f;
    }
}

template <typename T, bool WIDE, u32 SHARES, typename Row>
FUNCTION void softmax_kept(const GLOBAL T *x, GLOBAL T *y, PARAMS_OF(SoftmaxParams, p), Row at) {
    const bool exists = at.row < p.rows;
    const u32 count = exists ? counting(p, at.row) : 0, cols = exists ? p.cols : 0, apart = at.lanes * 8;
    f32 shares[SHARES * 8];
    f32 max = -infinity(), sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const GLOBAL T *from = x + at.row * p.x_row + i * apart;
        const u32 left = from_on(count, i * apart);
        max = larger(max, load_scaled<T, WIDE>(from, at.lane, at.lanes, left, p.scale, shares + i * 8));
    }
    max = at.max(max);
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        sum += exponentials(shares + i * 8, max);
    }
    const f32 factor = 1.0f / at.sum(sum);
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        scale_share<WIDE>(shares + i * 8, factor, at.lane, at.lanes, from_on(count, i * apart));
        GLOBAL T *to = y + at.row * p.y_row + i * apart;
        store_share<T, WIDE>(shares + i * 8, to, at.lane, at.lanes, from_on(cols, i * apart));
    }
}

// The maximum and the sum of exponentials of what one thread has seen of a row.
struct Running {
    f32 max;
    f32 sum;
};

// Over `count` elements from `x` on, by all threads of the group.
template <typename T, bool WIDE>
FUNCTION Running running_over(const GLOBAL T *x, u32 count, f32 scale, GROUP_POINTER(f32) parts, Here here) {
    Running mine;
    mine.max = -infinity();
    mine.sum = 0.0f;
    const u32 step = here.threads * 8;
    for (u32 first = 0; first < count; first += step) {
        f32 share[8];
        const f32 max = larger(
            mine.max, load_scaled<T, WIDE>(x + first, here.index, here.threads, count - first, scale, share));
        // A thread that has seen -inf alone keeps its sum of 0: had all threads, the sum below is NaN.
        if (max != -infinity()) {
            mine.sum = mine.sum * weight_of(mine.max, max) + exponentials(share, max);
            mine.max = max;
        } else {
            // NaN hides behind -inf in the maximum.
            UNROLL
            for (u32 i = 0; i < 8; i++) {
                mine.sum += share[i] == share[i] ? 0.0f : share[i];
            }
        }
    }
    Running all;
    all.max = group_max(mine.max, parts, here);
    const f32 weight = mine.max == -infinity() ? 1.0f : exp_of(mine.max - all.max);
    all.sum = group_sum(mine.sum * weight, parts, here);
    return all;
}

template <typename T, bool WIDE>
FUNCTION void write_exponentials(
    const GLOBAL T *x, GLOBAL T *y, u32 count, u32 cols, f32 scale, Running all, Here here) {
    const f32 factor = 1.0f / all.sum;
    const u32 step = here.threads * 8;
    for (u32 first = 0; first < cols; first += step) {
        const u32 left = from_on(count, first);
        f32 share[8];
        load_scaled<T, WIDE>(x + first, here.index, here.threads, left, scale, share);
        exponentials(share, all.max);
        scale_share<WIDE>(share, factor, here.index, here.threads, left);
        store_share<T, WIDE>(share, y + first, here.index, here.threads, cols - first);
    }
}

template <typename T, bool WIDE>
FUNCTION void softmax_looped(
    const GLOBAL T *x, GLOBAL T *y, PARAMS_OF(SoftmaxParams, p), GROUP_POINTER(f32) parts, Here here) {
    const u32 row = here.group, count = counting(p, row);
    const Running all = running_over<T, WIDE>(x + row * p.x_row, count, p.scale, parts, here);
    write_exponentials<T, WIDE>(x + row * p.x_row, y + row * p.y_row, count, p.cols, p.scale, all, here);
}

// Elements of a segment that belong to the first `count` of the row.
FUNCTION u32 in_segment(u32 count, u32 first, u32 segment) {
    const u32 left = from_on(count, first);
    return left < segment ? left : segment;
}

template <typename T, bool WIDE>
FUNCTION void softmax_partial(
    const GLOBAL T *x, GLOBAL f32 *partial, PARAMS_OF(SoftmaxParams, p), GROUP_POINTER(f32) parts, Here here) {
    const u32 row = here.group / p.segments, first = here.group % p.segments * p.segment;
    const u32 count = in_segment(counting(p, row), first, p.segment);
    const Running all = running_over<T, WIDE>(x + row * p.x_row + first, count, p.scale, parts, here);
    if (here.index == 0) {
        partial[u64(here.group) * 2] = all.max;
        partial[u64(here.group) * 2 + 1] = all.sum;
    }
}

template <typename T, bool WIDE>
FUNCTION void softmax_write(
    const GLOBAL T *x, const GLOBAL f32 *partial, GLOBAL T *y, PARAMS_OF(SoftmaxParams, p), Here here) {
    const u32 row = here.group / p.segments, first = here.group % p.segments * p.segment;
    // Every group puts the row's segments together for itself, in the same order.
    const GLOBAL f32 *mine = partial + u64(row) * p.segments * 2;
    Running all;
    all.max = -infinity();
    for (u32 i = 0; i < p.segments; i++) {
        all.max = larger(all.max, mine[i * 2]);
    }
    all.sum = 0.0f;
    for (u32 i = 0; i < p.segments; i++) {
        all.sum += mine[i * 2 + 1] * (mine[i * 2] == -infinity() ? 1.0f : exp_of(mine[i * 2] - all.max));
    }
    const u32 count = in_segment(counting(p, row), first, p.segment);
    const u32 cols = in_segment(p.cols, first, p.segment);
    write_exponentials<T, WIDE>(
        x + row * p.x_row + first, y + row * p.y_row + first, count, cols, p.scale, all, here);
}

// y and dy of a share; the sum of the products that count.
template <typename T, bool WIDE>
FUNCTION f32 load_products(
    const GLOBAL T *y, const GLOBAL T *dy, u32 lane, u32 lanes, u32 count, LOCAL f32 *y_share, LOCAL f32 *dy_share) {
    load_share<T, WIDE>(y, lane, lanes, count, 0.0f, y_share);
    load_share<T, WIDE>(dy, lane, lanes, count, 0.0f, dy_share);
    f32 dot = 0.0f;
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        dot += place_of<WIDE>(i, lane, lanes) < count ? y_share[i] * dy_share[i] : 0.0f;
    }
    return dot;
}

// dx over dy.
template <bool WIDE>
FUNCTION void differences(
    const LOCAL f32 *y, LOCAL f32 *dy, f32 dot, f32 scale, u32 lane, u32 lanes, u32 count) {
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        dy[i] = place_of<WIDE>(i, lane, lanes) < count ? scale * y[i] * (dy[i] - dot) : 0.0f;
    }
}

template <typename T, bool WIDE, u32 SHARES, typename Row>
FUNCTION void softmax_backward_kept(
    const GLOBAL T *y, const GLOBAL T *dy, GLOBAL T *dx, PARAMS_OF(SoftmaxParams, p), Row at) {
    const bool exists = at.row < p.rows;
    const u32 count = exists ? counting(p, at.row) : 0, cols = exists ? p.cols : 0, apart = at.lanes * 8;
    f32 y_shares[SHARES * 8], dy_shares[SHARES * 8];
    f32 dot = 0.0f;
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const u64 from = at.row * p.y_row + i * apart;
        dot += load_products<T, WIDE>(
            y + from, dy + from, at.lane, at.lanes, from_on(count, i * apart), y_shares + i * 8, dy_shares + i * 8);
    }
    dot = at.sum(dot);
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const u32 left = from_on(count, i * apart);
        differences<WIDE>(y_shares + i * 8, dy_shares + i * 8, dot, p.scale, at.lane, at.lanes, left);
        GLOBAL T *to = dx + at.row * p.x_row + i * apart;
        store_share<T, WIDE>(dy_shares + i * 8, to, at.lane, at.lanes, from_on(cols, i * apart));
    }
}

template <typename T, bool WIDE>
FUNCTION void softmax_backward_looped(
    const GLOBAL T *y, const GLOBAL T *dy, GLOBAL T *dx, PARAMS_OF(SoftmaxParams, p), GROUP_POINTER(f32) parts,
    Here here) {
    const u32 row = here.group, count = counting(p, row), step = here.threads * 8;
    const u64 from = row * p.y_row;
    f32 y_share[8], dy_share[8];
    f32 dot = 0.0f;
    for (u32 first = 0; first < count; first += step) {
        dot += load_products<T, WIDE>(
            y + from + first, dy + from + first, here.index, here.threads, count - first, y_share, dy_share);
    }
    dot = group_sum(dot, parts, here);
    for (u32 first = 0; first < p.cols; first += step) {
        const u32 left = from_on(count, first);
        load_products<T, WIDE>(
            y + from + first, dy + from + first, here.index, here.threads, left, y_share, dy_share);
        differences<WIDE>(y_share, dy_share, dot, p.scale, here.index, here.threads, left);
        store_share<T, WIDE>(dy_share, dx + row * p.x_row + first, here.index, here.threads, p.cols - first);
    }
}

#define SOFTMAX_TEAM(suffix, T, WIDE, SHARES)                                                                     \
    KERNEL(softmax_team_##SHARES##_##suffix, 256, IN_PLACE(T, x, 0), OUT(T, y, 1), PARAMS(SoftmaxParams, p, 2)) { \
        softmax_kept<T, WIDE, SHARES>(x, y, p, lanes_row(32, HERE));                                              \
    }                                                                                                             \
    KERNEL(                                                                                                       \
        softmax_backward_team_##SHARES##_##suffix, 256, IN_PLACE(T, y, 0), IN_PLACE(T, dy, 1), OUT(T, dx, 2),     \
        PARAMS(SoftmaxParams, p, 3)) {                                                                            \
        softmax_backward_kept<T, WIDE, SHARES>(y, dy, dx, p, lanes_row(32, HERE));                                \
    }

#define SOFTMAX(suffix, T, WIDE)                                                                             \
    KERNEL(softmax_lanes_##suffix, 256, IN_PLACE(T, x, 0), OUT(T, y, 1), PARAMS(SoftmaxParams, p, 2)) {      \
        softmax_kept<T, WIDE, 1>(x, y, p, lanes_row(p.lanes, HERE));                                         \
    }                                                                                                        \
    SOFTMAX_TEAM(suffix, T, WIDE, 2)                                                                         \
    SOFTMAX_TEAM(suffix, T, WIDE, 3)                                                                         \
    SOFTMAX_TEAM(suffix, T, WIDE, 4)                                                                         \
    KERNEL(softmax_group_##suffix, 1024, IN_PLACE(T, x, 0), OUT(T, y, 1), PARAMS(SoftmaxParams, p, 2)) {     \
        GROUP f32 parts[64];                                                                                 \
        softmax_kept<T, WIDE, 2>(x, y, p, group_row(parts, HERE));                                           \
    }                                                                                                        \
    KERNEL(softmax_looped_##suffix, 1024, IN_PLACE(T, x, 0), OUT(T, y, 1), PARAMS(SoftmaxParams, p, 2)) {    \
        GROUP f32 parts[32];                                                                                 \
        softmax_looped<T, WIDE>(x, y, p, parts, HERE);                                                       \
    }                                                                                                        \
    KERNEL(softmax_partial_##suffix, 1024, IN(T, x, 0), OUT(f32, partial, 1), PARAMS(SoftmaxParams, p, 2)) { \
        GROUP f32 parts[32];                                                                                 \
        softmax_partial<T, WIDE>(x, partial, p, parts, HERE);                                                \
    }                                                                                                        \
    KERNEL(                                                                                                  \
        softmax_write_##suffix, 1024, IN_PLACE(T, x, 0), IN(f32, partial, 1), OUT(T, y, 2),                  \
        PARAMS(SoftmaxParams, p, 3)) {                                                                       \
        softmax_write<T, WIDE>(x, partial, y, p, HERE);                                                      \
    }                                                                                                        \
    KERNEL(                                                                                                  \
        softmax_backward_lanes_##suffix, 256, IN_PLACE(T, y, 0), IN_PLACE(T, dy, 1), OUT(T, dx, 2),          \
        PARAMS(SoftmaxParams, p, 3)) {                                                                       \
        softmax_backward_kept<T, WIDE, 1>(y, dy, dx, p, lanes_row(p.lanes, HERE));                           \
    }                                                                                                        \
    KERNEL(                                                                                                  \
        softmax_backward_group_##suffix, 1024, IN_PLACE(T, y, 0), IN_PLACE(T, dy, 1), OUT(T, dx, 2),         \
        PARAMS(SoftmaxParams, p, 3)) {                                                                       \
        GROUP f32 parts[64];                                                                                 \
        softmax_backward_kept<T, WIDE, 2>(y, dy, dx, p, group_row(parts, HERE));                             \
    }                                                                                                        \
    KERNEL(                                                                                                  \
        softmax_backward_looped_##suffix, 1024, IN_PLACE(T, y, 0), IN_PLACE(T, dy, 1), OUT(T, dx, 2),        \
        PARAMS(SoftmaxParams, p, 3)) {                                                                       \
        GROUP f32 parts[32];                                                                                 \
        softmax_backward_looped<T, WIDE>(y, dy, dx, p, parts, HERE);                                         \
    }

FOR_EACH_DTYPE_AND_ACCESS(SOFTMAX)
