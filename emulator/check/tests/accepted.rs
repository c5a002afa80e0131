//! Valid Metal that must pass without an error.

use std::fs;
use std::path::Path;

use msl_check::{Options, Severity, check};

fn accept(snippet: &str) {
    accept_in((3, 2), snippet);
}

fn accept_in(language_version: (u32, u32), snippet: &str) {
    let source = format!("#include <metal_stdlib>\nusing namespace metal;\n{snippet}\n");
    let options = Options { language_version, ..Options::default() };
    if let Err(report) = check(&source, "snippet.metal", &options) {
        panic!("refused:\n{snippet}\n{report}");
    }
}

#[test]
fn a_kernel_with_all_that_it_may_have() {
    accept(
        "struct Params { uint count; float4 scale; packed_float3 p; };
constant uint SIZE = 256;
constant bool masked [[function_constant(0)]];
constant float bias [[function_constant(1)]];
kernel void k(device const float4 *input [[buffer(0)]],
              device float4 *output [[buffer(1)]],
              constant Params &params [[buffer(2)]],
              device const float *mask [[buffer(3), function_constant(masked)]],
              device atomic_uint *counter [[buffer(30)]],
              threadgroup float *scratch [[threadgroup(0)]],
              texture2d<float, access::read> image [[texture(0)]],
              uint3 position [[thread_position_in_grid]],
              ushort lane [[thread_index_in_simdgroup]],
              uint simdgroup [[simdgroup_index_in_threadgroup]],
              uint2 size [[threads_per_threadgroup]]) {
    threadgroup float4 shared[SIZE];
    threadgroup atomic_int total;
    threadgroup Params copy;
    if (position.x >= params.count) return;
    Params mine = params;
    copy = params;
    float4 x = input[position.x] * mine.scale + bias;
    if (masked) x *= mask[position.x];
    shared[lane] = x;
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    atomic_store_explicit(&total, 1, memory_order_relaxed);
    float sum = simd_sum(dot(shared[lane], float4(1.0, 2, float2(3.0h, 4))));
    output[position.x].xyz = x.zyx + sum + image.read(position.xy).xyz;
    output[position.x].w = as_type<float>(as_type<uint>(x.w) & 0x7fffffffu);
    scratch[lane] = precise::exp(x.x) + fast::log(abs(x.y)) + select(x.z, x.w, x.x > 0);
}",
    );
}

#[test]
fn tensors_over_pointers_in_metal_4() {
    accept_in(
        (4, 0),
        "#include <metal_tensor>
#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>
using namespace mpp::tensor_ops;
kernel void k(device half *a [[buffer(0)]], device half *b [[buffer(1)]], device float *c [[buffer(2)]]) {
    tensor<device half, dextents<int32_t, 2>, tensor_inline> left(a, dextents<int32_t, 2>(16, 64));
    tensor<device half, dextents<int32_t, 2>, tensor_inline> right(b, dextents<int32_t, 2>(32, 16), array<int32_t, 2>({1, 40}));
    tensor<device float, dextents<int32_t, 2>, tensor_inline> to(c, dextents<int32_t, 2>(32, 64));
    constexpr auto descriptor = matmul2d_descriptor(64, 32, static_cast<int>(dynamic_extent), false, true);
    matmul2d<descriptor, execution_simdgroups<4>> product;
    auto sums = product.get_destination_cooperative_tensor<decltype(left), decltype(right), float>();
    product.run(left, right, sums);
    sums.store(to);
}",
    );
}

#[test]
fn pointers_with_an_address_space() {
    accept(
        "float f(device const float *p, const device float *q, float device *r, thread int &n) { return *p * *q * *r * n; }",
    );
    accept("float f(threadgroup float (&t)[32], thread const float4 &v) { return t[0] + v.x; }");
    accept("template <typename T> T f(device T *p, T a, T b) { return a * b + sizeof(T) * a + p[0]; }");
    accept("void f(device float *p) { auto q = p + 1; auto &r = *q; r = 1; device auto *s = q; *s = 2; }");
    accept("struct S { device float *p; constant int *n; };\nfloat f(thread S &s) { return s.p[s.n[0]]; }");
    accept("int f(int a, int b) { int N = 2; return (a & b) * N * (a) & N; }");
    accept("float f(device char *p) { return *(device float *)(p + 4) + *reinterpret_cast<device float *>(p); }");
    accept("void f(device float * device *p) { device float *thread *q; device float *x = p[0]; q = &x; }");
    accept(
        "float f(constant float *t) { return t[0]; }\nconstant float table[2] = {1, 2};\nfloat g() { return f(table); }",
    );
    accept("enum class E { a = 1, b = 2 };\nconstexpr int f(E e) { return int(e) & int(E::b); }");
}

#[test]
fn objects_in_every_address_space() {
    accept(
        "struct Complex {
    float re, im;
    Complex() thread = default;
    Complex() threadgroup = default;
    constexpr Complex(float re, float im) : re(re), im(im) {}
    constexpr Complex(float re) thread : re(re), im(0) {}
    constexpr Complex(float re) constant : re(re), im(0) {}
    float norm() const thread { return re * re + im * im; }
    float norm() const device { return re * re + im * im; }
    constexpr operator float() const thread { return re; }
    constexpr operator float() const device { return re; }
    Complex operator+(Complex other) const { return Complex(re + other.re, im + other.im); }
    thread float &real() { return re; }
};
constant Complex one = {1, 0};
kernel void k(device Complex *p [[buffer(0)]], constant Complex &q [[buffer(1)]]) {
    threadgroup Complex shared[4];
    Complex a = p[0], b = q, c = one;
    shared[0] = a;
    p[1] = shared[0];
    p[2] = (a + b + Complex(1)) + c;
    a.real() = p[0].norm() + a.norm() + Complex(1, 2).norm();
    float x = p[0] + float(a);
    p[3] = x > 1 ? a : p[0];
}",
    );
}

#[test]
fn vectors_and_matrices() {
    accept(
        "float4 f(half4 h, int3 i, float2 v) { return float4(h) + float4(v, v) + float4(v.xy, float(i.x), 1) + float4(i.zyx.xxx, 0.5h); }",
    );
    accept("float3 f(float4 v) { float3 r = v.xyz; r.xy *= 2; r[2] = v.w; r += float3(1); return r.zyx * 0.5 + 1; }");
    accept("bool f(float4 a, float4 b) { bool4 less = a < b; return any(less) || all(a == b) || any(isnan(a)); }");
    accept(
        "float4 f(uint4 u) { float4 x = {1, 2, 3, 4}; short2 offset(u.x, u.y); return x + as_type<float4>(u) + offset.x; }",
    );
    accept(
        "float4 f(float4x4 m, float4 v) { float4x4 n = m * m; n[0] = v; n[1][2] = 3; return n * v + v * m + float3x3(1)[0].x; }",
    );
    accept(
        "template <typename T, int N> T sum(vec<T, N> v) { T s = T(0); for (int i = 0; i < N; i++) s += v[i]; return s; }\nfloat f(half4 h) { return sum(h) + sum(float2(1, 2)); }",
    );
    accept(
        "template <typename T> T make(float x) { using T4 = vec<T, 4>; T4 v = T4(x, x, x, x); return T4(v)[0] + T(1); }\nfloat f() { return make<half>(1) + make<float>(2); }",
    );
    accept("float f(half h, bfloat b) { return h * 2.0f + float(b) + half(b) + 1.0h + 1.0bf; }");
    accept("void f(device packed_float3 *p) { float3 v = p[0]; p[1] = v * 2; }");
}

#[test]
fn templates_and_host_names() {
    accept(
        "template <typename T, int N = 4>
[[kernel]] void scale(device T *p [[buffer(0)]], constant T &by [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    static_assert(N > 0, \"some\");
    threadgroup T shared[N];
    if constexpr (is_same_v<T, float>) shared[0] = p[i];
    p[i] *= by;
}
template [[host_name(\"scale_f32\")]] [[kernel]] void scale<float>(device float *, constant float &, uint);
template [[host_name(\"scale_f16\")]] [[kernel]] decltype(scale<half>) scale<half>;
#define SCALE(NAME, T) template [[host_name(NAME)]] [[kernel]] decltype(scale<T, 8>) scale<T, 8>;
SCALE(\"scale_bf16\", bfloat)",
    );
    accept(
        "template <typename T, void (*load)(device const T *, thread float &)>\nkernel void k(device const T *p [[buffer(0)]]) { float x; load(p, x); }\nvoid read(device const half *p, thread float &x) { x = *p; }\ntemplate [[host_name(\"k\")]] kernel void k<half, read>(device const half *);",
    );
    accept(
        "template <typename U> struct Limits { static const constant U max = numeric_limits<U>::max(); };\nfloat f() { return Limits<float>::max; }",
    );
}

#[test]
fn simdgroup_matrices() {
    accept(
        "kernel void k(device const half *a [[buffer(0)]], device float *c [[buffer(1)]]) {
    threadgroup half tile[64];
    simdgroup_half8x8 x, y;
    simdgroup_float8x8 z = make_filled_simdgroup_matrix<float, 8, 8>(0.f);
    simdgroup_load(x, a, 8);
    simdgroup_load(y, tile, 8, ulong2(0, 0), true);
    simdgroup_multiply_accumulate(z, x, y, z);
    simdgroup_barrier(mem_flags::mem_none);
    z.thread_elements()[0] = 1;
    simdgroup_store(z, c, 8);
}",
    );
}

#[test]
fn what_versions_bring() {
    accept("void f() { auto twice = [](int x) { return 2 * x; }; int y = twice(2); }");
    accept_in((2, 4), "int f(int n) { return n ? f(n - 1) : 0; }");
    accept_in(
        (2, 0),
        "#if __METAL_VERSION__ != 200\n#error wrong version\n#endif\n#ifdef __HAVE_BFLOAT__\n#error early\n#endif",
    );
    accept_in((3, 1), "#if __METAL_VERSION__ != 310 || !defined(__HAVE_BFLOAT__)\n#error wrong version\n#endif");
    let warned = check("int f(int n) { return f(n); }", "r.metal", &Options::default()).expect("a warning is no error");
    assert!(warned.iter().any(|w| w.severity == Severity::Warning && w.rule == "recursion"), "{warned:?}");
}

#[test]
fn words_that_are_reserved_in_opencl_only() {
    accept("void f() { float local = 1, global = 2, generic = 3, pipe = 4; local += global + generic + pipe; }");
    accept(
        "struct S { S operator=(S) = delete; };\nvoid f() { float x = INFINITY, y = M_PI_F, z = 1e-5, w = 0x1p-3f; long l = 0xffffffffffl; }",
    );
}

#[test]
fn macros_reach_the_source() {
    let macros = vec![("BLOCK".to_owned(), "8".to_owned()), ("T".to_owned(), "float".to_owned())];
    let options = Options { macros, ..Options::default() };
    check("kernel void k(device T *p [[buffer(0)]]) { threadgroup T t[BLOCK]; t[0] = p[0]; }", "m.metal", &options)
        .unwrap_or_else(|report| panic!("{report}"));
}

/// All kernels of candle-metal-kernels pass: they are built on Macs every day.
#[test]
fn candle_is_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../patched/candle-metal-kernels/src/metal_src");
    let Ok(files) = fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there (run patch.sh --candle)", folder.display());
        return;
    };
    let mut checked = 0;
    for file in files.map(|file| file.expect("the folder can be read").path()) {
        let source = fs::read_to_string(&file).expect("the file can be read");
        if let Err(report) = check(&source, &file.display().to_string(), &Options::default()) {
            panic!("{report}");
        }
        checked += 1;
    }
    assert!(checked >= 16, "only {checked} files");
}
