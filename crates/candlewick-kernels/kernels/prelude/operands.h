// What the products share: batches, and operands that may be f32 whatever the dtype.

// Where product `index` of a batch of these sizes starts.
FUNCTION u64 batch_offset(u32 index, u32 middle, u32 inner, u64 by_outer, u64 by_middle, u64 by_inner) {
    return index / inner / middle * by_outer + index / inner % middle * by_middle + index % inner * by_inner;
}

// An operand that may be f32 whatever the dtype.
template <typename T>
FUNCTION f32 element(const GLOBAL T *from, u64 at, bool is_f32) {
    return is_f32 ? ((const GLOBAL f32 *)from)[at] : f32_of(from[at]);
}
template <typename T>
FUNCTION void set_element(GLOBAL T *to, u64 at, bool is_f32, f32 value) {
    if (is_f32) {
        ((GLOBAL f32 *)to)[at] = value;
    } else {
        to[at] = rounded<T>(value);
    }
}

// A row that exists.
FUNCTION u32 within(u32 row, u32 rows) {
    return row < rows ? row : rows - 1;
}
