// The product of warp_specialised.h.
//
// Measured on one H100, bf16, us per operation in a replayed graph, tensors in the cache, the fastest of these tiles beside
// cuBLASLt's own choice in the same lease; B stored [n, k], and [k, n]. A product that is waited for takes some 5 us less than
// the library's besides, which needs 4 us more of the host.
//
//                    [n, k]  cuBLASLt  [k, n]  cuBLASLt                       [n, k]  cuBLASLt  [k, n]  cuBLASLt
//   64x64x64           1.44    2.09      1.43    2.26      32x512x512           1.70    2.85      1.93    2.73
//   256x256x256        1.68    2.65      1.82    2.71      64x1024x1024         2.34    3.49      2.30    3.54
//   512x512x512        2.42    3.31      2.47    3.35      128x2048x2048        4.79    5.74      4.76    5.45
//   768x768x768        3.77    4.85      3.75    4.06      1x4096x4096          6.28   10.9       7.02    8.98
//   1024x1024x1024     5.01    5.61      5.04    5.59      512x4096x4096       25.0    24.7      24.8    24.8
//   1536x1536x1536    13.7    14.0      13.7    11.4       1024x1536x576        5.39    4.98      5.41    5.45
//   2048x2048x2048    23.7    23.2      23.4    23.5       4096x576x576         7.42    6.36      7.48    6.56
//   4096x4096x4096     200     192       199     194       4096x192x576         3.67    4.29      3.65    4.59
//
// Tried and left out: two blocks along the sum for tiles of 128 columns, pairs with one copy of B for 128 x 64 and 128 x 256.
//
// The host says which instance, as for product.cu.
#define PRODUCT(NAME, SHARED_BYTES, ...)                                                                         \
    static_assert(WarpSpecialised<ELEMENT, __VA_ARGS__>::SHARED == SHARED_BYTES, "as the host counts it");       \
    extern "C" __global__ void __launch_bounds__(WarpSpecialised<ELEMENT, __VA_ARGS__>::THREADS)                 \
        NAME(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, ELEMENT *c,               \
             const __grid_constant__ WarpSpecialisedParams p) {                                                  \
        WarpSpecialised<ELEMENT, __VA_ARGS__>().run(a, b, a, nullptr, c, nullptr, p);                            \
    }
#ifdef TILE
PRODUCT(NAME, SHARED_BYTES, TILE)
#endif
