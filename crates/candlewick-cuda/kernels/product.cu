// Products on tensor cores, of few rows or few steps: what is over before a library's kernel has filled its pipeline.
//
//   C = alpha A B + beta C                                     the matrix product, each factor stored either way
//   C = A B + bias + factor (A D) E + beta C                   the LoRA layer: A = x, B = W^T, D and E its two factors
//
// A block makes a tile of ROWS x COLS of C. LoRA's D is RANK more columns of B: the tile has them beside its own, so
// h = A D comes out of the same loop. Each block makes it anew, which costs reading D once more per block, from the
// level-two cache, and saves a launch, a wait, and the way of h through memory. Along the sum the work is cut
// twice, so that a small product fills the chip and all its reads are under way at once:
//
//   CLUSTER  blocks of a cluster take a stretch of the sum each, and send their partial sums to each other's shared
//            memory: each adds up and finishes a share of the tile
//   WARPS_K  warps of a block take every WARPS_K-th step of 16; they meet in shared memory
//
// Shared memory is a ring of STAGES slices, DEPTH deep, filled by asynchronous copies of 16 bytes: rows of memory as
// they lie, each 16 bytes longer than its elements, so that the eight rows of a matrix load fall on different banks.
// Sums travel as fragments, one float4 per lane, and are never put in order: the layout in which the tensor cores
// leave h is the one in which they take it, with the ranks permuted alike in h and E. h is tf32 there, 11 bits of
// mantissa with the range of f32: no more rounding than f16 itself, and it cannot overflow.
//
// What is not there is zero on both sides of a sum, and h beyond the rank is set to zero: an infinite x times a
// missing D would be a NaN.
//
// GROUPED, on sm_90a alone: the warpgroup's instruction, which reads both factors from shared memory. Through registers
// every warp fetches its factors anew: tiles of 64 rows take 31 kB per us and multiprocessor from the cache, with the
// instruction 48. Without clusters and GROUPED the kernel is for sm_80 and later.
//
// On Hopper warp_specialised.h takes over most of both: all but the smallest, batches, what is added to C, and lines of no
// multiple of 16 bytes.
//
// Measured on one H100, bf16, us per operation in a replayed graph, tensors in the cache. In the same run: the shared
// kernels, PyTorch's graph of x W^T + s (x A^T) B^T, and cuBLASLt's fastest product without LoRA's part.
//
//                             this   shared   PyTorch   product alone
//   product 64x64x64           1.3      5.8       2.1             2.0
//   product 256x256x256        2.1                2.7             2.4
//   LoRA 32x512x512 r8         2.4      8.9      10.7             2.8
//   LoRA 64x1024x1024 r16      3.8     20.3      12.5             3.4
//   LoRA 128x2048x2048 r32     9.1               16.2             5.8
//   LoRA 1x4096x4096 r16      11.4     11.8      19.8             9.2
//   LoRA 16x4096x4096 r16     13.9                                7.5
//   LoRA 64x4096x4096 r16     14.0                                8.9
//
// With many rows, rank 16, beside cuBLASLt's three products (and its product alone), in another run of the same kind:
//
//   1024x576x192              4.9 of 8.3 (3.1)
//   1024x576x576              5.9 of 9.3 (3.6)
//   1024x576x1536             9.6 of 11.7 (5.0)
//   1024x1536x576            11.1 of 13.0 (6.0)
//   4096x576x192              6.6 of 10.8 (4.1)
//   4096x576x576             12.7 of 15.0 (6.7)
//   4096x576x1536            33.9 of 24.3 (13.8)
//
// 128x2048x2048 with the sum cut among four blocks takes 10.0: what they send each other costs more than it saves.

struct ProductParams {
    u64 a_row;
    u64 b_row;
    u64 c_row;
    u64 a_batch[3];
    u64 b_batch[3];
    u64 c_batch[3];
    u32 batch[3];
    u32 m;
    u32 n;
    u32 k;
    u32 rank;
    u32 steps;
    u32 has_bias;
    float alpha;
    float beta;
    float factor;
};

template <
    typename T, int ROWS, int COLS, int RANK, int WARPS_M, int WARPS_N, int WARPS_K, int DEPTH, int STAGES, int CLUSTER,
    bool A_TURNED, bool B_TURNED, bool GROUPED>
struct Product {
    static constexpr int WARPS = WARPS_M * WARPS_N * WARPS_K, THREADS = 32 * WARPS;
    // Tiles of 16 x 8: of a block, those of D last; and of a warp.
    static constexpr int M_TILES = ROWS / 16, BASE_TILES = COLS / 8, RANK_TILES = RANK / 8;
    static constexpr int N_TILES = BASE_TILES + RANK_TILES;
    static constexpr int WARP_M = M_TILES / WARPS_M, WARP_N = N_TILES / WARPS_N;
    // Of a block's share of what its cluster finishes.
    static constexpr int OWNERS_M = CLUSTER < M_TILES ? CLUSTER : M_TILES, OWNERS_N = CLUSTER / OWNERS_M;
    static constexpr int OWN_M = M_TILES / OWNERS_M, OWN_N = COLS / 8 / OWNERS_N;
    static constexpr int OWN_STRIDE = OWN_N + RANK_TILES;
    static_assert(WARP_M * WARPS_M == M_TILES && WARP_N * WARPS_N == N_TILES, "warps share the tile evenly");
    static_assert(OWN_M * OWNERS_M == M_TILES && OWN_N * OWNERS_N * 8 == COLS, "blocks share the tile evenly");
    static_assert(DEPTH % (16 * WARPS_K) == 0 && STAGES >= 2, "a slice holds a step of every warp");

    static_assert(!GROUPED || (WARP_M == 1 && WARPS_M % 4 == 0 && WARPS_N == 1), "a warpgroup has 64 rows");
    static_assert(!GROUPED || (!A_TURNED && !B_TURNED), "both factors lie along the sum");

    static constexpr int A_PITCH = GROUPED ? 128 : pitch(A_TURNED ? ROWS : DEPTH);
    static constexpr int B_PITCH = GROUPED ? 128 : pitch(B_TURNED ? COLS : DEPTH);
    static constexpr int A_BYTES = (A_TURNED ? DEPTH : ROWS) * A_PITCH;
    static constexpr int B_BYTES = B_TURNED ? DEPTH * B_PITCH : N_TILES * 8 * B_PITCH;
    static constexpr int SLICE = A_BYTES + B_BYTES, RING = STAGES * SLICE;
    // The warps' sums take the place of the ring, those of a cluster lie behind both; where that is too much, behind
    // the warps' sums, once every block of the cluster is done with its ring. E has a place of its own.
    static constexpr int SUMS = WARPS_K * M_TILES * N_TILES * 512;
    static constexpr int CLUSTER_SUMS = CLUSTER > 1 ? CLUSTER * OWN_M * OWN_STRIDE * 512 : 0;
    static constexpr int E_BYTES = RANK > 0 ? COLS * pitch(RANK) : 0, MOST = 227 * 1024;
    static constexpr bool APART = (RING > SUMS ? RING : SUMS) + CLUSTER_SUMS + E_BYTES <= MOST;
    static constexpr int GATHERED = APART && RING > SUMS ? RING : SUMS;
    static constexpr int E_AT = GATHERED + CLUSTER_SUMS > RING ? GATHERED + CLUSTER_SUMS : RING;
    static constexpr int SHARED = E_AT + E_BYTES;
    static_assert(SHARED <= MOST, "shared memory of a block");

    // Rows and columns that are there, of the tile; the tile's and the block's places.
    int rows, cols;
    u32 ring, e_tile;
    int warp, lane;
    char *shared;

    Slice<A_TURNED ? DEPTH : ROWS, A_TURNED ? ROWS : DEPTH, THREADS, GROUPED> a_slice;
    Slice<B_TURNED ? DEPTH : COLS, B_TURNED ? COLS : DEPTH, THREADS, GROUPED> b_slice;
    Slice<RANK == 0 ? 8 : RANK, DEPTH, THREADS, GROUPED> d_slice;

    // The next slices, of which `deep` steps are there.
    FUNCTION void copy_step(const ProductParams &p, int deep, int slot) {
        const u32 to = ring + slot * SLICE;
        a_slice.copy(to, A_TURNED ? deep : rows, A_TURNED ? rows : deep);
        a_slice.advance(A_TURNED ? p.a_row * (2 * DEPTH) : 2 * DEPTH);
        b_slice.copy(to + A_BYTES, B_TURNED ? deep : cols, B_TURNED ? cols : deep);
        b_slice.advance(B_TURNED ? p.b_row * (2 * DEPTH) : 2 * DEPTH);
        if (RANK > 0) {
            d_slice.copy(to + A_BYTES + BASE_TILES * 8 * B_PITCH, p.rank, deep);
            d_slice.advance(2 * DEPTH);
        }
    }

    // The fragments of one step of 16, and what they come to.
    FUNCTION void multiply_step(u32 a, u32 b, int k, int warp_m, int warp_n, float4 (&sums)[WARP_M][WARP_N]) const {
        u32 left[WARP_M][4], right[WARP_N][2];
        const int i = lane % 8, low = lane / 8 % 2 * 8, high = lane / 16 * 8;
        UNROLL
        for (int tile = 0; tile < WARP_M; tile++) {
            const int m = (warp_m * WARP_M + tile) * 16;
            const u32 at = A_TURNED ? a + (k + high + i) * A_PITCH + (m + low) * 2
                                    : a + (m + low + i) * A_PITCH + (k + high) * 2;
            load_4<A_TURNED>(at, left[tile][0], left[tile][1], left[tile][2], left[tile][3]);
        }
        UNROLL
        for (int tile = 0; tile < WARP_N; tile += 2) {
            const int n = (warp_n * WARP_N + tile) * 8;
            const u32 at = B_TURNED ? b + (k + low + i) * B_PITCH + (n + high) * 2
                                    : b + (n + high + i) * B_PITCH + (k + low) * 2;
            if (tile + 1 < WARP_N) {
                load_4<B_TURNED>(at, right[tile][0], right[tile][1], right[tile + 1][0], right[tile + 1][1]);
            } else {
                // Lanes 16 and up give addresses that are not used; those of the lanes below them will do.
                load_2<B_TURNED>(at - (B_TURNED ? high * 2 : high * B_PITCH), right[tile][0], right[tile][1]);
            }
        }
        UNROLL
        for (int m = 0; m < WARP_M; m++) {
            UNROLL
            for (int n = 0; n < WARP_N; n++) {
                multiply_16(sums[m][n], left[m], right[n], T());
            }
        }
    }

    // E(r, o), stored [o, r]: COLS rows of the rank, zero beyond it.
    FUNCTION void copy_e(const T *e, const ProductParams &p) {
        if (p.rank % 8 == 0) {
            Slice<COLS, RANK, THREADS> slice;
            slice.start(e, p.rank);
            slice.copy(e_tile, cols, p.rank);
            return;
        }
        T *to = (T *)(shared + E_AT);
        for (int i = threadIdx.x; i < COLS * RANK; i += THREADS) {
            const int o = i / RANK, r = i % RANK;
            to[o * (pitch(RANK) / 2) + r] = o < cols && r < p.rank ? e[o * u64(p.rank) + r] : T();
        }
    }

    // The partial sums of this block, to the blocks that finish them.
    FUNCTION void send(u32 to, int block) const {
        const float4 *sums = (const float4 *)shared;
        for (int tile = warp; tile < M_TILES * N_TILES; tile += WARPS) {
            const int m = tile / N_TILES, n = tile % N_TILES;
            const float4 sum = add_up<WARPS_K>(sums, lane, tile, M_TILES * N_TILES);
            const int first = n < BASE_TILES ? n / OWN_N : 0, last = n < BASE_TILES ? first : OWNERS_N - 1;
            const int column = n < BASE_TILES ? n % OWN_N : OWN_N + n - BASE_TILES;
            const int place = (block * OWN_M + m % OWN_M) * OWN_STRIDE + column;
            for (int owner = first; owner <= last; owner++) {
                store_in_block(to + (place * 32 + lane) * 16, owner * OWNERS_M + m / OWN_M, sum);
            }
        }
    }

    // Adds up the tiles that this block owns, applies LoRA's second factor, and writes C.
    template <int COPIES>
    FUNCTION void finish(const float4 *sums, int block, const T *bias, T *c, const ProductParams &p) const {
        constexpr int STRIDE = OWN_M * OWN_STRIDE, TILES = OWN_M * OWN_N, EACH = (TILES + WARPS - 1) / WARPS;
        const int g = lane / 4, t = lane % 4;
        u32 h[RANK_TILES > 0 ? RANK_TILES : 1][4];
        int h_of = -1;
        for (int tile = warp * EACH; tile < min(warp * EACH + EACH, TILES); tile++) {
            const int m = tile / OWN_N, n = tile % OWN_N;
            float4 sum = add_up<COPIES>(sums, lane, m * OWN_STRIDE + n, STRIDE);
            sum = make_float4(p.alpha * sum.x, p.alpha * sum.y, p.alpha * sum.z, p.alpha * sum.w);
            const int col = (block / OWNERS_M * OWN_N + n) * 8;
            if (RANK > 0 && h_of != m) {
                h_of = m;
                UNROLL
                for (int r = 0; r < RANK_TILES; r++) {
                    const float4 part = add_up<COPIES>(sums, lane, m * OWN_STRIDE + OWN_N + r, STRIDE);
                    left_factor(part, p.factor, lane, r, p.rank, h[r]);
                }
            }
            UNROLL
            for (int r = 0; r < RANK_TILES; r++) {
                const char *e = shared + E_AT + (col + g) * pitch(RANK) + (r * 8 + 2 * t) * 2;
                u32 factors[2];
                right_factor<T>(*(const u32 *)e, factors);
                multiply_8(sum, h[r], factors);
            }
            const int row = (block % OWNERS_M * OWN_M + m) * 16 + g;
            write(sum.x, sum.y, row, col + 2 * t, bias, c, p);
            write(sum.z, sum.w, row + 8, col + 2 * t, bias, c, p);
        }
    }

    // Two elements of a row of C.
    FUNCTION void write(float x, float y, int row, int col, const T *bias, T *c, const ProductParams &p) const {
        if (row >= rows || col >= cols) {
            return;
        }
        const bool both = col + 1 < cols;
        T *to = c + row * p.c_row + col;
        if (p.has_bias) {
            x += f32_of(bias[col]), y += both ? f32_of(bias[col + 1]) : 0.0f;
        }
        if (p.beta != 0.0f) {
            x += p.beta * f32_of(to[0]), y += both ? p.beta * f32_of(to[1]) : 0.0f;
        }
        if (both && u64(to) % 4 == 0) {
            *(u32 *)to = round_2<T>(x, y);
        } else {
            round_to(x, to[0]);
            if (both) {
                round_to(y, to[1]);
            }
        }
    }

    FUNCTION void run(const T *a, const T *b, const T *bias, const T *d, const T *e, T *c, const ProductParams &p) {
        extern __shared__ __align__(1024) char dynamic[];
        shared = dynamic, ring = shared_address(dynamic), e_tile = ring + E_AT;
        warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if (CLUSTER > 1 && APART) {
            cluster_arrive();
        }
        const u32 block = CLUSTER > 1 ? block_of_cluster() : 0;
        const u32 n = blockIdx.x / CLUSTER * COLS, m = blockIdx.y * ROWS;
        if (gridDim.z > 1) {
            const u32 inner = blockIdx.z % p.batch[2], outer = blockIdx.z / p.batch[2];
            const u64 i = outer / p.batch[1], j = outer % p.batch[1];
            a += i * p.a_batch[0] + j * p.a_batch[1] + inner * p.a_batch[2];
            b += i * p.b_batch[0] + j * p.b_batch[1] + inner * p.b_batch[2];
            c += i * p.c_batch[0] + j * p.c_batch[1] + inner * p.c_batch[2];
        }
        rows = min(p.m - m, u32(ROWS)), cols = min(p.n - n, u32(COLS));
        a += A_TURNED ? m : m * p.a_row, b += B_TURNED ? n : n * p.b_row;
        c += m * p.c_row + n, bias += n, e += n * u64(p.rank);
        const int first = min(block * p.steps * DEPTH, p.k), end = min(first + p.steps * DEPTH, p.k);
        const int steps = (end - first + DEPTH - 1) / DEPTH;

        a_slice.start(A_TURNED ? a + first * p.a_row : a + first, p.a_row);
        b_slice.start(B_TURNED ? b + first * p.b_row : b + first, p.b_row);
        if (RANK > 0) {
            d_slice.start(d + first, p.k);
        }
        wait_for_earlier_launches();
        UNROLL
        for (int step = 0; step < STAGES - 1; step++) {
            if (step < steps) {
                copy_step(p, end - first - step * DEPTH, step);
            }
            copies_end_group();
        }
        if constexpr (RANK > 0) {
            copy_e(e, p);
        }
        // The four warps of a group have successive rows.
        const int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M % WARPS_N, warp_k = warp / WARPS_M / WARPS_N;
        float4 sums[WARP_M][WARP_N];
        UNROLL
        for (int i = 0; i < WARP_M * WARP_N; i++) {
            sums[i / WARP_N][i % WARP_N] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
        int slot = 0;
        for (int step = 0; step < steps; step++) {
            copies_wait<STAGES - 2>();
            if constexpr (GROUPED) {
                shared_to_warpgroup();
            }
            __syncthreads();
            const int next = step + STAGES - 1;
            if (next < steps) {
                copy_step(p, end - first - next * DEPTH, slot == 0 ? STAGES - 1 : slot - 1);
            }
            copies_end_group();
            const u32 slice = ring + slot * SLICE;
            if constexpr (GROUPED) {
                const u64 left = factor_at(slice + warp_m / 4 * 64 * 128), right = factor_at(slice + A_BYTES);
                warpgroup_begin();
                UNROLL
                for (int k = 0; k < DEPTH / 16 / WARPS_K; k++) {
                    // 16 elements further along the sum are 32 bytes.
                    const int along = (k * WARPS_K + warp_k) * 2;
                    Warpgroup<N_TILES>::multiply(sums[0], left + along, right + along, T());
                }
                warpgroup_end_group();
                warpgroup_wait();
            } else {
                UNROLL
                for (int k = 0; k < DEPTH / 16 / WARPS_K; k++) {
                    multiply_step(slice, slice + A_BYTES, (k * WARPS_K + warp_k) * 16, warp_m, warp_n, sums);
                }
            }
            slot = slot + 1 == STAGES ? 0 : slot + 1;
        }

        // E is in no group where there was no step.
        copies_wait_all();
        __syncthreads();
        float4 *parts = (float4 *)shared;
        UNROLL
        for (int i = 0; i < WARP_M * WARP_N; i++) {
            const int m_tile = warp_m * WARP_M + i / WARP_N, n_tile = warp_n * WARP_N + i % WARP_N;
            parts[((warp_k * M_TILES + m_tile) * N_TILES + n_tile) * 32 + lane] = sums[i / WARP_N][i % WARP_N];
        }
        __syncthreads();
        if constexpr (CLUSTER > 1) {
            if (!APART) {
                cluster_arrive();
            }
            // Every block of the cluster has started, or is done with its ring; then, every part has arrived.
            cluster_wait();
            send(ring + GATHERED, block);
            cluster_arrive();
            cluster_wait();
            finish<CLUSTER>((const float4 *)(shared + GATHERED), block, bias, c, p);
        } else {
            finish<WARPS_K>(parts, 0, bias, c, p);
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16, f16), its TILE (what the template takes behind
// the type), and its SHARED_BYTES.
#define PRODUCT(NAME, SHARED_BYTES, ...)                                                                      \
    static_assert(Product<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");            \
    extern "C" __global__ void __launch_bounds__(Product<ELEMENT, __VA_ARGS__>::THREADS)                      \
        NAME(const ELEMENT *a, const ELEMENT *b, const ELEMENT *bias, const ELEMENT *d, const ELEMENT *e,     \
             ELEMENT *c, const __grid_constant__ ProductParams p) {                                           \
        Product<ELEMENT, __VA_ARGS__>().run(a, b, bias, d, e, c, p);                                          \
    }
#ifdef TILE
PRODUCT(NAME, SHARED_BYTES, TILE)
#endif
