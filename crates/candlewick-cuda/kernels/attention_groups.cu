// y = softmax(scale q k^T) v for the warpgroup's instruction of sm_90a, for f16 and bf16. A block is one warpgroup, has 64
// queries of one head and walks over the keys that any of them sees, 64 at a time: the next tiles of k and v are on their
// way while these are multiplied. Scores, weights and y stay in registers (Dao, "FlashAttention-2", 2023): what the first
// product leaves is what the second takes. A weight of zero times a NaN that nobody sees would be one: where a sum is no
// number, a block starts again, carefully.
//
// On an H100, us of a launch among others in a graph, causal, 9 heads of 64 on 3, after what attention.cu took:
//
//   8 x 512 tokens     12.4 of 24.0        1 x 2048 tokens              31.7 of 42.2
//   4 x 256 tokens      5.3 of 8.8         64 tokens behind 1984        21.1 of 27.3
//   2 x 1024 tokens    17.7 of 23.0        8 x 512, heads of 128        20.4 of 45.3

// The maximum of a row's scores and the sum of exponentials so far; each lane's own part of the sum. `factor` makes scores
// powers of two.
struct Row {
    float max, sum;

    // What the sum and y so far are multiplied with, now that there are scores up to `most`.
    FUNCTION float raise(float most, float factor) {
        UNROLL
        for (int lanes = 1; lanes < 4; lanes *= 2) {
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, lanes));
        }
        const float before = max;
        max = fmaxf(max, most);
        const float raised = exp2_of(before * factor - shift(factor));
        sum *= raised;
        return raised;
    }
    // The largest of none is -inf, and 2^(-inf - -inf) has to be 0.
    FUNCTION float shift(float factor) const {
        return max == MINUS_INFINITY ? 0.0f : max * factor;
    }
    FUNCTION void add_lanes() {
        UNROLL
        for (int lanes = 1; lanes < 4; lanes *= 2) {
            sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
        }
    }
    FUNCTION float lse(float factor, bool any) const {
        const float some = max == MINUS_INFINITY ? __int_as_float(0x7fc00000) : (max * factor + log2f(sum)) * LN_2;
        return any ? some : MINUS_INFINITY;
    }
};

template <typename T, int HEAD> struct Forward {
    using Tile = GroupTile<T, HEAD>;
    using Matrix = typename Tile::Matrix;
    static constexpr int ROWS = 64, KEYS = 64, THREADS = 128, BYTES = Tile::BYTES, COLS = Tile::COLS;
    // q; k and v of each of SLOTS steps: AHEAD of them are on their way, and one may still be read by the last product.
    static constexpr int AHEAD = HEAD > 64 ? 1 : 2, SLOTS = AHEAD + 2, SHARED = BYTES + SLOTS * 2 * BYTES;
    // Of a multiprocessor: what shared memory has room for.
    static constexpr int BLOCKS = HEAD > 64 ? 2 : 3;

    const AttentionParams &p;
    char *shared;
    u32 base, head, first_row, end;
    Matrix keys, values;
    Seen seen[2], above, below; // of the block, and of the thread's rows
    Row upper, lower;
    float factor;
    bool turns; // scores are multiplied with scale before all else: it is no positive number
    float4 sums[COLS];

    FUNCTION Forward(const T *k, const T *v, char *shared, const AttentionParams &p)
        : p(p), shared(shared), base(shared_address(shared)), head(blockIdx.x % p.heads),
          // Those that see most come first.
          first_row(tile_at((gridDim.x - 1 - blockIdx.x) / p.heads, gridDim.x / p.heads, p.sequences) * ROWS),
          keys{ k, p.k_row, head / p.group, p.head }, values{ v, p.v_row, head / p.group, p.head } {
        turns = !(p.scale > 0.0f), factor = turns ? 1.0f : p.scale * LOG2_E;
    }

    FUNCTION void copy_keys(u32 first, int step) const {
        if (first != NO_KEY) {
            const u32 to = base + BYTES + step % SLOTS * 2 * BYTES;
            keys.copy(to, first, end);
            values.copy(to + BYTES, first, end);
        }
        copies_end_group();
    }
    FUNCTION u32 next_keys(u32 first) const {
        return first == NO_KEY ? NO_KEY : next_seen(seen, first + KEYS);
    }

    template <bool CAREFUL> FUNCTION void walk() {
        const int t = threadIdx.x % 4;
        u32 weights[4][4] = {};
        set_zero(sums);
        upper = lower = { MINUS_INFINITY, 0.0f };
        u32 first = next_seen(seen, 0), last = first;
        copy_keys(first, 0);
        if (AHEAD == 2) {
            last = next_keys(first);
            copy_keys(last, 1);
        }
        _Pragma("unroll 1")
        for (int step = 0; first != NO_KEY; step++) {
            const u32 at = BYTES + step % SLOTS * 2 * BYTES, here = first;
            copies_wait<AHEAD - 1>();
            shared_to_warpgroup();
            __syncthreads();
            float4 s[8];
            warpgroup_begin();
            Tile::multiply(base, base + at, s);
            warpgroup_end_group();
            // All have done with the tiles before the last ones, whose place the next ones take: the product with the
            // last ones may be under way.
            const u32 next = next_keys(last);
            copy_keys(next, step + AHEAD);
            first = AHEAD == 2 ? last : next, last = next;
            warpgroup_wait();
            settle(s), settle(weights), settle(sums);
            if (turns) {
                UNROLL
                for (int n = 0; n < 8; n++) {
                    const float by = p.scale * LOG2_E;
                    s[n].x *= by, s[n].y *= by, s[n].z *= by, s[n].w *= by;
                }
            }
            if (!__all_sync(ALL_LANES, above.whole(here, KEYS) && below.whole(here, KEYS))) {
                UNROLL
                for (int n = 0; n < 8; n++) {
                    const u32 key = here + n * 8 + t * 2;
                    s[n].x = above.has(key) ? s[n].x : MINUS_INFINITY, s[n].y = above.has(key + 1) ? s[n].y : MINUS_INFINITY;
                    s[n].z = below.has(key) ? s[n].z : MINUS_INFINITY, s[n].w = below.has(key + 1) ? s[n].w : MINUS_INFINITY;
                }
            }
            float most = MINUS_INFINITY, most_below = MINUS_INFINITY;
            UNROLL
            for (int n = 0; n < 8; n++) {
                most = fmaxf(most, fmaxf(s[n].x, s[n].y)), most_below = fmaxf(most_below, fmaxf(s[n].z, s[n].w));
            }
            const float raised = upper.raise(most, factor), raised_below = lower.raise(most_below, factor);
            const float shift = upper.shift(factor), shift_below = lower.shift(factor);
            UNROLL
            for (int n = 0; n < 8; n++) {
                s[n].x = exp2_of(s[n].x * factor - shift), s[n].y = exp2_of(s[n].y * factor - shift);
                s[n].z = exp2_of(s[n].z * factor - shift_below), s[n].w = exp2_of(s[n].w * factor - shift_below);
                upper.sum += s[n].x + s[n].y, lower.sum += s[n].z + s[n].w;
            }
            UNROLL
            for (int n = 0; n < COLS; n++) {
                sums[n].x *= raised, sums[n].y *= raised, sums[n].z *= raised_below, sums[n].w *= raised_below;
            }
            if (CAREFUL) {
                Tile::add_seen(s, shared + at + BYTES, sums,
                               [&](int row, bool is_above) { return (is_above ? above : below).has(here + row); });
            } else {
                Tile::round(s, weights);
                warpgroup_begin();
                Tile::add(weights, base + at + BYTES, sums);
                warpgroup_end_group();
            }
        }
        warpgroup_wait();
        settle(weights), settle(sums);
        // Of q too, where no keys are seen: y takes its place.
        copies_wait_all();
    }

    FUNCTION void run(const T *q, const u32 *spans, T *y, float *lse) {
        const u32 row = first_row + Tile::warp() * 16, g = Tile::lane() / 4;
        Matrix{ q, p.q_row, head, p.head }.copy(base, first_row, p.queries);
        find_keys(spans, p, first_row, seen);
        const Seen near = Tile::warp() < 2 ? Seen(seen[0]) : Seen(seen[1]);
        above = near.of_lane((row + g) % 32), below = near.of_lane((row + g + 8) % 32);
        end = end_of_seen(seen);
        walk<false>();
        if (__syncthreads_or(any_odd(sums, above.any(), below.any()))) {
            walk<true>();
            __syncthreads();
        }
        upper.add_lanes(), lower.add_lanes();
        const float by = 1.0f / upper.sum, by_below = 1.0f / lower.sum;
        UNROLL
        for (int n = 0; n < COLS; n++) {
            float4 &s = sums[n];
            s.x = above.any() ? s.x * by : 0.0f, s.y = above.any() ? s.y * by : 0.0f;
            s.z = below.any() ? s.z * by_below : 0.0f, s.w = below.any() ? s.w * by_below : 0.0f;
        }
        const int there = int(p.queries - row);
        T *to = y + u64(row) * p.y_row + head * p.head;
        Tile::write(to, p.y_row, there, int(p.head), sums, shared);
        float *to_lse = lse + u64(row + g) * p.heads + head;
        if (Tile::lane() % 4 == 0 && int(g) < there) {
            *to_lse = upper.lse(factor, above.any());
        }
        if (Tile::lane() % 4 == 0 && int(g) + 8 < there) {
            to_lse[8 * p.heads] = lower.lse(factor, below.any());
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16, f16), its TILE (the most elements of a head), and
// its SHARED_BYTES.
#define ATTENTION(NAME, SHARED_BYTES, HEAD)                                                                          \
    static_assert(Forward<ELEMENT, HEAD>::SHARED == SHARED_BYTES, "as the host counts it");                          \
    extern "C" __global__ void __launch_bounds__(Forward<ELEMENT, HEAD>::THREADS, Forward<ELEMENT, HEAD>::BLOCKS)    \
        NAME(const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, const u32 *spans, ELEMENT *y, float *lse,         \
             const __grid_constant__ AttentionParams p) {                                                            \
        extern __shared__ __align__(1024) char shared[];                                                             \
        wait_for_earlier_launches();                                                                                 \
        Forward<ELEMENT, HEAD>(k, v, shared, p).run(q, spans, y, lse);                                               \
    }
#ifdef TILE
ATTENTION(NAME, SHARED_BYTES, TILE)
#endif
