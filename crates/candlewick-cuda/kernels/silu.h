// What silu_product.cu and its backward share.

struct SiluProductParams {
    u64 row;   // elements between rows of gate and up, and of their gradients
    u64 y_row;
    u32 m;
    u32 n;     // columns of gate
    u32 steps;
    u32 row_tiles;
    u32 col_tiles;
    u32 copied;      // bytes of a slice
    u32 both_copied; // of the tiles of gate and up
    u32 writes_both; // gate and up are read by others
};

// As the shared kernels have it.
FUNCTION float sigmoid(float x) {
    float inverse;
    asm("rcp.approx.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + __expf(-x)));
    return inverse;
}
