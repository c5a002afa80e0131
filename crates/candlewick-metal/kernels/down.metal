// h = factor x A^T in f32, [rows, rank], for x [rows, k] and A [rank, k]: the narrow product of LoRA. Backward, dh is the
// same with dy for x and B^T for A. A group makes 8 rows of up to 64 columns; its eight simdgroups share the sum, and add
// up through threadgroup memory.
struct DownParams {
    ulong x_row;
    ulong a_row;
    ulong a_col;
    uint rows;
    uint rank;
    uint k;
    float factor;
};

constant constexpr uint TEAMS = 8;
constant constexpr uint COLUMNS = 64;

template <typename T>
inline void down(
    const device T *x, const device T *a, device float *h, constant DownParams &p, threadgroup float *memory,
    uint3 group, uint lane, uint team) {
    const uint first_row = group.y * 8, first_col = group.x * COLUMNS;
    const uint columns = min(COLUMNS, p.rank - first_col);
    // Each simdgroup has its own tiles: 8 x 8 of x, 64 rows x 8 of A.
    threadgroup float *x_tile = memory + team * (8 + COLUMNS) * 8, *a_tile = x_tile + 64;
    simdgroup_float8x8 sums[COLUMNS / 8];
#pragma clang loop unroll(full)
    for (uint j = 0; j < COLUMNS / 8; j++) {
        sums[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    for (uint step = team * 8; step < p.k; step += TEAMS * 8) {
        for (uint i = lane; i < 64; i += 32) {
            const uint row = first_row + i / 8, col = step + i % 8;
            x_tile[i] = row < p.rows && col < p.k ? wide(x[row * p.x_row + col]) : 0.0f;
        }
        for (uint i = lane; i < COLUMNS * 8; i += 32) {
            const uint row = i / 8, col = step + i % 8;
            a_tile[i] = row < columns && col < p.k ? wide(a[(first_col + row) * p.a_row + col * p.a_col]) : 0.0f;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_float8x8 left;
        simdgroup_load(left, x_tile, 8);
#pragma clang loop unroll(full)
        for (uint j = 0; j < COLUMNS / 8; j++) {
            simdgroup_float8x8 right;
            simdgroup_load(right, a_tile + j * 64, 8, ulong2(0, 0), true);
            simdgroup_multiply_accumulate(sums[j], left, right, sums[j]);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup float *parts = memory;
#pragma clang loop unroll(full)
    for (uint j = 0; j < COLUMNS / 8; j++) {
        simdgroup_store(sums[j], parts + team * 8 * COLUMNS + j * 8, COLUMNS);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = team * 32 + lane; i < 8 * COLUMNS; i += TEAMS * 32) {
        const uint row = first_row + i / COLUMNS, col = i % COLUMNS;
        if (row < p.rows && col < columns) {
            float sum = 0.0f;
            for (uint part = 0; part < TEAMS; part++) {
                sum += parts[part * 8 * COLUMNS + i];
            }
            h[ulong(row) * p.rank + first_col + col] = p.factor * sum;
        }
    }
}

#define DOWN(name, T)                                                                                                   \
    [[kernel, max_total_threads_per_threadgroup(256)]] void name(                                                       \
        const device T *x [[buffer(0)]], const device T *a [[buffer(1)]], device float *h [[buffer(2)]],                \
        constant DownParams &p [[buffer(3)]], uint3 group [[threadgroup_position_in_grid]],                             \
        uint lane [[thread_index_in_simdgroup]], uint team [[simdgroup_index_in_threadgroup]]) {                        \
        threadgroup float memory[TEAMS * (8 + COLUMNS) * 8];                                                            \
        down<T>(x, a, h, p, memory, group, lane, team);                                                                 \
    }

DOWN(down_f32, float)
DOWN(down_f16, half)
DOWN(down_bf16, bf16)
