// y = gate / (1 + exp(-gate)) up. Backward, with s = 1 / (1 + exp(-gate)): dup = dy gate s,
// dgate = dy up s (1 + gate (1 - s)). Outputs may lie on inputs.
struct SiluMulParams {
    u64 gate_row; // elements between rows of gate and dgate
    u64 up_row;   // of up and dup
    u64 y_row;    // of y and dy
    u32 rows;
    u32 cols;
    u32 lanes;    // threads that share a block of a row
    u32 unused;
};

template <typename T, bool WIDE>
FUNCTION void silu_mul(const GLOBAL T *gate, const GLOBAL T *up, GLOBAL T *y, PARAMS_OF(SiluMulParams, p), Here here) {
    const Share at = share_of(p.rows, p.cols, p.lanes, here);
    f32 x[8], factor[8];
    load_share<T, WIDE>(gate + at.row * p.gate_row + at.first, at.lane, p.lanes, at.left, 0.0f, x);
    load_share<T, WIDE>(up + at.row * p.up_row + at.first, at.lane, p.lanes, at.left, 0.0f, factor);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        x[i] = x[i] * inverse_of(1.0f + exp_of(-x[i])) * factor[i];
    }
    store_share<T, WIDE>(x, y + at.row * p.y_row + at.first, at.lane, p.lanes, at.left);
}

template <typename T, bool WIDE>
FUNCTION void silu_mul_backward(
    const GLOBAL T *gate, const GLOBAL T *up, const GLOBAL T *dy, GLOBAL T *dgate, GLOBAL T *dup,
    PARAMS_OF(SiluMulParams, p), Here here) {
    const Share at = share_of(p.rows, p.cols, p.lanes, here);
    const u64 gate_at = at.row * p.gate_row + at.first, up_at = at.row * p.up_row + at.first;
    f32 g[8], u[8], d[8];
    load_share<T, WIDE>(gate + gate_at, at.lane, p.lanes, at.left, 0.0f, g);
    load_share<T, WIDE>(up + up_at, at.lane, p.lanes, at.left, 0.0f, u);
    load_share<T, WIDE>(dy + at.row * p.y_row + at.first, at.lane, p.lanes, at.left, 0.0f, d);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const f32 s = inverse_of(1.0f + exp_of(-g[i]));
        u[i] = d[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
        d[i] = d[i] * g[i] * s;
    }
    store_share<T, WIDE>(u, dgate + gate_at, at.lane, p.lanes, at.left);
    store_share<T, WIDE>(d, dup + up_at, at.lane, p.lanes, at.left);
}

#define SILU_MUL(suffix, T, WIDE)                                                                                  \
    KERNEL(                                                                                                        \
        silu_mul_##suffix, 256, IN_PLACE(T, gate, 0), IN_PLACE(T, up, 1), OUT(T, y, 2),                            \
        PARAMS(SiluMulParams, p, 3)) {                                                                             \
        silu_mul<T, WIDE>(gate, up, y, p, HERE);                                                                   \
    }                                                                                                              \
    KERNEL(                                                                                                        \
        silu_mul_backward_##suffix, 256, IN_PLACE(T, gate, 0), IN_PLACE(T, up, 1), IN_PLACE(T, dy, 2),             \
        OUT(T, dgate, 3), OUT(T, dup, 4), PARAMS(SiluMulParams, p, 5)) {                                           \
        silu_mul_backward<T, WIDE>(gate, up, dy, dgate, dup, p, HERE);                                             \
    }

FOR_EACH_DTYPE_AND_ACCESS(SILU_MUL)
