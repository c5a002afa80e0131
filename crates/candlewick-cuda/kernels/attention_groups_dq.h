// dq for the warpgroup's instruction of sm_90a: a block has 64 queries of one head and walks over the keys that they see,
// 64 at a time, as the forward does. A step's ds, as it lies in registers, is the left factor of dq += ds k, which
// goes on while the next step's scores are made.

template <typename T, int HEAD> struct Dq {
    using Tile = GroupTile<T, HEAD>;
    using Matrix = typename Tile::Matrix;
    static constexpr int KEYS = 64, BYTES = Tile::BYTES;
    // q, dy; k and v of each of SLOTS steps. y is in the last of their places first.
    static constexpr int SLOTS = 3, RING = 2 * BYTES, SHARED = RING + SLOTS * 2 * BYTES, Y = SHARED - BYTES;

    const AttentionParams &p;
    u32 base, head, first_row, end;
    Matrix keys, values;
    Seen seen[2], above, below;
    float2 lse, dots; // of the thread's rows: lse of powers of two and negative, D
    float4 sums[Tile::COLS];

    FUNCTION Dq(const T *k, const T *v, u32 base, u32 head, u32 first_row, const AttentionParams &p)
        : p(p), base(base), head(head), first_row(first_row), keys{ k, p.k_row, head / p.group, p.head },
          values{ v, p.v_row, head / p.group, p.head } {
    }

    FUNCTION void copy_keys(u32 first, int slot) const {
        if (first != NO_KEY) {
            keys.copy(base + RING + slot * 2 * BYTES, first, end);
            values.copy(base + RING + slot * 2 * BYTES + BYTES, first, end);
        }
    }

    // With the first keys under way.
    template <bool CAREFUL> FUNCTION void walk(const char *shared) {
        const float factor = p.scale * LOG2_E;
        const int t = threadIdx.x % 4;
        u32 ds[4][4] = {};
        set_zero(sums);
        u32 first = next_seen(seen, 0);
        _Pragma("unroll 1")
        for (int slot = 0; first != NO_KEY; slot = slot + 1 < SLOTS ? slot + 1 : 0) {
            const u32 at = RING + slot * 2 * BYTES, here = first;
            copies_wait_all();
            shared_to_warpgroup();
            __syncthreads();
            float4 s[8], d[8];
            warpgroup_begin();
            Tile::multiply(base, base + at, s);
            warpgroup_end_group();
            Tile::multiply(base + BYTES, base + at + BYTES, d);
            warpgroup_end_group();
            // All have done with the tiles before the last ones, whose place the next ones take: the products with the
            // last ones may be under way.
            first = next_seen(seen, first + KEYS);
            copy_keys(first, slot + 1 < SLOTS ? slot + 1 : 0);
            warpgroup_wait<1>();
            settle(s), settle(ds), settle(sums);
            UNROLL
            for (int n = 0; n < 8; n++) {
                s[n].x = weight_of(s[n].x, factor, lse.x), s[n].y = weight_of(s[n].y, factor, lse.x);
                s[n].z = weight_of(s[n].z, factor, lse.y), s[n].w = weight_of(s[n].w, factor, lse.y);
            }
            warpgroup_wait();
            settle(d);
            UNROLL
            for (int n = 0; n < 8; n++) {
                d[n].x = s[n].x * (d[n].x - dots.x), d[n].y = s[n].y * (d[n].y - dots.x);
                d[n].z = s[n].z * (d[n].z - dots.y), d[n].w = s[n].w * (d[n].w - dots.y);
            }
            if (!__all_sync(ALL_LANES, above.whole(here, KEYS) && below.whole(here, KEYS))) {
                UNROLL
                for (int n = 0; n < 8; n++) {
                    const u32 key = here + n * 8 + t * 2;
                    d[n].x = above.has(key) ? d[n].x : 0.0f, d[n].y = above.has(key + 1) ? d[n].y : 0.0f;
                    d[n].z = below.has(key) ? d[n].z : 0.0f, d[n].w = below.has(key + 1) ? d[n].w : 0.0f;
                }
            }
            if (CAREFUL) {
                Tile::add_seen(d, shared + at, sums,
                               [&](int row, bool is_above) { return (is_above ? above : below).has(here + row); });
            } else {
                Tile::round(d, ds);
                warpgroup_begin();
                Tile::add(ds, base + at, sums);
                warpgroup_end_group();
            }
        }
        warpgroup_wait();
        settle(sums), settle(ds);
    }

    FUNCTION void run(const T *q, const u32 *spans, const T *y, const float *lses, const T *dy, T *dq, char *shared,
                      const Rotation &rotation) {
        Matrix{ q, p.q_row, head, p.head }.copy(base, first_row, p.queries);
        Matrix{ dy, p.y_row, head, p.head }.copy(base + BYTES, first_row, p.queries);
        Matrix{ y, p.y_row, head, p.head }.copy(base + Y, first_row, p.queries);
        copies_end_group();
        const u32 row = first_row + Tile::warp() * 16 + Tile::lane() / 4;
        lse.x = row < p.queries ? lses[u64(row) * p.heads + head] : 0.0f;
        lse.y = row + 8 < p.queries ? lses[u64(row + 8) * p.heads + head] : 0.0f;
        find_keys(spans, p, first_row, seen);
        const Seen near = Tile::warp() < 2 ? Seen(seen[0]) : Seen(seen[1]);
        above = near.of_lane(row % 32), below = near.of_lane((row + 8) % 32);
        end = end_of_seen(seen);
        copy_keys(next_seen(seen, 0), 0);
        copies_end_group();
        copies_wait<1>();
        __syncwarp();
        dots = Tile::dots(base + BYTES, base + Y);
        lse.x *= -LOG2_E, lse.y *= -LOG2_E;
        walk<false>(shared);
        if (__syncthreads_or(any_odd(sums, above.any(), below.any()))) {
            copy_keys(next_seen(seen, 0), 0);
            walk<true>(shared);
            __syncthreads();
        }
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            float4 &s = sums[n];
            s.x = above.any() ? p.scale * s.x : 0.0f, s.y = above.any() ? p.scale * s.y : 0.0f;
            s.z = below.any() ? p.scale * s.z : 0.0f, s.w = below.any() ? p.scale * s.w : 0.0f;
        }
        if (rotation.positions) {
            rotation.turn(sums, row, p.queries);
        }
        const u32 first = first_row + Tile::warp() * 16;
        T *to = dq + u64(first) * p.q_row + head * p.head;
        Tile::write(to, p.q_row, int(p.queries - first), int(p.head), sums, shared);
    }
};
