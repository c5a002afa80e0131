// The LoRA layer of warp_specialised.h.
//
// Measured on one H100, bf16, us per operation in a replayed graph, tensors in the cache, beside cuBLASLt's fastest
// product without LoRA's part; each pair in one lease. Rank 16:
//
//                       this   product alone                        this   product alone
//   1x4096x4096          8.6        9.4      1024x576x192            3.0        3.1
//   16x4096x4096         9.2        7.5      1024x576x576            3.6        3.5
//   32x512x512           2.2        2.7      1024x576x1536           5.4        4.9
//   64x1024x1024         2.7        3.4      1024x1536x576           6.6        5.4
//   64x4096x4096        11.0        9.3      4096x576x192            4.5        4.0
//   128x2048x2048        5.4        5.5      4096x576x576            7.4        6.2
//   128x4096x4096       13.4       10.3      4096x576x1536          17.0       12.7
//   256x1024x1024        3.6        4.2      4096x576x3072          33.6       25.4
//   256x4096x4096       21.1       17.4      4096x1536x576          13.0       11.4
//   512x1024x1024        4.9        4.3      2048x1024x1024          8.9        8.0
//   512x2048x2048       10.4       10.1      2048x2048x2048         26.8       23.7
//   512x4096x4096       25.8       24.2      1024x4096x4096         50.2       45.2
//
// Of the last two lines tiles ALONE took 12.7 and 28.2, 30.7 and 61. With 128 x 128 they wait for the level-two cache, which
// stacked ones ask for W half as often, and their tensor cores have an eighth more to do for h.

// The host says which instance, as for product.cu.
#define LORA_LINEAR(NAME, SHARED_BYTES, ...)                                                                     \
    static_assert(WarpSpecialised<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");       \
    extern "C" __global__ void __launch_bounds__(WarpSpecialised<ELEMENT, __VA_ARGS__>::THREADS)                 \
        NAME(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,                           \
             const __grid_constant__ TensorMap d, const ELEMENT *e, ELEMENT *c, Ahead *hidden,                   \
             const __grid_constant__ WarpSpecialisedParams p) {                                                  \
        WarpSpecialised<ELEMENT, __VA_ARGS__>().run(a, b, d, e, c, hidden, p);                                   \
    }
#ifdef TILE
LORA_LINEAR(NAME, SHARED_BYTES, TILE)
#endif
