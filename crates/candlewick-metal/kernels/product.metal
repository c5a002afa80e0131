// Products on simdgroup matrices:
// C = alpha A B + H E + bias + beta C, with A [m, k], B [k, n], H [m, terms] in f32, E [terms, n], batched.
// H E is LoRA's rank extension: with H = s x A^T and E = B^T the delta is part of the same sum, in the same registers.
// With it, alpha is 1. Alone (k = 0) it makes LoRA's gradients.
//
// product_32, product_64  a group of four simdgroups makes a tile of C of that many rows and columns. A and B go through
//                         threadgroup memory as f32, whatever they are stored as, 16 terms of the sum at a time. Where C has
//                         few tiles and the sum is long, it is split between groups, and their sums go to `partial`.
// product_sum             adds up what the splits have left, in order.
struct ProductParams {
    Matrix a;
    Matrix b;
    Matrix c;
    ulong h_row;
    ulong h_col;
    ulong e_row;
    ulong e_col;
    uint batch[3];
    uint m;
    uint n;
    uint k;
    uint terms;    // of H E
    uint has_bias;
    uint splits;   // of the sum
    uint split;    // steps of each
    float alpha;
    float beta;
};

constant constexpr uint DEPTH = 16;  // terms of the sum per step
constant constexpr uint THREADS = 128;

// The batch's indices of a group.
struct Indices {
    ulong at[3];
};
inline Indices indices_of(uint index, constant uint *batch) {
    Indices indices;
    indices.at[2] = index % batch[2];
    indices.at[1] = index / batch[2] % batch[1];
    indices.at[0] = index / batch[2] / batch[1];
    return indices;
}
inline ulong offset_of(constant Matrix &matrix, Indices indices) {
    return indices.at[0] * matrix.batch[0] + indices.at[1] * matrix.batch[1] + indices.at[2] * matrix.batch[2];
}

// Loads `ROWS` x `COLS` elements from (first_row, first_col) on into rows of `PITCH`, zeros beyond the ends. Consecutive
// threads read consecutive elements, whichever way the matrix lies.
template <typename T, uint ROWS, uint COLS, uint PITCH>
inline void load_tile(
    threadgroup float *tile, const device T *from, ulong row, ulong col, uint first_row, uint rows, uint first_col,
    uint cols, uint thread_index) {
    from += first_row * row + first_col * col;
    // Most tiles lie inside; all threads of the group agree on it.
    if (first_row + ROWS <= rows && first_col + COLS <= cols) {
#pragma clang loop unroll(full)
        for (uint i = 0; i < ROWS * COLS; i += THREADS) {
            const uint r = col == 1 ? (i + thread_index) / COLS : (i + thread_index) % ROWS;
            const uint c = col == 1 ? (i + thread_index) % COLS : (i + thread_index) / ROWS;
            tile[r * PITCH + c] = wide(from[r * row + c * col]);
        }
        return;
    }
    for (uint i = thread_index; i < ROWS * COLS; i += THREADS) {
        const uint r = col == 1 ? i / COLS : i % ROWS;
        const uint c = col == 1 ? i % COLS : i / ROWS;
        const bool inside = first_row + r < rows && first_col + c < cols;
        tile[r * PITCH + c] = inside ? wide(from[r * row + c * col]) : 0.0f;
    }
}

// Adds the product of a tile of A [TILE, DEPTH] and one of B [DEPTH, TILE] to a simdgroup's quarter of C.
template <uint TILE>
inline void multiply_tiles(
    const threadgroup float *a, const threadgroup float *b, thread simdgroup_float8x8 (&c)[TILE / 16][TILE / 16]) {
    constexpr uint SIDE = TILE / 16;
    constexpr uint A_PITCH = DEPTH + 4, B_PITCH = TILE + 4;
#pragma clang loop unroll(full)
    for (uint p = 0; p < DEPTH; p += 8) {
        simdgroup_float8x8 left[SIDE], right[SIDE];
#pragma clang loop unroll(full)
        for (uint i = 0; i < SIDE; i++) {
            simdgroup_load(left[i], a + i * 8 * A_PITCH + p, A_PITCH);
            simdgroup_load(right[i], b + p * B_PITCH + i * 8, B_PITCH);
        }
#pragma clang loop unroll(full)
        for (uint i = 0; i < SIDE; i++) {
#pragma clang loop unroll(full)
            for (uint j = 0; j < SIDE; j++) {
                simdgroup_multiply_accumulate(c[i][j], left[i], right[j], c[i][j]);
            }
        }
    }
}

template <typename T, uint TILE>
inline void product(
    const device T *a, const device T *b, const device T *bias, const device float *h, const device T *e, device T *c,
    device float *partial, constant ProductParams &p, threadgroup float *memory, uint3 group, uint thread_index,
    uint simdgroup_index) {
    constexpr uint SIDE = TILE / 16, A_PITCH = DEPTH + 4, B_PITCH = TILE + 4;
    threadgroup float *a_tile = memory, *b_tile = memory + TILE * A_PITCH;
    const uint index = group.z / p.splits, split = group.z % p.splits;
    const Indices indices = indices_of(index, p.batch);
    a += offset_of(p.a, indices);
    b += offset_of(p.b, indices);
    c += offset_of(p.c, indices);
    const uint first_row = group.y * TILE, first_col = group.x * TILE;
    // Two by two simdgroups share the tile.
    const uint my_row = simdgroup_index / 2 * (TILE / 2), my_col = simdgroup_index % 2 * (TILE / 2);
    simdgroup_float8x8 sums[SIDE][SIDE];
#pragma clang loop unroll(full)
    for (uint i = 0; i < SIDE; i++) {
#pragma clang loop unroll(full)
        for (uint j = 0; j < SIDE; j++) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
    }

    // With alpha = 0, A and B are not read.
    const uint k = p.alpha == 0.0f ? 0 : p.k;
    const uint k_steps = (k + DEPTH - 1) / DEPTH, first_step = split * p.split, end_step = first_step + p.split;
    for (uint step = first_step; step < min(end_step, k_steps); step++) {
        const uint at = step * DEPTH;
        load_tile<T, TILE, DEPTH, A_PITCH>(a_tile, a, p.a.row, p.a.col, first_row, p.m, at, k, thread_index);
        load_tile<T, DEPTH, TILE, B_PITCH>(b_tile, b, p.b.row, p.b.col, at, k, first_col, p.n, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        multiply_tiles<TILE>(a_tile + my_row * A_PITCH, b_tile + my_col, sums);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    const uint all_steps = k_steps + (p.terms + DEPTH - 1) / DEPTH;
    for (uint step = max(first_step, k_steps); step < min(end_step, all_steps); step++) {
        const uint at = (step - k_steps) * DEPTH;
        load_tile<float, TILE, DEPTH, A_PITCH>(a_tile, h, p.h_row, p.h_col, first_row, p.m, at, p.terms, thread_index);
        load_tile<T, DEPTH, TILE, B_PITCH>(b_tile, e, p.e_row, p.e_col, at, p.terms, first_col, p.n, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        multiply_tiles<TILE>(a_tile + my_row * A_PITCH, b_tile + my_col, sums);
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    // Through threadgroup memory once more, where the tiles of A and B were, so that edges are cut element by element.
#pragma clang loop unroll(full)
    for (uint i = 0; i < SIDE; i++) {
#pragma clang loop unroll(full)
        for (uint j = 0; j < SIDE; j++) {
            simdgroup_store(sums[i][j], memory + (my_row + i * 8) * B_PITCH + my_col + j * 8, B_PITCH);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = thread_index; i < TILE * TILE; i += THREADS) {
        const uint row = p.c.col == 1 ? i / TILE : i % TILE;
        const uint col = p.c.col == 1 ? i % TILE : i / TILE;
        if (first_row + row < p.m && first_col + col < p.n) {
            device T *to = c + (first_row + row) * p.c.row + (first_col + col) * p.c.col;
            float value = memory[row * B_PITCH + col];
            // Infinite products times zero are none.
            value = p.alpha == 0.0f ? 0.0f : p.alpha * value;
            if (p.splits > 1) {
                partial[(ulong(group.z) * p.m + first_row + row) * p.n + first_col + col] = value;
                continue;
            }
            if (p.has_bias != 0) {
                value += wide(bias[first_col + col]);
            }
            // With beta = 0, C is not read.
            if (p.beta != 0.0f) {
                value += p.beta * wide(*to);
            }
            narrow(value, to);
        }
    }
}

#define PRODUCT(name, T, TILE)                                                                                          \
    [[kernel, max_total_threads_per_threadgroup(THREADS)]] void name(                                                   \
        const device T *a [[buffer(0)]], const device T *b [[buffer(1)]], const device T *bias [[buffer(2)]],           \
        const device float *h [[buffer(3)]], const device T *e [[buffer(4)]], device T *c [[buffer(5)]],                \
        device float *partial [[buffer(6)]], constant ProductParams &p [[buffer(7)]],                                   \
        uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]],                \
        uint simdgroup_index [[simdgroup_index_in_threadgroup]]) {                                                      \
        threadgroup float memory[TILE * (TILE + 4) > TILE * 20 + 16 * (TILE + 4) ? TILE * (TILE + 4)                    \
                                                                                : TILE * 20 + 16 * (TILE + 4)];         \
        product<T, TILE>(a, b, bias, h, e, c, partial, p, memory, group, thread_index, simdgroup_index);                \
    }

PRODUCT(product_32_f32, float, 32)
PRODUCT(product_32_f16, half, 32)
PRODUCT(product_32_bf16, bf16, 32)
PRODUCT(product_64_f32, float, 64)
PRODUCT(product_64_f16, half, 64)
PRODUCT(product_64_bf16, bf16, 64)

// A thread makes one element of C; a row of the grid is one of C.
template <typename T>
inline void product_sum(
    const device float *partial, const device T *bias, device T *c, constant ProductParams &p, uint3 at) {
    if (at.x >= p.n) {
        return;
    }
    const ulong size = ulong(p.m) * p.n;
    partial += at.z * p.splits * size + ulong(at.y) * p.n + at.x;
    float value = 0.0f;
    for (uint split = 0; split < p.splits; split++) {
        value += partial[split * size];
    }
    if (p.has_bias != 0) {
        value += wide(bias[at.x]);
    }
    device T *to = c + offset_of(p.c, indices_of(at.z, p.batch)) + at.y * p.c.row + at.x * p.c.col;
    if (p.beta != 0.0f) {
        value += p.beta * wide(*to);
    }
    narrow(value, to);
}

#define PRODUCT_SUM(name, T)                                                                                            \
    [[kernel, max_total_threads_per_threadgroup(THREADS)]] void name(                                                   \
        const device float *partial [[buffer(0)]], const device T *bias [[buffer(1)]], device T *c [[buffer(2)]],       \
        constant ProductParams &p [[buffer(3)]], uint3 group [[threadgroup_position_in_grid]],                          \
        uint thread_index [[thread_index_in_threadgroup]]) {                                                            \
        product_sum<T>(partial, bias, c, p, uint3(group.x * THREADS + thread_index, group.y, group.z));                 \
    }

PRODUCT_SUM(product_sum_f32, float)
PRODUCT_SUM(product_sum_f16, half)
PRODUCT_SUM(product_sum_bf16, bf16)
