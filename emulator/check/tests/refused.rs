//! Mistakes that must be errors, each at its line: one per rule and per mix of address spaces.

use msl_check::{Options, check};

/// Checks a snippet below two lines of preamble, so that its first line is line 3.
fn refuse(snippet: &str, line: u32, fragment: &str) {
    refuse_in((3, 2), snippet, line, fragment);
}

fn refuse_in(language_version: (u32, u32), snippet: &str, line: u32, fragment: &str) {
    let source = format!("#include <metal_stdlib>\nusing namespace metal;\n{snippet}\n");
    let options = Options { language_version, ..Options::default() };
    let report = match check(&source, "snippet.metal", &options) {
        Ok(warnings) => panic!("accepted, with {warnings:?}:\n{snippet}"),
        Err(report) => report,
    };
    let found = report.errors().any(|error| error.line == line + 2 && error.message.contains(fragment));
    assert!(found, "no error at line {line} with '{fragment}' for\n{snippet}\nbut\n{report}");
}

#[test]
fn tensors_know_their_language_and_their_memory() {
    let makes = |space: &str| {
        format!(
            "void f({space} half *a) {{\n  tensor<device half, dextents<int32_t, 2>, tensor_inline> t(a, dextents<int32_t, 2>(4, 4));\n}}"
        )
    };
    refuse_in((3, 2), &makes("device"), 2, "tensors need Metal 4.0");
    refuse_in((4, 0), &makes("threadgroup"), 2, "no matching constructor");
    refuse_in((4, 0), "void f() {\n  dextents<int32_t, 2> sizes(4);\n}", 2, "one size per dimension");
}

/// Every way to give a pointer of one address space to a function that wants another.
#[test]
fn address_spaces_do_not_mix() {
    let spaces = ["device", "constant", "threadgroup", "thread"];
    for from in spaces {
        for to in spaces.into_iter().filter(|to| *to != from) {
            let call = format!(
                "float f({to} const float *p) {{ return *p; }}\nfloat g({from} const float *p) {{ return f(p); }}"
            );
            refuse(&call, 2, "no matching function for call to 'f'");
            let reference = format!(
                "float f({to} const float &p) {{ return p; }}\nfloat g({from} const float &p) {{ return f(p); }}"
            );
            refuse(&reference, 2, "no matching function for call to 'f'");
            let variable = format!("void g({from} const float *p) {{\n  {to} const float *q = p;\n}}");
            refuse(&variable, 2, "cannot initialize a variable of type");
            let cast = format!("void g({from} float *p) {{\n  auto q = ({to} int *)p;\n}}");
            refuse(&cast, 2, "address space");
        }
    }
}

#[test]
fn address_spaces_of_objects_and_members() {
    refuse(
        "kernel void k(device float *p [[buffer(0)]]) {\n  threadgroup float t[32];\n  thread float *q = t;\n}",
        3,
        "cannot initialize",
    );
    refuse(
        "kernel void k(device float *p [[buffer(0)]]) {\n  float x = 0;\n  device float *q = &x;\n}",
        3,
        "cannot initialize",
    );
    refuse(
        "template <class T> void k(device T *p) {\n  thread T *q = p;\n}\ntemplate void k<float>(device float *);",
        2,
        "cannot initialize",
    );
    refuse("struct S { int a; int get() const { return a; } };\nint f(device S *s) { return s->get(); }", 2, "device");
    refuse("void f(device const float *p) {\n  p[0] = 1;\n}", 2, "read-only variable is not assignable");
    refuse("void f(constant float *p) {\n  p[0] = 1;\n}", 2, "read-only variable is not assignable");
    refuse("void g(device float *p);\nvoid f(device const float *p) {\n  g(p);\n}", 3, "no matching function");
    refuse("void f(device float4 *p) {\n  device float *q = &p[0].x;\n}", 2, "address of vector element");
    refuse("struct S {\n  threadgroup float x;\n};", 2, "address space");
    refuse(
        "void f(thread atomic_int *p) {\n  atomic_store_explicit(p, 1, memory_order_relaxed);\n}",
        2,
        "no matching function",
    );
}

/// Errors in templates and in macros are found where they are used.
#[test]
fn address_spaces_in_templates_and_macros() {
    let kernel = "template <typename T>
kernel void k(device T *p [[buffer(0)]]) {
  threadgroup T t[32];
  thread T *q = t;
}
template [[host_name(\"k\")]] kernel void k<half>(device half *);";
    refuse(kernel, 4, "cannot initialize a variable of type 'thread half *");
    refuse("#define TAKE(P) thread float *q = P;\nvoid f(device float *p) {\n  TAKE(p)\n}", 3, "cannot initialize");
    refuse(
        "struct L {\n  thread float *p;\n  L(thread float *q) : p(q) {}\n};\nvoid f(device float *p) {\n  L l(p);\n}",
        6,
        "no matching constructor",
    );
    refuse(
        "struct L {\n  void set(thread float &x) { x = 1; }\n};\nvoid f(device float *p) {\n  L l;\n  l.set(p[0]);\n}",
        6,
        "device",
    );
}

#[test]
fn pointers_and_references_name_their_space() {
    let pointer = "pointer type must have explicit address space qualifier";
    let reference = "reference type must have explicit address space qualifier";
    refuse("void f(float *p);", 1, pointer);
    refuse("void f(const float *p);", 1, pointer);
    refuse("void f(float const *p);", 1, pointer);
    refuse("void f(thread int &a, int *b);", 1, pointer);
    refuse("struct S {\n  float *p;\n};", 2, pointer);
    refuse("struct S { int a; };\nvoid f(S *s);", 2, pointer);
    refuse("void f(vec<float, 4> *v);", 1, pointer);
    refuse("template <typename T> void f(T *p);", 1, pointer);
    refuse("template <typename T> void f(typename remove_cv<T>::type *p);", 1, pointer);
    refuse("float f(device char *p) {\n  return *(float *)p;\n}", 2, pointer);
    refuse("float f(device char *p) {\n  return *reinterpret_cast<const float *>(p);\n}", 2, pointer);
    refuse("int *f();", 1, pointer);
    refuse("void f(device float **p);", 1, pointer);
    refuse("using P = uint *;", 1, pointer);
    refuse("void f(float &x);", 1, reference);
    refuse("void f(const float4 &x);", 1, reference);
    refuse("struct S {\n  int a;\n  S &operator+=(int b);\n};", 3, reference);
}

#[test]
fn what_cpp_has_and_metal_has_not() {
    refuse("void f() {\n  double x = 1;\n}", 2, "'double' is not supported");
    refuse("void f() {\n  float x = 1.0l;\n}", 2, "'long double' is not supported");
    refuse("void f() {\n  long double x = 1;\n}", 2, "'double' is not supported");
    refuse("void f() {\n  long long x = 1;\n}", 2, "'long long' is not supported");
    refuse("void f() {\n  long x = 1ull;\n}", 2, "'long long' is not supported");
    refuse("void f() {\n  try {\n  } catch (...) {}\n}", 2, "'try'");
    refuse("void f() {\n  try {\n  } catch (...) {}\n}", 3, "'catch'");
    refuse("void f() {\n  throw 1;\n}", 2, "'throw'");
    refuse("struct S {\n  virtual void f();\n};", 2, "virtual functions");
    refuse("struct S {};\nvoid f(device S *s) {\n  auto t = dynamic_cast<device S *>(s);\n}", 3, "'dynamic_cast'");
    refuse("void f() {\n  auto &t = typeid(int);\n}", 2, "'typeid'");
    refuse("void f() {\n  auto p = new int;\n}", 2, "'new'");
    refuse("void f(device int *p) {\n  delete p;\n}", 2, "'delete'");
    refuse("void f() {\n  goto end;\nend:;\n}", 2, "'goto'");
    refuse("void f() {\n  asm(\"\");\n}", 2, "inline assembly");
    refuse("void f() {\n  thread_local int x;\n}", 2, "'thread_local'");
    refuse("void f() {\n  register int x;\n}", 2, "'register'");
    refuse("void f(int n) {\n  float x[n];\n}", 2, "array size is not a constant expression");
    refuse("void f() {\n  printf(\"x\");\n}", 2, "printf");
    refuse("void f() {\n  std::max(1, 2);\n}", 2, "no C++ standard library");
    refuse("#include <cmath>", 1, "'cmath' file not found");
    refuse("#include <stdio.h>", 1, "'stdio.h' file not found");
    refuse("int main() { return 0; }", 1, "'main'");
    refuse("void f() { bool b = noexcept(1); }", 1, "noexcept");
}

#[test]
fn what_came_with_a_later_version() {
    refuse_in((3, 1), "void f() {\n  auto g = [](int x) { return x; };\n}", 2, "Metal 3.2");
    refuse_in((2, 3), "int f(int n) {\n  return n ? f(n - 1) : 0;\n}", 2, "recursion needs Metal 2.4");
    refuse_in(
        (2, 3),
        "int g(int n);\nint f(int n) {\n  return g(n);\n}\nint g(int n) {\n  return f(n);\n}",
        3,
        "recursion needs",
    );
    refuse_in(
        (2, 3),
        "int g(int n);\nint f(int n) {\n  return g(n);\n}\nint g(int n) {\n  return f(n);\n}",
        6,
        "recursion needs",
    );
    refuse_in((2, 2), "void f() {\n  int (*p)(int) = 0;\n}", 2, "function pointers need Metal 2.3");
    refuse_in((3, 0), "void f() { bfloat x = 1.0bf; }", 1, "'bfloat' needs Metal 3.1");
}

#[test]
fn bfloat_and_half_do_not_mix() {
    refuse("half f(bfloat x) {\n  return x;\n}", 2, "cannot initialize");
    refuse("bfloat f(half x) {\n  return x;\n}", 2, "cannot initialize");
    refuse("void g(half x);\nvoid f(bfloat x) {\n  g(x);\n}", 3, "no matching function");
}

#[test]
fn vectors_and_calls() {
    refuse("void f(float4 x) {\n  float3 y = x;\n}", 2, "cannot");
    refuse("void f(half4 x) {\n  float4 y = x;\n}", 2, "cannot");
    refuse("void f() {\n  float4 y = float4(1, 2, 3);\n}", 2, "wrong number of components");
    refuse("void f() {\n  float2 y = 0;\n  y.z = 1;\n}", 3, "vector component access exceeds type");
    refuse("void f(float x, half y) {\n  float z = max(x, y);\n}", 2, "ambiguous");
    refuse("void f() {\n  float z = undeclared(1);\n}", 2, "undeclared");
    refuse("void f() {\n  simdgroup_matrix<float, 4, 4> m;\n}", 2, "8 by 8");
    refuse("void f() {\n  threadgroup_barrier();\n}", 2, "no matching function");
}

#[test]
fn variables_lie_where_they_may() {
    refuse("int counter = 0;", 1, "program scope variable must reside in constant address space");
    refuse("constexpr int N = 4;", 1, "program scope variable must reside in constant address space");
    refuse("static const float table[2] = {1, 2};", 1, "program scope variable must reside in constant");
    refuse("namespace n {\ndevice float *p;\n}", 2, "program scope variable");
    refuse("threadgroup float t[32];", 1, "must be declared in a kernel function");
    refuse("void f() {\n  static int x = 1;\n}", 2, "static variable must reside in constant address space");
    refuse("void f() {\n  threadgroup float t[32];\n}", 2, "can only be declared in a kernel function");
    refuse("void f() {\n  constant int x = 1;\n}", 2, "constant");
}

#[test]
fn kernels_and_their_parameters() {
    refuse("kernel int k(device int *p [[buffer(0)]]) { return 0; }", 1, "must return void");
    refuse(
        "kernel void k(device int *p [[buffer(0)]]) {}\nvoid f(device int *p) {\n  k(p);\n}",
        3,
        "cannot call the kernel",
    );
    refuse("kernel void k(device int *p [[buffer(31)]]) {}", 1, "must be between 0 and 30");
    refuse("kernel void k(threadgroup int *p [[threadgroup(31)]]) {}", 1, "must be between 0 and 30");
    refuse("kernel void k(device int *p [[buffer]]) {}", 1, "needs an index");
    refuse("kernel void k(device int *p [[buffer(0)]],\n  device int *q [[buffer(0)]]) {}", 2, "already in use");
    refuse("kernel void k(device int *p [[bufer(0)]]) {}", 1, "unknown attribute 'bufer'");
    refuse("kernel void k(uint i [[thread_position]]) {}", 1, "unknown attribute 'thread_position'");
    refuse("kernel void k(float i [[thread_position_in_grid]]) {}", 1, "not valid for attribute");
    refuse("kernel void k(int3 i [[thread_position_in_grid]]) {}", 1, "not valid for attribute");
    refuse("kernel void k(uint2 i [[thread_index_in_simdgroup]]) {}", 1, "not valid for attribute");
    refuse("kernel void k(uint4 i [[thread_position_in_grid]]) {}", 1, "not valid for attribute");
    refuse("kernel void k(thread int *p [[buffer(0)]]) {}", 1, "cannot point to thread memory");
    refuse("kernel void k(threadgroup int *p [[buffer(0)]]) {}", 1, "threadgroup memory has");
    refuse("kernel void k(device int *p [[threadgroup(0)]]) {}", 1, "have 'buffer(n)'");
    refuse("kernel void k(uint n [[buffer(0)]]) {}", 1, "pointer or a reference");
    refuse("kernel void k(uint n) {}", 1, "needs an attribute");
    refuse("[[kernel]] void k(uint n) {}", 1, "needs an attribute");
    refuse("#define K(NAME, T) kernel void NAME(T n) {}\n\nK(k, uint)", 3, "needs an attribute");
}

#[test]
fn a_missing_header_is_said() {
    let report = check("using namespace metal;\n", "a.metal", &Options::default()).expect_err("no header is included");
    assert!(report.to_string().starts_with("a.metal:1:17: error: use of undeclared identifier 'metal'"), "{report}");
}
