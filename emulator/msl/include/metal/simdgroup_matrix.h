// SIMD-group matrices (2.4, 6.10.4): 8 by 8, two elements in each lane.
#pragma once
#include "simdgroup.h"

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
    static_assert(Columns == 8 && Rows == 8, "SIMD-group matrices are 8x8");
    vec<T, 2> elements;

    simdgroup_matrix() = default;  // `m[2] = {x}` makes the second one zero
    EMULATOR_INLINE explicit simdgroup_matrix(T diagonal) {
        uint r = row(), c = column();
        elements = vec<T, 2>(r == c ? diagonal : T(0), r == c + 1 ? diagonal : T(0));
    }
    EMULATOR_INLINE vec<T, 2> &thread_elements() { return elements; }
    EMULATOR_INLINE const vec<T, 2> &thread_elements() const { return elements; }

    // The place of this lane's first element; the second is to its right. As Apple's GPUs lay them out (not in the
    // specification; MLX's and Candle's kernels rely on it).
    EMULATOR_INLINE static uint row() {
        uint lane = emulator::lane_in_simdgroup();
        return (lane >> 2 & 4) + (lane >> 1 & 3);
    }
    EMULATOR_INLINE static uint column() {
        uint lane = emulator::lane_in_simdgroup();
        return (lane >> 1 & 4) + (lane << 1 & 2);
    }
};

using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat, 8, 8>;

template <class T, int C = 8, int R = 8>
EMULATOR_INLINE simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, C, R> m;
    m.elements = vec<T, 2>(value);
    return m;
}
template <class T, int C = 8, int R = 8>
EMULATOR_INLINE simdgroup_matrix<T, C, R> make_diagonal_simdgroup_matrix(T value) {
    return simdgroup_matrix<T, C, R>(value);
}

// Each lane loads and stores its own two elements, by plain accesses that are observed like all others.
template <class T, class U>
EMULATOR_INLINE void simdgroup_load(simdgroup_matrix<T, 8, 8> &m, const U *from, ulong elements_per_row = 8,
                                    ulong2 origin = ulong2(0), bool transpose = false) {
    ulong r = m.row(), c = m.column();
    for (int i = 0; i < 2; i++, c++) {
        ulong x = origin.x + (transpose ? r : c), y = origin.y + (transpose ? c : r);
        T value = T(from[y * elements_per_row + x]);
        if (i) m.elements.y = value;
        else m.elements.x = value;
    }
}
template <class T, class U>
EMULATOR_INLINE void simdgroup_store(const simdgroup_matrix<T, 8, 8> &m, U *to, ulong elements_per_row = 8,
                                     ulong2 origin = ulong2(0), bool transpose = false) {
    ulong r = m.row(), c = m.column();
    for (int i = 0; i < 2; i++, c++) {
        ulong x = origin.x + (transpose ? r : c), y = origin.y + (transpose ? c : r);
        to[y * elements_per_row + x] = U(i ? m.elements.y : m.elements.x);
    }
}

}  // namespace metal

namespace emulator {

// Both factors, in float.
struct Factors {
    float a[2], b[2];
};
// d = a * b + c for this lane's two elements; the products are added in the order of the rows.
void multiply_accumulate(const Factors &factors, const float (&c)[2], float (&d)[2], const void *place);

}  // namespace emulator

namespace metal {

template <class D, class A, class B, class C>
EMULATOR_OPERATION void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                                                      const simdgroup_matrix<B, 8, 8> &b,
                                                      const simdgroup_matrix<C, 8, 8> &c) {
    emulator::Factors factors = {{float(a.elements.x), float(a.elements.y)}, {float(b.elements.x), float(b.elements.y)}};
    float sum[2], start[2] = {float(c.elements.x), float(c.elements.y)};
    emulator::multiply_accumulate(factors, start, sum, __builtin_return_address(0));
    d.elements = vec<D, 2>(D(sum[0]), D(sum[1]));
}
template <class D, class A, class B>
EMULATOR_INLINE void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                                        const simdgroup_matrix<B, 8, 8> &b) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D>(D(0)));
}

}  // namespace metal
