// Attention's gradients for the warpgroup's instruction of sm_90a, for bf16: with p = exp(scale q k^T - lse) and
// D = dy y, ds = scale p (dy v^T - D), dq = ds k, dk = ds^T q, dv = p^T dy. One launch makes all three: what its blocks
// have in common, D and the keys that a query sees, each works out for itself. Sums are in a fixed order. A block is one
// warpgroup: those of a multiprocessor hide each other's waits. Where q and k were turned by their positions (rotary
// position embedding), dq and dk are turned back before they are rounded.
//
// A weight of zero times a NaN that nobody sees would be one: where sums are odd, a block starts again, carefully.
// In f16 ds would lose its small numbers: f16 has the shared kernels.
//
// On an H100, us of a launch among others in a graph, causal, 9 heads of 64 on 3, after what attention_backward.cu took:
//
//   8 x 512 tokens     38.0 of 83.8        1 x 2048 tokens          61.8 of 118
//   4 x 256 tokens     11.4 of 18.7        16 x 512 tokens          76.8 of 156
//   2 x 1024 tokens    35.1 of 74.1        8 x 512, heads of 128    102 of 163
//
// What limits is the number of instructions: 40% of the cycles issue one, with 12 warps, which is what registers have room
// for. A third of a warp's time goes by before its first product and after its last.

// The blocks of dk and dv come first: they have more to do. There may be some blocks more, to make up whole clusters.
template <typename T, int HEAD, int BLOCKS_AT_ONCE> struct Backward {
    static constexpr int BLOCKS = BLOCKS_AT_ONCE;
    using ByRows = Dq<T, HEAD>;
    using ByKeys = Dkv<T, HEAD>;
    static constexpr int SHARED = ByRows::SHARED > ByKeys::SHARED ? ByRows::SHARED : ByKeys::SHARED;

    static FUNCTION void
    run(const T *q, const T *k, const T *v, const u32 *spans, const T *y, const float *lse, const T *dy, T *dq, T *dk,
        T *dv, const Rotation &rotation, const AttentionParams &p) {
        extern __shared__ __align__(1024) char shared[];
        const u32 by_rows = (p.queries + 63) / 64 * p.heads;
        const u32 by_keys = (p.keys + 63) / 64 * (p.heads / p.group) * blocks_of_cluster();
        if (blockIdx.x < by_keys) {
            ByKeys(q, spans, y, lse, dy, shared, p).run(k, v, dk, dv, rotation);
        } else if (blockIdx.x < by_keys + by_rows) {
            const u32 block = blockIdx.x - by_keys;
            // Those that see most come first.
            const u32 head = block % p.heads, tiles = by_rows / p.heads;
            const u32 first_row = tile_at(tiles - 1 - block / p.heads, tiles, p.sequences) * 64;
            wait_for_earlier_launches();
            ByRows(k, v, shared_address(shared), head, first_row, p).run(q, spans, y, lse, dy, dq, shared, rotation);
        }
    }
};

// The host says which instance, by macros: its NAME, its ELEMENT (bf16), its TILE (the most elements of a head, blocks
// that a multiprocessor is to have at once) and its SHARED_BYTES.
#define ATTENTION_BACKWARD(NAME, SHARED_BYTES, ...)                                                              \
    using Instance = Backward<ELEMENT, __VA_ARGS__>;                                                             \
    static_assert(Instance::SHARED == SHARED_BYTES, "as the host counts it");                                    \
    extern "C" __global__ void __launch_bounds__(128, Instance::BLOCKS)                                          \
        NAME(const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, const u32 *spans, const ELEMENT *y,           \
             const float *lse, const ELEMENT *dy, ELEMENT *dq, ELEMENT *dk, ELEMENT *dv, const u32 *positions,   \
             const float *frequencies, const __grid_constant__ AttentionParams p) {                              \
        Instance::run(q, k, v, spans, y, lse, dy, dq, dk, dv, { positions, frequencies, -1.0f }, p);             \
    }
#ifdef TILE
ATTENTION_BACKWARD(NAME, SHARED_BYTES, TILE)
#endif
