// Attention's gradients on tensor cores, for bf16: with p = exp(scale q k^T - lse) and D = dy y,
// ds = scale p (dy v^T - D), dq = ds k, dk = ds^T q, dv = p^T dy. No two blocks write the same element, and sums are in a
// fixed order. lse and D of every query and head, and the keys that each query sees, come from the shared kernel
// `attention_backward_rows`.
//
//   Dq   a block has 64 queries of one head and walks over the keys as the forward does
//   Dkv  a block has 32 keys of one head and walks over the queries and heads that see them, 64 at a time: of each two
//        by four warps one has 16 keys and 16 queries, and they meet in shared memory at the end. Two such groups of
//        warps share the steps where a head has at most 64 elements
//
// In f16 ds would lose its small numbers: f16 has the shared kernels.

// lse and D of a query and head.
struct Stats {
    float lse, dot;

    // 2^(factor score) / sum of exponentials
    FUNCTION float weigh(float score, float factor) const {
        return exp2f(score * factor - lse * LOG2_E);
    }
    FUNCTION bool is_odd() const {
        return !is_finite(lse) || !is_finite(dot);
    }
};

template <typename T, int HEAD> struct Dq {
    static constexpr int ROWS = 64, KEYS = 64, HALVES = 2, THREADS = 256;
    using Tile = Tiles<T, HEAD, THREADS>;
    static constexpr int BYTES = 64 * Tile::PITCH, RANGES = 10 * BYTES, SHARED = RANGES + ROWS * 8;
    static_assert(4 * Tile::COLS * 512 <= 8 * BYTES, "a half of the sums takes the place of keys and values");

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const T *dy, const Stats *stats, const Seen *ranges, T *dq, T *,
        const AttentionParams &p) {
        extern __shared__ __align__(16) char shared[];
        const u32 queries = shared_address(shared);
        Seen *seen = (Seen *)(shared + RANGES);
        const int warp = threadIdx.x / 32 % 4, half = threadIdx.x / 128;
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const u32 head = blockIdx.x % p.heads, first_row = (gridDim.x / p.heads - 1 - blockIdx.x / p.heads) * ROWS;
        const u32 rows = min(p.queries - first_row, u32(ROWS)), kv_head = head / p.group;
        k += kv_head * p.head, v += kv_head * p.head;
        wait_for_earlier_launches();
        Tile::template copy<ROWS>(queries, q + first_row * p.q_row + head * p.head, p.q_row, rows, p.head);
        Tile::template copy<ROWS>(queries + BYTES, dy + first_row * p.y_row + head * p.head, p.y_row, rows, p.head);
        copies_end_group();
        if (threadIdx.x < ROWS) {
            seen[threadIdx.x] = threadIdx.x < rows ? ranges[first_row + threadIdx.x] : Seen { 0, 0 };
        }
        const u32 row = first_row + warp * 16;
        const int there = int(rows) - warp * 16;
        const Stats upper = g < there ? stats[u64(row + g) * p.heads + head] : Stats { 0.0f, 0.0f };
        const Stats lower = g + 8 < there ? stats[u64(row + g + 8) * p.heads + head] : Stats { 0.0f, 0.0f };
        __syncthreads();
        const Seen mine[2] = { seen[lane], seen[lane + 32] };
        const Seen above = seen[warp * 16 + g], below = seen[warp * 16 + g + 8];
        const auto copy_keys = [&](u32 first, int slot) {
            Tile::template copy_keys<HALVES * KEYS>(queries + (2 + slot * 4) * BYTES, k, v, first, p);
        };

        float4 sums[Tile::COLS];
        set_zero(sums);
        const float factor = p.scale * LOG2_E;
        u32 first = next_seen(mine, 0);
        if (first != NO_KEY) {
            copy_keys(first, 0);
        }
        copies_end_group();
        for (int slot = 0; first != NO_KEY; slot ^= 1) {
            const u32 next = next_seen(mine, first + HALVES * KEYS);
            if (next != NO_KEY) {
                copy_keys(next, slot ^ 1);
            }
            copies_end_group();
            copies_wait<1>();
            __syncthreads();
            const int at = (2 + slot * 4 + half) * BYTES;
            const u32 here = first + half * KEYS;
            float4 weights[KEYS / 8], d[KEYS / 8];
            set_zero(weights), set_zero(d);
            Tile::multiply(queries + warp * 16 * Tile::PITCH, queries + at, lane, weights);
            Tile::multiply(queries + BYTES + warp * 16 * Tile::PITCH, queries + at + 2 * BYTES, lane, d);
            const bool whole = __all_sync(ALL_LANES, mine[0].whole(here, KEYS) && mine[1].whole(here, KEYS));
            const auto ds = [&](const Stats &row, float score, float dp, bool sees) {
                return whole || sees ? p.scale * row.weigh(score, factor) * (dp - row.dot) : 0.0f;
            };
            UNROLL
            for (int n = 0; n < KEYS / 8; n++) {
                const u32 key = here + n * 8 + t * 2;
                const float4 &w = weights[n];
                d[n].x = ds(upper, w.x, d[n].x, above.has(key)), d[n].y = ds(upper, w.y, d[n].y, above.has(key + 1));
                d[n].z = ds(lower, w.z, d[n].z, below.has(key)), d[n].w = ds(lower, w.w, d[n].w, below.has(key + 1));
            }
            if (!whole && Tile::template is_odd<KEYS>(shared + at, lane)) {
                Tile::add_seen(d, shared + at, lane, sums, [&](int block, int j, bool is_above) {
                    return (is_above ? above : below).has(here + block * 8 + j);
                });
            } else {
                Tile::add(d, queries + at, lane, sums);
            }
            __syncthreads();
            first = next;
        }
        // The second half hands over.
        copies_wait_all();
        __syncthreads();
        float4 *others = (float4 *)(shared + 2 * BYTES) + warp * Tile::COLS * 32 + lane;
        if (half == 1) {
            UNROLL
            for (int n = 0; n < Tile::COLS; n++) {
                others[n * 32] = sums[n];
            }
        }
        __syncthreads();
        if (half == 1) {
            return;
        }
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            float4 &s = sums[n];
            s = sum_of(s, others[n * 32]);
            s.x = above.any() ? s.x : 0.0f, s.y = above.any() ? s.y : 0.0f;
            s.z = below.any() ? s.z : 0.0f, s.w = below.any() ? s.w : 0.0f;
        }
        Tile::write(dq + row * p.q_row + head * p.head, p.q_row, there, p.head, sums, lane);
    }
};

template <typename T, int HEAD> struct Dkv {
    // So many steps at a time, each by 256 threads.
    static constexpr int STEPS = HEAD <= 64 ? 2 : 1;
    static constexpr int ROWS = 64, KEYS = 32, THREADS = 256 * STEPS, WARPS_K = 2, WARPS_Q = 4;
    using Tile = Tiles<T, HEAD, 256>;
    // k, v; twice q and dy of each step. The warps' sums of dk and dv take their place.
    static constexpr int BYTES = ROWS * Tile::PITCH, KEY_BYTES = KEYS * Tile::PITCH;
    static constexpr int OPERANDS = 2 * KEY_BYTES + STEPS * 4 * BYTES;
    static constexpr int SUMS = STEPS * WARPS_K * WARPS_Q * 2 * Tile::COLS * 512;
    static constexpr int MASK = OPERANDS > SUMS ? OPERANDS : SUMS, WORDS = 64, SHARED = MASK + WORDS * 4;

    // A step: 64 queries of a head.
    struct Step {
        u32 tile, head;
    };
    // What the step's queries of this lane's columns have.
    struct Columns {
        Stats stats[4];
        Seen seen[4];
    };

    // Bit i of `mask`: some of the queries 64 i .. sees one of the block's keys.
    static FUNCTION void find_tiles(u32 *mask, const Seen *ranges, u32 first_key, const AttentionParams &p) {
        for (u32 i = threadIdx.x; i < WORDS; i += THREADS) {
            mask[i] = 0;
        }
        __syncthreads();
        for (u32 warps_first = threadIdx.x / 32 * 32; warps_first < p.queries; warps_first += THREADS) {
            const u32 query = warps_first + threadIdx.x % 32;
            const Seen seen = query < p.queries ? ranges[query] : Seen { 0, 0 };
            const bool sees = seen.any() && seen.begin < first_key + KEYS && seen.end > first_key;
            if (__any_sync(ALL_LANES, sees) && threadIdx.x % 32 == 0) {
                atomicOr(mask + query / ROWS / 32, 1u << query / ROWS % 32);
            }
        }
        __syncthreads();
    }
    static FUNCTION u32 next_tile(const u32 *mask, u32 from, u32 queries) {
        for (u32 word = from / 32; word * 32 * ROWS < queries; word++) {
            const u32 bits = word == from / 32 ? mask[word] & ~0u << from % 32 : mask[word];
            if (bits != 0) {
                return word * 32 + __ffs(bits) - 1;
            }
        }
        return NO_KEY;
    }

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const T *dy, const Stats *stats, const Seen *ranges, T *dk, T *dv,
        const AttentionParams &p) {
        extern __shared__ __align__(16) char shared[];
        const u32 base = shared_address(shared);
        u32 *mask = (u32 *)(shared + MASK);
        const int warp = threadIdx.x / 32 % 8, group = threadIdx.x / 256;
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const int warp_k = warp % WARPS_K, warp_q = warp / WARPS_K;
        const u32 kv_heads = p.heads / p.group, kv_head = blockIdx.x % kv_heads;
        const u32 first_key = blockIdx.x / kv_heads * KEYS, keys = min(p.keys - first_key, u32(KEYS));
        wait_for_earlier_launches();
        if (group == 0) {
            Tile::template copy_keys<KEYS>(base, k + kv_head * p.head, v + kv_head * p.head, first_key, p);
        }
        find_tiles(mask, ranges, first_key, p);

        const auto copy_rows = [&](Step step, int slot) {
            const u32 first = step.tile * ROWS, count = min(p.queries - first, u32(ROWS));
            const u32 to = base + 2 * KEY_BYTES + (slot * STEPS + group) * 2 * BYTES;
            Tile::template copy<ROWS>(to, q + first * p.q_row + step.head * p.head, p.q_row, count, p.head);
            Tile::template copy<ROWS>(to + BYTES, dy + first * p.y_row + step.head * p.head, p.y_row, count, p.head);
        };
        const auto columns_of = [&](Step step) {
            Columns columns;
            UNROLL
            for (int i = 0; i < 4; i++) {
                const u32 query = step.tile * ROWS + warp_q * 16 + i / 2 * 8 + t * 2 + i % 2;
                const bool exists = step.tile != NO_KEY && query < p.queries;
                columns.stats[i] = exists ? stats[u64(query) * p.heads + step.head] : Stats { 0.0f, 0.0f };
                columns.seen[i] = exists ? ranges[query] : Seen { 0, 0 };
            }
            return columns;
        };

        float4 dk_sums[Tile::COLS], dv_sums[Tile::COLS];
        set_zero(dk_sums), set_zero(dv_sums);
        const float factor = p.scale * LOG2_E;
        const u32 first_head = kv_head * p.group, key = first_key + warp_k * 16 + g;
        const auto after = [&](Step step) {
            const bool last = step.tile == NO_KEY || step.head + 1 == first_head + p.group;
            if (!last) {
                return Step { step.tile, step.head + 1 };
            }
            return Step { step.tile == NO_KEY ? NO_KEY : next_tile(mask, step.tile + 1, p.queries), first_head };
        };
        // The block's next step; the one that this thread takes part in.
        Step first = { next_tile(mask, 0, p.queries), first_head }, step = group == 0 ? first : after(first);
        if (step.tile != NO_KEY) {
            copy_rows(step, 0);
        }
        copies_end_group();
        Columns columns = columns_of(step);
        for (int slot = 0; first.tile != NO_KEY; slot ^= 1) {
            first = STEPS == 2 ? after(after(first)) : after(first);
            const Step next = STEPS == 2 ? after(after(step)) : after(step);
            if (next.tile != NO_KEY) {
                copy_rows(next, slot ^ 1);
            }
            copies_end_group();
            const Columns columns_after = columns_of(next);
            copies_wait<1>();
            __syncthreads();
            const int at = 2 * KEY_BYTES + (slot * STEPS + group) * 2 * BYTES + warp_q * 16 * Tile::PITCH;
            // Of keys by queries.
            float4 weights[2], d[2];
            set_zero(weights), set_zero(d);
            Tile::multiply(base + warp_k * 16 * Tile::PITCH, base + at, lane, weights);
            Tile::multiply(base + KEY_BYTES + warp_k * 16 * Tile::PITCH, base + at + BYTES, lane, d);
            bool whole = true, odd = false, unseen = false;
            UNROLL
            for (int i = 0; i < 4; i++) {
                const Seen seen = columns.seen[i];
                whole &= seen.any() && seen.whole(first_key, KEYS);
                // A query that sees nothing has an lse of -inf, whatever it is itself.
                unseen |= !seen.any() && columns.stats[i].lse == MINUS_INFINITY;
                odd |= seen.any() && columns.stats[i].is_odd();
            }
            whole = __all_sync(ALL_LANES, whole), odd = __any_sync(ALL_LANES, odd);
            if (__any_sync(ALL_LANES, unseen)) {
                odd |= Tile::template is_odd<16>(shared + at, lane) || Tile::template is_odd<16>(shared + at + BYTES, lane);
            }
            const auto weigh = [&](int column, u32 key, float &score, float &dp) {
                const Stats &of = columns.stats[column];
                const bool sees = columns.seen[column].has(key);
                const float weight = sees ? of.weigh(score, factor) : 0.0f;
                dp = sees ? p.scale * weight * (dp - of.dot) : 0.0f;
                score = weight;
            };
            UNROLL
            for (int n = 0; n < 2; n++) {
                weigh(n * 2, key, weights[n].x, d[n].x), weigh(n * 2 + 1, key, weights[n].y, d[n].y);
                weigh(n * 2, key + 8, weights[n].z, d[n].z), weigh(n * 2 + 1, key + 8, weights[n].w, d[n].w);
            }
            // A query or its gradient that is no number shows in its lse or D.
            if (step.tile == NO_KEY) {
                // An odd number of steps: nothing is there to add.
            } else if (!whole && odd) {
                const auto sees = [&](int block, int j, bool is_above) {
                    const Seen &even = columns.seen[block * 2], &uneven = columns.seen[block * 2 + 1];
                    const int from = lane / 4 * 4 + j / 2;
                    const u32 begin = __shfl_sync(ALL_LANES, j % 2 ? uneven.begin : even.begin, from);
                    const u32 end = __shfl_sync(ALL_LANES, j % 2 ? uneven.end : even.end, from);
                    return Seen { begin, end }.has(is_above ? key : key + 8);
                };
                Tile::add_seen(weights, shared + at + BYTES, lane, dv_sums, sees);
                Tile::add_seen(d, shared + at, lane, dk_sums, sees);
            } else {
                Tile::add(weights, base + at + BYTES, lane, dv_sums);
                Tile::add(d, base + at, lane, dk_sums);
            }
            // The queries after the next go where these were.
            __syncthreads();
            step = next, columns = columns_after;
        }

        copies_wait_all();
        __syncthreads();
        float4 *parts = (float4 *)shared;
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            const int to = ((group * WARPS_Q + warp_q) * WARPS_K + warp_k) * 2 * Tile::COLS + n;
            parts[to * 32 + lane] = dk_sums[n];
            parts[(to + Tile::COLS) * 32 + lane] = dv_sums[n];
        }
        __syncthreads();
        for (int tile = threadIdx.x / 32; tile < WARPS_K * 2 * Tile::COLS; tile += THREADS / 32) {
            const float4 sum = add_up<STEPS * WARPS_Q>(parts, lane, tile, WARPS_K * 2 * Tile::COLS);
            const int n = tile % (2 * Tile::COLS), row = tile / (2 * Tile::COLS) * 16 + g;
            const u32 col = n % Tile::COLS * 8 + t * 2;
            const bool is_k = n < Tile::COLS;
            const u64 stride = is_k ? p.k_row : p.v_row;
            T *to = (is_k ? dk : dv) + first_key * stride + kv_head * p.head + col;
            if (col < p.head && row < int(keys)) {
                *(u32 *)(to + row * stride) = round_2<T>(sum.x, sum.y);
            }
            if (col < p.head && row + 8 < int(keys)) {
                *(u32 *)(to + (row + 8) * stride) = round_2<T>(sum.z, sum.w);
            }
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16), its TILE (Dq or Dkv, and the most elements of a
// head), and its SHARED_BYTES.
#define ATTENTION_BACKWARD(NAME, SHARED_BYTES, PASS, HEAD)                                                           \
    static_assert(PASS<ELEMENT, HEAD>::SHARED == SHARED_BYTES, "as the host counts it");                             \
    extern "C" __global__ void __launch_bounds__(PASS<ELEMENT, HEAD>::THREADS)                                       \
        NAME(const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, const ELEMENT *dy, const Stats *stats,            \
             const Seen *ranges, ELEMENT *a, ELEMENT *b, const __grid_constant__ AttentionParams p) {                \
        PASS<ELEMENT, HEAD>::run(q, k, v, dy, stats, ranges, a, b, p);                                               \
    }
#define INSTANCE(...) ATTENTION_BACKWARD(__VA_ARGS__)
#ifdef TILE
INSTANCE(NAME, SHARED_BYTES, TILE)
#endif
