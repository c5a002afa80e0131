// The product of two 8x8 matrices that lie in the lanes of a SIMD group.
#include "../include/emulator/lane.h"
#include "state.h"

namespace emulator {

struct Factors {
    float a[2], b[2];
};

// The lane that holds an element: the inverse of simdgroup_matrix::row and ::column.
static constexpr uint32_t lane_of(uint32_t row, uint32_t column) {
    return (row & 4) << 2 | (column & 4) << 1 | (row & 3) << 1 | (column & 2) >> 1;
}

void multiply_accumulate(const Factors &factors, const float (&c)[2], float (&d)[2], const void *place) {
    Exchange all = exchange(&factors, sizeof factors, place);
    uint32_t lane = lane_in_simdgroup();
    uint32_t row = (lane >> 2 & 4) + (lane >> 1 & 3), column = (lane >> 1 & 4) + (lane << 1 & 2);
    d[0] = c[0], d[1] = c[1];
    for (uint32_t k = 0; k < 8; k++) {
        float left = reinterpret_cast<const Factors *>(all.slots[lane_of(row, k)].bytes)->a[k & 1];
        const Factors *right = reinterpret_cast<const Factors *>(all.slots[lane_of(k, column)].bytes);
        d[0] += left * right->b[0];
        d[1] += left * right->b[1];
    }
}

}  // namespace emulator
