// The LoRA layer on Hopper, without a bias: C = A B + factor (A D) E, with A = x, B = W^T, D and E its two factors; and the
// product C = A B alone, where RANK is 0. TURNED: B is stored [k, n].
//
// A block makes a tile of ROWS x COLS of C. Its last warp fills a ring of STAGES slices, 64 elements along the sum, by
// copies of the tensor memory accelerator; the warpgroups before it multiply, 64 rows each, and keep one slice under
// way while they wait for the next. Barriers in shared memory say which slices are full and which are empty, so that
// nobody ever waits for the whole block. D is RANK more rows of the slice of W: h = A D comes out of the same
// instruction. CLUSTER blocks take a stretch of the sum each, send each other partial sums as fragments, one float4 per
// lane, and finish a share of the columns each. h is applied as tf32, as in product.cu.
//
// Or blocks are PAIRS. Two BESIDE each other need the same h: each makes the part of one half of the sum, and sends it to the
// other. Two STACKED on each other need the same W: each copies one half of its slice, to both. Their h comes from blocks of
// the same launch that make nothing else, one for each row of tiles, and begin before all others.
//
// Blocks that read the same lines at about the same time seem to get them from the level-two cache at once: to begin the
// sum elsewhere in each block took up to a third longer. One copy of x to both blocks of a pair lost everywhere.

struct WarpSpecialisedParams {
    u64 c_row;
    u32 m;
    u32 n;
    u32 rank;
    u32 steps;
    u32 copied;
    float factor;
};

enum Pairs { ALONE, BESIDE, STACKED };

// What blocks ahead leave for the others, in memory that is zero before the first launch: for each row of tiles whether its h
// is there, and how many blocks have fetched it; then h, as fragments.
struct Ahead {
    static constexpr int MOST_ROWS_OF_TILES = 128;

    u32 made[MOST_ROWS_OF_TILES], fetched[MOST_ROWS_OF_TILES];
    float4 h[1];
};

template <typename T, int ROWS, int COLS, int RANK, int STAGES, int CLUSTER, Pairs PAIRS, bool TURNED = false>
struct WarpSpecialised {
    static constexpr int GROUPS = ROWS / 64, CONSUMERS = 128 * GROUPS, WARPS = CONSUMERS / 32, THREADS = CONSUMERS + 32;
    // A slice has so many elements along the sum: a swizzled line.
    static constexpr int DEPTH = 64, LINE = 128;
    // Tiles of 16 x 8 of a warp, those of h last, and of what it finishes.
    static constexpr int BASE_TILES = COLS / 8, RANK_TILES = RANK / 8, TILES = BASE_TILES + RANK_TILES;
    static constexpr int OWN_TILES = BASE_TILES / CLUSTER;
    // Blocks that send this one what they have: of the whole tile, or of h alone.
    static constexpr int OTHERS = PAIRS == BESIDE ? 1 : CLUSTER - 1;
    // Pieces of 16 bytes of what a warp finishes, for each lane.
    static constexpr int PIECES = (16 * OWN_TILES + 31) / 32;
    static_assert(OWN_TILES * CLUSTER == BASE_TILES, "blocks share the columns evenly");
    static_assert(CLUSTER == 1 || PAIRS == ALONE, "blocks of a cluster share one thing");
    static_assert(PAIRS != BESIDE || RANK > 0, "what they share is h");
    // A line of 64 elements is all that is swizzled: as many columns lie apart from the next.
    static constexpr int STRIPE = DEPTH * LINE, STRIPES = COLS / 64;
    static_assert(!TURNED || (COLS % 64 == 0 && RANK == 0), "whole stripes, and W is never turned");
    // Blocks of the same launch make h.
    static constexpr bool AHEAD = PAIRS == STACKED && RANK > 0;

    static constexpr int A_BYTES = ROWS * LINE, B_BYTES = COLS * LINE, SLICE = A_BYTES + B_BYTES + RANK * LINE;
    static constexpr int RING = STAGES * SLICE;
    // What other blocks send: partial sums of the columns that this one finishes, and of h, or all of that.
    static constexpr int H_PARTS = PAIRS == STACKED ? 1 : OTHERS;
    static constexpr int WHOLE_H = WARPS * RANK_TILES * 512, H_BYTES = H_PARTS * WHOLE_H;
    static constexpr int SUMS_BYTES = (CLUSTER - 1) * WARPS * OWN_TILES * 512;
    static constexpr int SUMS_AT = RING, H_AT = SUMS_AT + SUMS_BYTES;
    static constexpr int E_AT = H_AT + H_BYTES, E_BYTES = RANK > 0 ? COLS * pitch(RANK) : 0;
    static constexpr int BARRIERS_AT = E_AT + E_BYTES, SHARED = BARRIERS_AT + 16 * STAGES + 16;
    static_assert(SHARED <= 227 * 1024, "shared memory of a block");
    static_assert(WARPS * OWN_TILES * 512 <= RING, "what is written takes the place of the ring");

    char *shared;
    u32 base;
    // The tile's place, the block's in its cluster, its stretch of the sum, and where in that it adds to h.
    u32 m, n, block, first, steps, h_first, h_end;
    // STACKED: the row of tiles, how many blocks fetch its h, and whether this one makes it.
    u32 row_of_tiles, readers;
    bool ahead;
    int lane, warp;

    // Barriers: a slice has been filled, and emptied; what other blocks send has arrived.
    FUNCTION u32 full(u32 slot) const {
        return base + BARRIERS_AT + slot * 8;
    }
    FUNCTION u32 empty(u32 slot) const {
        return full(STAGES + slot);
    }
    FUNCTION u32 arrived() const {
        return full(2 * STAGES);
    }

    FUNCTION void start(const TensorMap &a, const TensorMap &b, const TensorMap &d) const {
        const int emptied_by = PAIRS == STACKED && !ahead ? 2 * GROUPS : GROUPS;
        for (int slot = 0; slot < STAGES; slot++) {
            barrier_start(full(slot), 1);
            barrier_start(empty(slot), emptied_by);
        }
        if (PAIRS == STACKED || OTHERS > 0) {
            barrier_start(arrived(), 1);
        }
        if (OTHERS > 0) {
            barrier_expect(arrived(), SUMS_BYTES + H_BYTES);
        }
        barriers_started();
        prefetch_map(a), prefetch_map(b);
        if (RANK > 0) {
            prefetch_map(d);
        }
    }

    // B's part of a slice, or a block's half of it for both.
    FUNCTION void copy_b(u32 to, const TensorMap &b, u32 along, u32 barrier) const {
        if constexpr (TURNED) {
            UNROLL
            for (int stripe = 0; stripe < STRIPES; stripe++) {
                if (PAIRS != STACKED) {
                    copy_tile(to + stripe * STRIPE, b, n + stripe * 64, along, barrier);
                } else if (stripe * 2 / STRIPES == block) {
                    copy_tile_to_both(to + stripe * STRIPE, b, n + stripe * 64, along, barrier);
                }
            }
        } else if (PAIRS != STACKED) {
            copy_tile(to, b, along, n, barrier);
        } else {
            copy_tile_to_both(to + block * (B_BYTES / 2), b, along, n + block * (COLS / 2), barrier);
        }
    }

    // One thread's work.
    FUNCTION void produce(const TensorMap &a, const TensorMap &b, const TensorMap &d,
                          const WarpSpecialisedParams &p) const {
        const u32 of_b = ahead ? min(p.n, u32(COLS)) * LINE : 0;
        RingPlace<STAGES> at = { 0, 1 };
        for (u32 step = 0; step < steps; step++, at.next()) {
            const bool for_h = PAIRS == ALONE || (step >= h_first && step < h_end);
            barrier_wait(empty(at.slot), at.parity);
            barrier_expect(full(at.slot), p.copied - of_b - (for_h ? 0 : p.rank * LINE));
            const u32 to = base + at.slot * SLICE, along = (first + step) * DEPTH;
            copy_tile(to, a, along, m, full(at.slot));
            if (!ahead) {
                copy_b(to + A_BYTES, b, along, full(at.slot));
            }
            if (RANK > 0 && for_h) {
                copy_tile(to + A_BYTES + B_BYTES, d, along, 0, full(at.slot));
            }
        }
    }

    // Steps up to `end`, of the columns of the tile, of h, or of both.
    template <bool OF_TILE, bool OF_H>
    FUNCTION void multiply(float4 (&sums)[TILES], RingPlace<STAGES> &at, u32 &step, u32 end) const {
        for (; step < end; step++) {
            barrier_wait(full(at.slot), at.parity);
            const u32 slice = base + at.slot * SLICE;
            const u64 left = factor_at(slice + warp / 4 * 64 * LINE);
            const u64 columns = factor_at(slice + A_BYTES, STRIPE), of_rank = factor_at(slice + A_BYTES + B_BYTES);
            warpgroup_begin();
            UNROLL
            for (int k = 0; k < DEPTH / 16; k++) {
                // 16 elements further along the sum are 32 bytes, or 16 lines.
                const u64 right = columns + k * (TURNED ? LINE : 2);
                if constexpr (PAIRS == ALONE) {
                    Warpgroup<TILES>::template multiply<TURNED>(sums, left + k * 2, right, T());
                    continue;
                }
                if constexpr (OF_TILE) {
                    float4(&tile)[BASE_TILES] = (float4(&)[BASE_TILES])sums;
                    Warpgroup<BASE_TILES>::template multiply<TURNED>(tile, left + k * 2, right, T());
                }
                if constexpr (OF_H && RANK > 0) {
                    float4(&h)[RANK_TILES] = (float4(&)[RANK_TILES])sums[BASE_TILES];
                    Warpgroup<RANK_TILES>::multiply(h, left + k * 2, of_rank + k * 2, T());
                }
            }
            warpgroup_end_group();
            // One thread speaks for its group: no warp is done with an instruction before the others are.
            warpgroup_wait<1>();
            if (step > 0 && threadIdx.x % 128 == 0) {
                const u32 emptied = empty(at.slot == 0 ? STAGES - 1 : at.slot - 1);
                barrier_arrive(emptied);
                // The other block may be gone once nothing is left for it to copy.
                if (PAIRS == STACKED && OF_TILE && step - 1 + STAGES < steps) {
                    barrier_arrive_in_block(address_in_block(emptied, block ^ 1));
                }
            }
            at.next();
        }
    }

    template <bool OF_TILE = true, bool OF_H = PAIRS != STACKED> FUNCTION void consume(float4 (&sums)[TILES]) const {
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            sums[tile] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        RingPlace<STAGES> at = { 0, 0 };
        u32 step = 0;
        if constexpr (PAIRS == BESIDE) {
            // Waited for between the loops, or the compiler would wait for every instruction in them.
            multiply<true, false>(sums, at, step, h_first);
            warpgroup_wait();
            multiply<true, true>(sums, at, step, h_end);
            warpgroup_wait();
            multiply<true, false>(sums, at, step, steps);
        } else {
            multiply<OF_TILE, OF_H>(sums, at, step, steps);
        }
        warpgroup_wait();
    }

    // A block ahead makes h of a row of tiles, and says so.
    FUNCTION void make_h(Ahead *to) const {
        float4 sums[TILES];
        consume<false, true>(sums);
        float4 *h = to->h + (row_of_tiles * WARPS + warp) * RANK_TILES * 32 + lane;
        UNROLL
        for (int tile = 0; tile < RANK_TILES; tile++) {
            h[tile * 32] = sums[BASE_TILES + tile];
        }
        __threadfence();
        threads_wait<CONSUMERS>(1);
        if (threadIdx.x == 0) {
            announce(to->made + row_of_tiles);
        }
    }

    // One thread fetches it for the block; the last one makes the numbers zero again.
    FUNCTION void fetch_h(Ahead *from) const {
        await(from->made + row_of_tiles);
        barrier_expect(arrived(), WHOLE_H);
        copy_bytes(base + H_AT, from->h + row_of_tiles * (WHOLE_H / 16), WHOLE_H, arrived());
        if (atomicAdd(from->fetched + row_of_tiles, 1) == readers - 1) {
            from->made[row_of_tiles] = 0, from->fetched[row_of_tiles] = 0;
        }
    }

    // E(r, o), stored [o, r]: COLS rows of the rank, zero beyond it.
    FUNCTION void copy_e(const T *e, const WarpSpecialisedParams &p) const {
        const u32 cols = min(p.n - n, u32(COLS));
        e += n * u64(p.rank);
        if (p.rank % 8 == 0) {
            Slice<COLS, RANK, CONSUMERS> slice;
            slice.start(e, p.rank);
            slice.copy(base + E_AT, cols, p.rank);
            return;
        }
        T *to = (T *)(shared + E_AT);
        for (u32 i = threadIdx.x; i < COLS * RANK; i += CONSUMERS) {
            const u32 o = i / RANK, r = i % RANK;
            to[o * (pitch(RANK) / 2) + r] = o < cols && r < p.rank ? e[o * u64(p.rank) + r] : T();
        }
    }

    // By value: registers have no addresses.
    static FUNCTION float4 chosen(bool first, float4 a, float4 b) {
        return make_float4(first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z, first ? a.w : b.w);
    }

    // Partial sums of this warp's 16 rows, to every other block: a place for each sender, and in it one for each warp.
    FUNCTION void send(const float4 (&sums)[TILES]) const {
        UNROLL
        for (int i = 0; i < OTHERS; i++) {
            const u32 owner = i + (i >= block), place = (block - (block > owner)) * WARPS + warp;
            const u32 barrier = address_in_block(arrived(), owner);
            if constexpr (CLUSTER > 1) {
                const u32 to = address_in_block(base + SUMS_AT + (place * OWN_TILES * 32 + lane) * 16, owner);
                UNROLL
                for (int tile = 0; tile < OWN_TILES; tile++) {
                    const float4 low = sums[i * OWN_TILES + tile], high = sums[(i + 1) * OWN_TILES + tile];
                    send_to_block(to + tile * 512, barrier, chosen(i < block, low, high));
                }
            }
            const u32 h_to = address_in_block(base + H_AT + (place * RANK_TILES * 32 + lane) * 16, owner);
            UNROLL
            for (int tile = 0; tile < RANK_TILES; tile++) {
                send_to_block(h_to + tile * 512, barrier, sums[BASE_TILES + tile]);
            }
        }
    }

    // Adds what others have sent, or blocks ahead have made. This block's columns are the first ones then.
    FUNCTION void receive(float4 (&sums)[TILES]) const {
        UNROLL
        for (int tile = 0; tile < OWN_TILES; tile++) {
            UNROLL
            for (int owner = 1; owner < CLUSTER; owner++) {
                sums[tile] = chosen(owner == block, sums[owner * OWN_TILES + tile], sums[tile]);
            }
        }
        const float4 *parts = (const float4 *)(shared + SUMS_AT), *h_parts = (const float4 *)(shared + H_AT);
        UNROLL
        for (int i = 0; i < CLUSTER - 1; i++) {
            UNROLL
            for (int tile = 0; tile < OWN_TILES; tile++) {
                sums[tile] = sum_of(sums[tile], parts[((i * WARPS + warp) * OWN_TILES + tile) * 32 + lane]);
            }
        }
        UNROLL
        for (int i = 0; i < H_PARTS; i++) {
            UNROLL
            for (int tile = 0; tile < RANK_TILES; tile++) {
                const float4 part = h_parts[((i * WARPS + warp) * RANK_TILES + tile) * 32 + lane];
                sums[BASE_TILES + tile] = sum_of(sums[BASE_TILES + tile], part);
            }
        }
    }

    // Adds h E to the columns from `col` of the tile on.
    FUNCTION void apply(float4 (&sums)[TILES], u32 col, const WarpSpecialisedParams &p) const {
        const char *e = shared + E_AT + (col + lane / 4) * pitch(RANK) + lane % 4 * 4;
        UNROLL
        for (int r = 0; r < RANK_TILES; r++) {
            u32 h[4];
            left_factor(sums[BASE_TILES + r], p.factor, lane, r, p.rank, h);
            UNROLL
            for (int tile = 0; tile < OWN_TILES; tile++) {
                u32 factors[2];
                right_factor<T>(*(const u32 *)(e + tile * 8 * pitch(RANK) + r * 16), factors);
                multiply_8(sums[tile], h, factors);
            }
        }
    }

    // The tiles from (row, col) on, where nothing is left to do but to round them: by way of shared memory, so that lanes
    // side by side write 16 bytes each, side by side. Instructions that run once are waited for, so there is no other
    // case among them.
    FUNCTION void write(const float4 (&sums)[TILES], u32 row, u32 col, T *c, const WarpSpecialisedParams &p) const {
        constexpr int PITCH = pitch(OWN_TILES * 8);
        char *rounded = shared + warp * 16 * PITCH;
        UNROLL
        for (int tile = 0; tile < OWN_TILES; tile++) {
            char *to = rounded + lane / 4 * PITCH + tile * 16 + lane % 4 * 4;
            *(u32 *)to = round_2<T>(sums[tile].x, sums[tile].y);
            *(u32 *)(to + 8 * PITCH) = round_2<T>(sums[tile].z, sums[tile].w);
        }
        __syncwarp();
        UNROLL
        for (int i = 0; i < PIECES; i++) {
            const u32 piece = i * 32 + lane, line = piece / OWN_TILES, at = piece % OWN_TILES;
            if (line < 16 && row + line < p.m && col + at * 8 < p.n) {
                *(uint4 *)(c + (row + line) * p.c_row + col + at * 8) = *(const uint4 *)(rounded + line * PITCH + at * 16);
            }
        }
    }

    // Which tile is the block's, and what of the sum.
    FUNCTION void find_place(const WarpSpecialisedParams &p) {
        block = CLUSTER > 1 || PAIRS != ALONE ? block_of_cluster() : 0;
        ahead = false;
        if constexpr (PAIRS == STACKED) {
            const u32 rows_of_tiles = (p.m + ROWS - 1) / ROWS;
            u32 blocks_ahead = 0;
            if constexpr (AHEAD) {
                blocks_ahead = rows_of_tiles, ahead = blockIdx.x < blocks_ahead;
            }
            readers = (gridDim.x - blocks_ahead) / rows_of_tiles;
            const u32 pair = (blockIdx.x - blocks_ahead) / 2;
            row_of_tiles = ahead ? blockIdx.x : pair / readers * 2 + block;
            m = row_of_tiles * ROWS, n = ahead ? 0 : pair % readers * COLS;
        } else {
            m = blockIdx.y * ROWS, n = blockIdx.x / CLUSTER * COLS;
        }
        const u32 each = (p.steps + CLUSTER - 1) / CLUSTER, half = (p.steps + 1) / 2;
        first = CLUSTER > 1 ? min(block * each, p.steps) : 0, steps = min(each, p.steps - first);
        // As one formula: from branches the compiler would make one loop for each block, and lose the overlap of instructions.
        h_first = PAIRS == BESIDE ? min(block * half, steps) : 0;
        h_end = PAIRS == BESIDE ? min(h_first + half, steps) : PAIRS == ALONE || ahead ? steps : 0;
    }

    FUNCTION void run(const TensorMap &a, const TensorMap &b, const TensorMap &d, const T *e, T *c, Ahead *hidden,
                      const WarpSpecialisedParams &p) {
        extern __shared__ __align__(1024) char dynamic[];
        shared = dynamic, base = shared_address(dynamic);
        lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        find_place(p);
        if (threadIdx.x == CONSUMERS) {
            start(a, b, d);
        }
        if (CLUSTER > 1 || PAIRS != ALONE) {
            __syncwarp();
            cluster_meet();
        } else {
            __syncthreads();
        }
        wait_for_earlier_launches();
        if (warp == WARPS) {
            if (lane == 0) {
                produce(a, b, d, p);
                if (AHEAD && !ahead) {
                    fetch_h(hidden);
                }
            }
            return;
        }
        if constexpr (AHEAD) {
            if (ahead) {
                make_h(hidden);
                return;
            }
        }
        if constexpr (RANK > 0) {
            copy_e(e, p);
        }
        float4 sums[TILES];
        consume(sums);
        if constexpr (OTHERS > 0) {
            send(sums);
        }
        copies_wait_all();
        // E is there, and every group is done with the ring.
        threads_wait<CONSUMERS>(1);
        if constexpr (SUMS_BYTES + H_BYTES > 0) {
            barrier_wait(arrived(), 0);
            receive(sums);
        }
        const u32 col = CLUSTER > 1 ? block * OWN_TILES * 8 : 0;
        if constexpr (RANK > 0) {
            apply(sums, col, p);
        }
        write(sums, m + warp * 16, n + col, c, p);
    }
};
