// The LoRA delta in one launch: C = factor (A D) E + beta C, with A = x [m, k], D and E LoRA's two factors.
//
// A cluster makes ROWS rows of C. Along k its blocks take a stretch of x and of D each, and their warps every sixteenth
// step of 16 of it; every block sends its partial h to all, and all add them up in the same order. So x and D are
// read once per ROWS rows, and h never leaves the chip. Then each block applies E to a share of the columns.
//
// Each lane of a warp has eight successive columns of C, 16 bytes: the columns of E are permuted among four matrix
// instructions to that end.
//
// Measured as in product.cu, us: 32x512x512 r8 2.7 (shared kernels 5.6, PyTorch 6.4), 128x2048x2048 r32 5.1 (PyTorch
// 9.1), 512x4096x4096 r16, added to C, 11.1 (shared 14.1, PyTorch 13.4). For sm_90 and later.

struct DeltaParams {
    u64 a_row;
    u64 c_row;
    u32 m;
    u32 n;
    u32 k;
    u32 rank;
    u32 steps;
    float beta;
    float factor;
    u32 unused;
};

template <typename T, int ROWS, int RANK, int DEPTH, int STAGES, int CLUSTER> struct Delta {
    static constexpr int WARPS = 16, THREADS = 32 * WARPS, M_TILES = ROWS / 16, RANK_TILES = RANK / 8;
    static constexpr int TILES = M_TILES * RANK_TILES;
    static constexpr int PITCH = pitch(DEPTH), SLICE = (ROWS + RANK) * PITCH;
    static constexpr int RING = STAGES * SLICE, SUMS = WARPS * TILES * 512, FIRST = RING > SUMS ? RING : SUMS;
    static constexpr int SHARED = FIRST + CLUSTER * TILES * 512;
    static_assert(DEPTH % (16 * WARPS) == 0, "a slice holds a step of every warp");

    static FUNCTION void
    multiply_step(u32 a, u32 d, int k, int lane, float4 (&sums)[M_TILES][RANK_TILES]) {
        u32 left[M_TILES][4], right[RANK_TILES][2];
        const int i = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;
        UNROLL
        for (int m = 0; m < M_TILES; m++) {
            load_4<false>(
                a + (m * 16 + low + i) * PITCH + (k + high) * 2, left[m][0], left[m][1], left[m][2], left[m][3]);
        }
        UNROLL
        for (int r = 0; r < RANK_TILES; r++) {
            load_2<false>(d + (r * 8 + i) * PITCH + (k + low) * 2, right[r][0], right[r][1]);
        }
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            const int m = tile / RANK_TILES, r = tile % RANK_TILES;
            multiply_16(sums[m][r], left[m], right[r], T());
        }
    }

    // Two elements of E along the rank, of column `col`.
    static FUNCTION u32 pair_of(const T *e, u32 col, u32 r, const DeltaParams &p) {
        const T *from = e + col * u64(p.rank) + r;
        if (col >= p.n || r >= p.rank) {
            return 0;
        }
        if (p.rank % 2 == 0) {
            return *(const u32 *)from;
        }
        return u32(from[0].bits) | (r + 1 < p.rank ? u32(from[1].bits) << 16 : 0);
    }

    // Of 32 columns: those of matrix instruction j are 2 j and 2 j + 1 of every eight.
    static FUNCTION void load_pairs(const T *e, u32 i, int lane, const DeltaParams &p, u32 (&pairs)[4][RANK_TILES]) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            UNROLL
            for (int r = 0; r < RANK_TILES; r++) {
                const u32 col = i * 32 + lane / 8 * 8 + lane / 4 % 2 + 2 * j;
                pairs[j][r] = pair_of(e, col, r * 8 + lane % 4 * 2, p);
            }
        }
    }

    // Eight columns of a row of C, of which `cols` are there.
    static FUNCTION void write(const float (&x)[8], T *to, int cols, bool wide, float beta) {
        if (wide && cols >= 8) {
            u32 words[4];
            uint4 before = make_uint4(0, 0, 0, 0);
            if (beta != 0.0f) {
                before = *(const uint4 *)to;
            }
            const u32 was[4] = { before.x, before.y, before.z, before.w };
            UNROLL
            for (int i = 0; i < 4; i++) {
                float low = x[2 * i], high = x[2 * i + 1];
                if (beta != 0.0f) {
                    low += beta * f32_of(T { u16(was[i]) }), high += beta * f32_of(T { u16(was[i] >> 16) });
                }
                words[i] = round_2<T>(low, high);
            }
            *(uint4 *)to = make_uint4(words[0], words[1], words[2], words[3]);
            return;
        }
        UNROLL
        for (int i = 0; i < 8; i++) {
            if (i < cols) {
                round_to(x[i] + (beta != 0.0f ? beta * f32_of(to[i]) : 0.0f), to[i]);
            }
        }
    }

    static FUNCTION void run(const T *a, const T *d, const T *e, T *c, const DeltaParams &p) {
        extern __shared__ __align__(128) char shared[];
        const u32 ring = shared_address(shared);
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        if (CLUSTER > 1) {
            cluster_arrive();
        }
        const u32 block = CLUSTER > 1 ? block_of_cluster() : 0, row = blockIdx.x / CLUSTER * ROWS;
        const int rows = min(p.m - row, u32(ROWS));
        a += row * p.a_row, c += row * p.c_row;
        const int first = min(block * p.steps * DEPTH, p.k), end = min(first + p.steps * DEPTH, p.k);
        const int steps = (end - first + DEPTH - 1) / DEPTH;

        // Of 32 columns; each block has a stretch of them.
        const u32 all = (p.n + 31) / 32, share = (all + CLUSTER - 1) / CLUSTER;
        Slice<ROWS, DEPTH, THREADS> a_slice;
        Slice<RANK, DEPTH, THREADS> d_slice;
        a_slice.start(a + first, p.a_row);
        d_slice.start(d + first, p.k);
        wait_for_earlier_launches();
        const auto copy_step = [&](int step) {
            const u32 to = ring + step % STAGES * SLICE;
            const int deep = end - first - step * DEPTH;
            if (deep > 0) {
                a_slice.copy(to, rows, deep);
                d_slice.copy(to + ROWS * PITCH, p.rank, deep);
                a_slice.advance(2 * DEPTH), d_slice.advance(2 * DEPTH);
            }
            copies_end_group();
        };
        UNROLL
        for (int step = 0; step < STAGES - 1; step++) {
            copy_step(step);
        }
        // Of the warp's first columns of E, which are under way meanwhile.
        u32 pairs[4][RANK_TILES];
        load_pairs(e, block * share + warp, lane, p, pairs);
        float4 sums[M_TILES][RANK_TILES];
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            sums[tile / RANK_TILES][tile % RANK_TILES] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        for (int step = 0; step < steps; step++) {
            copies_wait<STAGES - 2>();
            __syncthreads();
            copy_step(step + STAGES - 1);
            const u32 slice = ring + step % STAGES * SLICE;
            UNROLL
            for (int k = 0; k < DEPTH / 16 / WARPS; k++) {
                multiply_step(slice, slice + ROWS * PITCH, (k * WARPS + warp) * 16, lane, sums);
            }
        }
        copies_wait_all();
        __syncthreads();
        float4 *parts = (float4 *)shared;
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            parts[(warp * TILES + tile) * 32 + lane] = sums[tile / RANK_TILES][tile % RANK_TILES];
        }
        __syncthreads();
        float4 *gathered = (float4 *)(shared + FIRST);
        if (CLUSTER > 1) {
            cluster_wait();
        }
        for (int tile = warp; tile < TILES; tile += WARPS) {
            const float4 sum = add_up<WARPS>(parts, lane, tile, TILES);
            const u32 place = (block * TILES + tile) * 32 + lane;
            if (CLUSTER > 1) {
                UNROLL
                for (int to = 0; to < CLUSTER; to++) {
                    store_in_block(ring + FIRST + place * 16, to, sum);
                }
            } else {
                gathered[place] = sum;
            }
        }
        if (CLUSTER > 1) {
            cluster_arrive();
            cluster_wait();
        } else {
            __syncthreads();
        }

        u32 h[M_TILES][RANK_TILES][4];
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            const int m = tile / RANK_TILES, r = tile % RANK_TILES;
            left_factor(add_up<CLUSTER>(gathered, lane, tile, TILES), p.factor, lane, r, p.rank, h[m][r]);
        }
        const bool wide = u64(c) % 16 == 0 && p.c_row % 8 == 0;
        for (u32 i = block * share + warp; i < min(block * share + share, all); i += WARPS) {
            float4 out[M_TILES][4];
            if (i >= block * share + WARPS) {
                load_pairs(e, i, lane, p, pairs);
            }
            UNROLL
            for (int j = 0; j < 4; j++) {
                UNROLL
                for (int m = 0; m < M_TILES; m++) {
                    out[m][j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                }
                UNROLL
                for (int r = 0; r < RANK_TILES; r++) {
                    u32 factors[2];
                    right_factor<T>(pairs[j][r], factors);
                    UNROLL
                    for (int m = 0; m < M_TILES; m++) {
                        multiply_8(out[m][j], h[m][r], factors);
                    }
                }
            }
            const int col = i * 32 + t * 8, cols = int(p.n) - col;
            UNROLL
            for (int m = 0; m < M_TILES; m++) {
                const float4(&o)[4] = out[m];
                const float upper[8] = { o[0].x, o[0].y, o[1].x, o[1].y, o[2].x, o[2].y, o[3].x, o[3].y };
                const float lower[8] = { o[0].z, o[0].w, o[1].z, o[1].w, o[2].z, o[2].w, o[3].z, o[3].w };
                if (m * 16 + g < rows) {
                    write(upper, c + (m * 16 + g) * p.c_row + col, cols, wide, p.beta);
                }
                if (m * 16 + g + 8 < rows) {
                    write(lower, c + (m * 16 + g + 8) * p.c_row + col, cols, wide, p.beta);
                }
            }
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16, f16), its TILE (what the template takes behind
// the type), and its SHARED_BYTES.
#define DELTA(NAME, SHARED_BYTES, ...)                                                                        \
    static_assert(Delta<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");              \
    extern "C" __global__ void __launch_bounds__(Delta<ELEMENT, __VA_ARGS__>::THREADS)                        \
        NAME(const ELEMENT *a, const ELEMENT *d, const ELEMENT *e, ELEMENT *c,                                \
             const __grid_constant__ DeltaParams p) {                                                         \
        Delta<ELEMENT, __VA_ARGS__>::run(a, d, e, c, p);                                                      \
    }
#ifdef TILE
DELTA(NAME, SHARED_BYTES, TILE)
#endif
