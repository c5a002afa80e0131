// Type traits, of which Metal's <metal_type_traits> is a part of C++'s.
#pragma once

namespace metal {
template <class T, T V> struct integral_constant {
  static constexpr constant T value = V;
  using value_type = T;
  using type = integral_constant;
  constexpr operator T() const { return V; }
};
template <bool B> using bool_constant = integral_constant<bool, B>;
using true_type = bool_constant<true>;
using false_type = bool_constant<false>;

template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { using type = T; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <bool B, class T, class F> struct conditional { using type = T; };
template <class T, class F> struct conditional<false, T, F> { using type = F; };
template <bool B, class T, class F> using conditional_t = typename conditional<B, T, F>::type;
template <class T> struct type_identity { using type = T; };

template <class T> struct remove_const { using type = T; };
template <class T> struct remove_const<const T> { using type = T; };
template <class T> struct remove_volatile { using type = T; };
template <class T> struct remove_volatile<volatile T> { using type = T; };
template <class T> struct remove_cv { using type = typename remove_volatile<typename remove_const<T>::type>::type; };
template <class T> struct remove_addrspace { using type = T; };
template <class T> struct remove_reference { using type = T; };
template <class T> struct remove_pointer { using type = T; };
#define MSL_REMOVE(SPACE)                                                        \
  template <class T> struct remove_addrspace<SPACE T> { using type = T; };       \
  template <class T> struct remove_reference<SPACE T &> { using type = T; };     \
  template <class T> struct remove_reference<SPACE T &&> { using type = T; };    \
  template <class T> struct remove_pointer<SPACE T *> { using type = T; };       \
  template <class T> struct remove_pointer<SPACE T *const> { using type = T; };
MSL_EACH_SPACE(MSL_REMOVE)
#undef MSL_REMOVE
template <class T> using remove_addrspace_t = typename remove_addrspace<T>::type;
template <class T> using remove_const_t = typename remove_const<T>::type;
template <class T> using remove_volatile_t = typename remove_volatile<T>::type;
template <class T> using remove_cv_t = typename remove_cv<T>::type;
template <class T> using remove_reference_t = typename remove_reference<T>::type;
template <class T> using remove_pointer_t = typename remove_pointer<T>::type;
template <class T> using remove_cvref_t = remove_cv_t<remove_reference_t<T>>;
template <class T> struct decay { using type = remove_cvref_t<T>; };
template <class T> using decay_t = typename decay<T>::type;
template <class T> struct add_const { using type = const T; };
template <class T> using add_const_t = const T;

template <class A, class B> struct is_same : false_type {};
template <class A> struct is_same<A, A> : true_type {};
template <class T> struct is_integral : false_type {};
#define MSL_INTEGRAL(T) template <> struct is_integral<T> : true_type {};
MSL_INTEGRAL(bool) MSL_INTEGRAL(char) MSL_INTEGRAL(signed char) MSL_INTEGRAL(uchar) MSL_INTEGRAL(short)
MSL_INTEGRAL(ushort) MSL_INTEGRAL(int) MSL_INTEGRAL(uint) MSL_INTEGRAL(long) MSL_INTEGRAL(ulong)
#undef MSL_INTEGRAL
template <class T> struct is_integral<const T> : is_integral<T> {};
template <class T> struct is_floating_point : bool_constant<is_same<remove_cv_t<T>, float>::value ||
    is_same<remove_cv_t<T>, half>::value || is_same<remove_cv_t<T>, bfloat>::value> {};
template <class T> struct is_arithmetic : bool_constant<is_integral<T>::value || is_floating_point<T>::value> {};
template <class T> struct is_void : is_same<remove_cv_t<T>, void> {};
template <class T> struct is_const : false_type {};
template <class T> struct is_const<const T> : true_type {};
template <class T> struct is_pointer : bool_constant<!is_same<remove_pointer_t<T>, T>::value> {};
template <class T> struct is_reference : bool_constant<!is_same<remove_reference_t<T>, T>::value> {};
template <class T> struct is_array : bool_constant<__is_array(T)> {};
template <class T> struct is_enum : bool_constant<__is_enum(T)> {};
template <class T> struct is_class : bool_constant<__is_class(T)> {};
template <class T> struct is_union : bool_constant<__is_union(T)> {};
template <class T> struct is_trivial : bool_constant<__is_trivial(T)> {};
template <class T> struct is_trivially_copyable : bool_constant<__is_trivially_copyable(T)> {};
template <class T> struct is_standard_layout : bool_constant<__is_standard_layout(T)> {};
template <class T> struct is_scalar : bool_constant<is_arithmetic<T>::value || __is_enum(T) || is_pointer<T>::value> {};
template <class T, bool = is_arithmetic<T>::value> struct is_signed : bool_constant<(T(-1) < T(0))> {};
template <class T> struct is_signed<T, false> : false_type {};
template <class T> struct is_unsigned : bool_constant<is_integral<T>::value && !is_signed<T>::value> {};
template <class A, class B> struct is_base_of : bool_constant<__is_base_of(A, B)> {};
template <class A, class B> struct is_convertible : bool_constant<__is_convertible_to(A, B)> {};
template <class T, class... A> struct is_constructible : bool_constant<__is_constructible(T, A...)> {};

template <class... B> struct conjunction : true_type {};
template <class B, class... R> struct conjunction<B, R...> : bool_constant<B::value && conjunction<R...>::value> {};
template <class... B> struct disjunction : false_type {};
template <class B, class... R> struct disjunction<B, R...> : bool_constant<B::value || disjunction<R...>::value> {};
template <class... B> struct _disjunction : disjunction<B...> {};
template <class B> struct negation : bool_constant<!B::value> {};

template <class T> struct make_unsigned { using type = T; };
template <class T> struct make_signed { using type = T; };
#define MSL_SIGN(SIGNED, UNSIGNED)                                        \
  template <> struct make_unsigned<SIGNED> { using type = UNSIGNED; };    \
  template <> struct make_signed<UNSIGNED> { using type = SIGNED; };
MSL_SIGN(signed char, uchar) MSL_SIGN(short, ushort) MSL_SIGN(int, uint) MSL_SIGN(long, ulong)
#undef MSL_SIGN
template <> struct make_unsigned<char> { using type = uchar; };
template <class T> using make_unsigned_t = typename make_unsigned<T>::type;
template <class T> using make_signed_t = typename make_signed<T>::type;

#define MSL_VALUE(TRAIT) template <class T> constexpr constant bool TRAIT##_v = TRAIT<T>::value;
MSL_VALUE(is_integral) MSL_VALUE(is_floating_point) MSL_VALUE(is_arithmetic) MSL_VALUE(is_void) MSL_VALUE(is_const)
MSL_VALUE(is_pointer) MSL_VALUE(is_reference) MSL_VALUE(is_array) MSL_VALUE(is_enum) MSL_VALUE(is_class)
MSL_VALUE(is_union) MSL_VALUE(is_trivial) MSL_VALUE(is_trivially_copyable)
MSL_VALUE(is_standard_layout) MSL_VALUE(is_scalar) MSL_VALUE(is_signed) MSL_VALUE(is_unsigned)
#undef MSL_VALUE
template <class A, class B> constexpr constant bool is_same_v = is_same<A, B>::value;
template <class A, class B> constexpr constant bool is_base_of_v = is_base_of<A, B>::value;
template <class A, class B> constexpr constant bool is_convertible_v = is_convertible<A, B>::value;
template <class T, class... A> constexpr constant bool is_constructible_v = is_constructible<T, A...>::value;
template <class... B> constexpr constant bool conjunction_v = conjunction<B...>::value;
template <class... B> constexpr constant bool disjunction_v = disjunction<B...>::value;
template <class B> constexpr constant bool negation_v = negation<B>::value;

template <class T> T declval();
template <class T, T... I> struct integer_sequence {};
template <size_t... I> using index_sequence = integer_sequence<size_t, I...>;
}  // namespace metal
