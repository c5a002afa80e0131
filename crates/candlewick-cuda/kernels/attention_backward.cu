// Attention's gradients on tensor cores, for bf16: with p = exp(scale q k^T - lse) and D = dy y,
// ds = scale p (dy v^T - D), dq = ds k, dk = ds^T q, dv = p^T dy. One launch makes all three: what its blocks have in
// common, D and the keys that a query sees, each works out for itself. Sums are in a fixed order.
//
//   Dkv  a block has 64 keys, and walks over the queries that see them, 64 at a time, of its share of the heads that
//        read these keys. A warp has 16 keys and one half of the queries. The blocks of a cluster have the same keys and
//        other heads: they send each other their sums, and each writes some tiles of dk and dv
//   Dq   a block has 64 queries of one head and walks over the keys as the forward does
//
// A weight of zero times a NaN that nobody sees would be one: where sums are odd, a block starts again, carefully.
// In f16 ds would lose its small numbers: f16 has the shared kernels.

// What is known of a query and head: its lse, of powers of two and negative, D, and the keys that it sees.
struct __align__(16) Query {
    float2 stats;
    Seen seen;

    // p = exp(scale q k^T - lse), and ds but for the scale.
    FUNCTION float weigh(float score, float factor) const {
        return exp2_of(score * factor + stats.x);
    }
    FUNCTION float slope(float weight, float dp) const {
        return weight * (dp - stats.y);
    }
};

// lse and D of a tile's 64 queries: of each by the threads that copy its row of dy.
template <typename T, int HEAD> struct Stats {
    using Tile = Tiles<T, HEAD, 256>;
    static constexpr int PASSES = 64 / Tile::AT_ONCE;

    uint4 y[PASSES];
    float lse[PASSES];

    // Asks for them, and for y of a head.
    FUNCTION void load(const typename Tile::Matrix &of_y, const float *lses, u32 first_row, u32 head, const AttentionParams &p) {
        UNROLL
        for (int i = 0; i < PASSES; i++) {
            const u32 row = first_row + Tile::Matrix::line() + i * Tile::AT_ONCE;
            y[i] = make_uint4(0, 0, 0, 0), lse[i] = 0.0f;
            if (row < p.queries) {
                lse[i] = lses[u64(row) * p.heads + head];
            }
            if (row < p.queries && of_y.bytes != 0) {
                y[i] = *(const uint4 *)of_y.piece(row, head * p.head);
            }
        }
    }
    static FUNCTION float dot_2(u32 a, u32 b) {
        return f32_of(T { u16(a) }) * f32_of(T { u16(b) }) + f32_of(T { u16(a >> 16) }) * f32_of(T { u16(b >> 16) });
    }
    // With dy as the thread has copied it.
    FUNCTION void store(const char *dy, Query *queries) const {
        UNROLL
        for (int i = 0; i < PASSES; i++) {
            const u32 row = Tile::Matrix::line() + i * Tile::AT_ONCE;
            const uint4 a = y[i], b = *(const uint4 *)(dy + row * Tile::PITCH + threadIdx.x % Tile::PIECES * 16);
            float dot = dot_2(a.x, b.x) + dot_2(a.y, b.y) + dot_2(a.z, b.z) + dot_2(a.w, b.w);
            UNROLL
            for (int lanes = 1; lanes < Tile::PIECES; lanes *= 2) {
                dot += __shfl_xor_sync(ALL_LANES, dot, lanes);
            }
            if (threadIdx.x % Tile::PIECES == 0) {
                queries[row].stats = make_float2(-lse[i] * LOG2_E, dot);
            }
        }
    }
};

template <typename T, int HEAD> struct Dq {
    static constexpr int ROWS = 64, KEYS = 64, PART = 32, HALVES = 2, THREADS = 256;
    using Tile = Tiles<T, HEAD, THREADS>;
    using Matrix = typename Tile::Matrix;
    static constexpr int BYTES = 64 * Tile::PITCH, QUERIES = 10 * BYTES, SHARED = QUERIES + ROWS * 16;
    static_assert(8 * Tile::KEPT * 512 <= 8 * BYTES, "what the halves send takes the place of keys and values");

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const u32 *spans, const T *y, const float *lse, const T *dy, T *dq, u32 block,
        u32 blocks, const AttentionParams &p) {
        extern __shared__ __align__(16) char shared[];
        const u32 base = shared_address(shared);
        Query *rows = (Query *)(shared + QUERIES);
        const int warp = threadIdx.x / 32 % 4, half = threadIdx.x / 128;
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        // Those that see most come first.
        const u32 head = block % p.heads, first_row = (blocks / p.heads - 1 - block / p.heads) * ROWS;
        const Matrix keys(k, p.k_row, head / p.group, p.head), values(v, p.v_row, head / p.group, p.head);
        const Matrix its_q(q, p.q_row, head, p.head), its_dy(dy, p.y_row, head, p.head);
        wait_for_earlier_launches();
        its_q.template copy<ROWS>(base, first_row, p.queries);
        its_dy.template copy<ROWS>(base + BYTES, first_row, p.queries);
        copies_end_group();
        Stats<T, HEAD> mine;
        mine.load(Matrix(y, p.y_row, 0, p.head), lse, first_row, head, p);
        Seen seen[2];
        find_keys(spans, p, first_row, seen);
        const u32 end = end_of_seen(seen);
        const auto copy_keys = [&](u32 first, int slot) {
            if (first != NO_KEY) {
                const u32 to = base + (2 + slot * 4) * BYTES;
                keys.template copy<HALVES * KEYS>(to, first, end);
                values.template copy<HALVES * KEYS>(to + HALVES * BYTES, first, end);
            }
            copies_end_group();
        };
        u32 first = next_seen(seen, 0);
        copy_keys(first, 0);
        copies_wait<1>();
        mine.store(shared + BYTES, rows);
        __syncthreads();
        Query above = rows[warp * 16 + g], below = rows[warp * 16 + g + 8];
        const Seen near = warp < 2 ? Seen(seen[0]) : Seen(seen[1]);
        above.seen = near.of_lane(warp % 2 * 16 + g), below.seen = near.of_lane(warp % 2 * 16 + g + 8);

        float4 sums[Tile::COLS];
        const float factor = p.scale * LOG2_E;
        const auto ds = [&](const Query &row, u32 key, float score, float dp, bool all) {
            const float slope = row.slope(row.weigh(score, factor), dp);
            return all || row.seen.has(key) ? slope : 0.0f;
        };
        for (bool careful = false;; careful = true) {
            set_zero(sums);
            if (careful) {
                first = next_seen(seen, 0);
                copy_keys(first, 0);
            }
            _Pragma("unroll 1")
            for (int slot = 0; first != NO_KEY; slot ^= 1) {
                copies_wait_all();
                __syncthreads();
                // All have done with the tiles before these, whose place the next ones take.
                const u32 next = next_seen(seen, first + HALVES * KEYS);
                copy_keys(next, slot ^ 1);
                // In parts: all scores of the half at once would take too many registers.
                _Pragma("unroll 1")
                for (int part = 0; part < KEYS / PART; part++) {
                    const u32 here = first + half * KEYS + part * PART;
                    if (!__any_sync(ALL_LANES, above.seen.meets(here, PART) || below.seen.meets(here, PART))) {
                        continue;
                    }
                    const int at = (2 + slot * 4 + half) * BYTES + part * PART * Tile::PITCH;
                    float4 weights[PART / 8], d[PART / 8];
                    set_zero(weights), set_zero(d);
                    Tile::multiply(base + warp * 16 * Tile::PITCH, base + at, lane, weights);
                    Tile::multiply(base + BYTES + warp * 16 * Tile::PITCH, base + at + 2 * BYTES, lane, d);
                    const bool all = __all_sync(ALL_LANES, above.seen.whole(here, PART) && below.seen.whole(here, PART));
                    UNROLL
                    for (int n = 0; n < PART / 8; n++) {
                        const u32 key = here + n * 8 + t * 2;
                        const float4 &w = weights[n];
                        d[n].x = ds(above, key, w.x, d[n].x, all), d[n].y = ds(above, key + 1, w.y, d[n].y, all);
                        d[n].z = ds(below, key, w.z, d[n].z, all), d[n].w = ds(below, key + 1, w.w, d[n].w, all);
                    }
                    if (careful) {
                        Tile::add_seen(d, shared + at, lane, sums, [&](int block, int j, bool is_above) {
                            return (is_above ? above : below).seen.has(here + block * 8 + j);
                        });
                    } else {
                        Tile::add(d, base + at, lane, sums);
                    }
                }
                first = next;
            }
            bool odd = false;
            UNROLL
            for (int n = 0; n < Tile::COLS; n++) {
                odd |= above.seen.any() && is_odd(sums[n].x, sums[n].y);
                odd |= below.seen.any() && is_odd(sums[n].z, sums[n].w);
            }
            if (!__syncthreads_or(odd && !careful)) {
                break;
            }
        }

        float4 *place = (float4 *)(shared + 2 * BYTES) + threadIdx.x / 32 * Tile::KEPT * 32 + lane;
        Tile::send(sums, place, half);
        __syncthreads();
        const float4 *others = place + (half == 0 ? 4 : -4) * Tile::KEPT * 32;
        float4 kept[Tile::KEPT];
        Tile::keep(sums, kept, half);
        UNROLL
        for (int n = 0; n < Tile::KEPT; n++) {
            float4 &s = kept[n];
            s = sum_of(s, others[n * 32]);
            s.x = above.seen.any() ? p.scale * s.x : 0.0f, s.y = above.seen.any() ? p.scale * s.y : 0.0f;
            s.z = below.seen.any() ? p.scale * s.z : 0.0f, s.w = below.seen.any() ? p.scale * s.w : 0.0f;
        }
        const u32 row = first_row + warp * 16;
        const int col = half * Tile::KEPT * 8;
        T *to = dq + u64(row) * p.q_row + head * p.head + col;
        Tile::write(to, p.q_row, int(p.queries - row), int(p.head) - col, kept, lane);
    }
};

template <typename T, int HEAD> struct Dkv {
    static constexpr int ROWS = 64, KEYS = 64, HALF = 32, THREADS = 256, SLOTS = 2;
    using Tile = Tiles<T, HEAD, THREADS>;
    using Matrix = typename Tile::Matrix;
    // k, v; q and dy of each step. What the halves send takes the place of q and dy.
    static constexpr int BYTES = 64 * Tile::PITCH, QUERIES = (2 + SLOTS * 2) * BYTES;
    static constexpr int MASK = QUERIES + SLOTS * ROWS * 16, WORDS = 64, SHARED = MASK + WORDS * 4;
    // Behind them, where there are clusters: the sums of each block for the tiles that this one writes.
    static constexpr int TILES = 8 * Tile::COLS;
    static_assert(8 * Tile::COLS * 512 <= SLOTS * 2 * BYTES, "what the halves send");

    // A step: 64 queries of a head.
    struct Step {
        u32 tile, head;
    };

    static FUNCTION void find_tiles(u32 *mask, const u32 *spans, u32 first_key, const AttentionParams &p) {
        for (u32 i = threadIdx.x; i < p.sequences; i += THREADS) {
            mark_tiles(mask, ((const uint4 *)spans)[i], first_key, p);
        }
        __syncthreads();
    }
    static FUNCTION void
    run(const T *q, const T *k, const T *v, const u32 *spans, const T *y, const float *lse, const T *dy, T *dk, T *dv,
        const AttentionParams &p) {
        extern __shared__ __align__(16) char shared[];
        const u32 base = shared_address(shared), cluster = blocks_of_cluster();
        u32 *mask = (u32 *)(shared + MASK);
        Query *queries = (Query *)(shared + QUERIES);
        const int warp_k = threadIdx.x / 32 % 4, half = threadIdx.x / 128;
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const u32 kv_heads = p.heads / p.group, kv_head = blockIdx.x / cluster % kv_heads;
        const u32 first_key = blockIdx.x / cluster / kv_heads * KEYS;
        const u32 heads = (p.group + cluster - 1) / cluster, first_head = kv_head * p.group + block_of_cluster() * heads;
        const u32 end_head = min(first_head + heads, (kv_head + 1) * p.group);
        const Matrix its_q(q, p.q_row, 0, p.head), its_dy(dy, p.y_row, 0, p.head), its_y(y, p.y_row, 0, p.head);
        if (threadIdx.x < WORDS) {
            mask[threadIdx.x] = 0;
        }
        __syncthreads();
        cluster_arrive();
        wait_for_earlier_launches();
        Matrix(k, p.k_row, kv_head, p.head).template copy<KEYS>(base, first_key, p.keys);
        Matrix(v, p.v_row, kv_head, p.head).template copy<KEYS>(base + BYTES, first_key, p.keys);
        find_tiles(mask, spans, first_key, p);

        Stats<T, HEAD> mine;
        // Asks for all that a step needs. What its queries see is for one warp to find out.
        const auto begin = [&](Step step, int slot) {
            if (step.tile == NO_KEY) {
                return;
            }
            const u32 to = base + (2 + slot * 2) * BYTES, first = step.tile * ROWS;
            its_q.template copy<ROWS>(to, first, p.queries, step.head * p.head);
            its_dy.template copy<ROWS>(to + BYTES, first, p.queries, step.head * p.head);
            mine.load(its_y, lse, first, step.head, p);
            if (threadIdx.x / 32 == slot) {
                Seen seen[2];
                find_keys(spans, p, first, seen);
                queries[slot * ROWS + lane].seen = seen[0], queries[slot * ROWS + lane + 32].seen = seen[1];
            }
        };
        const auto after = [&](Step step) {
            if (step.tile == NO_KEY || step.head + 1 < end_head) {
                return Step { step.tile, step.head + 1 };
            }
            return Step { next_tile(mask, step.tile + 1, p.queries), first_head };
        };

        float4 dk_sums[Tile::COLS], dv_sums[Tile::COLS];
        const float factor = p.scale * LOG2_E;
        const u32 key = first_key + warp_k * 16 + g;
        for (bool careful = false;; careful = true) {
            set_zero(dk_sums), set_zero(dv_sums);
            Step step = { first_head < end_head ? next_tile(mask, 0, p.queries) : NO_KEY, first_head };
            begin(step, 0);
            _Pragma("unroll 1")
            for (int slot = 0; step.tile != NO_KEY; slot ^= 1) {
                const int at = (2 + slot * 2) * BYTES, rows = at + half * HALF * Tile::PITCH;
                const Query *columns = queries + slot * ROWS + half * HALF;
                copies_wait_all();
                mine.store(shared + at + BYTES, queries + slot * ROWS);
                __syncthreads();
                // Of keys by queries.
                float4 weights[HALF / 8], d[HALF / 8];
                set_zero(weights), set_zero(d);
                Tile::multiply(base + warp_k * 16 * Tile::PITCH, base + rows, lane, weights);
                Tile::multiply(base + BYTES + warp_k * 16 * Tile::PITCH, base + rows + BYTES, lane, d);
                // All have done with the step before this one, whose place the next one takes.
                step = after(step);
                begin(step, slot ^ 1);
                const auto weigh = [&](const Query &of, u32 key, float &score, float &dp) {
                    score = of.seen.has(key) ? of.weigh(score, factor) : 0.0f;
                    dp = of.slope(score, dp);
                };
                UNROLL
                for (int n = 0; n < HALF / 8; n++) {
                    const Query even = columns[n * 8 + t * 2], uneven = columns[n * 8 + t * 2 + 1];
                    weigh(even, key, weights[n].x, d[n].x), weigh(uneven, key, weights[n].y, d[n].y);
                    weigh(even, key + 8, weights[n].z, d[n].z), weigh(uneven, key + 8, weights[n].w, d[n].w);
                }
                if (careful) {
                    const auto sees = [&](int block, int j, bool is_above) {
                        return columns[block * 8 + j].seen.has(is_above ? key : key + 8);
                    };
                    Tile::add_seen(weights, shared + rows + BYTES, lane, dv_sums, sees);
                    Tile::add_seen(d, shared + rows, lane, dk_sums, sees);
                } else {
                    Tile::add(weights, base + rows + BYTES, lane, dv_sums);
                    Tile::add(d, base + rows, lane, dk_sums);
                }
            }
            bool odd = false;
            UNROLL
            for (int n = 0; n < Tile::COLS; n++) {
                odd |= is_odd(dk_sums[n].x, dk_sums[n].y) || is_odd(dk_sums[n].z, dk_sums[n].w);
                odd |= is_odd(dv_sums[n].x, dv_sums[n].y) || is_odd(dv_sums[n].z, dv_sums[n].w);
            }
            if (!__syncthreads_or(odd && !careful)) {
                break;
            }
        }

        // One half of the warps goes on with dk, the other with dv.
        copies_wait_all();
        float4 *place = (float4 *)(shared + 2 * BYTES) + threadIdx.x / 32 * Tile::COLS * 32 + lane;
        float4 sums[Tile::COLS];
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            place[n * 32] = half == 0 ? dv_sums[n] : dk_sums[n];
            sums[n] = half == 0 ? dk_sums[n] : dv_sums[n];
        }
        __syncthreads();
        const float4 *others = place + (half == 0 ? 4 : -4) * Tile::COLS * 32;
        const float by = half == 0 ? p.scale : 1.0f;
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            const float4 sum = sum_of(sums[n], others[n * 32]);
            sums[n] = make_float4(by * sum.x, by * sum.y, by * sum.z, by * sum.w);
        }
        if (cluster == 1) {
            const u32 row = first_key + warp_k * 16;
            const u32 stride = half == 0 ? p.k_row : p.v_row;
            T *to = (half == 0 ? dk : dv) + u64(row) * stride + kv_head * p.head;
            Tile::write(to, stride, int(p.keys - row), int(p.head), sums, lane);
            return;
        }
        // Tile i of the block's is summed up and written by block i % cluster, where each block has a place for it.
        cluster_wait();
        const u32 rank = block_of_cluster();
        u32 owner = threadIdx.x / 32 * Tile::COLS % cluster, at = threadIdx.x / 32 * Tile::COLS / cluster * cluster + rank;
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            store_in_block(base + SHARED + (at * 32 + lane) * 16, owner, sums[n]);
            owner++;
            if (owner == cluster) {
                owner = 0, at += cluster;
            }
        }
        cluster_arrive();
        cluster_wait();
        for (u32 i = threadIdx.x / 32, tile; tile = i * cluster + rank, tile < TILES; i += THREADS / 32) {
            const float4 *parts = (const float4 *)(shared + SHARED) + i * cluster * 32 + lane;
            float4 sum[1] = { parts[0] };
            for (u32 block = 1; block < cluster; block++) {
                sum[0] = sum_of(sum[0], parts[block * 32]);
            }
            const bool is_k = tile < TILES / 2;
            const u32 row = first_key + tile / Tile::COLS % 4 * 16, col = tile % Tile::COLS * 8;
            const u32 stride = is_k ? p.k_row : p.v_row;
            T *to = (is_k ? dk : dv) + u64(row) * stride + kv_head * p.head + col;
            Tile::write(to, stride, int(p.keys - row), int(p.head - col), sum, lane);
        }
    }
};

// The blocks of dk and dv come first: they have more to do. There may be some blocks more, to make up whole clusters.
template <typename T, int HEAD> struct Backward {
    using ByRows = Dq<T, HEAD>;
    using ByKeys = Dkv<T, HEAD>;
    static constexpr int SHARED = ByRows::SHARED > ByKeys::SHARED ? ByRows::SHARED : ByKeys::SHARED;

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const u32 *spans, const T *y, const float *lse, const T *dy, T *dq, T *dk,
        T *dv, const AttentionParams &p) {
        const u32 by_rows = (p.queries + 63) / 64 * p.heads;
        const u32 by_keys = (p.keys + 63) / 64 * (p.heads / p.group) * blocks_of_cluster();
        if (blockIdx.x < by_keys) {
            ByKeys::run(q, k, v, spans, y, lse, dy, dk, dv, p);
        } else if (blockIdx.x < by_keys + by_rows) {
            ByRows::run(q, k, v, spans, y, lse, dy, dq, blockIdx.x - by_keys, by_rows, p);
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16), its TILE (the most elements of a head), and its
// SHARED_BYTES, without what blocks of a cluster need beyond.
#define ATTENTION_BACKWARD(NAME, SHARED_BYTES, HEAD)                                                             \
    static_assert(Backward<ELEMENT, HEAD>::SHARED == SHARED_BYTES, "as the host counts it");                     \
    extern "C" __global__ void __launch_bounds__(256, HEAD <= 64 ? 2 : 1)                                        \
        NAME(const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, const u32 *spans, const ELEMENT *y,           \
             const float *lse, const ELEMENT *dy, ELEMENT *dq, ELEMENT *dk, ELEMENT *dv,                         \
             const __grid_constant__ AttentionParams p) {                                                        \
        Backward<ELEMENT, HEAD>::run(q, k, v, spans, y, lse, dy, dq, dk, dv, p);                                 \
    }
#ifdef TILE
ATTENTION_BACKWARD(NAME, SHARED_BYTES, TILE)
#endif
