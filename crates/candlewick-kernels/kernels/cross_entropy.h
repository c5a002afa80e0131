// Cross-entropy over chunks of a vocabulary. stats of a row are (m, s, l): the largest logit, the sum of
// exp(logit - m), the label's logit.
//
// cross_entropy_stats  a group folds a chunk of a row into its stats
// cross_entropy_loss   one group: the mean of ln(s) + m - l over the rows that count, and their number
// cross_entropy_grad   dloss / count (exp(logit - m) / s - onehot(label)); dlogits may be the logits
//
// Where the vocabulary is one chunk, the gradient without another way to memory:
// cross_entropy_count  one group: how many rows count, where the loss says it
// cross_entropy_both   a group makes a row's stats, then its gradient; what its registers hold of the row it reads once
struct CrossEntropyParams {
    u64 logits_row; // elements between rows
    u32 rows;
    u32 cols;       // of the chunk
    u32 first;      // its first column in the vocabulary
    u32 vocab;      // labels from here on do not count
    u32 begin;      // this is the first chunk: stats hold nothing yet
    u32 lanes;      // threads that share a block of a row
};

// The largest number and the sum of exponentials of what one thread has seen of a row.
struct Folded {
    f32 max;
    f32 sum;
};
// exp(-inf - -inf) has to be 0 here: what is -inf is as if it were not there.
FUNCTION f32 shift_of(f32 max) {
    return max == -infinity() ? 0.0f : max;
}

FUNCTION void fold(const LOCAL f32 *share, LOCAL Folded &folded) {
    f32 max = folded.max;
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        max = larger(max, share[i]);
    }
    const f32 shift = shift_of(max);
    f32 sum = folded.sum * weight_of(folded.max, shift);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        sum += exp_of(share[i] - shift);
    }
    folded.sum = sum;
    folded.max = max;
}

// What all threads of the group have seen. A NaN stays one whatever its weight.
FUNCTION Folded fold_group(Folded mine, GROUP_POINTER(f32) parts, Here here) {
    Folded all;
    all.max = group_max(mine.max, parts, here);
    all.sum = group_sum(mine.sum * weight_of(mine.max, shift_of(all.max)), parts, here);
    all.max = all.sum == all.sum ? all.max : not_a_number();
    return all;
}

template <typename T, bool WIDE>
FUNCTION void cross_entropy_stats(
    const GLOBAL T *logits, const GLOBAL u32 *labels, GLOBAL f32 *stats, PARAMS_OF(CrossEntropyParams, p),
    GROUP_POINTER(f32) parts, Here here) {
    const u32 row = here.group, step = here.threads * 8;
    const GLOBAL T *x = logits + row * p.logits_row;
    GLOBAL f32 *mine = stats + u64(row) * 3;
    // What came before is thread 0's, which alone touches it.
    const bool resumes = p.begin == 0 && here.index == 0;
    Folded folded;
    folded.max = resumes ? mine[0] : -infinity();
    folded.sum = resumes ? mine[1] : 0.0f;
    f32 share[8];
    for (u32 first = 0; first < p.cols; first += step) {
        load_share<T, WIDE>(x + first, here.index, here.threads, p.cols - first, -infinity(), share);
        fold(share, folded);
    }
    folded = fold_group(folded, parts, here);
    if (here.index == 0) {
        mine[0] = folded.max;
        mine[1] = folded.sum;
        const u32 label = labels[row];
        if (label >= p.first && label - p.first < p.cols) {
            mine[2] = f32_of(x[label - p.first]);
        } else if (p.begin != 0) {
            mine[2] = 0.0f;
        }
    }
}

FUNCTION void cross_entropy_loss(
    const GLOBAL f32 *stats, const GLOBAL u32 *labels, GLOBAL f32 *loss, PARAMS_OF(CrossEntropyParams, p),
    GROUP_POINTER(f32) parts, Here here) {
    f32 sum = 0.0f, count = 0.0f;
    for (u32 row = here.index; row < p.rows; row += here.threads) {
        if (labels[row] < p.vocab) {
            const GLOBAL f32 *mine = stats + u64(row) * 3;
            sum += log_of(mine[1]) + mine[0] - mine[2];
            count += 1.0f;
        }
    }
    sum = group_sum(sum, parts, here);
    count = group_sum(count, parts, here);
    if (here.index == 0) {
        loss[0] = count == 0.0f ? 0.0f : sum / count;
        loss[1] = count;
    }
}

FUNCTION void cross_entropy_count(
    const GLOBAL u32 *labels, GLOBAL f32 *loss, PARAMS_OF(CrossEntropyParams, p), GROUP_POINTER(f32) parts, Here here) {
    f32 count = 0.0f;
    for (u32 row = here.index; row < p.rows; row += here.threads) {
        count += labels[row] < p.vocab ? 1.0f : 0.0f;
    }
    count = group_sum(count, parts, here);
    if (here.index == 0) {
        loss[0] = 0.0f;
        loss[1] = count;
    }
}

// What the gradient of a row's logits depends on.
struct Slope {
    f32 max;
    f32 inverse; // of the sum
    f32 scale;
    u32 label;
    bool counts;
};
FUNCTION Slope slope_of(
    f32 max, f32 sum, u32 label, const GLOBAL f32 *loss, const GLOBAL f32 *dloss, PARAMS_OF(CrossEntropyParams, p)) {
    Slope slope;
    slope.max = max;
    slope.inverse = 1.0f / sum;
    slope.scale = dloss[0] / loss[1];
    slope.label = label;
    slope.counts = label < p.vocab;
    return slope;
}
// The gradient of a share of the logits from column `first` on.
template <bool WIDE>
FUNCTION void slopes(LOCAL f32 *share, Slope of, u32 first, u32 lane, u32 lanes) {
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const u32 column = first + place_of<WIDE>(i, lane, lanes);
        const f32 difference = exp_of(share[i] - of.max) * of.inverse - (column == of.label ? 1.0f : 0.0f);
        share[i] = of.counts ? of.scale * difference : 0.0f;
    }
}

template <typename T, bool WIDE>
FUNCTION void cross_entropy_grad(
    const GLOBAL T *logits, const GLOBAL u32 *labels, const GLOBAL f32 *stats, const GLOBAL f32 *loss,
    const GLOBAL f32 *dloss, GLOBAL T *dlogits, PARAMS_OF(CrossEntropyParams, p), Here here) {
    const Share at = share_of(p.rows, p.cols, p.lanes, here);
    if (at.left == 0) {
        return;
    }
    const u64 from = at.row * p.logits_row + at.first;
    const GLOBAL f32 *mine = stats + u64(at.row) * 3;
    const Slope slope = slope_of(mine[0], mine[1], labels[at.row], loss, dloss, p);
    f32 share[8];
    load_share<T, WIDE>(logits + from, at.lane, p.lanes, at.left, 0.0f, share);
    slopes<WIDE>(share, slope, p.first + at.first, at.lane, p.lanes);
    store_share<T, WIDE>(share, dlogits + from, at.lane, p.lanes, at.left);
}

template <typename T, bool WIDE, u32 SHARES>
FUNCTION void cross_entropy_both(
    const GLOBAL T *logits, const GLOBAL u32 *labels, const GLOBAL f32 *loss, const GLOBAL f32 *dloss,
    GLOBAL T *dlogits, GLOBAL f32 *stats, PARAMS_OF(CrossEntropyParams, p), GROUP_POINTER(f32) parts, Here here) {
    const u32 row = here.group, step = here.threads * 8;
    const GLOBAL T *x = logits + row * p.logits_row;
    GLOBAL T *dx = dlogits + row * p.logits_row;
    Kept<T> kept[SHARES];
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        keep_share<WIDE>(x + i * step, here.index, here.threads, from_on(p.cols, i * step), -infinity(), kept[i]);
    }
    const u32 label = labels[row];
    // Ahead of the group's barriers, behind which it may be overwritten.
    const f32 of_label = label < p.cols ? f32_of(x[label]) : 0.0f;
    Folded folded;
    folded.max = -infinity();
    folded.sum = 0.0f;
    f32 share[8];
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        share_of_kept(kept[i], share);
        fold(share, folded);
    }
    for (u32 first = SHARES * step; first < p.cols; first += step) {
        load_share<T, WIDE>(x + first, here.index, here.threads, p.cols - first, -infinity(), share);
        fold(share, folded);
    }
    folded = fold_group(folded, parts, here);
    if (here.index == 0) {
        GLOBAL f32 *mine = stats + u64(row) * 3;
        mine[0] = folded.max;
        mine[1] = folded.sum;
        mine[2] = of_label;
    }
    const Slope slope = slope_of(folded.max, folded.sum, label, loss, dloss, p);
    UNROLL
    for (u32 i = 0; i < SHARES; i++) {
        share_of_kept(kept[i], share);
        slopes<WIDE>(share, slope, i * step, here.index, here.threads);
        store_share<T, WIDE>(share, dx + i * step, here.index, here.threads, from_on(p.cols, i * step));
    }
    for (u32 first = SHARES * step; first < p.cols; first += step) {
        load_share<T, WIDE>(x + first, here.index, here.threads, p.cols - first, 0.0f, share);
        slopes<WIDE>(share, slope, first, here.index, here.threads);
        store_share<T, WIDE>(share, dx + first, here.index, here.threads, p.cols - first);
    }
}

#define CROSS_ENTROPY(suffix, T, WIDE)                                                                            \
    KERNEL(                                                                                                       \
        cross_entropy_stats_##suffix, 1024, IN(T, logits, 0), IN(u32, labels, 1), OUT(f32, stats, 2),             \
        PARAMS(CrossEntropyParams, p, 3)) {                                                                       \
        GROUP f32 parts[32];                                                                                      \
        cross_entropy_stats<T, WIDE>(logits, labels, stats, p, parts, HERE);                                      \
    }                                                                                                             \
    KERNEL(                                                                                                       \
        cross_entropy_grad_##suffix, 256, IN_PLACE(T, logits, 0), IN(u32, labels, 1), IN(f32, stats, 2),          \
        IN(f32, loss, 3), IN(f32, dloss, 4), OUT(T, dlogits, 5), PARAMS(CrossEntropyParams, p, 6)) {              \
        cross_entropy_grad<T, WIDE>(logits, labels, stats, loss, dloss, dlogits, p, HERE);                        \
    }                                                                                                             \
    KERNEL(                                                                                                       \
        cross_entropy_both_##suffix, 1024, IN_PLACE(T, logits, 0), IN(u32, labels, 1), IN(f32, loss, 2),          \
        IN(f32, dloss, 3), OUT(T, dlogits, 4), OUT(f32, stats, 5), PARAMS(CrossEntropyParams, p, 6)) {            \
        GROUP f32 parts[32];                                                                                      \
        cross_entropy_both<T, WIDE, 12 / sizeof(T)>(logits, labels, loss, dloss, dlogits, stats, p, parts, HERE); \
    }
#define CROSS_ENTROPY_LOSS(suffix, T)                                                                                     \
    KERNEL(                                                                                                               \
        cross_entropy_loss_##suffix, 1024, IN(f32, stats, 0), IN(u32, labels, 1), OUT(f32, loss, 2),                      \
        PARAMS(CrossEntropyParams, p, 3)) {                                                                               \
        GROUP f32 parts[32];                                                                                              \
        cross_entropy_loss(stats, labels, loss, p, parts, HERE);                                                          \
    }                                                                                                                     \
    KERNEL(cross_entropy_count_##suffix, 1024, IN(u32, labels, 0), OUT(f32, loss, 1), PARAMS(CrossEntropyParams, p, 2)) { \
        GROUP f32 parts[32];                                                                                              \
        cross_entropy_count(labels, loss, p, parts, HERE);                                                                \
    }

FOR_EACH_DTYPE_AND_ACCESS(CROSS_ENTROPY)
FOR_EACH_DTYPE(CROSS_ENTROPY_LOSS)
