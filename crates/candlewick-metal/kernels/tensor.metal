// Products by Metal 4's tensor operations, which the GPUs from M5 on run on matrix units of their own (Metal Shading
// Language 4.0; MPPTensorOpsMatMul2d.h of MetalPerformancePrimitives): C = alpha A B + beta C, batched, f16 and bf16, summed
// in f32. Compile without fast math.
//
// Four simdgroups make a tile of C. `matmul2d` reads A and B from device memory: it is given exactly the rows of A and the
// columns of B that the tile has, and all terms of the sum, so that it sees where the matrices end.
#include <metal_stdlib>
#include <metal_tensor>
#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>
using namespace metal;
using namespace mpp::tensor_ops;

struct TensorParams {
    ulong a_batch[3];
    ulong b_batch[3];
    ulong c_batch[3];
    ulong c_row;
    uint batch[3];
    int a_row;
    int b_row;
    int m;
    int n;
    int k;
    float alpha;
    float beta;
};

constant constexpr int ROWS = 64, COLS = 32;
constant constexpr uint THREADS = 128;

// The fastest dimension comes first: columns, then rows.
typedef dextents<int32_t, 2> Extents;
template <typename T>
using Stored = tensor<device T, Extents, tensor_inline>;
typedef tensor<threadgroup float, Extents, tensor_inline> Tile;

// What begins at a row and a column of a stored matrix, of that many columns and rows.
template <typename T>
inline Stored<T> part(device T *from, int row_step, int row, int col, int cols, int rows) {
    return Stored<T>(from + ulong(row) * row_step + col, Extents(cols, rows), array<int32_t, 2>({1, row_step}));
}

inline ulong offset_of(constant ulong *strides, constant uint *batch, uint index) {
    const ulong inner = index % batch[2], middle = index / batch[2] % batch[1], outer = index / batch[2] / batch[1];
    return outer * strides[0] + middle * strides[1] + inner * strides[2];
}

template <typename T, bool TRANS_A, bool TRANS_B>
inline void tensor_product(
    device T *a, device T *b, device T *c, constant TensorParams &p, threadgroup float *memory, uint3 group,
    uint thread_index) {
    a += offset_of(p.a_batch, p.batch, group.z);
    b += offset_of(p.b_batch, p.batch, group.z);
    c += offset_of(p.c_batch, p.batch, group.z);
    const int first_row = group.y * ROWS, first_col = group.x * COLS;
    const int rows = min(ROWS, p.m - first_row), cols = min(COLS, p.n - first_col);
    Stored<T> left = TRANS_A ? part(a, p.a_row, 0, first_row, rows, p.k) : part(a, p.a_row, first_row, 0, p.k, rows);
    Stored<T> right = TRANS_B ? part(b, p.b_row, first_col, 0, p.k, cols) : part(b, p.b_row, 0, first_col, cols, p.k);

    // In full precision; the number of terms comes with the matrices.
    constexpr auto descriptor = matmul2d_descriptor(
        ROWS, COLS, static_cast<int>(dynamic_extent), TRANS_A, TRANS_B, false, matmul2d_descriptor::mode::multiply);
    matmul2d<descriptor, execution_simdgroups<4>> product;
    auto sums = product.template get_destination_cooperative_tensor<Stored<T>, Stored<T>, float>();
    product.run(left, right, sums);

    // Which thread has which sum is not ours to know: through threadgroup memory each finds its own.
    Tile tile(memory, Extents(COLS, ROWS));
    sums.store(tile);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int i = thread_index; i < ROWS * COLS; i += THREADS) {
        const int row = i / COLS, col = i % COLS;
        if (row < rows && col < cols) {
            device T *to = c + (first_row + row) * p.c_row + (first_col + col);
            float value = p.alpha * memory[i];
            // With beta = 0, C is not read.
            if (p.beta != 0.0f) {
                value += p.beta * float(*to);
            }
            *to = T(value);
        }
    }
}

#define TENSOR(name, T, TRANS_A, TRANS_B)                                                                               \
    [[kernel, max_total_threads_per_threadgroup(THREADS)]] void name(                                                   \
        device T *a [[buffer(0)]], device T *b [[buffer(1)]], device T *c [[buffer(2)]],                                \
        constant TensorParams &p [[buffer(3)]], uint3 group [[threadgroup_position_in_grid]],                           \
        uint thread_index [[thread_index_in_threadgroup]]) {                                                            \
        threadgroup float memory[ROWS * COLS];                                                                          \
        tensor_product<T, TRANS_A, TRANS_B>(a, b, c, p, memory, group, thread_index);                                   \
    }

TENSOR(tensor_nn_f16, half, false, false)
TENSOR(tensor_nt_f16, half, false, true)
TENSOR(tensor_tn_f16, half, true, false)
TENSOR(tensor_tt_f16, half, true, true)
TENSOR(tensor_nn_bf16, bfloat, false, false)
TENSOR(tensor_nt_bf16, bfloat, false, true)
TENSOR(tensor_tn_bf16, bfloat, true, false)
TENSOR(tensor_tt_bf16, bfloat, true, true)
