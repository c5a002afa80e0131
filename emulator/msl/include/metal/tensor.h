// A stand-in for <metal_tensor> and for the product of MetalPerformancePrimitives (Metal Shading Language 4.0;
// MPPTensorOpsMatMul2d.h), as far as Candlewick uses them: two-dimensional tensors over pointers, one descriptor per product,
// a destination that is spread over the lanes.
#pragma once
#include "array.h"
#include "barrier.h"

namespace metal {

constexpr size_t dynamic_extent = size_t(-1);

// Sizes that are known at run time; the fastest dimension first.
template <class Index, size_t rank>
struct dextents {
    Index sizes[rank];
    template <class... Sizes>
    EMULATOR_INLINE constexpr dextents(Sizes... sizes) : sizes{Index(sizes)...} {
        static_assert(sizeof...(Sizes) == rank, "one size per dimension");
    }
    EMULATOR_INLINE constexpr Index extent(size_t i) const { return sizes[i]; }
};

struct tensor_inline {};

template <class T, class Extents, class Kind>
struct tensor;

// A view of memory: it owns nothing and copies nothing.
template <class T, class Index>
struct tensor<T, dextents<Index, 2>, tensor_inline> {
    T *data;
    dextents<Index, 2> sizes;
    array<Index, 2> strides;

    EMULATOR_INLINE tensor(T *data, dextents<Index, 2> sizes) : tensor(data, sizes, {1, sizes.extent(0)}) {}
    EMULATOR_INLINE tensor(T *data, dextents<Index, 2> sizes, array<Index, 2> strides)
        : data(data), sizes(sizes), strides(strides) {}
    EMULATOR_INLINE Index get_extent(size_t i) const { return sizes.extent(i); }

    // An element, by its place in both dimensions.
    EMULATOR_INLINE T *at(size_t x, size_t y) const { return data + x * strides[0] + y * strides[1]; }
};

template <size_t size>
struct execution_simdgroups {
    static_assert(size > 0, "at least one SIMD group");
};
using execution_simdgroup = execution_simdgroups<1>;

}  // namespace metal

namespace emulator {

// Who takes part in an operation of `simdgroups` SIMD groups: all lanes of one, or of the whole threadgroup.
template <size_t simdgroups>
struct Crew {
    static constexpr uint32_t lanes = simdgroups * 32;
    uint32_t lane;
    bool complete;  // whether as many were dispatched: else the operation is undefined

    EMULATOR_INLINE Crew() {
        LaneValues values;
        fill(values);
        const uint32_t(&size)[3] = values.threads_per_threadgroup;
        lane = simdgroups == 1 ? values.thread_index_in_simdgroup[0] : values.thread_index_in_threadgroup[0];
        complete = simdgroups == 1 || size[0] * size[1] * size[2] == lanes;
    }
    // Everybody has to come here; it orders nothing in memory.
    EMULATOR_INLINE void meet() const {
        if constexpr (simdgroups == 1) metal::simdgroup_barrier(metal::mem_flags::mem_none);
        else metal::threadgroup_barrier(metal::mem_flags::mem_none);
    }
};

// Reads each element of a matrix of `cols` x `rows` once, by some lane: observed like all accesses.
template <class Tensor>
EMULATOR_INLINE void observe(const Tensor &tensor, uint32_t cols, uint32_t rows, uint32_t lane, uint32_t lanes) {
    for (uint32_t i = lane; i < cols * rows; i += lanes) {
        (void)*const_cast<const volatile std::remove_pointer_t<decltype(tensor.data)> *>(tensor.at(i % cols, i / cols));
    }
}

// One element of the product, in ascending order of the terms; what is read was observed before.
template <class Left, class Right>
__attribute__((noinline, no_sanitize("thread"))) float dot(const Left &left, const Right &right, bool left_turned,
                                                           bool right_turned, uint32_t row, uint32_t col, uint32_t terms) {
    float sum = 0;
    for (uint32_t k = 0; k < terms; k++) {
        float a = float(left_turned ? *left.at(row, k) : *left.at(k, row));
        float b = float(right_turned ? *right.at(k, col) : *right.at(col, k));
        sum += a * b;
    }
    return sum;
}

}  // namespace emulator

namespace metal {

// A matrix of `rows` x `cols` that lies in the lanes: lane i has elements i, i + lanes, .. Metal does not say which.
template <class T, int rows, int cols, size_t simdgroups>
struct cooperative_tensor {
    static constexpr uint32_t lanes = emulator::Crew<simdgroups>::lanes;
    T elements[(rows * cols + lanes - 1) / lanes];

    EMULATOR_INLINE ushort get_capacity() const { return (rows * cols + lanes - 1) / lanes; }
    EMULATOR_INLINE T &operator[](ushort i) { return elements[i]; }

    // Writes what lies inside the tensor.
    template <class Tensor>
    EMULATOR_INLINE void store(const Tensor &to) const {
        uint32_t lane = emulator::Crew<simdgroups>().lane;
        for (uint32_t i = 0, at = lane; at < uint32_t(rows * cols); i++, at += lanes) {
            int row = at / cols, col = at % cols;
            if (row < to.get_extent(1) && col < to.get_extent(0)) *to.at(col, row) = elements[i];
        }
    }
};

}  // namespace metal

namespace mpp {
namespace tensor_ops {

struct matmul2d_descriptor {
    enum class mode { multiply, multiply_accumulate };
    int m, n, k;
    bool transpose_left, transpose_right, relaxed_precision;
    mode matmul_mode;

    constexpr matmul2d_descriptor(int m, int n, int k = int(metal::dynamic_extent), bool transpose_left = false,
                                  bool transpose_right = false, bool relaxed_precision = false,
                                  mode matmul_mode = mode::multiply)
        : m(m), n(n), k(k), transpose_left(transpose_left), transpose_right(transpose_right),
          relaxed_precision(relaxed_precision), matmul_mode(matmul_mode) {}
    // In Metal the descriptor itself is the template's argument, which C++17 does not have.
    constexpr operator uint64_t() const {
        return uint64_t(m) << 48 | uint64_t(n) << 32 | uint64_t(k < 0) << 3 | uint64_t(transpose_left) << 2 |
               uint64_t(transpose_right) << 1 | uint64_t(matmul_mode == mode::multiply_accumulate);
    }
};

template <uint64_t descriptor, class Scope>
struct matmul2d;
template <uint64_t descriptor, size_t simdgroups>
struct matmul2d<descriptor, metal::execution_simdgroups<simdgroups>> {
    static constexpr int m = descriptor >> 48, n = descriptor >> 32 & 0xFFFF;
    static constexpr bool left_turned = descriptor & 4, right_turned = descriptor & 2, accumulates = descriptor & 1;
    static_assert(descriptor & 8, "a number of terms in the descriptor is not emulated: give dynamic_extent");

    template <class Left, class Right, class T>
    EMULATOR_INLINE metal::cooperative_tensor<T, m, n, simdgroups> get_destination_cooperative_tensor() const {
        return {};
    }

    template <class Left, class Right, class T>
    EMULATOR_INLINE void run(Left &left, Right &right, metal::cooperative_tensor<T, m, n, simdgroups> &destination) const {
        emulator::Crew<simdgroups> crew;
        crew.meet();
        const uint32_t terms = left.get_extent(left_turned ? 1 : 0), others = right.get_extent(right_turned ? 0 : 1);
        // Beyond the tile nothing is used, beyond the matrix nothing is there.
        const uint32_t rows = min(uint32_t(m), left.get_extent(left_turned ? 0 : 1));
        const uint32_t cols = min(uint32_t(n), right.get_extent(right_turned ? 1 : 0));
        emulator::observe(left, left_turned ? rows : terms, left_turned ? terms : rows, crew.lane, crew.lanes);
        emulator::observe(right, right_turned ? others : cols, right_turned ? cols : others, crew.lane, crew.lanes);
        crew.meet();
        const bool defined = crew.complete && terms == others;
        for (uint32_t i = 0, at = crew.lane; at < uint32_t(m * n); i++, at += crew.lanes) {
            const uint32_t row = at / n, col = at % n;
            const bool inside = row < rows && col < cols;
            float sum = inside ? emulator::dot(left, right, left_turned, right_turned, row, col, terms) : 0.0f;
            if (!defined) sum = __builtin_nanf("");
            destination.elements[i] = T(accumulates ? float(destination.elements[i]) + sum : sum);
        }
    }

private:
    EMULATOR_INLINE static uint32_t min(uint32_t limit, int64_t size) { return size < int64_t(limit) ? size : limit; }
};

}  // namespace tensor_ops
}  // namespace mpp
