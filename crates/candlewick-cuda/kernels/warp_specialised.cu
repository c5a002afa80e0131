// The LoRA layer on Hopper, where rows are more than a few: C = A B + bias + factor (A D) E + beta C, with A = x,
// B = W^T, D and E LoRA's two factors.
//
// A block makes a tile of ROWS x COLS of C. Its last warp fills a ring of STAGES slices, 64 elements along the sum, by
// copies of the tensor memory accelerator; the warpgroups before it multiply, 64 rows each, and keep one slice under
// way while they wait for the next. Barriers in shared memory say which slices are full and which are empty, so that
// nobody ever waits for the whole block. D is RANK more rows of the slice of W: h = A D comes out of the same
// instruction. CLUSTER blocks take a stretch of the sum each, send each other partial sums as fragments, one float4 per
// lane, and finish a share of the columns each. h is applied as tf32, as in product.cu.
//
// Blocks that read the same lines at about the same time get them from the level-two cache at once: one read for all.
// Copies to several blocks of a cluster (multicast), of x or of W, were not faster, nor was making h once for two
// blocks; and to begin the sum elsewhere in each block, against crowds, took half as long again.
//
// Measured on one H100, bf16, us per operation in a replayed graph, tensors in the cache, beside cuBLASLt's fastest
// product without LoRA's part. Rank 16:
//
//                       this   product alone                        this   product alone
//   32x512x512           2.2        2.7      1024x576x192            3.0        3.1
//   64x1024x1024         2.8        3.5      1024x576x576            3.9        3.5
//   64x4096x4096        10.4        8.7      1024x576x1536           6.5        4.9
//   128x2048x2048        5.2        5.4      1024x1536x576           6.7        5.4
//   128x4096x4096       14.0       10.3      4096x576x192            4.9        4.1
//   256x1024x1024        3.6        3.8      4096x576x576            8.7        6.3
//   256x4096x4096       24.6       14.3      4096x576x1536          20.9       12.8
//   512x2048x2048       13.2        8.1      2048x1024x1024          9.5        9.0
//   512x4096x4096       31.5       24.2      2048x2048x2048         32.3       23.3

struct WarpSpecialisedParams {
    u64 c_row;
    u32 m;
    u32 n;
    u32 rank;
    u32 steps;
    u32 copied;
    u32 has_bias;
    float beta;
    float factor;
};

template <typename T, int ROWS, int COLS, int RANK, int STAGES, int CLUSTER> struct WarpSpecialised {
    static constexpr int GROUPS = ROWS / 64, CONSUMERS = 128 * GROUPS, WARPS = CONSUMERS / 32, THREADS = CONSUMERS + 32;
    // A slice has so many elements along the sum: a swizzled line.
    static constexpr int DEPTH = 64, LINE = 128;
    // Tiles of 16 x 8 of a warp, those of h last, and of what it finishes.
    static constexpr int BASE_TILES = COLS / 8, RANK_TILES = RANK / 8, TILES = BASE_TILES + RANK_TILES;
    static constexpr int OWN_TILES = BASE_TILES / CLUSTER, OTHERS = CLUSTER - 1;
    static_assert(OWN_TILES * CLUSTER == BASE_TILES, "blocks share the columns evenly");

    static constexpr int A_BYTES = ROWS * LINE, B_BYTES = COLS * LINE, SLICE = A_BYTES + B_BYTES + RANK * LINE;
    static constexpr int RING = STAGES * SLICE;
    // What other blocks send: partial sums of the columns that this one finishes, and of h.
    static constexpr int SUMS_BYTES = OTHERS * WARPS * OWN_TILES * 512, H_BYTES = OTHERS * WARPS * RANK_TILES * 512;
    static constexpr int SUMS_AT = RING, H_AT = SUMS_AT + SUMS_BYTES;
    static constexpr int E_AT = H_AT + H_BYTES, E_BYTES = COLS * pitch(RANK);
    static constexpr int BARRIERS_AT = E_AT + E_BYTES, SHARED = BARRIERS_AT + 16 * STAGES + 16;
    static_assert(SHARED <= 227 * 1024, "shared memory of a block");
    static_assert(WARPS * OWN_TILES * 512 <= RING, "`write_any` takes the place of the ring");

    char *shared;
    u32 base;
    // The tile's place, the block's in its cluster, and its stretch of the sum.
    u32 m, n, block, first, steps;
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
        for (int slot = 0; slot < STAGES; slot++) {
            barrier_start(full(slot), 1);
            barrier_start(empty(slot), GROUPS);
        }
        if (CLUSTER > 1) {
            barrier_start(arrived(), 1);
            barrier_expect(arrived(), SUMS_BYTES + H_BYTES);
        }
        barriers_started();
        prefetch_map(a), prefetch_map(b), prefetch_map(d);
    }

    // One thread's work.
    FUNCTION void produce(const TensorMap &a, const TensorMap &b, const TensorMap &d,
                          const WarpSpecialisedParams &p) const {
        // Every slice is empty at first, as if a phase had ended.
        u32 slot = 0, parity = 1;
        for (u32 step = 0; step < steps; step++) {
            barrier_wait(empty(slot), parity);
            barrier_expect(full(slot), p.copied);
            const u32 to = base + slot * SLICE, along = (first + step) * DEPTH;
            copy_tile(to, a, along, m, full(slot));
            copy_tile(to + A_BYTES, b, along, n, full(slot));
            copy_tile(to + A_BYTES + B_BYTES, d, along, 0, full(slot));
            slot++;
            if (slot == STAGES) {
                slot = 0, parity ^= 1;
            }
        }
    }

    FUNCTION void consume(float4 (&sums)[TILES]) const {
        u32 slot = 0, parity = 0, before = 0;
        for (u32 step = 0; step < steps; step++) {
            barrier_wait(full(slot), parity);
            const u32 slice = base + slot * SLICE;
            const u64 left = factor_at(slice + warp / 4 * 64 * LINE), right = factor_at(slice + A_BYTES);
            warpgroup_begin();
            UNROLL
            for (int k = 0; k < DEPTH / 16; k++) {
                // 16 elements further along the sum are 32 bytes.
                Warpgroup<TILES>::multiply(sums, left + k * 2, right + k * 2, T());
            }
            warpgroup_end_group();
            // One thread speaks for its group: no warp is done with an instruction before the others are.
            warpgroup_wait<1>();
            if (step > 0 && threadIdx.x % 128 == 0) {
                barrier_arrive(empty(before));
            }
            before = slot++;
            if (slot == STAGES) {
                slot = 0, parity ^= 1;
            }
        }
        warpgroup_wait();
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
            const u32 to = address_in_block(base + SUMS_AT + (place * OWN_TILES * 32 + lane) * 16, owner);
            UNROLL
            for (int tile = 0; tile < OWN_TILES; tile++) {
                const float4 low = sums[i * OWN_TILES + tile], high = sums[(i + 1) * OWN_TILES + tile];
                send_to_block(to + tile * 512, barrier, chosen(i < block, low, high));
            }
            const u32 h_to = address_in_block(base + H_AT + (place * RANK_TILES * 32 + lane) * 16, owner);
            UNROLL
            for (int tile = 0; tile < RANK_TILES; tile++) {
                send_to_block(h_to + tile * 512, barrier, sums[BASE_TILES + tile]);
            }
        }
    }

    // Adds what others have sent. This block's columns are the first ones then.
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
        for (int i = 0; i < OTHERS; i++) {
            const int place = i * WARPS + warp;
            UNROLL
            for (int tile = 0; tile < OWN_TILES; tile++) {
                sums[tile] = sum_of(sums[tile], parts[(place * OWN_TILES + tile) * 32 + lane]);
            }
            UNROLL
            for (int tile = 0; tile < RANK_TILES; tile++) {
                const float4 part = h_parts[(place * RANK_TILES + tile) * 32 + lane];
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

    // Piece i of lane t becomes piece t of lane i, among four lanes.
    FUNCTION void exchange(u32 (&x)[4]) const {
        UNROLL
        for (int step = 1; step < 4; step *= 2) {
            const bool upper = lane & step;
            UNROLL
            for (int i = 0; i < 4; i++) {
                if ((i & step) == 0) {
                    const u32 got = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + step], step);
                    x[i] = upper ? got : x[i];
                    x[i + step] = upper ? x[i + step] : got;
                }
            }
        }
    }

    // The tiles from (row, col) on, where nothing is left to do but to round them: 16 bytes per lane. Instructions that
    // run once are waited for, so there is no other case among them.
    FUNCTION void write(const float4 (&sums)[TILES], u32 row, u32 col, T *c, const WarpSpecialisedParams &p) const {
        const u32 t = lane % 4;
        row += lane / 4;
        T *upper = c + row * p.c_row + col, *lower = upper + 8 * p.c_row;
        const bool here = row < p.m, below = row + 8 < p.m;
        UNROLL
        for (int tile = 0; tile < OWN_TILES; tile += 4) {
            const bool four = tile + 4 <= OWN_TILES;
            u32 x[4], y[4];
            UNROLL
            for (int i = 0; i < 4 && tile + i < OWN_TILES; i++) {
                const float4 sum = sums[tile + i];
                x[i] = round_2<T>(sum.x, sum.y), y[i] = round_2<T>(sum.z, sum.w);
            }
            if (four) {
                // Four lanes hold four pieces of each of four tiles: now each holds a tile's.
                exchange(x), exchange(y);
                const u32 at = (tile + t) * 8;
                if (here && col + at < p.n) {
                    *(uint4 *)(upper + at) = make_uint4(x[0], x[1], x[2], x[3]);
                }
                if (below && col + at < p.n) {
                    *(uint4 *)(lower + at) = make_uint4(y[0], y[1], y[2], y[3]);
                }
            }
            UNROLL
            for (int i = 0; i < 4 && !four && tile + i < OWN_TILES; i++) {
                const u32 at = (tile + i) * 8 + 2 * t;
                if (here && col + at < p.n) {
                    *(u32 *)(upper + at) = x[i];
                }
                if (below && col + at < p.n) {
                    *(u32 *)(lower + at) = y[i];
                }
            }
        }
    }

    // The same with a bias, with beta, and where the last columns are no eight: element by element, in a loop, by way of
    // shared memory, as registers cannot be counted through.
    FUNCTION void write_any(const float4 (&sums)[TILES], u32 row, u32 col, const T *bias, T *c,
                            const WarpSpecialisedParams &p) const {
        float4 *parts = (float4 *)shared + warp * OWN_TILES * 32 + lane;
        UNROLL
        for (int tile = 0; tile < OWN_TILES; tile++) {
            parts[tile * 32] = sums[tile];
        }
        row += lane / 4, col += lane % 4 * 2;
        for (int i = 0; i < OWN_TILES * 4; i++) {
            const u32 line = row + i % 4 / 2 * 8, at = col + i / 4 * 8 + i % 2;
            if (line < p.m && at < p.n) {
                float sum = ((const float *)(parts + i / 4 * 32))[i % 4];
                T *to = c + line * p.c_row + at;
                sum += p.has_bias ? f32_of(bias[at]) : 0.0f;
                sum += p.beta != 0.0f ? p.beta * f32_of(*to) : 0.0f;
                round_to(sum, *to);
            }
        }
    }

    FUNCTION void run(const TensorMap &a, const TensorMap &b, const TensorMap &d, const T *bias, const T *e, T *c,
                      const WarpSpecialisedParams &p) {
        extern __shared__ __align__(1024) char dynamic[];
        shared = dynamic, base = shared_address(dynamic);
        lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        block = CLUSTER > 1 ? block_of_cluster() : 0;
        m = blockIdx.y * ROWS, n = blockIdx.x / CLUSTER * COLS;
        const u32 each = (p.steps + CLUSTER - 1) / CLUSTER;
        first = min(block * each, p.steps), steps = min(each, p.steps - first);
        if (threadIdx.x == CONSUMERS) {
            start(a, b, d);
        }
        if (CLUSTER > 1) {
            __syncwarp();
            cluster_meet();
        } else {
            __syncthreads();
        }
        wait_for_earlier_launches();
        if (warp == WARPS) {
            if (lane == 0) {
                produce(a, b, d, p);
            }
            return;
        }
        copy_e(e, p);
        float4 sums[TILES];
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            sums[tile] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        consume(sums);
        if constexpr (CLUSTER > 1) {
            send(sums);
        }
        copies_wait_all();
        // E is there, and every group is done with the ring.
        threads_wait<CONSUMERS>(1);
        if constexpr (CLUSTER > 1) {
            barrier_wait(arrived(), 0);
            receive(sums);
        }
        const u32 col = block * OWN_TILES * 8;
        apply(sums, col, p);
        if (p.has_bias || p.beta != 0.0f || p.n % 8 != 0) {
            write_any(sums, m + warp * 16, n + col, bias, c, p);
        } else {
            write(sums, m + warp * 16, n + col, c, p);
        }
    }
};

// The host says which instance, as for product.cu.
#define WARP_SPECIALISED(NAME, SHARED_BYTES, ...)                                                                \
    static_assert(WarpSpecialised<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");       \
    extern "C" __global__ void __launch_bounds__(WarpSpecialised<ELEMENT, __VA_ARGS__>::THREADS)                 \
        NAME(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,                           \
             const __grid_constant__ TensorMap d, const ELEMENT *bias, const ELEMENT *e, ELEMENT *c,             \
             const __grid_constant__ WarpSpecialisedParams p) {                                                  \
        WarpSpecialised<ELEMENT, __VA_ARGS__>().run(a, b, d, bias, e, c, p);                                     \
    }
#ifdef TILE
WARP_SPECIALISED(NAME, SHARED_BYTES, TILE)
#endif
