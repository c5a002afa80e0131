// y = x r weight, by rows, with r = 1 / sqrt(mean(x^2) + eps); y may lie on x where their strides are equal. Backward:
// dx = r weight dy - x r^3 / cols dot with dot = sum(weight dy x), and dweight = sum over rows of dy x r.
//
// rms_norm_lanes   up to 32 lanes share a row, which stays in their registers: a share each
// rms_norm_team_2, rms_norm_team_3, rms_norm_team_4
//                  32 lanes share a row, which stays in their registers: so many shares each
// rms_norm_group   a group shares a row, which stays in their registers: up to two shares each
// rms_norm_looped  a group walks twice over a row of any length
// rms_norm_backward_lanes, rms_norm_backward_team_2, .._3, .._4, rms_norm_backward_group, rms_norm_backward_looped
//                  dx, or dx and another gradient added to it, and r of every row, which dweight needs
// rms_norm_dweight a group sums 256 columns over a segment of the rows; where there is more than one segment,
// rms_norm_dweight_sum adds them up, in order: the same bits on every run
struct RmsNormParams {
    u64 x_row;        // elements between rows of x and dx
    u64 y_row;        // of y and dy
    u32 rows;
    u32 cols;
    u32 lanes;        // that share a row: a power of two up to 32, or the whole group
    u32 segments;     // that the rows are cut into for dweight; 0: there is none
    u32 segment_rows; // rows of each
    f32 eps;
    u32 adds;         // the backward adds `added`, which lies as dx does, or on it
    u32 unused;
};

// Of a row whose squares have this sum.
FUNCTION f32 inverse_rms(f32 squares, PARAMS_OF(RmsNormParams, p)) {
    return inverse_sqrt_of(squares / f32(p.cols) + p.eps);
}

FUNCTION f32 squares_of(const LOCAL f32 *share) {
    f32 sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        sum += share[i] * share[i];
    }
    return sum;
}

// x of a share; the sum of its squares.
template <typename T, bool WIDE>
FUNCTION f32 load_squares(const GLOBAL T *x, u32 lane, u32 lanes, u32 count, LOCAL f32 *share) {
    load_share<T, WIDE>(x, lane, lanes, count, 0.0f, share);
    return squares_of(share);
}

// Writes x r weight.
template <typename T, bool WIDE>
FUNCTION void write_normalised(
    LOCAL f32 *x, const LOCAL f32 *weights, GLOBAL T *y, f32 r, u32 lane, u32 lanes, u32 count) {
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        x[i] = x[i] * r * weights[i];
    }
    store_share<T, WIDE>(x, y, lane, lanes, count);
}

template <typename T, bool WIDE, u32 SHARES, typename Row>
FUNCTION void rms_norm_kept(
    const GLOBAL T *x, const GLOBAL T *weight, GLOBAL T *y, PARAMS_OF(RmsNormParams, p), Row at) {
    const u32 count = at.row < p.rows ? p.cols : 0, apart = at.lanes * 8;
    // The weights' way is as long as that of x: they are asked for at the same time.
    Kept<T> xs[SHARES], weights[SHARES];
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const u32 left = from_on(count, i * apart);
        keep_share<WIDE>(x + at.row * p.x_row + i * apart, at.lane, at.lanes, left, 0.0f, xs[i]);
        keep_share<WIDE>(weight + i * apart, at.lane, at.lanes, left, 0.0f, weights[i]);
    }
    f32 squares = 0.0f, share[8], weight_share[8];
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        share_of_kept(xs[i], share);
        squares += squares_of(share);
    }
    const f32 r = inverse_rms(at.sum(squares), p);
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        share_of_kept(xs[i], share);
        share_of_kept(weights[i], weight_share);
        GLOBAL T *to = y + at.row * p.y_row + i * apart;
        write_normalised<T, WIDE>(share, weight_share, to, r, at.lane, at.lanes, from_on(count, i * apart));
    }
}

template <typename T, bool WIDE>
FUNCTION void rms_norm_looped(
    const GLOBAL T *x, const GLOBAL T *weight, GLOBAL T *y, PARAMS_OF(RmsNormParams, p), GROUP_POINTER(f32) parts,
    Here here) {
    const GLOBAL T *x_row = x + here.group * p.x_row;
    GLOBAL T *y_row = y + here.group * p.y_row;
    const u32 step = here.threads * 8;
    f32 share[8], weights[8];
    f32 squares = 0.0f;
    for (u32 first = 0; first < p.cols; first += step) {
        squares += load_squares<T, WIDE>(x_row + first, here.index, here.threads, p.cols - first, share);
    }
    const f32 r = inverse_rms(group_sum(squares, parts, here), p);
    for (u32 first = 0; first < p.cols; first += step) {
        const u32 left = p.cols - first;
        load_share<T, WIDE>(x_row + first, here.index, here.threads, left, 0.0f, share);
        load_share<T, WIDE>(weight + first, here.index, here.threads, left, 0.0f, weights);
        write_normalised<T, WIDE>(share, weights, y_row + first, r, here.index, here.threads, left);
    }
}

// What a row's backward sums, and the row itself.
struct Backward {
    f32 squares;
    f32 dot;
};

// x, and weight dy, of a share.
template <typename T, bool WIDE>
FUNCTION Backward load_backward(
    const GLOBAL T *x, const GLOBAL T *weight, const GLOBAL T *dy, u32 lane, u32 lanes, u32 count, LOCAL f32 *x_share,
    LOCAL f32 *g_share) {
    f32 weights[8];
    Backward sums;
    sums.squares = load_squares<T, WIDE>(x, lane, lanes, count, x_share);
    sums.dot = 0.0f;
    load_share<T, WIDE>(dy, lane, lanes, count, 0.0f, g_share);
    load_share<T, WIDE>(weight, lane, lanes, count, 0.0f, weights);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        g_share[i] *= weights[i];
        sums.dot += g_share[i] * x_share[i];
    }
    return sums;
}

template <typename T, bool WIDE>
FUNCTION void load_added(const GLOBAL T *added, u64 at, bool adds, u32 lane, u32 lanes, u32 count, LOCAL f32 *share) {
    if (adds) {
        load_share<T, WIDE>(added + at, lane, lanes, count, 0.0f, share);
    } else {
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            share[i] = 0.0f;
        }
    }
}

// Of x in dx. In this order no factor overflows where the result does not.
FUNCTION f32 coefficient_of(f32 r, f32 dot, u32 cols) {
    return dot / f32(cols) * r * r * r;
}

template <typename T, bool WIDE>
FUNCTION void write_backward(
    const LOCAL f32 *x, LOCAL f32 *g, const LOCAL f32 *added, GLOBAL T *dx, f32 r, f32 dot, u32 cols, u32 lane,
    u32 lanes, u32 count) {
    const f32 coefficient = coefficient_of(r, dot, cols);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        g[i] = r * g[i] - x[i] * coefficient + added[i];
    }
    store_share<T, WIDE>(g, dx, lane, lanes, count);
}

template <typename T, bool WIDE, u32 SHARES, typename Row>
FUNCTION void rms_norm_backward_kept(
    const GLOBAL T *x, const GLOBAL T *weight, const GLOBAL T *dy, const GLOBAL T *added, GLOBAL T *dx,
    GLOBAL f32 *inverses, PARAMS_OF(RmsNormParams, p), Row at) {
    const u32 count = at.row < p.rows ? p.cols : 0, apart = at.lanes * 8;
    const u64 from = at.row * p.x_row;
    // What a thread needs of them at once is little, so that many threads fit: pair by pair.
    Kept<T> xs[SHARES], dys[SHARES], addeds[SHARES], weights;
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const u32 left = from_on(count, i * apart);
        keep_share<WIDE>(x + from + i * apart, at.lane, at.lanes, left, 0.0f, xs[i]);
        keep_share<WIDE>(dy + at.row * p.y_row + i * apart, at.lane, at.lanes, left, 0.0f, dys[i]);
    }
    f32 squares = 0.0f, dot = 0.0f, x_pair[2], g_pair[2], weight_pair[2], added_pair[2];
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        keep_share<WIDE>(weight + i * apart, at.lane, at.lanes, from_on(count, i * apart), 0.0f, weights);
        UNROLL
        for (u32 pair = 0; pair < 4; pair++) {
            pair_of_kept(xs[i], pair, x_pair), pair_of_kept(dys[i], pair, g_pair);
            pair_of_kept(weights, pair, weight_pair);
            UNROLL
            for (u32 j = 0; j < 2; j++) {
                squares += x_pair[j] * x_pair[j];
                dot += g_pair[j] * weight_pair[j] * x_pair[j];
            }
        }
    }
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const u32 left = p.adds != 0 ? from_on(count, i * apart) : 0;
        keep_share<WIDE>(added + from + i * apart, at.lane, at.lanes, left, 0.0f, addeds[i]);
    }
    at.sum_both(squares, dot);
    const f32 r = inverse_rms(squares, p), coefficient = coefficient_of(r, dot, p.cols);
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        const u32 left = from_on(count, i * apart);
        keep_share<WIDE>(weight + i * apart, at.lane, at.lanes, left, 0.0f, weights);
        UNROLL
        for (u32 pair = 0; pair < 4; pair++) {
            pair_of_kept(xs[i], pair, x_pair), pair_of_kept(dys[i], pair, g_pair);
            pair_of_kept(weights, pair, weight_pair), pair_of_kept(addeds[i], pair, added_pair);
            UNROLL
            for (u32 j = 0; j < 2; j++) {
                x_pair[j] = r * (g_pair[j] * weight_pair[j]) - x_pair[j] * coefficient + added_pair[j];
            }
            keep_pair(x_pair, pair, xs[i]);
        }
        store_kept<WIDE>(xs[i], dx + from + i * apart, at.lane, at.lanes, left);
    }
    if (at.lane == 0 && at.row < p.rows && p.segments != 0) {
        inverses[at.row] = r;
    }
}

template <typename T, bool WIDE>
FUNCTION void rms_norm_backward_looped(
    const GLOBAL T *x, const GLOBAL T *weight, const GLOBAL T *dy, const GLOBAL T *added, GLOBAL T *dx,
    GLOBAL f32 *inverses, PARAMS_OF(RmsNormParams, p), GROUP_POINTER(f32) parts, Here here) {
    const u32 row = here.group, step = here.threads * 8;
    const GLOBAL T *x_row = x + row * p.x_row;
    const GLOBAL T *dy_row = dy + row * p.y_row;
    f32 x_share[8], g_share[8], added_share[8];
    f32 squares = 0.0f, dot = 0.0f;
    for (u32 first = 0; first < p.cols; first += step) {
        const Backward sums = load_backward<T, WIDE>(
            x_row + first, weight + first, dy_row + first, here.index, here.threads, p.cols - first, x_share, g_share);
        squares += sums.squares;
        dot += sums.dot;
    }
    const f32 r = inverse_rms(group_sum(squares, parts, here), p);
    dot = group_sum(dot, parts, here);
    for (u32 first = 0; first < p.cols; first += step) {
        const u32 left = p.cols - first;
        load_backward<T, WIDE>(
            x_row + first, weight + first, dy_row + first, here.index, here.threads, left, x_share, g_share);
        load_added<T, WIDE>(added, row * p.x_row + first, p.adds != 0, here.index, here.threads, left, added_share);
        write_backward<T, WIDE>(
            x_share, g_share, added_share, dx + row * p.x_row + first, r, dot, p.cols, here.index, here.threads, left);
    }
    if (here.index == 0 && p.segments != 0) {
        inverses[row] = r;
    }
}

// A team sums 256 columns over every eighth row of the segment; then each thread adds up one column of the teams.
template <typename T, bool WIDE>
FUNCTION void rms_norm_dweight(
    const GLOBAL T *x, const GLOBAL T *dy, const GLOBAL f32 *inverses, GLOBAL T *dweight, GLOBAL f32 *partial,
    PARAMS_OF(RmsNormParams, p), GROUP_POINTER(f32) sums, Here here) {
    const u32 segment = here.group % p.segments, first_col = here.group / p.segments * 256;
    const u32 teams = here.threads / 32, left = p.cols - first_col;
    const u32 first = segment * p.segment_rows;
    const u32 end = p.rows - first < p.segment_rows ? p.rows : first + p.segment_rows;
    f32 sum[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    UNROLL_4
    for (u32 row = first + here.team; row < end; row += teams) {
        f32 x_share[8], dy_share[8];
        load_share<T, WIDE>(x + row * p.x_row + first_col, here.lane, 32, left, 0.0f, x_share);
        load_share<T, WIDE>(dy + row * p.y_row + first_col, here.lane, 32, left, 0.0f, dy_share);
        const f32 r = inverses[row];
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            sum[i] += dy_share[i] * x_share[i] * r;
        }
    }
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        sums[here.team * 256 + place_of<WIDE>(i, here.lane, 32)] = sum[i];
    }
    group_barrier();
    for (u32 col = here.index; col < 256 && col < left; col += here.threads) {
        f32 total = 0.0f;
        for (u32 team = 0; team < teams; team++) {
            total += sums[team * 256 + col];
        }
        if (p.segments == 1) {
            dweight[first_col + col] = rounded<T>(total);
        } else {
            partial[u64(segment) * p.cols + first_col + col] = total;
        }
    }
}

template <typename T>
FUNCTION void rms_norm_dweight_sum(
    const GLOBAL f32 *partial, GLOBAL T *dweight, PARAMS_OF(RmsNormParams, p), Here here) {
    const u32 col = here.group * here.threads + here.index;
    if (col < p.cols) {
        f32 total = 0.0f;
        for (u32 segment = 0; segment < p.segments; segment++) {
            total += partial[u64(segment) * p.cols + col];
        }
        dweight[col] = rounded<T>(total);
    }
}

#define RMS_NORM_SLOTS(T) IN_PLACE(T, x, 0), IN(T, weight, 1), OUT(T, y, 2), PARAMS(RmsNormParams, p, 3)
#define RMS_NORM_BACKWARD_SLOTS(T)                                                                  \
    IN(T, x, 0), IN(T, weight, 1), IN(T, dy, 2), IN_PLACE(T, added, 3), OUT(T, dx, 4), OUT(f32, inverses, 5),  \
        PARAMS(RmsNormParams, p, 6)

#define RMS_NORM_TEAM(suffix, T, WIDE, SHARES)                                                               \
    KERNEL(rms_norm_team_##SHARES##_##suffix, 256, RMS_NORM_SLOTS(T)) {                                      \
        rms_norm_kept<T, WIDE, SHARES>(x, weight, y, p, lanes_row(32, HERE));                                \
    }                                                                                                        \
    KERNEL(rms_norm_backward_team_##SHARES##_##suffix, 256, RMS_NORM_BACKWARD_SLOTS(T)) {                    \
        rms_norm_backward_kept<T, WIDE, SHARES>(x, weight, dy, added, dx, inverses, p, lanes_row(32, HERE)); \
    }

#define RMS_NORM(suffix, T, WIDE)                                                                            \
    KERNEL(rms_norm_lanes_##suffix, 256, RMS_NORM_SLOTS(T)) {                                                \
        rms_norm_kept<T, WIDE, 1>(x, weight, y, p, lanes_row(p.lanes, HERE));                                \
    }                                                                                                        \
    RMS_NORM_TEAM(suffix, T, WIDE, 2)                                                                        \
    RMS_NORM_TEAM(suffix, T, WIDE, 3)                                                                        \
    RMS_NORM_TEAM(suffix, T, WIDE, 4)                                                                        \
    KERNEL(rms_norm_group_##suffix, 1024, RMS_NORM_SLOTS(T)) {                                               \
        GROUP f32 parts[64];                                                                                 \
        rms_norm_kept<T, WIDE, 2>(x, weight, y, p, group_row(parts, HERE));                                  \
    }                                                                                                        \
    KERNEL(rms_norm_looped_##suffix, 1024, RMS_NORM_SLOTS(T)) {                                              \
        GROUP f32 parts[32];                                                                                 \
        rms_norm_looped<T, WIDE>(x, weight, y, p, parts, HERE);                                              \
    }                                                                                                        \
    KERNEL(rms_norm_backward_lanes_##suffix, 256, RMS_NORM_BACKWARD_SLOTS(T)) {                              \
        rms_norm_backward_kept<T, WIDE, 1>(x, weight, dy, added, dx, inverses, p, lanes_row(p.lanes, HERE)); \
    }                                                                                                        \
    KERNEL(rms_norm_backward_group_##suffix, 1024, RMS_NORM_BACKWARD_SLOTS(T)) {                             \
        GROUP f32 parts[64];                                                                                 \
        rms_norm_backward_kept<T, WIDE, 2>(x, weight, dy, added, dx, inverses, p, group_row(parts, HERE));   \
    }                                                                                                        \
    KERNEL(rms_norm_backward_looped_##suffix, 1024, RMS_NORM_BACKWARD_SLOTS(T)) {                            \
        GROUP f32 parts[32];                                                                                 \
        rms_norm_backward_looped<T, WIDE>(x, weight, dy, added, dx, inverses, p, parts, HERE);               \
    }                                                                                                        \
    KERNEL(                                                                                                  \
        rms_norm_dweight_##suffix, 256, IN(T, x, 0), IN(T, dy, 1), IN(f32, inverses, 2), OUT(T, dweight,     \
        3), OUT(f32, partial, 4), PARAMS(RmsNormParams, p, 5)) {                                             \
        GROUP f32 sums[8 * 256];                                                                             \
        rms_norm_dweight<T, WIDE>(x, dy, inverses, dweight, partial, p, sums, HERE);                         \
    }

#define RMS_NORM_SUM(suffix, T)                                                                                     \
    KERNEL(rms_norm_dweight_sum_##suffix, 256, IN(f32, partial, 0), OUT(T, dweight, 1), PARAMS(RmsNormParams, p, 2)) { \
        rms_norm_dweight_sum<T>(partial, dweight, p, HERE);                                                         \
    }

FOR_EACH_DTYPE_AND_ACCESS(RMS_NORM)
FOR_EACH_DTYPE(RMS_NORM_SUM)
