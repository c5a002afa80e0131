// y = the table's rows that the ids name; NaN where an id names none. Backward: a row of dtable is the sum of the rows
// of dy with its id, in the order of the tokens.
//
// embedding
// embedding_clear     dtable = 0
// embedding_backward  a group has columns of one token. If no earlier token has the same id, it adds up those of all
//                     that have, and writes the row: no two groups write the same element
struct EmbeddingParams {
    u64 table; // elements
    u32 tokens;
    u32 vocab;
    u32 width;
    u32 lanes; // threads that share a block of a row
};

template <typename T, bool WIDE>
FUNCTION void embedding(
    const GLOBAL u32 *ids, const GLOBAL T *table, GLOBAL T *y, PARAMS_OF(EmbeddingParams, p), Here here) {
    const Share at = share_of(p.tokens, p.width, p.lanes, here);
    if (at.left == 0) {
        return;
    }
    const u32 id = ids[at.row];
    GLOBAL T *to = y + u64(at.row) * p.width + at.first;
    if (id < p.vocab) {
        copy_share<T, WIDE>(table + u64(id) * p.width + at.first, to, at.lane, p.lanes, at.left);
    } else {
        f32 share[8];
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            share[i] = not_a_number();
        }
        store_share<T, WIDE>(share, to, at.lane, p.lanes, at.left);
    }
}

template <typename T, bool WIDE>
FUNCTION void embedding_clear(GLOBAL T *dtable, PARAMS_OF(EmbeddingParams, p), Here here) {
    const VectorShare at = vector_share(p.table, here);
    const f32 zeros[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    store_share<T, WIDE>(zeros, dtable + at.first, here.index, here.threads, at.left);
}

// Bit i of matches[team]: the id of thread i of that team is `id`. One id per thread, from `first` on.
FUNCTION void match_ids(
    const GLOBAL u32 *ids, u32 first, u32 end, u32 id, GROUP_POINTER(u32) matches, Here here) {
    const u32 at = first + here.index;
    const u32 found = lanes_that(at < end && ids[at < end ? at : first] == id);
    // What the last call found has been read.
    group_barrier();
    if (here.lane == 0) {
        matches[here.team] = found;
    }
    group_barrier();
}

template <typename T, bool WIDE>
FUNCTION void embedding_backward(
    const GLOBAL u32 *ids, const GLOBAL T *dy, GLOBAL T *dtable, PARAMS_OF(EmbeddingParams, p),
    GROUP_POINTER(u32) matches, Here here) {
    const u32 step = here.threads, teams = here.threads / 32, cols = here.threads * 8;
    const u32 blocks = (p.width + cols - 1) / cols;
    const u32 token = here.group / blocks, col = here.group % blocks * cols;
    const u32 id = ids[token];
    if (id >= p.vocab) {
        return;
    }
    for (u32 first = 0; first < token; first += step) {
        match_ids(ids, first, token, id, matches, here);
        u32 any = 0;
        for (u32 team = 0; team < teams; team++) {
            any |= matches[team];
        }
        if (any != 0) {
            return;
        }
    }
    f32 sum[8] = { 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f };
    for (u32 first = token; first < p.tokens; first += step) {
        match_ids(ids, first, p.tokens, id, matches, here);
        for (u32 team = 0; team < teams; team++) {
            // The lowest bit first: in the order of the tokens.
            u32 left = matches[team];
            for (u32 at = first + team * 32; left != 0; at++, left >>= 1) {
                if ((left & 1) != 0) {
                    f32 share[8];
                    load_share<T, WIDE>(
                        dy + u64(at) * p.width + col, here.index, here.threads, p.width - col, 0.0f, share);
                    UNROLL
                    for (u32 i = 0; i < 8; i++) {
                        sum[i] += share[i];
                    }
                }
            }
        }
    }
    store_share<T, WIDE>(sum, dtable + u64(id) * p.width + col, here.index, here.threads, p.width - col);
}

#define EMBEDDING(suffix, T, WIDE)                                                                                  \
    KERNEL(                                                                                                         \
        embedding_##suffix, 256, IN(u32, ids, 0), IN(T, table, 1), OUT(T, y, 2), PARAMS(EmbeddingParams, p, 3)) {   \
        embedding<T, WIDE>(ids, table, y, p, HERE);                                                                 \
    }                                                                                                               \
    KERNEL(embedding_clear_##suffix, 256, OUT(T, dtable, 0), PARAMS(EmbeddingParams, p, 1)) {                       \
        embedding_clear<T, WIDE>(dtable, p, HERE);                                                                  \
    }                                                                                                               \
    KERNEL(                                                                                                         \
        embedding_backward_##suffix, 256, IN(u32, ids, 0), IN(T, dy, 1), OUT(T, dtable, 2),                         \
        PARAMS(EmbeddingParams, p, 3)) {                                                                            \
        GROUP u32 matches[8];                                                                                       \
        embedding_backward<T, WIDE>(ids, dy, dtable, p, matches, HERE);                                             \
    }

FOR_EACH_DTYPE_AND_ACCESS(EMBEDDING)
