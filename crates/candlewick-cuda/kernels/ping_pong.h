// Products A B by tiles of 128 x COLS, two warpgroups by turns: while one finishes its tile, whatever that takes, the other
// multiplies. A block goes on from tile to tile; a thread of its last warpgroup fills a ring of STAGES slices, 64 elements
// along the sum, with those of all its tiles one after the other, by copies of the tensor memory accelerator. B's slice may
// have MORE lines, of another matrix, whose columns come out of the same instructions. TURNED: B is stored [k, n].
//
// A kernel gives `copy` and `finish` of a tile; see projections.cu.
//
// Measured on one H100, bf16, us by ncu in a step of 4096 rows with 576 features, 1536 of gate and of up, nine heads of 64
// on three, after what the kernels took whose place they have:
//
//   projections, q and k turned        17.6 of 30      silu_product            29.2 of 38.5
//   product_sum of dq, dk and dv       14.1 of 22      its backward            28.9 of 37.2
//
// What seems to limit is shared memory: slices come in and are read twice, once by each half of the rows, which would be some
// 160 bytes a cycle where it has 128. To copy one slice of x to two blocks of a cluster (multicast) made a whole step a
// quarter slower, but with barriers that may have cost a fence each (`barrier_arrive_in_block` does not; one copy of W to blocks
// of neighbouring rows was not tried); a third group was no faster; tiles of 96 columns of gate and 96 of up took 36, tiles of
// 128 in the backward 38.

template <typename T, int COLS, int MORE, int STAGES, bool TURNED = false> struct PingPong {
    static constexpr int ROWS = 128, GROUPS = 2, CONSUMERS = 128 * GROUPS, THREADS = CONSUMERS + 128;
    // A slice has so many elements along the sum: a swizzled line.
    static constexpr int DEPTH = 64, LINE = 128;
    // Tiles of 16 x 8 of a warp, in each half of its group's 128 rows; those of MORE last.
    static constexpr int COL_TILES = COLS / 8, MORE_TILES = MORE / 8, TILES = COL_TILES + MORE_TILES;
    static constexpr int A_BYTES = ROWS * LINE, B_BYTES = COLS * LINE, SLICE = A_BYTES + B_BYTES + MORE * LINE;
    static constexpr int RING = STAGES * SLICE, BARRIERS = 16 * STAGES + 24 * GROUPS;
    static_assert(!TURNED || (COLS == 64 && MORE == 0), "a line of 64 elements is all that is swizzled");
    typedef float4 Sums[2][TILES];
    typedef float4 Columns[COL_TILES];

    u32 base, barriers, tiles, steps;
    int lane, warp;

    // A slice has been filled, and emptied; what else a group is to have has come, and been done with; it may multiply.
    FUNCTION u32 full(u32 slot) const {
        return barriers + slot * 8;
    }
    FUNCTION u32 empty(u32 slot) const {
        return full(STAGES + slot);
    }
    FUNCTION u32 arrived(u32 group) const {
        return full(2 * STAGES + group);
    }
    FUNCTION u32 left(u32 group) const {
        return arrived(GROUPS + group);
    }
    FUNCTION u32 go(u32 group) const {
        return left(GROUPS + group);
    }
    FUNCTION u32 group() const {
        return warp / 4;
    }
    // The first of the thread's rows in a tile's first half; those of the second are 64 further on.
    FUNCTION u32 row() const {
        return warp % 4 * 16 + lane / 4;
    }

    FUNCTION PingPong(u32 barriers_at, u32 tiles, u32 steps) : tiles(tiles), steps(steps) {
        extern __shared__ __align__(1024) char shared[];
        base = shared_address(shared), barriers = base + barriers_at;
        lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    }

    // Ahead of `run`: a matrix that it will copy from.
    FUNCTION void expect(const TensorMap &map) const {
        if (threadIdx.x == CONSUMERS) {
            prefetch_map(map);
        }
    }

    // All that a block does. `copy(tile, turn, step, slice, barrier)` fills a slice of the block's `turn`-th tile; a group
    // calls `begin(tile)` ahead of its sums, and ends its `turn`-th tile by `finish(tile, turn, sums)`.
    template <typename Copy, typename Begin, typename Finish>
    FUNCTION void run(Copy copy, Begin begin, Finish finish) const {
        if (threadIdx.x == CONSUMERS) {
            for (int slot = 0; slot < STAGES; slot++) {
                barrier_start(full(slot), 1), barrier_start(empty(slot), 1);
            }
            for (int group = 0; group < GROUPS; group++) {
                barrier_start(arrived(group), 1), barrier_start(left(group), 1), barrier_start(go(group), 1);
            }
            barriers_started();
        }
        __syncthreads();
        wait_for_earlier_launches();
        if (warp >= CONSUMERS / 32) {
            registers_become<false, 40>();
            if (threadIdx.x == CONSUMERS) {
                produce(copy);
            }
            return;
        }
        registers_become<true, 232>();
        u32 turn = 0;
        for (u32 tile = blockIdx.x + group() * gridDim.x; tile < tiles; tile += GROUPS * gridDim.x, turn++) {
            Sums sums;
            UNROLL
            for (int i = 0; i < TILES; i++) {
                sums[0][i] = sums[1][i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            }
            begin(tile);
            // A slice's barrier tells only its last phase from the one before: nobody waits for a slice before those ahead
            // of it have been taken. The first group has nobody to wait for at first, as if a phase had ended.
            barrier_wait(go(group()), (turn + 1 + group()) % 2);
            multiply(sums, (turn * GROUPS + group()) * steps);
            if (threadIdx.x % 128 == 0) {
                barrier_arrive(go(1 - group()));
            }
            finish(tile, turn, sums);
        }
    }

    // One thread's work.
    template <typename Copy> FUNCTION void produce(Copy copy) const {
        RingPlace<STAGES> at = { 0, 1 };
        u32 turn = 0;
        for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn++) {
            for (u32 step = 0; step < steps; step++, at.next()) {
                barrier_wait(empty(at.slot), at.parity);
                copy(tile, turn, step, base + at.slot * SLICE, full(at.slot));
            }
        }
    }

    // The sums of a tile whose first slice is the block's `from`-th.
    FUNCTION void multiply(Sums &sums, u32 from) const {
        RingPlace<STAGES> at = { from % STAGES, from / STAGES % 2 };
        u32 before = 0;
        for (u32 step = 0; step < steps; step++, at.next()) {
            barrier_wait(full(at.slot), at.parity);
            const u32 slice = base + at.slot * SLICE;
            const u64 a = factor_at(slice), b = factor_at(slice + A_BYTES);
            warpgroup_begin();
            UNROLL
            for (int k = 0; k < DEPTH / 16; k++) {
                // 16 elements further along the sum are 32 bytes, or 16 lines.
                const u64 right = b + k * (TURNED ? LINE : 2);
                Warpgroup<TILES>::template multiply<TURNED>(sums[0], a + k * 2, right, T());
                Warpgroup<TILES>::template multiply<TURNED>(sums[1], a + k * 2 + 64 * LINE / 16, right, T());
            }
            warpgroup_end_group();
            // One thread speaks for its group: no warp is done with an instruction before the others are.
            warpgroup_wait<1>();
            if (step > 0 && threadIdx.x % 128 == 0) {
                barrier_arrive(empty(before));
            }
            before = at.slot;
        }
        warpgroup_wait();
        if (threadIdx.x % 128 == 0) {
            barrier_arrive(empty(before));
        }
    }

    // A warp's 16 rows of COLS columns from (row, col) on, rounded, by way of its own place in shared memory, so that lanes
    // side by side write 16 bytes each, side by side.
    static constexpr int STAGING = 16 * pitch(COLS), PIECES = (16 * COL_TILES + 31) / 32;
    FUNCTION void write(const Columns &sums, char *staging, u32 row, u32 col, u32 m, u32 n, T *c, u64 c_row) const {
        __syncwarp();
        UNROLL
        for (int tile = 0; tile < COL_TILES; tile++) {
            char *to = staging + lane / 4 * pitch(COLS) + tile * 16 + lane % 4 * 4;
            *(u32 *)to = round_2<T>(sums[tile].x, sums[tile].y);
            *(u32 *)(to + 8 * pitch(COLS)) = round_2<T>(sums[tile].z, sums[tile].w);
        }
        __syncwarp();
        UNROLL
        for (int i = 0; i < PIECES; i++) {
            const u32 piece = i * 32 + lane, line = piece / COL_TILES, at = piece % COL_TILES;
            if (row + line < m && col + at * 8 < n) {
                T *to = c + (row + line) * c_row + col + at * 8;
                *(uint4 *)to = *(const uint4 *)(staging + line * pitch(COLS) + at * 16);
            }
        }
    }
};
