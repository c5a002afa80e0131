// y = softmax(scale q k^T) v on tensor cores, for f16 and bf16. A block has 64 queries of one head and walks over the keys
// that any of them sees, 128 at a time: the next tiles of k and v are on their way while these are multiplied. A warp
// has 16 queries and one half of the keys; the halves meet in shared memory at the end. Scores, weights and y stay in
// registers (Dao, "FlashAttention-2", 2023): what the first product leaves is what the second takes. A weight of zero times a
// NaN that nobody sees would be one: where a sum is no number, a block starts again, carefully.

template <typename T, int HEAD> struct Forward {
    static constexpr int ROWS = 64, KEYS = 64, HALVES = 2, THREADS = 256;
    using Tile = Tiles<T, HEAD, THREADS>;
    using Matrix = typename Tile::Matrix;
    static constexpr int BYTES = 64 * Tile::PITCH, SHARED = 9 * BYTES;
    static constexpr int WARP_TILES = Tile::KEPT + 1;
    static_assert(8 * WARP_TILES * 512 <= 8 * BYTES, "what the halves send takes the place of keys and values");

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
            const float factor = exp2_of(before - shift());
            sum *= factor;
            return factor;
        }
        // The largest of none is -inf, and 2^(-inf - -inf) has to be 0.
        FUNCTION float shift() const {
            return max == MINUS_INFINITY ? 0.0f : max;
        }
        FUNCTION float weigh(float score) {
            const float weight = exp2_of(score - shift());
            sum += weight;
            return weight;
        }
        FUNCTION void add_lanes() {
            UNROLL
            for (int lanes = 1; lanes < 4; lanes *= 2) {
                sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
            }
        }
        FUNCTION float lse(bool any) const {
            const float some = max == MINUS_INFINITY ? __int_as_float(0x7fc00000) : (max + log2f(sum)) * LN_2;
            return any ? some : MINUS_INFINITY;
        }
    };
    // How much of the sums over both halves' keys each half's are.
    struct Shares {
        float mine, theirs;
    };
    // Goes over to the maximum and the sum of both halves.
    static FUNCTION Shares join(Row &row, float max, float sum, bool any) {
        const Row mine = row;
        row.max = fmaxf(mine.max, max);
        const float by = exp2_of(mine.max - row.shift()), by_theirs = exp2_of(max - row.shift());
        row.sum = mine.sum * by + sum * by_theirs;
        const float share = 1.0f / row.sum;
        return any ? Shares { by * share, by_theirs * share } : Shares { 0.0f, 0.0f };
    }

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const u32 *spans, T *y, float *lse, const AttentionParams &p) {
        extern __shared__ __align__(16) char shared[];
        const u32 queries = shared_address(shared);
        const int warp = threadIdx.x / 32 % 4, half = threadIdx.x / 128;
        const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        // Those that see most come first.
        const u32 head = blockIdx.x % p.heads, first_row = (gridDim.x / p.heads - 1 - blockIdx.x / p.heads) * ROWS;
        const Matrix keys(k, p.k_row, head / p.group, p.head), values(v, p.v_row, head / p.group, p.head);
        wait_for_earlier_launches();
        Matrix(q, p.q_row, head, p.head).template copy<ROWS>(queries, first_row, p.queries);
        Seen mine[2];
        find_keys(spans, p, first_row, mine);
        const Seen near = warp < 2 ? Seen(mine[0]) : Seen(mine[1]);
        const Seen above = near.of_lane(warp % 2 * 16 + g), below = near.of_lane(warp % 2 * 16 + g + 8);
        const u32 end = end_of_seen(mine);
        const auto copy_keys = [&](u32 first, int slot) {
            if (first != NO_KEY) {
                const u32 to = queries + (1 + slot * 4) * BYTES;
                keys.template copy<HALVES * KEYS>(to, first, end);
                values.template copy<HALVES * KEYS>(to + HALVES * BYTES, first, end);
            }
        };

        float4 sums[Tile::COLS];
        Row upper, lower;
        const float factor = p.scale * LOG2_E;
        for (bool careful = false;; careful = true) {
            set_zero(sums);
            upper = lower = { MINUS_INFINITY, 0.0f };
            u32 first = next_seen(mine, 0);
            copy_keys(first, 0);
            _Pragma("unroll 1")
            for (int slot = 0; first != NO_KEY; slot ^= 1) {
                copies_wait_all();
                __syncthreads();
                const u32 here = first + half * KEYS;
                const bool meets = __any_sync(ALL_LANES, above.meets(here, KEYS) || below.meets(here, KEYS));
                const int at = (1 + slot * 4 + half) * BYTES;
                float4 weights[KEYS / 8];
                set_zero(weights);
                if (meets) {
                    Tile::multiply(queries + warp * 16 * Tile::PITCH, queries + at, lane, weights);
                }
                // All have done with the tiles before these, whose place the next ones take.
                first = next_seen(mine, first + HALVES * KEYS);
                copy_keys(first, slot ^ 1);
                if (meets) {
                    float most = MINUS_INFINITY, most_below = MINUS_INFINITY;
                    UNROLL
                    for (int n = 0; n < KEYS / 8; n++) {
                        float4 &w = weights[n];
                        w.x *= factor, w.y *= factor, w.z *= factor, w.w *= factor;
                    }
                    if (!__all_sync(ALL_LANES, above.whole(here, KEYS) && below.whole(here, KEYS))) {
                        UNROLL
                        for (int n = 0; n < KEYS / 8; n++) {
                            const u32 key = here + n * 8 + t * 2;
                            float4 &w = weights[n];
                            w.x = above.has(key) ? w.x : MINUS_INFINITY, w.y = above.has(key + 1) ? w.y : MINUS_INFINITY;
                            w.z = below.has(key) ? w.z : MINUS_INFINITY, w.w = below.has(key + 1) ? w.w : MINUS_INFINITY;
                        }
                    }
                    UNROLL
                    for (int n = 0; n < KEYS / 8; n++) {
                        const float4 &w = weights[n];
                        most = fmaxf(most, fmaxf(w.x, w.y)), most_below = fmaxf(most_below, fmaxf(w.z, w.w));
                    }
                    const float raised = upper.raise(most), raised_below = lower.raise(most_below);
                    UNROLL
                    for (int n = 0; n < Tile::COLS; n++) {
                        float4 &s = sums[n];
                        s.x *= raised, s.y *= raised, s.z *= raised_below, s.w *= raised_below;
                    }
                    UNROLL
                    for (int n = 0; n < KEYS / 8; n++) {
                        float4 &w = weights[n];
                        w = make_float4(upper.weigh(w.x), upper.weigh(w.y), lower.weigh(w.z), lower.weigh(w.w));
                    }
                    if (careful) {
                        Tile::add_seen(weights, shared + at + 2 * BYTES, lane, sums, [&](int block, int j, bool is_above) {
                            return (is_above ? above : below).has(here + block * 8 + j);
                        });
                    } else {
                        Tile::add(weights, queries + at + 2 * BYTES, lane, sums);
                    }
                }
            }
            bool odd = false;
            UNROLL
            for (int n = 0; n < Tile::COLS; n++) {
                odd |= is_odd(above.any() ? sums[n].x : 0.0f, above.any() ? sums[n].y : 0.0f) ||
                       is_odd(below.any() ? sums[n].z : 0.0f, below.any() ? sums[n].w : 0.0f);
            }
            if (!__syncthreads_or(odd && !careful)) {
                break;
            }
        }
        upper.add_lanes(), lower.add_lanes();

        float4 *place = (float4 *)(shared + BYTES) + (threadIdx.x / 32) * WARP_TILES * 32 + lane;
        Tile::send(sums, place, half);
        place[Tile::KEPT * 32] = make_float4(upper.max, upper.sum, lower.max, lower.sum);
        __syncthreads();
        const float4 *others = place + (half == 0 ? 4 : -4) * WARP_TILES * 32;
        const float4 other = others[Tile::KEPT * 32];
        const Shares shares = join(upper, other.x, other.y, above.any());
        const Shares shares_below = join(lower, other.z, other.w, below.any());
        float4 kept[Tile::KEPT];
        Tile::keep(sums, kept, half);
        UNROLL
        for (int n = 0; n < Tile::KEPT; n++) {
            const float4 o = others[n * 32];
            float4 &s = kept[n];
            s.x = above.any() ? s.x * shares.mine + o.x * shares.theirs : 0.0f;
            s.y = above.any() ? s.y * shares.mine + o.y * shares.theirs : 0.0f;
            s.z = below.any() ? s.z * shares_below.mine + o.z * shares_below.theirs : 0.0f;
            s.w = below.any() ? s.w * shares_below.mine + o.w * shares_below.theirs : 0.0f;
        }
        const u32 row = first_row + warp * 16;
        const int there = int(p.queries - row), col = half * Tile::KEPT * 8;
        Tile::write(y + u64(row) * p.y_row + head * p.head + col, p.y_row, there, int(p.head) - col, kept, lane);
        if (half == 0 && t == 0 && g < there) {
            lse[u64(row + g) * p.heads + head] = upper.lse(above.any());
        }
        if (half == 0 && t == 0 && g + 8 < there) {
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
