// dk and dv for the warpgroup's instruction of sm_90a: a block has 64 keys, and walks over the queries that see them, 64 at
// a time, of its share of the heads that read these keys. The blocks of a cluster have the same keys and other heads: they
// send each other their sums, and each writes some columns of dk and dv. Scores are of keys by queries, so that p and ds,
// as they lie in registers, are the left factors of dv += p dy and dk += ds q.

template <typename T, int HEAD> struct Dkv {
    using Tile = GroupTile<T, HEAD>;
    using Matrix = typename Tile::Matrix;
    static constexpr int ROWS = 64, KEYS = 64, BYTES = Tile::BYTES, WORDS = 64;

    // What is known of the 64 queries of a step: lse, of powers of two and negative, D, and the keys that they see.
    struct __align__(16) Queries {
        float lse[ROWS], dots[ROWS];
        Seen seen[ROWS];
        u32 whole; // all see all of the block's keys
    };
    // k, v; q and dy of each of two steps; y. What the blocks of a cluster send takes the place of all of them.
    static constexpr int RING = 2 * BYTES, Y = RING + 4 * BYTES, QUERIES = Y + BYTES;
    static constexpr int MASK = QUERIES + 2 * sizeof(Queries), SPANS = MASK + WORDS * 4, KEPT = 32;
    static constexpr int SHARED = SPANS + KEPT * 16;
    static_assert((2 * Tile::COLS + 7) * 4 * 512 <= QUERIES, "what the blocks of a cluster send, of as many as eight");

    // A step: 64 queries of a head.
    struct Step {
        u32 tile, head;
    };

    const AttentionParams &p;
    const u32 *spans;
    const float *lses;
    char *shared;
    u32 base, kv_head, first_key, first_head, end_head;
    Matrix its_q, its_dy, its_y;
    float lse = 0.0f; // of the next step's row, as the warp's first 16 lanes have them
    float4 dk_sums[Tile::COLS], dv_sums[Tile::COLS];

    FUNCTION Dkv(const T *q, const u32 *spans, const T *y, const float *lses, const T *dy, char *shared,
                 const AttentionParams &p)
        : p(p), spans(spans), lses(lses), shared(shared), base(shared_address(shared)), its_q{ q, p.q_row, 0, p.head },
          its_dy{ dy, p.y_row, 0, p.head }, its_y{ y, p.y_row, 0, p.head } {
        const u32 cluster = blocks_of_cluster(), kv_heads = p.heads / p.group;
        const u32 heads = (p.group + cluster - 1) / cluster;
        kv_head = blockIdx.x / cluster % kv_heads;
        first_key = tile_at(blockIdx.x / cluster / kv_heads, (p.keys + KEYS - 1) / KEYS, p.sequences) * KEYS;
        first_head = kv_head * p.group + block_of_cluster() * heads;
        end_head = min(first_head + heads, (kv_head + 1) * p.group);
    }

    FUNCTION u32 *mask() const {
        return (u32 *)(shared + MASK);
    }
    FUNCTION Queries &queries(int slot) const {
        return ((Queries *)(shared + QUERIES))[slot];
    }

    // Fills the mask of the tiles of queries that may see one of the block's keys.
    FUNCTION void find_tiles() {
        for (u32 i = threadIdx.x; i < p.sequences; i += 128) {
            const uint4 span = ((const uint4 *)spans)[i];
            if (i < KEPT) {
                ((uint4 *)(shared + SPANS))[i] = span;
            }
            mark_tiles(mask(), span, first_key, p);
        }
        __syncthreads();
        // Every step looks at them: few are at hand.
        spans = p.sequences <= KEPT ? (const u32 *)(shared + SPANS) : spans;
    }
    FUNCTION Step after(Step step) const {
        if (step.tile == NO_KEY || step.head + 1 < end_head) {
            return { step.tile, step.head + 1 };
        }
        return { next_tile(mask(), step.tile + 1, p.queries), first_head };
    }

    // Asks for all that a step needs. What its queries see is for one warp to find out.
    FUNCTION void begin(Step step, int slot) {
        if (step.tile == NO_KEY) {
            return;
        }
        const u32 to = base + RING + slot * 2 * BYTES, first = step.tile * ROWS;
        its_q.copy(to, first, p.queries, step.head);
        its_dy.copy(to + BYTES, first, p.queries, step.head);
        its_y.copy(base + Y, first, p.queries, step.head);
        const u32 row = first + Tile::warp() * 16 + Tile::lane() % 16;
        lse = row < p.queries ? lses[u64(row) * p.heads + step.head] : 0.0f;
        if (Tile::warp() == step.tile % 4) {
            Seen seen[2];
            find_keys(spans, p, first, seen);
            Queries &its = queries(slot);
            its.seen[Tile::lane()] = seen[0], its.seen[Tile::lane() + 32] = seen[1];
            bool whole = true;
            for (const Seen &one : seen) {
                whole &= one.begin <= first_key && first_key + KEYS <= one.end;
            }
            whole = __all_sync(ALL_LANES, whole);
            if (Tile::lane() == 0) {
                its.whole = whole;
            }
        }
    }
    // Once a step's copies have come: of each query what the warp that has copied it knows. All products before it are
    // done then too, and all threads have come here.
    FUNCTION void arrive(int slot) const {
        copies_wait_all();
        __syncwarp();
        const float2 dots = Tile::dots(base + RING + slot * 2 * BYTES + BYTES, base + Y);
        const u32 row = Tile::warp() * 16, g = Tile::lane() / 4;
        Queries &its = queries(slot);
        if (Tile::lane() < 16) {
            its.lse[row + Tile::lane()] = -LOG2_E * lse;
        }
        if (Tile::lane() % 4 == 0) {
            its.dots[row + g] = dots.x, its.dots[row + g + 8] = dots.y;
        }
        warpgroup_wait();
        shared_to_warpgroup();
        __syncthreads();
    }

    template <bool CAREFUL> FUNCTION void walk() {
        const float factor = p.scale * LOG2_E;
        const int t = threadIdx.x % 4;
        const u32 key = first_key + Tile::warp() * 16 + Tile::lane() / 4;
        set_zero(dk_sums), set_zero(dv_sums);
        Step step = { first_head < end_head ? next_tile(mask(), 0, p.queries) : NO_KEY, first_head };
        begin(step, 0);
        arrive(0);
        _Pragma("unroll 1")
        for (int slot = 0; step.tile != NO_KEY; slot ^= 1) {
            const u32 at = RING + slot * 2 * BYTES;
            const Queries &its = queries(slot);
            // Of keys by queries.
            float4 s[8], d[8];
            warpgroup_begin();
            Tile::multiply(base, base + at, s);
            Tile::multiply(base + BYTES, base + at + BYTES, d);
            warpgroup_end_group();
            // All have done with the step before this one, whose place the next one takes.
            step = after(step);
            begin(step, slot ^ 1);
            const bool whole = its.whole;
            warpgroup_wait();
            settle(s), settle(d);
            UNROLL
            for (int n = 0; n < 8; n++) {
                const float2 lse = *(const float2 *)(its.lse + n * 8 + t * 2);
                s[n].x = weight_of(s[n].x, factor, lse.x), s[n].y = weight_of(s[n].y, factor, lse.y);
                s[n].z = weight_of(s[n].z, factor, lse.x), s[n].w = weight_of(s[n].w, factor, lse.y);
            }
            if (!whole) {
                keep_seen(its, key, s);
            }
            UNROLL
            for (int n = 0; n < 8; n++) {
                const float2 dots = *(const float2 *)(its.dots + n * 8 + t * 2);
                d[n].x = s[n].x * (d[n].x - dots.x), d[n].y = s[n].y * (d[n].y - dots.y);
                d[n].z = s[n].z * (d[n].z - dots.x), d[n].w = s[n].w * (d[n].w - dots.y);
            }
            u32 weights[4][4], ds[4][4];
            if (CAREFUL) {
                const auto sees = [&](int row, bool is_above) { return its.seen[row].has(is_above ? key : key + 8); };
                Tile::add_seen(s, shared + at + BYTES, dv_sums, sees);
                Tile::add_seen(d, shared + at, dk_sums, sees);
            } else {
                Tile::round(s, weights);
                warpgroup_begin();
                Tile::add(weights, base + at + BYTES, dv_sums);
                Tile::round(d, ds);
                warpgroup_begin();
                Tile::add(ds, base + at, dk_sums);
                warpgroup_end_group();
            }
            // While the tensor cores are busy.
            arrive(slot ^ 1);
            if (!CAREFUL) {
                settle(dv_sums), settle(dk_sums), settle(weights), settle(ds);
            }
        }
    }
    // Sets to zero what belongs to queries that do not see the thread's keys.
    static FUNCTION void keep_seen(const Queries &queries, u32 key, float4 (&s)[8]) {
        UNROLL
        for (int n = 0; n < 8; n++) {
            const uint4 seen = *(const uint4 *)(queries.seen + n * 8 + threadIdx.x % 4 * 2);
            const Seen even = { seen.x, seen.y }, odd = { seen.z, seen.w };
            s[n].x = even.has(key) ? s[n].x : 0.0f, s[n].y = odd.has(key) ? s[n].y : 0.0f;
            s[n].z = even.has(key + 8) ? s[n].z : 0.0f, s[n].w = odd.has(key + 8) ? s[n].w : 0.0f;
        }
    }

    FUNCTION void run(const T *k, const T *v, T *dk, T *dv, const Rotation &rotation) {
        if (threadIdx.x < WORDS) {
            mask()[threadIdx.x] = 0;
        }
        __syncthreads();
        wait_for_earlier_launches();
        Matrix{ k, p.k_row, kv_head, p.head }.copy(base, first_key, p.keys);
        Matrix{ v, p.v_row, kv_head, p.head }.copy(base + BYTES, first_key, p.keys);
        find_tiles();
        walk<false>();
        if (__syncthreads_or(any_odd(dk_sums, true, true) || any_odd(dv_sums, true, true))) {
            walk<true>();
        }
        copies_wait_all();
        UNROLL
        for (int n = 0; n < Tile::COLS; n++) {
            float4 &s = dk_sums[n];
            s = make_float4(p.scale * s.x, p.scale * s.y, p.scale * s.z, p.scale * s.w);
        }
        // Each block its part of the sums: to turn is linear.
        if (rotation.positions) {
            rotation.turn(dk_sums, first_key + Tile::warp() * 16 + Tile::lane() / 4, p.keys);
        }
        if (blocks_of_cluster() == 1) {
            __syncthreads();
            const u32 row = first_key + Tile::warp() * 16;
            const int rows = int(p.keys - row);
            const u64 to_k = u64(row) * p.k_row + kv_head * p.head, to_v = u64(row) * p.v_row + kv_head * p.head;
            Tile::write(dk + to_k, p.k_row, rows, int(p.head), dk_sums, shared + RING);
            Tile::write(dv + to_v, p.v_row, rows, int(p.head), dv_sums, shared + RING + BYTES);
        } else {
            exchange(dk, dv);
        }
    }

    // Columns 8 n .. of dk and of dv are summed up and written by block n % cluster, for which each block has a place there.
    FUNCTION void exchange(T *dk, T *dv) {
        const u32 cluster = blocks_of_cluster(), rank = block_of_cluster();
        // All blocks have done with their tiles.
        cluster_arrive();
        cluster_wait();
        u32 owner = 0, place = base + ((rank * 4 + Tile::warp()) * 32 + Tile::lane()) * 16;
        UNROLL
        for (int n = 0; n < 2 * Tile::COLS; n++) {
            store_in_block(place, owner, n < Tile::COLS ? dk_sums[n % Tile::COLS] : dv_sums[n % Tile::COLS]);
            owner++;
            if (owner == cluster) {
                owner = 0, place += cluster * 4 * 512;
            }
        }
        cluster_arrive();
        cluster_wait();
        const float4 *parts = (const float4 *)shared + Tile::warp() * 32 + Tile::lane();
        const u32 row = first_key + Tile::warp() * 16 + Tile::lane() / 4, at = kv_head * p.head + Tile::lane() % 4 * 2;
        T *to_k = dk + u64(row) * p.k_row + at, *to_v = dv + u64(row) * p.v_row + at;
        for (u32 n = rank; n < 2 * Tile::COLS; n += cluster, parts += cluster * 4 * 32) {
            float4 sum = parts[0];
            for (u32 block = 1; block < cluster; block++) {
                sum = sum_of(sum, parts[block * 4 * 32]);
            }
            const u32 col = n % Tile::COLS * 8;
            T *to = (n < Tile::COLS ? to_k : to_v) + col;
            if (col < p.head && row < p.keys) {
                *(u32 *)to = round_2<T>(sum.x, sum.y);
            }
            if (col < p.head && row + 8 < p.keys) {
                *(u32 *)(to + 8 * (n < Tile::COLS ? p.k_row : p.v_row)) = round_2<T>(sum.z, sum.w);
            }
        }
    }
};
