// Up to three LoRA layers of one x in one launch, as q, k and v are; some of them turned by their rows' positions, where a
// tile is a head (rotary position embedding). A layer may have no rank: its part of the instructions that make h is idle.
// A layer and the rotation behind it round once, not twice. h is applied as tf32, as in product.cu; what is trained keeps it,
// rounded, for its backward.

struct Projection {
    u64 y_row;
    u32 n;
    u32 rank;
    u32 first;  // tile of columns, of all layers'; beyond them all where there is no such layer
    u32 turned; // whether its heads are
    u32 copied; // bytes of a slice
    float factor;
    u32 kept;   // rows of h, in whole tiles, that the backward wants; or none
    u32 unused;
    u64 hidden; // where they are
};
struct ProjectionsParams {
    Projection of[3];
    u32 m;
    u32 steps;
    u32 row_tiles;
    u32 col_tiles;
};

// One for each layer.
template <typename T> struct OfLayers {
    T first, second, third;
    FUNCTION T of(int layer) const {
        return layer == 0 ? first : layer == 1 ? second : third;
    }
};

template <typename T, int COLS, int RANK, int STAGES> struct Projections {
    using Tiles = PingPong<T, COLS, RANK, STAGES>;
    static constexpr int E_BYTES = COLS * pitch(RANK), STAGING_AT = Tiles::RING;
    static constexpr int E_AT = STAGING_AT + 8 * Tiles::STAGING, BARRIERS_AT = E_AT + 2 * E_BYTES;
    static constexpr int SHARED = BARRIERS_AT + Tiles::BARRIERS;
    static_assert(SHARED <= 227 * 1024, "shared memory of a block");

    struct At {
        int layer;
        u32 m, n;
    };
    static FUNCTION At at(u32 tile, const ProjectionsParams &p) {
        const u32 col = tile % p.col_tiles;
        const int layer = (col >= p.of[1].first) + (col >= p.of[2].first);
        return { layer, tile / p.col_tiles * 128, (col - p.of[layer].first) * COLS };
    }

    // B's rows of the tile, stored [column, rank], zero beyond the rank.
    static FUNCTION void copy_factor(const T *b, u32 n, const Projection &p, char *shared, u32 to) {
        const u32 cols = min(p.n - n, u32(COLS)), thread = threadIdx.x % 128;
        b += n * u64(p.rank);
        if (p.rank % 8 == 0) {
            Slice<COLS, RANK, 128> slice;
            slice.start(b, p.rank, thread);
            slice.copy(shared_address(shared + to), cols, p.rank);
            return;
        }
        T *factors = (T *)(shared + to);
        for (u32 i = thread; i < COLS * RANK; i += 128) {
            const u32 o = i / RANK, r = i % RANK;
            factors[o * (pitch(RANK) / 2) + r] = o < cols && r < p.rank ? b[o * u64(p.rank) + r] : T();
        }
    }

    // Adds h B to the columns.
    static FUNCTION void apply(float4 (&sums)[Tiles::TILES], const char *factors, int lane, const Projection &p) {
        const char *e = factors + lane / 4 * pitch(RANK) + lane % 4 * 4;
        UNROLL
        for (int r = 0; r < RANK / 8; r++) {
            u32 h[4];
            left_factor(sums[Tiles::COL_TILES + r], p.factor, lane, r, p.rank, h);
            UNROLL
            for (int tile = 0; tile < Tiles::COL_TILES; tile++) {
                u32 right[2];
                right_factor<T>(*(const u32 *)(e + tile * 8 * pitch(RANK) + r * 16), right);
                multiply_8(sums[tile], h, right);
            }
        }
    }

    static FUNCTION void
    run(const TensorMap &x, const OfLayers<const TensorMap *> &w, const OfLayers<const TensorMap *> &a,
        const OfLayers<const T *> &b, const OfLayers<T *> &y, const Rotation &rotation, T *hidden,
        const ProjectionsParams &p) {
        extern __shared__ __align__(1024) char shared[];
        const Tiles tiles(BARRIERS_AT, p.row_tiles * p.col_tiles, p.steps);
        tiles.expect(x);
        UNROLL
        for (int layer = 0; layer < 3; layer++) {
            tiles.expect(*w.of(layer)), tiles.expect(*a.of(layer));
        }
        const auto copy = [&](u32 tile, u32, u32 step, u32 slice, u32 barrier) {
            const At to = at(tile, p);
            barrier_expect(barrier, p.of[to.layer].copied);
            copy_tile(slice, x, step * 64, to.m, barrier);
            copy_tile(slice + Tiles::A_BYTES, *w.of(to.layer), step * 64, to.n, barrier);
            if (p.of[to.layer].rank > 0) {
                copy_tile(slice + Tiles::A_BYTES + Tiles::B_BYTES, *a.of(to.layer), step * 64, 0, barrier);
            }
        };
        const auto begin = [&](u32 tile) {
            const At to = at(tile, p);
            if (p.of[to.layer].rank > 0) {
                // Every warp has done with those of the tile before.
                threads_wait<128>(1 + tiles.group());
                copy_factor(b.of(to.layer), to.n, p.of[to.layer], shared, E_AT + tiles.group() * E_BYTES);
            }
        };
        const auto finish = [&](u32 tile, u32, typename Tiles::Sums &sums) {
            const At to = at(tile, p);
            const Projection &of = p.of[to.layer];
            if (of.rank > 0) {
                copies_wait_all();
                threads_wait<128>(1 + tiles.group());
            }
            UNROLL
            for (int half = 0; half < 2; half++) {
                const u32 row = to.m + half * 64 + tiles.warp % 4 * 16;
                if (to.n == 0 && row < of.kept) {
                    UNROLL
                    for (int r = 0; r < RANK / 8; r++) {
                        if (r * 8 < of.rank) {
                            const float4 h = sums[half][Tiles::COL_TILES + r];
                            keep_hidden(hidden + of.hidden, h, 1.0f, row, r * 8, p.m, of.rank, tiles.lane);
                        }
                    }
                }
                if (of.rank > 0) {
                    apply(sums[half], shared + E_AT + tiles.group() * E_BYTES, tiles.lane, of);
                }
                typename Tiles::Columns &columns = *(typename Tiles::Columns *)sums[half];
                if (of.turned) {
                    rotation.turn(columns, to.m + half * 64 + tiles.row(), p.m);
                }
                char *staging = shared + STAGING_AT + tiles.warp * Tiles::STAGING;
                tiles.write(columns, staging, row, to.n, p.m, of.n, y.of(to.layer), of.y_row);
            }
        };
        tiles.run(copy, begin, finish);
    }
};

// The host says which instance, as for product.cu.
#define PROJECTIONS(NAME, SHARED_BYTES, ...)                                                                       \
    using Instance = Projections<ELEMENT, __VA_ARGS__>;                                                            \
    static_assert(Instance::SHARED == SHARED_BYTES, "as the host counts it");                                      \
    extern "C" __global__ void __launch_bounds__(Instance::Tiles::THREADS, 1)                                      \
        NAME(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w0,                            \
             const __grid_constant__ TensorMap w1, const __grid_constant__ TensorMap w2,                           \
             const __grid_constant__ TensorMap a0, const __grid_constant__ TensorMap a1,                           \
             const __grid_constant__ TensorMap a2, const ELEMENT *b0, const ELEMENT *b1, const ELEMENT *b2,        \
             ELEMENT *y0, ELEMENT *y1, ELEMENT *y2, const u32 *positions, const float *frequencies,                \
             ELEMENT *hidden, const __grid_constant__ ProjectionsParams p) {                                       \
        Instance::run(x, { &w0, &w1, &w2 }, { &a0, &a1, &a2 }, { b0, b1, b2 }, { y0, y1, y2 },                     \
                      { positions, frequencies, 1.0f }, hidden, p);                                             \
    }
#ifdef TILE
PROJECTIONS(NAME, SHARED_BYTES, TILE)
#endif
