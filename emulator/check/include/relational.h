// Relational functions (Metal Shading Language Specification, 6.4).
#pragma once

namespace metal {
bool all(bool); bool any(bool);
template <class T, int N> bool all(vec<T, N>);
template <class T, int N> bool any(vec<T, N>);

#define MSL_CLASSIFY(NAME) bool NAME(half); bool NAME(bfloat); bool NAME(float); \
  template <class T, int N> vec<int, N> NAME(vec<T, N>);
MSL_CLASSIFY(isfinite) MSL_CLASSIFY(isinf) MSL_CLASSIFY(isnan) MSL_CLASSIFY(isnormal) MSL_CLASSIFY(signbit)
#undef MSL_CLASSIFY
bool isordered(float, float); bool isunordered(float, float);

// select(a, b, c) takes b where c holds; c may be a vector, also the one that a comparison gives.
#define MSL_SELECT(T) T select(T, T, bool);
MSL_FLOATING(MSL_SELECT) MSL_INTEGERS(MSL_SELECT)
bool select(bool, bool, bool);
#undef MSL_SELECT
template <class T, class C, int N> vec<T, N> select(vec<T, N>, vec<T, N>, vec<C, N>);
template <class T> T bitselect(T, T, T);
}  // namespace metal
