// Vectors (2.2): components, swizzles, constructors, operators.
#pragma once
#include "scalar.h"

namespace metal {

template <class T, int N>
struct vec;

}  // namespace metal

namespace emulator {

template <int... I>
struct Components {};

// A swizzle that is written.
template <class T, int N, int... I>
struct SwizzleReference {
    using Value = metal::vec<T, sizeof...(I)>;
    metal::vec<T, N> &of;

    EMULATOR_INLINE constexpr operator Value() const { return Value(of[I]...); }
    EMULATOR_INLINE constexpr SwizzleReference &operator=(Value value) {
        int next = 0;
        ((of[I] = value[next++]), ...);
        return *this;
    }
    EMULATOR_INLINE constexpr SwizzleReference &operator=(const SwizzleReference &other) { return *this = Value(other); }
#define EMULATOR_COMPOUND(op)                                                    \
    template <class B>                                                           \
    EMULATOR_INLINE constexpr SwizzleReference &operator op##=(const B &value) { \
        return *this = Value(*this) op value;                                    \
    }
    EMULATOR_COMPOUND(+)
    EMULATOR_COMPOUND(-)
    EMULATOR_COMPOUND(*)
    EMULATOR_COMPOUND(/)
    EMULATOR_COMPOUND(%)
    EMULATOR_COMPOUND(&)
    EMULATOR_COMPOUND(|)
    EMULATOR_COMPOUND(^)
    EMULATOR_COMPOUND(<<)
    EMULATOR_COMPOUND(>>)
};

}  // namespace emulator

// A swizzle is a property: it takes no room, and its functions are only compiled where it is used. clang 19 does not
// resolve overloaded operators on properties inside templates, so src/rewrite/swizzles.rs calls get_xy() for a read and
// put(Components<0, 1>()) for a write, where it can tell a swizzle from a member of the same name.
// One step adds one component; the last one writes the property under both of its names (xyzw and rgba).
#define EMULATOR_OF_2(step, ...) step(__VA_ARGS__, x, r) step(__VA_ARGS__, y, g)
#define EMULATOR_OF_3(step, ...) EMULATOR_OF_2(step, __VA_ARGS__) step(__VA_ARGS__, z, b)
#define EMULATOR_OF_4(step, ...) EMULATOR_OF_3(step, __VA_ARGS__) step(__VA_ARGS__, w, a)
// The preprocessor does not expand a macro inside itself: a copy for each depth.
#define EMULATOR_DEEPER_2(step, ...) step(__VA_ARGS__, x, r) step(__VA_ARGS__, y, g)
#define EMULATOR_DEEPER_3(step, ...) EMULATOR_DEEPER_2(step, __VA_ARGS__) step(__VA_ARGS__, z, b)
#define EMULATOR_DEEPER_4(step, ...) EMULATOR_DEEPER_3(step, __VA_ARGS__) step(__VA_ARGS__, w, a)
#define EMULATOR_DEEPEST_2(step, ...) step(__VA_ARGS__, x, r) step(__VA_ARGS__, y, g)
#define EMULATOR_DEEPEST_3(step, ...) EMULATOR_DEEPEST_2(step, __VA_ARGS__) step(__VA_ARGS__, z, b)
#define EMULATOR_DEEPEST_4(step, ...) EMULATOR_DEEPEST_3(step, __VA_ARGS__) step(__VA_ARGS__, w, a)
#define EMULATOR_SWIZZLES(n) EMULATOR_OF_##n(EMULATOR_SWIZZLES_FROM, n)
#define EMULATOR_SWIZZLES_FROM(n, i, i2) EMULATOR_DEEPER_##n(EMULATOR_SWIZZLE_2, n, i, i2)
#define EMULATOR_SWIZZLE_2(n, i, i2, j, j2)                                        \
    EMULATOR_INLINE constexpr vec<T, 2> get_##i##j() const { return {i, j}; }       \
    EMULATOR_INLINE constexpr void put_##i##j(vec<T, 2> v) { i = v.x, j = v.y; }    \
    __declspec(property(get = get_##i##j, put = put_##i##j)) vec<T, 2> i##j;        \
    __declspec(property(get = get_##i##j, put = put_##i##j)) vec<T, 2> i2##j2;      \
    EMULATOR_DEEPEST_##n(EMULATOR_SWIZZLE_3, n, i, i2, j, j2)
#define EMULATOR_SWIZZLE_3(n, i, i2, j, j2, k, k2)                                              \
    EMULATOR_INLINE constexpr vec<T, 3> get_##i##j##k() const { return {i, j, k}; }              \
    EMULATOR_INLINE constexpr void put_##i##j##k(vec<T, 3> v) { i = v.x, j = v.y, k = v.z; }     \
    __declspec(property(get = get_##i##j##k, put = put_##i##j##k)) vec<T, 3> i##j##k;            \
    __declspec(property(get = get_##i##j##k, put = put_##i##j##k)) vec<T, 3> i2##j2##k2;         \
    EMULATOR_SWIZZLES_4_##n(i, i2, j, j2, k, k2)
#define EMULATOR_SWIZZLES_4_2(...) EMULATOR_SWIZZLE_4(__VA_ARGS__, x, r) EMULATOR_SWIZZLE_4(__VA_ARGS__, y, g)
#define EMULATOR_SWIZZLES_4_3(...) EMULATOR_SWIZZLES_4_2(__VA_ARGS__) EMULATOR_SWIZZLE_4(__VA_ARGS__, z, b)
#define EMULATOR_SWIZZLES_4_4(...) EMULATOR_SWIZZLES_4_3(__VA_ARGS__) EMULATOR_SWIZZLE_4(__VA_ARGS__, w, a)
#define EMULATOR_SWIZZLE_4(i, i2, j, j2, k, k2, l, l2)                                                       \
    EMULATOR_INLINE constexpr vec<T, 4> get_##i##j##k##l() const { return {i, j, k, l}; }                     \
    EMULATOR_INLINE constexpr void put_##i##j##k##l(vec<T, 4> v) { i = v.x, j = v.y, k = v.z, l = v.w; }      \
    __declspec(property(get = get_##i##j##k##l, put = put_##i##j##k##l)) vec<T, 4> i##j##k##l;                \
    __declspec(property(get = get_##i##j##k##l, put = put_##i##j##k##l)) vec<T, 4> i2##j2##k2##l2;

#define EMULATOR_PUT(n)                                                                          \
    template <int... I>                                                                          \
    EMULATOR_INLINE constexpr emulator::SwizzleReference<T, n, I...> put(emulator::Components<I...>) { \
        return {*this};                                                                          \
    }

// A component under its second name.
#define EMULATOR_ALIAS(name, of)                                       \
    EMULATOR_INLINE constexpr T get_##of() const { return of; }         \
    EMULATOR_INLINE constexpr void put_##of(T value) { of = value; }    \
    __declspec(property(get = get_##of, put = put_##of)) T name;

namespace metal {

template <class T>
struct alignas(2 * sizeof(T)) vec<T, 2> {
    T x, y;
    EMULATOR_ALIAS(r, x)
    EMULATOR_ALIAS(g, y)
    EMULATOR_SWIZZLES(2)
    EMULATOR_PUT(2)

    vec() = default;
    template <class S, emulator::if_number<S> = 0>
    EMULATOR_INLINE constexpr vec(S s) : x(emulator::cast<T>(s)), y(emulator::cast<T>(s)) {}
    template <class U>
    EMULATOR_INLINE constexpr explicit vec(const vec<U, 2> &v) : x(emulator::cast<T>(v.x)), y(emulator::cast<T>(v.y)) {}
    EMULATOR_INLINE constexpr vec(T a, T b) : x(a), y(b) {}
    EMULATOR_INLINE constexpr T &operator[](int i) { return __builtin_is_constant_evaluated() ? (i ? y : x) : (&x)[i]; }
    EMULATOR_INLINE constexpr const T &operator[](int i) const {
        return __builtin_is_constant_evaluated() ? (i ? y : x) : (&x)[i];
    }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 3> {
    T x, y, z;
    EMULATOR_ALIAS(r, x)
    EMULATOR_ALIAS(g, y)
    EMULATOR_ALIAS(b, z)
    EMULATOR_SWIZZLES(3)
    EMULATOR_PUT(3)

    vec() = default;
    template <class S, emulator::if_number<S> = 0>
    EMULATOR_INLINE constexpr vec(S s) : x(emulator::cast<T>(s)), y(x), z(x) {}
    template <class U>
    EMULATOR_INLINE constexpr explicit vec(const vec<U, 3> &v)
        : x(emulator::cast<T>(v.x)), y(emulator::cast<T>(v.y)), z(emulator::cast<T>(v.z)) {}
    EMULATOR_INLINE constexpr vec(T a, T b, T c) : x(a), y(b), z(c) {}
    EMULATOR_INLINE constexpr vec(vec<T, 2> a, T c) : x(a.x), y(a.y), z(c) {}
    EMULATOR_INLINE constexpr vec(T a, vec<T, 2> b) : x(a), y(b.x), z(b.y) {}
    EMULATOR_INLINE constexpr T &operator[](int i) {
        return __builtin_is_constant_evaluated() ? (i == 0 ? x : i == 1 ? y : z) : (&x)[i];
    }
    EMULATOR_INLINE constexpr const T &operator[](int i) const {
        return __builtin_is_constant_evaluated() ? (i == 0 ? x : i == 1 ? y : z) : (&x)[i];
    }
};

template <class T>
struct alignas(4 * sizeof(T)) vec<T, 4> {
    T x, y, z, w;
    EMULATOR_ALIAS(r, x)
    EMULATOR_ALIAS(g, y)
    EMULATOR_ALIAS(b, z)
    EMULATOR_ALIAS(a, w)
    EMULATOR_SWIZZLES(4)
    EMULATOR_PUT(4)
    __declspec(property(get = get_xy, put = put_xy)) vec<T, 2> lo;
    __declspec(property(get = get_zw, put = put_zw)) vec<T, 2> hi;

    vec() = default;
    template <class S, emulator::if_number<S> = 0>
    EMULATOR_INLINE constexpr vec(S s) : x(emulator::cast<T>(s)), y(x), z(x), w(x) {}
    template <class U>
    EMULATOR_INLINE constexpr explicit vec(const vec<U, 4> &v)
        : x(emulator::cast<T>(v.x)), y(emulator::cast<T>(v.y)), z(emulator::cast<T>(v.z)), w(emulator::cast<T>(v.w)) {}
    EMULATOR_INLINE constexpr vec(T p, T q, T r, T s) : x(p), y(q), z(r), w(s) {}
    EMULATOR_INLINE constexpr vec(vec<T, 2> p, vec<T, 2> q) : x(p.x), y(p.y), z(q.x), w(q.y) {}
    EMULATOR_INLINE constexpr vec(vec<T, 3> p, T q) : x(p.x), y(p.y), z(p.z), w(q) {}
    EMULATOR_INLINE constexpr vec(T p, vec<T, 3> q) : x(p), y(q.x), z(q.y), w(q.z) {}
    EMULATOR_INLINE constexpr vec(vec<T, 2> p, T q, T r) : x(p.x), y(p.y), z(q), w(r) {}
    EMULATOR_INLINE constexpr vec(T p, vec<T, 2> q, T r) : x(p), y(q.x), z(q.y), w(r) {}
    EMULATOR_INLINE constexpr vec(T p, T q, vec<T, 2> r) : x(p), y(q), z(r.x), w(r.y) {}
    EMULATOR_INLINE constexpr T &operator[](int i) {
        return __builtin_is_constant_evaluated() ? (i == 0 ? x : i == 1 ? y : i == 2 ? z : w) : (&x)[i];
    }
    EMULATOR_INLINE constexpr const T &operator[](int i) const {
        return __builtin_is_constant_evaluated() ? (i == 0 ? x : i == 1 ? y : i == 2 ? z : w) : (&x)[i];
    }
};

template <class T>
struct vec_elements : integral_constant<int, 1> {};
template <class T, int N>
struct vec_elements<vec<T, N>> : integral_constant<int, N> {};
template <class T>
constexpr int vec_elements_v = vec_elements<T>::value;
template <class T>
struct is_vector : false_type {};
template <class T, int N>
struct is_vector<vec<T, N>> : true_type {};
template <class T>
constexpr bool is_vector_v = is_vector<T>::value;
template <class T>
struct make_scalar {
    using type = T;
};
template <class T, int N>
struct make_scalar<vec<T, N>> {
    using type = T;
};
template <class T>
using make_scalar_t = typename make_scalar<T>::type;

}  // namespace metal

namespace emulator {

// Applies a function to each component: written out, because -O1 unrolls no loops.
template <class R, int N, class F, class... V>
EMULATOR_INLINE constexpr metal::vec<R, N> map(F f, const V &...v) {
    if constexpr (N == 2) return metal::vec<R, 2>(f(v.x...), f(v.y...));
    else if constexpr (N == 3) return metal::vec<R, 3>(f(v.x...), f(v.y...), f(v.z...));
    else return metal::vec<R, 4>(f(v.x...), f(v.y...), f(v.z...), f(v.w...));
}

// Joins the components from the first to the last.
template <class T, int N, class F>
EMULATOR_INLINE constexpr T fold(F f, const metal::vec<T, N> &v) {
    if constexpr (N == 2) return f(v.x, v.y);
    else if constexpr (N == 3) return f(f(v.x, v.y), v.z);
    else return f(f(f(v.x, v.y), v.z), v.w);
}

}  // namespace emulator

namespace metal {

#define EMULATOR_BINARY(op)                                                                                  \
    template <class T, int N>                                                                                \
    EMULATOR_INLINE constexpr vec<T, N> operator op(const vec<T, N> &a, const vec<T, N> &b) {                \
        return emulator::map<T, N>([](T x, T y) { return T(x op y); }, a, b);                                \
    }                                                                                                        \
    template <class T, int N, class S, emulator::if_number<S> = 0>                                           \
    EMULATOR_INLINE constexpr vec<T, N> operator op(const vec<T, N> &a, S b) {                               \
        return a op vec<T, N>(b);                                                                            \
    }                                                                                                        \
    template <class T, int N, class S, emulator::if_number<S> = 0>                                           \
    EMULATOR_INLINE constexpr vec<T, N> operator op(S a, const vec<T, N> &b) {                               \
        return vec<T, N>(a) op b;                                                                            \
    }                                                                                                        \
    template <class T, int N, class B>                                                                       \
    EMULATOR_INLINE constexpr vec<T, N> &operator op##=(vec<T, N> &a, const B &b) {                          \
        return a = a op b;                                                                                   \
    }
EMULATOR_BINARY(+)
EMULATOR_BINARY(-)
EMULATOR_BINARY(*)
EMULATOR_BINARY(/)
EMULATOR_BINARY(%)
EMULATOR_BINARY(&)
EMULATOR_BINARY(|)
EMULATOR_BINARY(^)
EMULATOR_BINARY(<<)
EMULATOR_BINARY(>>)

#define EMULATOR_COMPARE(op)                                                                        \
    template <class T, int N>                                                                       \
    EMULATOR_INLINE constexpr vec<bool, N> operator op(const vec<T, N> &a, const vec<T, N> &b) {    \
        return emulator::map<bool, N>([](T x, T y) { return bool(x op y); }, a, b);                 \
    }                                                                                               \
    template <class T, int N, class S, emulator::if_number<S> = 0>                                  \
    EMULATOR_INLINE constexpr vec<bool, N> operator op(const vec<T, N> &a, S b) {                   \
        return a op vec<T, N>(b);                                                                   \
    }                                                                                               \
    template <class T, int N, class S, emulator::if_number<S> = 0>                                  \
    EMULATOR_INLINE constexpr vec<bool, N> operator op(S a, const vec<T, N> &b) {                   \
        return vec<T, N>(a) op b;                                                                   \
    }
EMULATOR_COMPARE(<)
EMULATOR_COMPARE(>)
EMULATOR_COMPARE(<=)
EMULATOR_COMPARE(>=)
EMULATOR_COMPARE(==)
EMULATOR_COMPARE(!=)
EMULATOR_COMPARE(&&)
EMULATOR_COMPARE(||)

template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> operator-(const vec<T, N> &a) {
    return emulator::map<T, N>([](T x) { return T(-x); }, a);
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> operator+(const vec<T, N> &a) {
    return a;
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> operator~(const vec<T, N> &a) {
    return emulator::map<T, N>([](T x) { return T(~x); }, a);
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<bool, N> operator!(const vec<T, N> &a) {
    return emulator::map<bool, N>([](T x) { return !x; }, a);
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> &operator++(vec<T, N> &a) {
    return a += T(1);
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> &operator--(vec<T, N> &a) {
    return a -= T(1);
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> operator++(vec<T, N> &a, int) {
    vec<T, N> before = a;
    a += T(1);
    return before;
}
template <class T, int N>
EMULATOR_INLINE constexpr vec<T, N> operator--(vec<T, N> &a, int) {
    vec<T, N> before = a;
    a -= T(1);
    return before;
}

}  // namespace metal

// The names of the vector types: in Metal they are part of the language, not of the namespace.
#define EMULATOR_VECTOR_NAMES(T)      \
    using T##2 = metal::vec<T, 2>;    \
    using T##3 = metal::vec<T, 3>;    \
    using T##4 = metal::vec<T, 4>;    \
    namespace metal {                 \
    using ::T##2, ::T##3, ::T##4;     \
    }
EMULATOR_VECTOR_NAMES(bool)
EMULATOR_VECTOR_NAMES(char)
EMULATOR_VECTOR_NAMES(uchar)
EMULATOR_VECTOR_NAMES(short)
EMULATOR_VECTOR_NAMES(ushort)
EMULATOR_VECTOR_NAMES(int)
EMULATOR_VECTOR_NAMES(uint)
EMULATOR_VECTOR_NAMES(long)
EMULATOR_VECTOR_NAMES(ulong)
EMULATOR_VECTOR_NAMES(half)
EMULATOR_VECTOR_NAMES(bfloat)
EMULATOR_VECTOR_NAMES(float)
