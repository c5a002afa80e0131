// The optimizer's step on f32 master weights, and the square sum of the gradients that clips it.
//
// sum_squares        each group sums a part of x: into `sum` where there is one, else into `partial`
// sum_squares_total  one group adds up the parts, always in the same order
// adamw              everything of an element in one pass
struct SumSquaresParams {
    u64 elements;
    u32 groups;     // that share them
    u32 accumulate; // add to the sum
};

FUNCTION void set_sum(GLOBAL f32 *sum, f32 value, bool accumulate) {
    sum[0] = accumulate ? sum[0] + value : value;
}

template <typename T, bool WIDE>
FUNCTION void sum_squares(
    const GLOBAL T *x, GLOBAL f32 *sum, GLOBAL f32 *partial, PARAMS_OF(SumSquaresParams, p), GROUP_POINTER(f32) parts,
    Here here) {
    const u64 step = u64(p.groups) * here.threads * 8;
    f32 squares = 0.0f;
    UNROLL_4
    for (u64 first = u64(here.group) * here.threads * 8; first < p.elements; first += step) {
        const u64 left = p.elements - first;
        f32 share[8];
        load_share<T, WIDE>(
            x + first, here.index, here.threads, left < 0x7fffffffu ? u32(left) : 0x7fffffffu, 0.0f, share);
        f32 eight = 0.0f;
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            eight += share[i] * share[i];
        }
        squares += eight;
    }
    squares = group_sum(squares, parts, here);
    if (here.index == 0) {
        if (p.groups == 1) {
            set_sum(sum, squares, p.accumulate != 0);
        } else {
            partial[here.group] = squares;
        }
    }
}

FUNCTION void sum_squares_total(
    const GLOBAL f32 *partial, GLOBAL f32 *sum, PARAMS_OF(SumSquaresParams, p), GROUP_POINTER(f32) parts, Here here) {
    f32 total = 0.0f;
    for (u32 i = here.index; i < p.groups; i += here.threads) {
        total += partial[i];
    }
    total = group_sum(total, parts, here);
    if (here.index == 0) {
        set_sum(sum, total, p.accumulate != 0);
    }
}

struct AdamWParams {
    u64 elements;
    f32 beta1;
    f32 beta2;
    f32 log_beta1;
    f32 log_beta2;
    f32 eps;
    f32 weight_decay;
    f32 max_norm; // 0: any
    u32 unused;
};

// 1 - exp(x) for x up to 0, where the difference of nearly equal numbers would lose their digits.
FUNCTION f32 one_minus_exp(f32 x) {
    // Taylor's: (exp(x) - 1) / x.
    f32 series = 1.0f;
    UNROLL
    for (u32 n = 7; n > 1; n--) {
        series = 1.0f + x * series * (1.0f / f32(n));
    }
    return x > -0.25f ? -x * series : 1.0f - exp_of(x);
}

template <typename T, bool WIDE>
FUNCTION void adamw(
    const GLOBAL T *grad, const GLOBAL f32 *sum, const GLOBAL f32 *schedule, GLOBAL f32 *master, GLOBAL f32 *mean,
    GLOBAL f32 *square, GLOBAL T *param, PARAMS_OF(AdamWParams, p), Here here) {
    const VectorShare at = vector_share(p.elements, here);
    const f32 rate = schedule[0], step = schedule[1];
    const f32 part = p.max_norm / (sqrt_of(sum[0]) + 1e-6f);
    // Of a NaN it stays one.
    const f32 clip = p.max_norm == 0.0f || part > 1.0f ? 1.0f : part;
    const f32 mean_by = 1.0f / one_minus_exp(step * p.log_beta1), square_by = 1.0f / one_minus_exp(step * p.log_beta2);
    const f32 keep = 1.0f - rate * p.weight_decay;
    f32 g[8], w[8], m[8], v[8];
    load_share<T, WIDE>(grad + at.first, here.index, here.threads, at.left, 0.0f, g);
    load_share<f32, WIDE>(master + at.first, here.index, here.threads, at.left, 0.0f, w);
    load_share<f32, WIDE>(mean + at.first, here.index, here.threads, at.left, 0.0f, m);
    load_share<f32, WIDE>(square + at.first, here.index, here.threads, at.left, 0.0f, v);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const f32 x = g[i] * clip;
        m[i] = p.beta1 * m[i] + (1.0f - p.beta1) * x;
        v[i] = p.beta2 * v[i] + (1.0f - p.beta2) * x * x;
        w[i] = w[i] * keep - rate * (m[i] * mean_by) / (sqrt_of(v[i] * square_by) + p.eps);
    }
    store_share<f32, WIDE>(w, master + at.first, here.index, here.threads, at.left);
    store_share<f32, WIDE>(m, mean + at.first, here.index, here.threads, at.left);
    store_share<f32, WIDE>(v, square + at.first, here.index, here.threads, at.left);
    store_share<T, WIDE>(w, param + at.first, here.index, here.threads, at.left);
}

#define ADAMW(suffix, T, WIDE)                                                                                        \
    KERNEL(                                                                                                           \
        sum_squares_##suffix, 256, IN(T, x, 0), OUT(f32, sum, 1), OUT(f32, partial, 2),                               \
        PARAMS(SumSquaresParams, p, 3)) {                                                                             \
        GROUP f32 parts[32];                                                                                          \
        sum_squares<T, WIDE>(x, sum, partial, p, parts, HERE);                                                        \
    }                                                                                                                 \
    KERNEL(                                                                                                           \
        adamw_##suffix, 256, IN(T, grad, 0), IN(f32, sum, 1), IN(f32, schedule, 2), OUT(f32, master, 3),              \
        OUT(f32, mean, 4), OUT(f32, square, 5), OUT(T, param, 6), PARAMS(AdamWParams, p, 7)) {                        \
        adamw<T, WIDE>(grad, sum, schedule, master, mean, square, param, p, HERE);                                    \
    }
#define SUM_SQUARES_TOTAL(suffix, T)                                                                                  \
    KERNEL(                                                                                                           \
        sum_squares_total_##suffix, 256, IN(f32, partial, 0), OUT(f32, sum, 1), PARAMS(SumSquaresParams, p, 2)) {     \
        GROUP f32 parts[32];                                                                                          \
        sum_squares_total(partial, sum, p, parts, HERE);                                                              \
    }

FOR_EACH_DTYPE_AND_ACCESS(ADAMW)
FOR_EACH_DTYPE(SUM_SQUARES_TOTAL)
