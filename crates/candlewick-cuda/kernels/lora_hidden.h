// The first of the two launches of `lora_backward.cu`: h and dh.

struct LoraBackwardParams {
    u64 x_row;
    u64 y_row[2];
    u64 hidden;  // elements from h and dh of a layer to those of the next
    u32 rows;
    u32 ins;
    u32 outs[2];
    float factor[2];
    u32 layers;
    u32 adds_dx;
    u32 kept; // h is there already
    u32 unused;
};

// What a layer has of its own: A and B, and the gradient of y.
template <typename T> struct Layer {
    const T *a, *b, *dy;
};

// Eight elements, side by side.
template <typename T> FUNCTION uint4 piece_of(const T *from, bool there) {
    return there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
}
FUNCTION u32 word_of(const uint4 &piece, int i) {
    return i == 0 ? piece.x : i == 1 ? piece.y : i == 2 ? piece.z : piece.w;
}
// Of two lines the first elements of these pairs, and the second ones.
FUNCTION u32 firsts(u32 line, u32 next) {
    return __byte_perm(line, next, 0x5410);
}
FUNCTION u32 seconds(u32 line, u32 next) {
    return __byte_perm(line, next, 0x7632);
}
// Reads do not go past it: without, the compiler would spread them over the products, and wait for each few anew.
FUNCTION void all_under_way() {
    __syncwarp();
}
template <int COUNT> FUNCTION void set_zero(float4 (&sums)[COUNT]) {
    UNROLL
    for (int i = 0; i < COUNT; i++) {
        sums[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

template <typename T, int ROWS, int RANK> struct Hidden {
    static constexpr int WARPS = 8, THREADS = 32 * WARPS, M_TILES = ROWS / 16, RANK_TILES = RANK / 8;
    static constexpr int TILES = M_TILES * RANK_TILES;
    // Steps along the sum that are under way at once, as registers allow.
    static constexpr int AT_ONCE = 8 * M_TILES + 4 * RANK_TILES <= 24 ? 3 : 2;
    static constexpr int SHARED = WARPS * TILES * 512;

    // A step of 32: for each lane 8 elements of two rows of every tile, and of every eighth line of D, which is
    // [rank, k]. TURNED, it is [k, rank]: the lane has pairs along the rank, of lines that it gets pairs of in return
    // when they are transposed.
    struct Step {
        uint4 left[M_TILES][2], right[RANK_TILES];
    };

    template <bool TURNED>
    static FUNCTION void
    load(Step &step, u32 first, const T *x, u64 x_row, const T *d, int rows, u32 k, int lane) {
        const int g = lane / 4, t = lane % 4;
        const u32 at = first + t * 8;
        UNROLL
        for (int m = 0; m < M_TILES; m++) {
            step.left[m][0] = piece_of(x + (m * 16 + g) * x_row + at, m * 16 + g < rows && at < k);
            step.left[m][1] = piece_of(x + (m * 16 + g + 8) * x_row + at, m * 16 + g + 8 < rows && at < k);
        }
        UNROLL
        for (int r = 0; r < RANK_TILES; r++) {
            if constexpr (TURNED) {
                u32 pairs[4];
                UNROLL
                for (int i = 0; i < 4; i++) {
                    const u32 line = first + g / 2 * 8 + g % 2 + i * 2;
                    pairs[i] = line < k ? *(const u32 *)(d + line * u64(RANK) + r * 8 + t * 2) : 0;
                }
                step.right[r] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
            } else {
                step.right[r] = piece_of(d + (r * 8 + g) * u64(k) + at, at < k);
            }
        }
    }

    template <bool TURNED> static FUNCTION void multiply(const Step &step, float4 (&sums)[TILES]) {
        UNROLL
        for (int r = 0; r < RANK_TILES; r++) {
            UNROLL
            for (int half = 0; half < 4; half += 2) {
                u32 right[2] = { word_of(step.right[r], half), word_of(step.right[r], half + 1) };
                if constexpr (TURNED) {
                    right[0] = transposed(right[0]), right[1] = transposed(right[1]);
                }
                UNROLL
                for (int m = 0; m < M_TILES; m++) {
                    const uint4 &upper = step.left[m][0], &lower = step.left[m][1];
                    const u32 left[4] = { word_of(upper, half), word_of(lower, half), word_of(upper, half + 1),
                                          word_of(lower, half + 1) };
                    multiply_16(sums[m * RANK_TILES + r], left, right, T());
                }
            }
        }
    }

    // The warp's share of the sum, into its place of `parts`.
    template <bool TURNED>
    static FUNCTION void
    sum_up(const T *x, u64 x_row, const T *d, int rows, u32 k, float4 *parts, int warp, int lane) {
        float4 sums[TILES];
        set_zero(sums);
        for (u32 first = warp * 32; first < k; first += AT_ONCE * WARPS * 32) {
            Step steps[AT_ONCE];
            UNROLL
            for (int i = 0; i < AT_ONCE; i++) {
                load<TURNED>(steps[i], first + i * WARPS * 32, x, x_row, d, rows, k, lane);
            }
            all_under_way();
            UNROLL
            for (int i = 0; i < AT_ONCE; i++) {
                multiply<TURNED>(steps[i], sums);
            }
        }
        UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            parts[(warp * TILES + tile) * 32 + lane] = sums[tile];
        }
    }

    static FUNCTION void
    run(const T *x, const Layer<T> &first, const Layer<T> &second, T *h, T *dh, const LoraBackwardParams &p) {
        extern __shared__ __align__(128) char shared[];
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const u32 row = blockIdx.x * ROWS, part = p.kept != 0 ? blockIdx.y * 2 : blockIdx.y;
        const int rows = min(p.rows - row, u32(ROWS));
        const bool of_dy = part % 2 == 0, of_first = part < 2;
        const Layer<T> layer = of_first ? first : second;
        const u64 y_row = p.y_row[of_first ? 0 : 1];
        float4 *parts = (float4 *)shared;
        wait_for_earlier_launches();
        if (of_dy) {
            const u32 outs = p.outs[of_first ? 0 : 1];
            sum_up<true>(layer.dy + row * y_row, y_row, layer.b, rows, outs, parts, warp, lane);
        } else {
            sum_up<false>(x + row * p.x_row, p.x_row, layer.a, rows, p.ins, parts, warp, lane);
        }
        __syncthreads();
        T *to = (of_dy ? dh : h) + (of_first ? 0 : p.hidden);
        const float factor = of_dy ? p.factor[of_first ? 0 : 1] : 1.0f;
        for (int tile = warp; tile < TILES; tile += WARPS) {
            const float4 sum = add_up<WARPS>(parts, lane, tile, TILES);
            const u32 line = tile / RANK_TILES * 16, r = tile % RANK_TILES * 8;
            keep_hidden(to, sum, factor, row + line, r, p.rows, RANK, lane);
        }
    }
};
