// y = a + b. y may be a or b.
struct AddParams {
    u64 a_row; // elements between rows
    u64 b_row;
    u64 y_row;
    u32 rows;
    u32 cols;
    u32 lanes; // threads that share a block of a row
    u32 unused;
};

template <typename T, bool WIDE>
FUNCTION void add(const GLOBAL T *a, const GLOBAL T *b, GLOBAL T *y, PARAMS_OF(AddParams, p), Here here) {
    const Share at = share_of(p.rows, p.cols, p.lanes, here);
    f32 x[8], other[8];
    load_share<T, WIDE>(a + at.row * p.a_row + at.first, at.lane, p.lanes, at.left, 0.0f, x);
    load_share<T, WIDE>(b + at.row * p.b_row + at.first, at.lane, p.lanes, at.left, 0.0f, other);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        x[i] += other[i];
    }
    store_share<T, WIDE>(x, y + at.row * p.y_row + at.first, at.lane, p.lanes, at.left);
}

#define ADD(suffix, T, WIDE)                                                                                          \
    KERNEL(add_##suffix, 256, IN_PLACE(T, a, 0), IN_PLACE(T, b, 1), OUT(T, y, 2), PARAMS(AddParams, p, 3)) {          \
        add<T, WIDE>(a, b, y, p, HERE);                                                                               \
    }

FOR_EACH_DTYPE_AND_ACCESS(ADD)
