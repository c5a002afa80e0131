// The gradients of gate and up where the product behind silu(gate) up is y = .. W^T: with d = dy W and
// s = 1 / (1 + exp(-gate)), dup = d gate s and dgate = d up s (1 + gate (1 - s)). d is neither rounded nor written. The
// tiles of gate and up are brought while the product is made, and take the gradients' place on their way out.

template <typename T, int STAGES> struct SiluProductBackward {
    using Tiles = PingPong<T, 64, 0, STAGES, true>;
    // Of gate or up; a group has one of each.
    static constexpr int TILE_BYTES = 128 * 128, TILES_AT = Tiles::RING, BARRIERS_AT = TILES_AT + 4 * TILE_BYTES;
    static constexpr int SHARED = BARRIERS_AT + Tiles::BARRIERS;

    static FUNCTION void run(
        const TensorMap &dy, const TensorMap &w, const TensorMap &gate, const TensorMap &up, T *dgate, T *dup,
        const SiluProductParams &p) {
        extern __shared__ __align__(1024) char shared[];
        const Tiles tiles(BARRIERS_AT, p.row_tiles * p.col_tiles, p.steps);
        tiles.expect(dy), tiles.expect(w), tiles.expect(gate), tiles.expect(up);
        const auto copy = [&](u32 tile, u32 turn, u32 step, u32 slice, u32 barrier) {
            const u32 m = tile / p.col_tiles * 128, n = tile % p.col_tiles * 64;
            barrier_expect(barrier, p.copied);
            copy_tile(slice, dy, step * 64, m, barrier);
            copy_tile(slice + Tiles::A_BYTES, w, n, step * 64, barrier);
            // Once the group has begun to take the tile's slices it has long done with its tile before.
            if (step == min(u32(STAGES), p.steps - 1)) {
                const u32 group = turn % 2, to = tiles.base + TILES_AT + group * 2 * TILE_BYTES, there = tiles.arrived(group);
                barrier_wait(tiles.left(group), turn / 2 % 2 ^ 1);
                barrier_expect(there, p.both_copied);
                copy_tile(to, gate, n, m, there);
                copy_tile(to + TILE_BYTES, up, n, m, there);
            }
        };
        const auto finish = [&](u32 tile, u32 turn, typename Tiles::Sums &sums) {
            const u32 m = tile / p.col_tiles * 128, n = tile % p.col_tiles * 64;
            barrier_wait(tiles.arrived(tiles.group()), turn % 2);
            char *its = shared + TILES_AT + tiles.group() * 2 * TILE_BYTES;
            UNROLL
            for (int half = 0; half < 2; half++) {
                // Swizzled: row i's piece j of 16 bytes is at j ^ i % 8.
                const u32 first = half * 64 + tiles.warp % 4 * 16, swizzle = tiles.lane / 4;
                char *at = its + (half * 64 + tiles.row()) * 128 + tiles.lane % 4 * 4;
                UNROLL
                for (int i = 0; i < Tiles::COL_TILES; i++) {
                    const float4 d = sums[half][i];
                    to_gradients(at + (i ^ swizzle) * 16, d.x, d.y);
                    to_gradients(at + (i ^ swizzle) * 16 + 8 * 128, d.z, d.w);
                }
                __syncwarp();
                UNROLL
                for (int i = 0; i < 4; i++) {
                    const u32 line = first + i * 4 + tiles.lane / 8, piece = tiles.lane % 8;
                    const char *from = its + line * 128 + (piece ^ line % 8) * 16;
                    const u64 to = (m + line) * p.row + n + piece * 8;
                    if (m + line < p.m && n + piece * 8 < p.n) {
                        *(uint4 *)(dgate + to) = *(const uint4 *)from;
                        *(uint4 *)(dup + to) = *(const uint4 *)(from + TILE_BYTES);
                    }
                }
            }
            // What was written here is seen by the copies to come.
            shared_to_warpgroup();
            threads_wait<128>(1 + tiles.group());
            if (threadIdx.x % 128 == 0) {
                barrier_arrive(tiles.left(tiles.group()));
            }
        };
        tiles.run(copy, [](u32) {}, finish);
    }

    // Two elements of gate and, a tile behind them, of up become their gradients.
    static FUNCTION void to_gradients(char *at, float first, float second) {
        const u32 gates = *(const u32 *)at, ups = *(const u32 *)(at + TILE_BYTES);
        float dgates[2], dups[2];
        gradients(f32_of(T { u16(gates) }), f32_of(T { u16(ups) }), first, dgates[0], dups[0]);
        gradients(f32_of(T { u16(gates >> 16) }), f32_of(T { u16(ups >> 16) }), second, dgates[1], dups[1]);
        *(u32 *)at = round_2<T>(dgates[0], dgates[1]);
        *(u32 *)(at + TILE_BYTES) = round_2<T>(dups[0], dups[1]);
    }
    static FUNCTION void gradients(float gate, float up, float d, float &dgate, float &dup) {
        const float s = sigmoid(gate);
        dgate = d * up * s * (1.0f + gate * (1.0f - s));
        dup = d * gate * s;
    }
};

// The host says which instance, as for product.cu.
#define SILU_PRODUCT_BACKWARD(NAME, SHARED_BYTES, ...)                                                         \
    using Instance = SiluProductBackward<ELEMENT, __VA_ARGS__>;                                                \
    static_assert(Instance::SHARED == SHARED_BYTES, "as the host counts it");                                  \
    extern "C" __global__ void __launch_bounds__(Instance::Tiles::THREADS, 1)                                  \
        NAME(const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w,                        \
             const __grid_constant__ TensorMap gate, const __grid_constant__ TensorMap up, ELEMENT *dgate,     \
             ELEMENT *dup, const __grid_constant__ SiluProductParams p) {                                      \
        Instance::run(dy, w, gate, up, dgate, dup, p);                                                         \
    }
#ifdef TILE
SILU_PRODUCT_BACKWARD(NAME, SHARED_BYTES, TILE)
#endif
