// y = softmax(scale q k^T) v on tensor cores, for f16 and bf16. A block has 64 queries of one head and walks over the keys
// that any of them sees, 128 at a time: the next tiles of k and v are on their way while these are multiplied. A warp
// has 16 queries and one half of the keys; the halves meet in shared memory at the end. Scores, weights and y stay in
// registers (Dao, "FlashAttention-2", 2023): what the first product leaves is what the second takes.

template <typename T, int HEAD> struct Forward {
    static constexpr int ROWS = 64, KEYS = 64, HALVES = 2, THREADS = 256;
    using Tile = Tiles<T, HEAD, THREADS>;
    static constexpr int BYTES = 64 * Tile::PITCH, RANGES = 9 * BYTES, SHARED = RANGES + ROWS * 12;
    static_assert(4 * (Tile::COLS + 1) * 512 <= 8 * BYTES, "a half of the sums takes the place of keys and values");

    // The maximum and the sum of exponentials of a row so far, of powers of two; each lane's own part of the sum.
    struct Row {
        float max, sum;

        // What the sum and y so far are multiplied with, now that there are scores up to `most`.
        FUNCTION float raise(float most) {
            UNROLL
            for (int lanes = 1; lanes < 4; lanes *= 2) {
                most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, lanes));
            }
            const float before = max;
            max = fmaxf(max, most);
            const float factor = exp2f(before - shift());
            sum *= factor;
            return factor;
        }
        // The largest of none is -inf, and 2^(-inf - -inf) has to be 0.
        FUNCTION float shift() const {
            return max == MINUS_INFINITY ? 0.0f : max;
        }
        FUNCTION float weigh(float score) {
            const float weight = exp2f(score - shift());
            sum += weight;
            return weight;
        }
        // With the maximum and the sum over other keys; what y so far is multiplied with.
        FUNCTION float join(float other_max, float other_sum) {
            const float before = max;
            max = fmaxf(max, other_max);
            const float factor = exp2f(before - shift());
            sum = sum * factor + other_sum * exp2f(other_max - shift());
            return factor;
        }
        FUNCTION void add_lanes() {
            UNROLL
            for (int lanes = 1; lanes < 4; lanes *= 2) {
                sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
            }
        }
        FUNCTION float lse(bool any) const {
            const float some = max == MINUS_INFINITY ? __int_as_float(0x7fc00000) : (max + log2f(sum)) / LOG2_E;
            return any ? some : MINUS_INFINITY;
        }
    };

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const u32 *spans, T *y, float *lse, const AttentionParams &p) {
        extern __shared__ __align__(16) char shared[];
        const u32 queries = shared_address(shared);
        Seen *seen = (Seen *)(shared + RANGES);
        const int warp = threadIdx.x / 32 % 4, half = threadIdx.x / 128;
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        // Those that see most come first.
        const u32 head = blockIdx.x % p.heads, first_row = (gridDim.x / p.heads - 1 - blockIdx.x / p.heads) * ROWS;
        const u32 rows = min(p.queries - first_row, u32(ROWS)), kv_head = head / p.group;
        q += first_row * p.q_row + head * p.head, k += kv_head * p.head, v += kv_head * p.head;
        wait_for_earlier_launches();
        Tile::template copy<ROWS>(queries, q, p.q_row, rows, p.head);
        copies_end_group();
        find_keys(spans, p, first_row, rows, (u32 *)(seen + ROWS), seen);
        const Seen mine[2] = { seen[lane], seen[lane + 32] };
        const Seen above = seen[warp * 16 + g], below = seen[warp * 16 + g + 8];
        const auto copy_keys = [&](u32 first, int slot) {
            Tile::template copy_keys<HALVES * KEYS>(queries + (1 + slot * 4) * BYTES, k, v, first, p);
        };

        float4 sums[Tile::COLS];
        set_zero(sums);
        Row upper = { MINUS_INFINITY, 0.0f }, lower = upper;
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
            const int at = (1 + slot * 4 + half) * BYTES;
            const u32 keys = queries + at, here = first + half * KEYS;
            float4 weights[KEYS / 8];
            set_zero(weights);
            Tile::multiply(queries + warp * 16 * Tile::PITCH, keys, lane, weights);
            const bool whole = __all_sync(ALL_LANES, mine[0].whole(here, KEYS) && mine[1].whole(here, KEYS));
            float most = MINUS_INFINITY, most_below = MINUS_INFINITY;
            UNROLL
            for (int n = 0; n < KEYS / 8; n++) {
                const u32 key = here + n * 8 + t * 2;
                float4 &w = weights[n];
                w.x = whole || above.has(key) ? w.x * factor : MINUS_INFINITY;
                w.y = whole || above.has(key + 1) ? w.y * factor : MINUS_INFINITY;
                w.z = whole || below.has(key) ? w.z * factor : MINUS_INFINITY;
                w.w = whole || below.has(key + 1) ? w.w * factor : MINUS_INFINITY;
                most = fmaxf(most, fmaxf(w.x, w.y)), most_below = fmaxf(most_below, fmaxf(w.z, w.w));
            }
            const float raised = upper.raise(most), raised_below = lower.raise(most_below);
            UNROLL
            for (int n = 0; n < Tile::COLS; n++) {
                sums[n].x *= raised, sums[n].y *= raised, sums[n].z *= raised_below, sums[n].w *= raised_below;
            }
            UNROLL
            for (int n = 0; n < KEYS / 8; n++) {
                float4 &w = weights[n];
                w = make_float4(upper.weigh(w.x), upper.weigh(w.y), lower.weigh(w.z), lower.weigh(w.w));
            }
            const char *values = shared + at + 2 * BYTES;
            if (!whole && Tile::template is_odd<KEYS>(values, lane)) {
                Tile::add_seen(weights, values, lane, sums, [&](int block, int j, bool is_above) {
                    return (is_above ? above : below).has(here + block * 8 + j);
                });
            } else {
                Tile::add(weights, keys + 2 * BYTES, lane, sums);
            }
            // The tiles after the next go where these were.
            __syncthreads();
            first = next;
        }
        upper.add_lanes(), lower.add_lanes();
        // The second half hands over.
        copies_wait_all();
        __syncthreads();
        float4 *others = (float4 *)(shared + BYTES) + warp * (Tile::COLS + 1) * 32 + lane;
        if (half == 1) {
            UNROLL
            for (int n = 0; n < Tile::COLS; n++) {
                others[n * 32] = sums[n];
            }
            others[Tile::COLS * 32] = make_float4(upper.max, upper.sum, lower.max, lower.sum);
        }
        __syncthreads();
        if (half == 1) {
            return;
        }
        const float4 other = others[Tile::COLS * 32];
        const float by = upper.join(other.x, other.y), by_below = lower.join(other.z, other.w);
        const float theirs = exp2f(other.x - upper.shift()), theirs_below = exp2f(other.z - lower.shift());
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            const float4 o = others[n * 32];
            float4 &s = sums[n];
            s.x = s.x * by + o.x * theirs, s.y = s.y * by + o.y * theirs;
            s.z = s.z * by_below + o.z * theirs_below, s.w = s.w * by_below + o.w * theirs_below;
        }
        const float share = above.any() ? 1.0f / upper.sum : 0.0f, share_below = below.any() ? 1.0f / lower.sum : 0.0f;
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            float4 &s = sums[n];
            s.x = above.any() ? s.x * share : 0.0f, s.y = above.any() ? s.y * share : 0.0f;
            s.z = below.any() ? s.z * share_below : 0.0f, s.w = below.any() ? s.w * share_below : 0.0f;
        }
        const u32 row = first_row + warp * 16;
        const int there = int(rows) - warp * 16;
        Tile::write(y + row * p.y_row + head * p.head, p.y_row, there, p.head, sums, lane);
        if (t == 0 && g < there) {
            lse[u64(row + g) * p.heads + head] = upper.lse(above.any());
        }
        if (t == 0 && g + 8 < there) {
            lse[u64(row + g + 8) * p.heads + head] = lower.lse(below.any());
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16, f16), its TILE (the most elements of a head), and
// its SHARED_BYTES.
#define ATTENTION(NAME, SHARED_BYTES, HEAD)                                                                          \
    static_assert(Forward<ELEMENT, HEAD>::SHARED == SHARED_BYTES, "as the host counts it");                          \
    extern "C" __global__ void __launch_bounds__(Forward<ELEMENT, HEAD>::THREADS)                                    \
        NAME(const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, const u32 *spans, ELEMENT *y, float *lse,         \
             const __grid_constant__ AttentionParams p) {                                                            \
        Forward<ELEMENT, HEAD>::run(q, k, v, spans, y, lse, p);                                                      \
    }
#ifdef TILE
ATTENTION(NAME, SHARED_BYTES, TILE)
#endif
