// C = A1 B1 + A2 B2 + A3 B3, whose sums differ in length: the gradient of an x that several layers read, rounded once. Every
// B is stored [k, n].

struct ProductSumParams {
    u64 c_row;
    u32 m;
    u32 n;
    u32 steps[3]; // along each sum, 64 elements each
    u32 copied;   // bytes of a slice
    u32 row_tiles;
    u32 col_tiles;
};

template <typename T, int STAGES> struct ProductSum {
    using Tiles = PingPong<T, 64, 0, STAGES, true>;
    static constexpr int STAGING_AT = Tiles::RING, BARRIERS_AT = STAGING_AT + 8 * Tiles::STAGING;
    static constexpr int SHARED = BARRIERS_AT + Tiles::BARRIERS;

    static FUNCTION void run(
        const TensorMap &a0, const TensorMap &a1, const TensorMap &a2, const TensorMap &b0, const TensorMap &b1,
        const TensorMap &b2, T *c, const ProductSumParams &p) {
        extern __shared__ __align__(1024) char shared[];
        const u32 second = p.steps[0], third = second + p.steps[1];
        const Tiles tiles(BARRIERS_AT, p.row_tiles * p.col_tiles, third + p.steps[2]);
        tiles.expect(a0), tiles.expect(a1), tiles.expect(a2);
        tiles.expect(b0), tiles.expect(b1), tiles.expect(b2);
        const auto copy = [&](u32 tile, u32, u32 step, u32 slice, u32 barrier) {
            const u32 m = tile / p.col_tiles * 128, n = tile % p.col_tiles * 64;
            const u32 along = (step - (step >= third ? third : step >= second ? second : 0)) * 64;
            barrier_expect(barrier, p.copied);
            copy_tile(slice, step >= third ? a2 : step >= second ? a1 : a0, along, m, barrier);
            copy_tile(slice + Tiles::A_BYTES, step >= third ? b2 : step >= second ? b1 : b0, n, along, barrier);
        };
        const auto finish = [&](u32 tile, u32, typename Tiles::Sums &sums) {
            const u32 m = tile / p.col_tiles * 128, n = tile % p.col_tiles * 64;
            UNROLL
            for (int half = 0; half < 2; half++) {
                char *staging = shared + STAGING_AT + tiles.warp * Tiles::STAGING;
                tiles.write(sums[half], staging, m + half * 64 + tiles.warp % 4 * 16, n, p.m, p.n, c, p.c_row);
            }
        };
        tiles.run(copy, [](u32) {}, finish);
    }
};

// The host says which instance, as for product.cu.
#define PRODUCT_SUM(NAME, SHARED_BYTES, ...)                                                                   \
    using Instance = ProductSum<ELEMENT, __VA_ARGS__>;                                                         \
    static_assert(Instance::SHARED == SHARED_BYTES, "as the host counts it");                                  \
    extern "C" __global__ void __launch_bounds__(Instance::Tiles::THREADS, 1)                                  \
        NAME(const __grid_constant__ TensorMap a0, const __grid_constant__ TensorMap a1,                       \
             const __grid_constant__ TensorMap a2, const __grid_constant__ TensorMap b0,                       \
             const __grid_constant__ TensorMap b1, const __grid_constant__ TensorMap b2, ELEMENT *c,           \
             const __grid_constant__ ProductSumParams p) {                                                     \
        Instance::run(a0, a1, a2, b0, b1, b2, c, p);                                                           \
    }
#ifdef TILE
PRODUCT_SUM(NAME, SHARED_BYTES, TILE)
#endif
