// Textures and samplers (Metal Shading Language Specification, 2.9, 2.10 and 6.12): enough for compute kernels.
#pragma once

namespace metal {
enum class access { sample, read, write, read_write };
enum class coord { normalized, pixel };
enum class address { repeat, mirrored_repeat, clamp_to_edge, clamp_to_zero, clamp_to_border };
enum class filter { nearest, linear };
enum class mip_filter { none, nearest, linear };

struct sampler {
  template <class... A> constexpr sampler(A...) {}
};

// One coordinate type and one coordinate count per kind of texture.
#define MSL_TEXTURE(NAME, COORDINATE, POSITION, RESULT)                                                   \
  template <class T, access A = access::sample> struct NAME {                                             \
    template <class... Options> RESULT sample(sampler, POSITION, Options...) const;                       \
    template <class... Options> RESULT read(COORDINATE, Options...) const;                                \
    template <class... Options> void write(RESULT, COORDINATE, Options...) const;                         \
    uint get_width(uint = 0) const;                                                                       \
    uint get_height(uint = 0) const;                                                                      \
    uint get_depth(uint = 0) const;                                                                       \
    uint get_array_size() const;                                                                          \
    uint get_num_mip_levels() const;                                                                      \
    void fence() const;                                                                                   \
  };
#define MSL_FOUR vec<T, 4>
MSL_TEXTURE(texture1d, uint, float, MSL_FOUR) MSL_TEXTURE(texture1d_array, uint, float, MSL_FOUR)
MSL_TEXTURE(texture2d, uint2, float2, MSL_FOUR) MSL_TEXTURE(texture2d_array, uint2, float2, MSL_FOUR)
MSL_TEXTURE(texture3d, uint3, float3, MSL_FOUR) MSL_TEXTURE(texturecube, uint2, float3, MSL_FOUR)
MSL_TEXTURE(texture_buffer, uint, float, MSL_FOUR)
MSL_TEXTURE(depth2d, uint2, float2, T) MSL_TEXTURE(depthcube, uint2, float3, T)
#undef MSL_FOUR
#undef MSL_TEXTURE
}  // namespace metal

// From here on, in the user's text, what is constant is also const: Apple's compiler passes a `const constant T *` as a
// `constant T *` (candle-metal-kernels' quantized.metal does so).
#undef constant
#define constant __constant const
