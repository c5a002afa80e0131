// Common, math and geometric functions (Metal Shading Language Specification, 6.2, 6.5 and 6.9).
//
// Every function is a set of overloads, as Apple's headers have it, so that a call that mixes types is ambiguous here
// as it is there.
#pragma once

#define MSL_WIDTHS(DECLARE, T) DECLARE(T) DECLARE(T##2) DECLARE(T##3) DECLARE(T##4)
#define MSL_FLOATING(DECLARE) MSL_WIDTHS(DECLARE, half) MSL_WIDTHS(DECLARE, bfloat) MSL_WIDTHS(DECLARE, float)

namespace metal {
#define MSL_UNARY(T)                                                                                             \
  T acos(T); T acosh(T); T asin(T); T asinh(T); T atan(T); T atanh(T); T ceil(T); T cos(T); T cosh(T);           \
  T cospi(T); T exp(T); T exp10(T); T exp2(T); T fabs(T); T floor(T); T fract(T); T log(T); T log10(T);          \
  T log2(T); T rint(T); T round(T); T rsqrt(T); T sin(T); T sinh(T); T sinpi(T); T sqrt(T); T tan(T); T tanh(T); \
  T tanpi(T); T trunc(T); T saturate(T); T sign(T); T abs(T); T degrees(T); T radians(T);
#define MSL_BINARY(T)                                                                                            \
  T atan2(T, T); T copysign(T, T); T divide(T, T); T fdim(T, T); T fmax(T, T); T fmin(T, T); T fmod(T, T);       \
  T max(T, T); T min(T, T); T nextafter(T, T); T pow(T, T); T powr(T, T); T step(T, T); T remainder(T, T);
#define MSL_TERNARY(T)                                                                                           \
  T clamp(T, T, T); T fma(T, T, T); T fmax3(T, T, T); T fmedian3(T, T, T); T fmin3(T, T, T); T max3(T, T, T);    \
  T median3(T, T, T); T min3(T, T, T); T mix(T, T, T); T smoothstep(T, T, T); T mad(T, T, T);
#define MSL_WITH_POINTER(T)                                                                                      \
  T modf(T, thread T &); T sincos(T, thread T &); T frexp(T, thread int &);
#define MSL_ALL_MATH(T) MSL_UNARY(T) MSL_BINARY(T) MSL_TERNARY(T)

MSL_FLOATING(MSL_ALL_MATH)
MSL_FLOATING(MSL_WITH_POINTER)
half ldexp(half, int); bfloat ldexp(bfloat, int); float ldexp(float, int);
int ilogb(float); int ilogb(half); int ilogb(bfloat);
half nan(ushort); float nan(uint);

// The same under a fixed precision.
namespace fast { MSL_FLOATING(MSL_ALL_MATH) MSL_FLOATING(MSL_WITH_POINTER) }
namespace precise { MSL_FLOATING(MSL_ALL_MATH) MSL_FLOATING(MSL_WITH_POINTER) }

// A scalar takes the place of a vector where the specification has a scalar argument.
#define MSL_SCALAR_EDGE(T, S) T mix(T, T, S); T clamp(T, S, S); T step(S, T); T smoothstep(S, S, T); T max(T, S); T min(T, S);
#define MSL_SCALAR_EDGES(S) MSL_SCALAR_EDGE(S##2, S) MSL_SCALAR_EDGE(S##3, S) MSL_SCALAR_EDGE(S##4, S)
MSL_SCALAR_EDGES(half) MSL_SCALAR_EDGES(bfloat) MSL_SCALAR_EDGES(float)

#define MSL_GEOMETRIC(T, S)                                                                                      \
  S dot(T, T); S length(T); S length_squared(T); S distance(T, T); S distance_squared(T, T); T normalize(T);     \
  T faceforward(T, T, T); T reflect(T, T); T refract(T, T, S);                                                   \
  namespace fast { S length(T); S distance(T, T); T normalize(T); }                                              \
  namespace precise { S length(T); S distance(T, T); T normalize(T); }
#define MSL_GEOMETRICS(S) MSL_GEOMETRIC(S##2, S) MSL_GEOMETRIC(S##3, S) MSL_GEOMETRIC(S##4, S) S##3 cross(S##3, S##3);
MSL_GEOMETRICS(half) MSL_GEOMETRICS(bfloat) MSL_GEOMETRICS(float)
half norm(half3); float norm(float3);

#undef MSL_UNARY
#undef MSL_BINARY
#undef MSL_TERNARY
#undef MSL_WITH_POINTER
#undef MSL_ALL_MATH
#undef MSL_SCALAR_EDGE
#undef MSL_SCALAR_EDGES
#undef MSL_GEOMETRIC
#undef MSL_GEOMETRICS
}  // namespace metal
