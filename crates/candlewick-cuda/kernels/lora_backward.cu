// LoRA's backward with many rows, in two launches beside the product dy W, with h = x A^T and dh = factor dy B:
//
//   Hidden      h and dh (`lora_hidden.h`)
//   Gradients   dA = dh^T x, dB = factor dy^T h, and dx = dh A, or dx += dh A behind dy W
//
// Little is computed for what is read: fragments go from memory to registers, 16 bytes a lane where they can. That
// works because the order of a sum is free: where a matrix instruction wants elements 2 t, 2 t + 1, 2 t + 8, 2 t + 9
// along it, lane t gives four that lie side by side. Where it wants pairs across lines of memory, two lines are
// interleaved in registers; there it is the order of the result that is free.
//
// Hidden: a block has ROWS rows of x or dy; its warps share the sum and meet in shared memory. h and dh are rounded
// to T and lie as Gradients wants them, which `Hidden::at` says: a lane's four rows side by side, a warp's fragment in
// one piece. Rows beyond the last, up to whole tiles, are zero there: an infinite A times a missing x would be a NaN.
//
// Gradients: a cluster has COLS columns of x or dy, and the warps of its blocks share the rows. They meet in shared
// memory, then in that of the block that owns a tile: always in the same order, so the bits are always the same. Blocks
// behind those have tiles of dx.
//
// Two layers of one rank that read the same x, as q and v do, go together: twice the blocks, and dx += dh A of both in
// one pass.
//
// A rank of 8, 16 or 32 and no other; bf16, as f16 could overflow in h. Clusters want sm_90, the rest sm_80.
//
// Measured on one H100, bf16, us per operation in a graph of 120 that take turns on four sets of tensors, beside
// cuBLASLt's six products of the whole backward:
//
//                        dy W   Hidden  Gradients  dx too | all three   six products | the delta alone
//   1024x576x192 r16      2.9      2.0        2.8     3.0         7.9           18.7               4.7
//   1024x576x576 r8       4.0      2.2        2.6     2.7         8.9           20.9               4.7
//   1024x576x576 r16      4.0      2.2        2.9     3.1         9.2           21.2               5.1
//   1024x576x576 r32      3.9      2.9        3.4     4.7        11.3           19.8               7.1
//   1024x576x1536 r16     7.3      3.5        2.8     3.7        15.3           26.1               8.5
//   1024x1536x576 r16     5.2      3.4        2.8     5.6        14.9           25.5               9.2
//   4096x576x192 r16      4.4      3.3        4.8     9.0        16.6           30.8              12.4
//   4096x576x576 r16      6.9      4.8        5.7    10.9        19.6           35.6              14.0
//   4096x576x1536 r16    12.3      9.7       10.7    14.7        26.5           45.0              21.4
//   4096x1536x576 r16    13.8      9.2       10.6    18.0        37.4           48.9              21.7
//   2048x2048x2048 r16   24.1      9.8        8.6    15.5        41.3           54.8              18.6
//
// Tried and slower: dx made by the blocks of dh, which are too few (+2.9 for 1024x576x576); dy W + dh A in one launch
// of product.cu, by the warpgroup's instruction with W turned (7.1 where dy W takes 4.0); clusters of eight.

// dx = dh A, or dx +=: a block has 64 columns, and each of its warps 16 rows.
template <typename T, int RANK, int WARPS> struct Dx {
    static constexpr int ROWS = 16 * WARPS, COLS = 64, RANK_TILES = RANK / 8, STEPS = (RANK_TILES + 1) / 2;

    // Eight columns of a row.
    static FUNCTION void write(T *to, const uint4 &before, const float (&sums)[8]) {
        u32 words[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            const u32 was = word_of(before, i);
            const float low = f32_of(T { u16(was) }), high = f32_of(T { u16(was >> 16) });
            words[i] = round_2<T>(sums[2 * i] + low, sums[2 * i + 1] + high);
        }
        *(uint4 *)to = make_uint4(words[0], words[1], words[2], words[3]);
    }

    // Adds dh A of one layer.
    static FUNCTION void
    add(float4 (&sums)[8], const T *dh, const T *a, u32 row, u32 col, const LoraBackwardParams &p, int lane) {
        const int g = lane / 4, t = lane % 4;
        UNROLL
        for (int s = 0; s < STEPS; s++) {
            // Of sixteen ranks, or of eight and as many zeros.
            uint4 lines[4];
            u32 left[4];
            UNROLL
            for (int i = 0; i < 4; i++) {
                const bool there = s * 2 + i / 2 < RANK_TILES;
                const u32 r = s * 16 + i / 2 * 8;
                const T *pair = dh + hidden_at(row + i % 2 * 8 + t * 2, r + g, RANK);
                lines[i] = piece_of(a + (r + t * 2 + i % 2) * u64(p.ins) + col, there && col < p.ins);
                left[i] = there ? *(const u32 *)pair : 0;
            }
            UNROLL
            for (int i = 0; i < 4; i++) {
                left[i] = transposed(left[i]);
            }
            // A lane's columns 8 g .. 8 g + 7 are a column of each of eight matrix instructions.
            UNROLL
            for (int i = 0; i < 4; i++) {
                const u32 w[4] = { word_of(lines[0], i), word_of(lines[1], i), word_of(lines[2], i),
                                   word_of(lines[3], i) };
                const u32 even[2] = { firsts(w[0], w[1]), firsts(w[2], w[3]) };
                const u32 odd[2] = { seconds(w[0], w[1]), seconds(w[2], w[3]) };
                multiply_16(sums[2 * i], left, even, T());
                multiply_16(sums[2 * i + 1], left, odd, T());
            }
        }
    }

    static FUNCTION void
    run(u32 block, const T *dh, const T *first_a, const T *second_a, T *dx, const LoraBackwardParams &p, int warp,
        int lane) {
        const int g = lane / 4, t = lane % 4;
        const u32 blocks = (p.ins + COLS - 1) / COLS;
        const u32 row = block / blocks * ROWS + warp * 16, first = block % blocks * COLS, col = first + g * 8;
        if (row >= p.rows) {
            return;
        }
        // Of sums x, y, z, w: row g, columns 16 t .. and 16 t + 8 .., then those of row g + 8.
        uint4 before[4];
        UNROLL
        for (int part = 0; part < 4; part++) {
            const u32 line = row + part / 2 * 8 + g, at = first + t * 16 + part % 2 * 8;
            before[part] = piece_of(dx + line * p.x_row + at, p.adds_dx && line < p.rows && at < p.ins);
        }
        float4 sums[8];
        set_zero(sums);
        add(sums, dh, first_a, row, col, p, lane);
        if (p.layers > 1) {
            add(sums, dh + p.hidden, second_a, row, col, p, lane);
        }
        UNROLL
        for (int part = 0; part < 4; part++) {
            const u32 line = row + part / 2 * 8 + g, at = first + t * 16 + part % 2 * 8;
            float eight[8];
            UNROLL
            for (int j = 0; j < 8; j++) {
                const float4 &s = sums[j];
                eight[j] = part == 0 ? s.x : part == 1 ? s.y : part == 2 ? s.z : s.w;
            }
            if (line < p.rows && at < p.ins) {
                write(dx + line * p.x_row + at, before[part], eight);
            }
        }
    }
};

template <typename T, int RANK, int COLS, int WARPS, int CLUSTER> struct Gradients {
    static constexpr int THREADS = 32 * WARPS, RANK_TILES = RANK / 8;
    // A lane has this many words of a line: each gives two rows of a tile of 16 columns.
    static constexpr int WORDS = COLS / 16;
    // Of 16 columns and 8 ranks; those that each block of the cluster finishes.
    static constexpr int TILES = WORDS * RANK_TILES, OWN = (TILES + CLUSTER - 1) / CLUSTER;
    static constexpr int AT_ONCE = 4 * WORDS + 2 * RANK_TILES <= 20 ? 4 : 2;
    static constexpr int SUMS = WARPS * TILES * 512, SHARED = SUMS + (CLUSTER > 1 ? OWN * CLUSTER * 512 : 0);
    static_assert(WARPS >= OWN, "a warp finishes at most one tile");

    // 16 rows: lane t has rows 4 t .. 4 t + 3 and, of x or dy, 2 WORDS columns.
    struct Step {
        u32 lines[4][WORDS], hidden[RANK_TILES][2];
    };

    template <int COUNT> static FUNCTION void load_words(u32 (&words)[COUNT], const T *from, bool there) {
        UNROLL
        for (int i = 0; i < COUNT; i += 4) {
            if constexpr (COUNT % 4 == 0) {
                const uint4 four = piece_of(from + 2 * i, there);
                words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
            } else {
                const uint2 two = there ? *(const uint2 *)from : make_uint2(0, 0);
                words[0] = two.x, words[1] = two.y;
            }
        }
    }

    static FUNCTION void load(
        Step &step, u32 first, const T *from, u64 stride, const T *hidden, bool inside, const LoraBackwardParams &p,
        int lane) {
        const u32 row = first + lane % 4 * 4;
        UNROLL
        for (int i = 0; i < 4; i++) {
            const T *at = from + (row + i) * stride + lane / 4 * 2 * WORDS;
            load_words(step.lines[i], at, inside && row + i < p.rows);
        }
        u32 fragment[2 * RANK_TILES];
        load_words(fragment, hidden + (u64(first) * 8 + lane * 4) * RANK_TILES, row < p.rows);
        UNROLL
        for (int i = 0; i < 2 * RANK_TILES; i++) {
            step.hidden[i / 2][i % 2] = fragment[i];
        }
    }

    static FUNCTION void multiply(const Step &step, float4 (&sums)[TILES]) {
        UNROLL
        for (int i = 0; i < WORDS; i++) {
            const u32 a = step.lines[0][i], b = step.lines[1][i], c = step.lines[2][i], d = step.lines[3][i];
            const u32 left[4] = { firsts(a, b), seconds(a, b), firsts(c, d), seconds(c, d) };
            UNROLL
            for (int r = 0; r < RANK_TILES; r++) {
                multiply_16(sums[i * RANK_TILES + r], left, step.hidden[r], T());
            }
        }
    }

    static FUNCTION void
    run(const T *x, const Layer<T> &one, const Layer<T> &two, const T *h, const T *dh, T *dx, T *first_da, T *first_db,
        T *second_da, T *second_db, const LoraBackwardParams &p) {
        extern __shared__ __align__(128) char shared[];
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        const u32 of_a = (p.ins + COLS - 1) / COLS, of_first = of_a + (p.outs[0] + COLS - 1) / COLS;
        const u32 all = p.layers > 1 ? of_first + of_a + (p.outs[1] + COLS - 1) / COLS : of_first;
        u32 part = blockIdx.x / CLUSTER;
        if (part >= all) {
            wait_for_earlier_launches();
            Dx<T, RANK, WARPS>::run(blockIdx.x - all * CLUSTER, dh, one.a, two.a, dx, p, warp, lane);
            return;
        }
        const bool second = part >= of_first;
        part -= second ? of_first : 0;
        const T *dy = second ? two.dy : one.dy;
        T *da = second ? second_da : first_da, *db = second ? second_db : first_db;
        const u64 y_row = p.y_row[second ? 1 : 0];
        const u32 outs = p.outs[second ? 1 : 0];
        if (CLUSTER > 1) {
            cluster_arrive();
        }
        const u32 block = CLUSTER > 1 ? block_of_cluster() : 0;
        const bool makes_a = part < of_a;
        const u32 col = (makes_a ? part : part - of_a) * COLS, cols = (makes_a ? p.ins : outs) - col;
        const T *from = (makes_a ? x : dy) + col, *hidden = (makes_a ? dh : h) + (second ? p.hidden : 0);
        const u64 stride = makes_a ? p.x_row : y_row;
        float4 sums[TILES];
        set_zero(sums);
        wait_for_earlier_launches();
        constexpr u32 ROUND = CLUSTER * WARPS * 16;
        for (u32 first = (block * WARPS + warp) * 16; first < p.rows; first += AT_ONCE * ROUND) {
            Step steps[AT_ONCE];
            UNROLL
            for (int i = 0; i < AT_ONCE; i++) {
                load(steps[i], first + i * ROUND, from, stride, hidden, g * 2 * WORDS < cols, p, lane);
            }
            all_under_way();
            UNROLL
            for (int i = 0; i < AT_ONCE; i++) {
                multiply(steps[i], sums);
            }
        }
        float4 *parts = (float4 *)shared;
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            parts[(warp * TILES + tile) * 32 + lane] = sums[tile];
        }
        __syncthreads();
        u32 tile = warp;
        float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if constexpr (CLUSTER > 1) {
            // Every block of the cluster has started; then, every part has arrived.
            cluster_wait();
            const u32 gathered = shared_address(shared) + SUMS;
            for (int i = warp; i < TILES; i += WARPS) {
                const u32 place = (i / CLUSTER * CLUSTER + block) * 32 + lane;
                store_in_block(gathered + place * 16, i % CLUSTER, add_up<WARPS>(parts, lane, i, TILES));
            }
            cluster_arrive();
            cluster_wait();
            tile = warp * CLUSTER + block;
            if (warp < OWN) {
                sum = add_up<CLUSTER>((const float4 *)(shared + SUMS), lane, warp * CLUSTER, 1);
            }
        } else if (warp < OWN) {
            sum = add_up<WARPS>(parts, lane, tile, TILES);
        }
        // x and y are a column, z and w the next; x and z rank 2 t, y and w the next.
        const u32 i = g * 2 * WORDS + tile / RANK_TILES * 2, r = tile % RANK_TILES * 8 + t * 2;
        if (warp >= OWN || tile >= TILES || i >= cols) {
            return;
        }
        if (makes_a) {
            T *to = da + r * u64(p.ins) + col + i;
            *(u32 *)to = round_2<T>(sum.x, sum.z);
            *(u32 *)(to + p.ins) = round_2<T>(sum.y, sum.w);
        } else {
            T *to = db + (col + i) * u64(RANK) + r;
            const float factor = p.factor[second ? 1 : 0];
            *(u32 *)to = round_2<T>(factor * sum.x, factor * sum.y);
            *(u32 *)(to + RANK) = round_2<T>(factor * sum.z, factor * sum.w);
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16), its TILE (HIDDEN or GRADIENTS, and what the
// template takes behind the type), and its SHARED_BYTES.
#define HIDDEN(NAME, SHARED_BYTES, ...)                                                                              \
    static_assert(Hidden<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");                    \
    extern "C" __global__ void __launch_bounds__(Hidden<ELEMENT, __VA_ARGS__>::THREADS)                              \
        NAME(const ELEMENT *x, const ELEMENT *a0, const ELEMENT *b0, const ELEMENT *dy0, const ELEMENT *a1,          \
             const ELEMENT *b1, const ELEMENT *dy1, ELEMENT *h, ELEMENT *dh,                                         \
             const __grid_constant__ LoraBackwardParams p) {                                                         \
        Hidden<ELEMENT, __VA_ARGS__>::run(x, { a0, b0, dy0 }, { a1, b1, dy1 }, h, dh, p);                            \
    }
#define GRADIENTS(NAME, SHARED_BYTES, ...)                                                                           \
    static_assert(Gradients<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");                 \
    extern "C" __global__ void __launch_bounds__(Gradients<ELEMENT, __VA_ARGS__>::THREADS)                           \
        NAME(const ELEMENT *x, const ELEMENT *a0, const ELEMENT *dy0, const ELEMENT *a1, const ELEMENT *dy1,         \
             const ELEMENT *h, const ELEMENT *dh, ELEMENT *dx, ELEMENT *da0, ELEMENT *db0, ELEMENT *da1,             \
             ELEMENT *db1, const __grid_constant__ LoraBackwardParams p) {                                           \
        Gradients<ELEMENT, __VA_ARGS__>::run(                                                                        \
            x, { a0, nullptr, dy0 }, { a1, nullptr, dy1 }, h, dh, dx, da0, db0, da1, db1, p);                        \
    }
#define OF_PASS(PASS, ...) PASS(NAME, SHARED_BYTES, __VA_ARGS__)
#define INSTANCE(...) OF_PASS(__VA_ARGS__)
#ifdef TILE
INSTANCE(TILE)
#endif
