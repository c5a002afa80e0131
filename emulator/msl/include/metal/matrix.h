// Matrices (2.3, 6.8): C columns of R rows.
#pragma once
#include "geometric.h"

namespace metal {

template <class T, int C, int R>
struct matrix {
    vec<T, R> columns[C];

    matrix() = default;
    EMULATOR_INLINE constexpr explicit matrix(T diagonal) : columns{} {
        for (int c = 0; c < C; c++) {
            columns[c] = vec<T, R>(T(0));
            if (c < R) columns[c][c] = diagonal;
        }
    }
    template <class U>
    EMULATOR_INLINE constexpr explicit matrix(const matrix<U, C, R> &other) : columns{} {
        for (int c = 0; c < C; c++) columns[c] = vec<T, R>(other[c]);
    }
    template <class... V, std::enable_if_t<sizeof...(V) == C && (std::is_same_v<V, vec<T, R>> && ...), int> = 0>
    EMULATOR_INLINE constexpr matrix(V... v) : columns{v...} {}
    template <class... S, std::enable_if_t<sizeof...(S) == C * R && (emulator::is_number<S> && ...), int> = 0>
    EMULATOR_INLINE constexpr matrix(S... s) : columns{} {
        T all[] = {T(s)...};
        for (int i = 0; i < C * R; i++) columns[i / R][i % R] = all[i];
    }

    EMULATOR_INLINE constexpr vec<T, R> &operator[](int c) { return columns[c]; }
    EMULATOR_INLINE constexpr const vec<T, R> &operator[](int c) const { return columns[c]; }
};

#define EMULATOR_BY_COLUMN(op)                                                                            \
    template <class T, int C, int R>                                                                      \
    EMULATOR_INLINE matrix<T, C, R> operator op(const matrix<T, C, R> &a, const matrix<T, C, R> &b) {     \
        matrix<T, C, R> result;                                                                           \
        for (int c = 0; c < C; c++) result[c] = a[c] op b[c];                                             \
        return result;                                                                                    \
    }                                                                                                     \
    template <class T, int C, int R>                                                                      \
    EMULATOR_INLINE matrix<T, C, R> &operator op##=(matrix<T, C, R> &a, const matrix<T, C, R> &b) {       \
        return a = a op b;                                                                                \
    }
EMULATOR_BY_COLUMN(+)
EMULATOR_BY_COLUMN(-)

template <class T, int C, int R, class S, emulator::if_number<S> = 0>
EMULATOR_INLINE matrix<T, C, R> operator*(const matrix<T, C, R> &m, S s) {
    matrix<T, C, R> result;
    for (int c = 0; c < C; c++) result[c] = m[c] * s;
    return result;
}
template <class T, int C, int R, class S, emulator::if_number<S> = 0>
EMULATOR_INLINE matrix<T, C, R> operator*(S s, const matrix<T, C, R> &m) {
    return m * s;
}
template <class T, int C, int R>
EMULATOR_INLINE vec<T, R> operator*(const matrix<T, C, R> &m, const vec<T, C> &v) {
    vec<T, R> result = m[0] * v[0];
    for (int c = 1; c < C; c++) result += m[c] * v[c];
    return result;
}
template <class T, int C, int R>
EMULATOR_INLINE vec<T, C> operator*(const vec<T, R> &v, const matrix<T, C, R> &m) {
    vec<T, C> result;
    for (int c = 0; c < C; c++) result[c] = dot(v, m[c]);
    return result;
}
template <class T, int C, int R, int K>
EMULATOR_INLINE matrix<T, C, R> operator*(const matrix<T, K, R> &a, const matrix<T, C, K> &b) {
    matrix<T, C, R> result;
    for (int c = 0; c < C; c++) result[c] = a * b[c];
    return result;
}
template <class T, int C, int R>
EMULATOR_INLINE matrix<T, R, C> transpose(const matrix<T, C, R> &m) {
    matrix<T, R, C> result;
    for (int c = 0; c < C; c++) {
        for (int r = 0; r < R; r++) result[r][c] = m[c][r];
    }
    return result;
}
template <class T>
EMULATOR_INLINE T determinant(const matrix<T, 2, 2> &m) {
    return m[0][0] * m[1][1] - m[0][1] * m[1][0];
}
template <class T>
EMULATOR_INLINE T determinant(const matrix<T, 3, 3> &m) {
    return dot(m[0], cross(m[1], m[2]));
}
template <class T>
EMULATOR_INLINE T determinant(const matrix<T, 4, 4> &m) {
    T result = 0;
    for (int c = 0; c < 4; c++) {
        matrix<T, 3, 3> minor;
        for (int i = 0, k = 0; i < 4; i++) {
            if (i != c) minor[k++] = vec<T, 3>(m[i][1], m[i][2], m[i][3]);
        }
        T term = m[c][0] * determinant(minor);
        result += c % 2 ? -term : term;
    }
    return result;
}

}  // namespace metal

#define EMULATOR_MATRIX_NAME(T, C, R)                 \
    using T##C##x##R = metal::matrix<T, C, R>;        \
    namespace metal {                                 \
    using ::T##C##x##R;                               \
    }
#define EMULATOR_MATRIX_NAMES(T)  \
    EMULATOR_MATRIX_NAME(T, 2, 2) \
    EMULATOR_MATRIX_NAME(T, 2, 3) \
    EMULATOR_MATRIX_NAME(T, 2, 4) \
    EMULATOR_MATRIX_NAME(T, 3, 2) \
    EMULATOR_MATRIX_NAME(T, 3, 3) \
    EMULATOR_MATRIX_NAME(T, 3, 4) \
    EMULATOR_MATRIX_NAME(T, 4, 2) \
    EMULATOR_MATRIX_NAME(T, 4, 3) \
    EMULATOR_MATRIX_NAME(T, 4, 4)
EMULATOR_MATRIX_NAMES(half)
EMULATOR_MATRIX_NAMES(bfloat)
EMULATOR_MATRIX_NAMES(float)
