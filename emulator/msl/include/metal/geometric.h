// Geometric functions (6.9).
#pragma once
#include "common.h"

namespace metal {

template <class T, int N>
EMULATOR_INLINE T dot(const vec<T, N> &a, const vec<T, N> &b) {
    return emulator::fold([](T x, T y) { return T(x + y); }, a * b);
}
template <class T, int N>
EMULATOR_INLINE T length_squared(const vec<T, N> &v) {
    return dot(v, v);
}
template <class T, int N>
EMULATOR_INLINE T length(const vec<T, N> &v) {
    return sqrt(dot(v, v));
}
template <class T, int N>
EMULATOR_INLINE T distance_squared(const vec<T, N> &a, const vec<T, N> &b) {
    return length_squared(a - b);
}
template <class T, int N>
EMULATOR_INLINE T distance(const vec<T, N> &a, const vec<T, N> &b) {
    return length(a - b);
}
template <class T, int N>
EMULATOR_INLINE vec<T, N> normalize(const vec<T, N> &v) {
    return v * rsqrt(dot(v, v));
}
template <class T>
EMULATOR_INLINE vec<T, 3> cross(const vec<T, 3> &a, const vec<T, 3> &b) {
    return a.get_yzx() * b.get_zxy() - a.get_zxy() * b.get_yzx();
}
template <class T, int N>
EMULATOR_INLINE vec<T, N> reflect(const vec<T, N> &incident, const vec<T, N> &normal) {
    return incident - normal * (T(2) * dot(normal, incident));
}
template <class T, int N>
EMULATOR_INLINE vec<T, N> refract(const vec<T, N> &incident, const vec<T, N> &normal, T ratio) {
    T d = dot(normal, incident), k = T(1) - ratio * ratio * (T(1) - d * d);
    return k < T(0) ? vec<T, N>(T(0)) : incident * ratio - normal * (ratio * d + sqrt(k));
}
template <class T, int N>
EMULATOR_INLINE vec<T, N> faceforward(const vec<T, N> &normal, const vec<T, N> &incident, const vec<T, N> &reference) {
    return dot(reference, incident) < T(0) ? normal : -normal;
}

}  // namespace metal
