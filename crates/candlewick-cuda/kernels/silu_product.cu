// y = silu(x Wg^T) (x Wu^T), with gate and up themselves where somebody reads them: up's columns come out of the same
// instructions as gate's.

template <typename T, int STAGES> struct SiluProduct {
    using Tiles = PingPong<T, 64, 64, STAGES>;
    static constexpr int STAGING_AT = Tiles::RING, BARRIERS_AT = STAGING_AT + 8 * Tiles::STAGING;
    static constexpr int SHARED = BARRIERS_AT + Tiles::BARRIERS;

    static FUNCTION void run(
        const TensorMap &x, const TensorMap &of_gate, const TensorMap &of_up, T *gate, T *up, T *y,
        const SiluProductParams &p) {
        extern __shared__ __align__(1024) char shared[];
        const Tiles tiles(BARRIERS_AT, p.row_tiles * p.col_tiles, p.steps);
        tiles.expect(x), tiles.expect(of_gate), tiles.expect(of_up);
        const auto copy = [&](u32 tile, u32, u32 step, u32 slice, u32 barrier) {
            barrier_expect(barrier, p.copied);
            const u32 m = tile / p.col_tiles * 128, n = tile % p.col_tiles * 64;
            copy_tile(slice, x, step * 64, m, barrier);
            copy_tile(slice + Tiles::A_BYTES, of_gate, step * 64, n, barrier);
            copy_tile(slice + Tiles::A_BYTES + Tiles::B_BYTES, of_up, step * 64, n, barrier);
        };
        const auto finish = [&](u32 tile, u32, typename Tiles::Sums &sums) {
            const u32 m = tile / p.col_tiles * 128, n = tile % p.col_tiles * 64;
            char *staging = shared + STAGING_AT + tiles.warp * Tiles::STAGING;
            UNROLL
            for (int half = 0; half < 2; half++) {
                typedef typename Tiles::Columns Columns;
                Columns &gates = *(Columns *)sums[half], &ups = *(Columns *)(sums[half] + Tiles::COL_TILES);
                const u32 row = m + half * 64 + tiles.warp % 4 * 16;
                if (p.writes_both) {
                    tiles.write(gates, staging, row, n, p.m, p.n, gate, p.row);
                    tiles.write(ups, staging, row, n, p.m, p.n, up, p.row);
                }
                UNROLL
                for (int i = 0; i < Tiles::COL_TILES; i++) {
                    float4 &g = gates[i], &u = ups[i];
                    g.x = g.x * sigmoid(g.x) * u.x, g.y = g.y * sigmoid(g.y) * u.y;
                    g.z = g.z * sigmoid(g.z) * u.z, g.w = g.w * sigmoid(g.w) * u.w;
                }
                tiles.write(gates, staging, row, n, p.m, p.n, y, p.y_row);
            }
        };
        tiles.run(copy, [](u32) {}, finish);
    }
};

// The host says which instance, as for product.cu.
#define SILU_PRODUCT(NAME, SHARED_BYTES, ...)                                                                  \
    using Instance = SiluProduct<ELEMENT, __VA_ARGS__>;                                                        \
    static_assert(Instance::SHARED == SHARED_BYTES, "as the host counts it");                                  \
    extern "C" __global__ void __launch_bounds__(Instance::Tiles::THREADS, 1)                                  \
        NAME(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap of_gate,                   \
             const __grid_constant__ TensorMap of_up, ELEMENT *gate, ELEMENT *up, ELEMENT *y,                  \
             const __grid_constant__ SiluProductParams p) {                                                    \
        Instance::run(x, of_gate, of_up, gate, up, y, p);                                                      \
    }
#ifdef TILE
SILU_PRODUCT(NAME, SHARED_BYTES, TILE)
#endif
