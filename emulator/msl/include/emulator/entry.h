// From the host's bindings to a kernel's parameters. src/rewrite/tables.rs writes one table row for each kernel with
// these templates.
#pragma once
#include "../metal/scalar.h"
#include "lane.h"

namespace emulator {

template <class T>
EMULATOR_INLINE T bound(void *at) {
    if constexpr (std::is_reference_v<T>) return *static_cast<std::remove_reference_t<T> *>(at);
    else return static_cast<T>(at);
}

template <class T>
using pointee = std::remove_pointer_t<std::remove_reference_t<T>>;

template <class T>
constexpr Parameter describe(ParameterKind kind, uint32_t index, bool optional, const char *name) {
    if constexpr (std::is_void_v<pointee<T>>) return {kind, index, !std::is_const_v<pointee<T>>, optional, 1, 1, name};
    else return {kind, index, !std::is_const_v<pointee<T>>, optional, alignof(pointee<T>), sizeof(pointee<T>), name};
}

// Whether the argument exists: `constant` is the address of the constant in [[function_constant(..)]], or nothing.
template <auto constant>
EMULATOR_INLINE bool exists() {
    if constexpr (std::is_null_pointer_v<decltype(constant)>) return true;
    else return bool(*constant);
}

// [[buffer(index)]], [[threadgroup(index)]], and the values that each lane gets.
template <uint32_t index, auto constant = nullptr>
struct Buffer {
    template <class T>
    EMULATOR_INLINE static T get(const LaneValues &) {
        return bound<T>(buffer_argument(index, exists<constant>()));
    }
    template <class T>
    static constexpr Parameter describe(const char *name) {
        return emulator::describe<T>(ParameterKind::buffer, index, constant != nullptr, name);
    }
};
template <uint32_t index, auto constant = nullptr>
struct ThreadgroupMemory {
    template <class T>
    EMULATOR_INLINE static T get(const LaneValues &) {
        return bound<T>(threadgroup_argument(index, exists<constant>()));
    }
    template <class T>
    static constexpr Parameter describe(const char *name) {
        return emulator::describe<T>(ParameterKind::threadgroup, index, constant != nullptr, name);
    }
};
template <uint32_t (LaneValues::*member)[3]>
struct Value {
    template <class T>
    EMULATOR_INLINE static T get(const LaneValues &values) {
        using Plain = std::remove_cv_t<std::remove_reference_t<T>>;
        const uint32_t(&v)[3] = values.*member;
        if constexpr (std::is_integral_v<Plain>) return Plain(v[0]);
        else if constexpr (metal::vec_elements_v<Plain> == 2) return Plain(v[0], v[1]);
        else return Plain(v[0], v[1], v[2]);
    }
    template <class T>
    static constexpr Parameter describe(const char *name) {
        return {ParameterKind::value, 0, 0, 0, 1, 1, name};
    }
};

template <size_t n>
struct ParameterList {
    Parameter items[n ? n : 1];
};

template <class Signature, class... Sources>
struct Entry;
template <class... T, class... Sources>
struct Entry<void (*)(T...), Sources...> {
    static_assert(sizeof...(T) == sizeof...(Sources), "a kernel and its explicit instantiation differ in parameters");

    __attribute__((no_sanitize("thread"))) static void enter(const void *function) {
        LaneValues values;
        fill(values);
        reinterpret_cast<void (*)(T...)>(const_cast<void *>(function))(Sources::template get<T>(values)...);
    }
    template <class... Name>
    static constexpr ParameterList<sizeof...(T)> describe(Name... names) {
        return {{Sources::template describe<T>(names)...}};
    }
};

}  // namespace emulator
