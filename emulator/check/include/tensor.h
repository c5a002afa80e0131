// Tensors in memory and their product, as far as Candlewick uses them: <metal_tensor> of Metal Shading Language 4.0 and
// MPPTensorOpsMatMul2d.h of MetalPerformancePrimitives.
#pragma once

namespace metal {
constexpr constant size_t dynamic_extent = size_t(-1);

template <class Index, size_t Rank> struct dextents {
  template <class... Sizes> constexpr dextents(Sizes... sizes) { static_assert(sizeof...(Sizes) == Rank, "one size per dimension"); }
  Index extent(size_t) const;
};

struct tensor_inline {};

template <class T, class Extents, class Kind> class tensor;
template <class T, class Index, size_t Rank> class tensor<T, dextents<Index, Rank>, tensor_inline> {
 public:
  tensor(T *data, dextents<Index, Rank> sizes);
  tensor(T *data, dextents<Index, Rank> sizes, array<Index, Rank> strides);
  Index get_extent(size_t) const;
};

template <size_t Size> class execution_simdgroups { static_assert(Size != 0, "at least one SIMD group"); };
typedef execution_simdgroups<1> execution_simdgroup;

template <class T, class Operation> class cooperative_tensor {
 public:
  ushort get_capacity() const;
  thread T &operator[](ushort) const;
  template <class U, class Extents, class Kind> void store(const thread tensor<U, Extents, Kind> &) const;
};
}  // namespace metal

namespace mpp {
namespace tensor_ops {
struct matmul2d_descriptor {
  enum class mode { multiply, multiply_accumulate };
  int m, n, k;
  constexpr matmul2d_descriptor(int m, int n, int k = static_cast<int>(metal::dynamic_extent), bool transpose_left = false,
                                bool transpose_right = false, bool relaxed_precision = false, mode = mode::multiply)
      : m(m), n(n), k(k) {}
  // In Metal the descriptor itself is the template's argument, which clang does not have before C++20.
  constexpr operator ulong() const { return ulong(m) << 32 | ulong(n); }
};

template <ulong descriptor, class Scope> class matmul2d;
template <ulong descriptor, size_t Size> class matmul2d<descriptor, metal::execution_simdgroups<Size>> {
 public:
  template <class Left, class Right, class T> metal::cooperative_tensor<T, matmul2d> get_destination_cooperative_tensor() const;
  template <class Left, class Right, class Destination>
  void run(thread Left &, thread Right &, thread Destination &) const;
};
}  // namespace tensor_ops
}  // namespace mpp
