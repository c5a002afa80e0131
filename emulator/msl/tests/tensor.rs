//! Metal 4's tensors: the product is right at the edges of its matrices, reads nothing beyond them, and is strict about who
//! takes part.

mod support;

use emulator_msl::{Fault, Function, Options};
use support::{Buffer, Run, clean};

const HEAD: &str = "#include <metal_stdlib>
#include <metal_tensor>
#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>
using namespace metal;
using namespace mpp::tensor_ops;
typedef dextents<int32_t, 2> Sizes;
typedef tensor<device half, Sizes, tensor_inline> Matrix;
typedef tensor<device float, Sizes, tensor_inline> Result;
";

/// C = A B for A [6, 5] and B [5, 3] by one descriptor of a tile of 8 x 4; `body` makes `left`, `right` and `product`.
fn kernel(tile: &str, body: &str) -> Function {
    let source = format!(
        "{HEAD}
kernel void f(device half *a [[buffer(0)]], device half *b [[buffer(1)]], device float *c [[buffer(2)]],
              uint i [[thread_index_in_threadgroup]]) {{
    constexpr auto descriptor = matmul2d_descriptor({tile});
    matmul2d<descriptor, execution_simdgroups<2>> product;
    {body}
    auto sums = product.get_destination_cooperative_tensor<Matrix, Matrix, float>();
    for (ushort e = 0; e < sums.get_capacity(); e++) sums[e] = 100.0f;
    product.run(left, right, sums);
    Result to(c, Sizes(3, 6));
    sums.store(to);
}}"
    );
    let options = Options { language_version: (4, 0), ..Options::default() };
    let library = emulator_msl::compile(&source, &options).unwrap_or_else(|error| panic!("{error}"));
    library.function("f").expect("the kernel")
}

const TILE: &str = "8, 4, static_cast<int>(dynamic_extent), false, false, false";
const PLAIN: &str = "Matrix left(a, Sizes(5, 6)), right(b, Sizes(3, 5));";

/// The bits of small integers as half.
fn halves(values: impl Iterator<Item = usize>) -> Buffer {
    let bits: Vec<u16> = values.map(|value| if value == 0 { 0 } else { half_of(value) }).collect();
    Buffer::of(&bits)
}

fn half_of(value: usize) -> u16 {
    let exponent = value.ilog2();
    (((exponent + 15) << 10) as usize | ((value << (10 - exponent)) & 0x3FF)) as u16
}

fn expected() -> Vec<f32> {
    let (a, b) = (|row: usize, p: usize| row * 5 + p, |p: usize, col: usize| (p * 3 + col) % 7);
    (0..18).map(|i| (0..5).map(|p| (a(i / 3, p) * b(p, i % 3)) as f32).sum()).collect()
}

fn buffers() -> [Buffer; 3] {
    [halves(0..30), halves((0..15).map(|i| i % 7)), Buffer::of(&[-1f32; 18])]
}

#[test]
fn a_product_ends_where_its_matrices_end() {
    for seed in 0..4 {
        let mut buffers = buffers();
        let outcome = clean(Run::new(&kernel(TILE, PLAIN)).seed(seed).threads(64, 64, &mut buffers));
        assert_eq!(buffers[2].elements::<f32>(), expected());
        let reads: usize = outcome.accesses.iter().flat_map(|access| &access.reads).map(|range| range.len()).sum();
        assert_eq!(reads, 2 * (30 + 15), "every element of A and B, and no more");
    }
}

#[test]
fn transposes_and_strides_are_those_of_storage() {
    let body =
        "Matrix left(a, Sizes(6, 5), array<int32_t, 2>({1, 8})), right(b, Sizes(5, 3), array<int32_t, 2>({1, 6}));";
    let kernel = kernel("8, 4, static_cast<int>(dynamic_extent), true, true, false", body);
    let a = halves((0..40).map(|i| if i % 8 < 6 { i % 8 * 5 + i / 8 } else { 9 }));
    let b = halves((0..18).map(|i| if i % 6 < 5 { (i % 6 * 3 + i / 6) % 7 } else { 9 }));
    let mut buffers = [a, b, Buffer::of(&[0f32; 18])];
    clean(Run::new(&kernel).threads(64, 64, &mut buffers));
    assert_eq!(buffers[2].elements::<f32>(), expected());
}

#[test]
fn accumulating_adds_to_what_was_there() {
    let tile = format!("{TILE}, matmul2d_descriptor::mode::multiply_accumulate");
    let mut buffers = buffers();
    clean(Run::new(&kernel(&tile, PLAIN)).threads(64, 64, &mut buffers));
    let sums: Vec<f32> = expected().iter().map(|sum| sum + 100.0).collect();
    assert_eq!(buffers[2].elements::<f32>(), sums);
}

#[test]
fn a_matrix_longer_than_its_buffer_is_seen() {
    let body = "Matrix left(a, Sizes(5, 7)), right(b, Sizes(3, 5));";
    let outcome = Run::new(&kernel(TILE, body)).threads(64, 64, &mut buffers());
    assert!(matches!(outcome.faults[..], [Fault::OutOfBounds { write: false, .. }]), "{:?}", outcome.faults);
}

#[test]
fn who_does_not_take_part_is_missed() {
    let body = "Matrix left(a, Sizes(5, 6)), right(b, Sizes(3, 5)); if (i == 40) return;";
    let outcome = Run::new(&kernel(TILE, body)).threads(64, 64, &mut buffers());
    assert!(outcome.faults.iter().any(|fault| matches!(fault, Fault::DivergentBarrier { .. })), "{:?}", outcome.faults);
}

/// Undefined in Metal: a number of SIMD groups that is not the operation's, and sums of different lengths.
#[test]
fn what_is_undefined_is_nan() {
    let mut other = buffers();
    clean(Run::new(&kernel(TILE, PLAIN)).threads(96, 96, &mut other));
    assert!(other[2].elements::<f32>().iter().all(|value| value.is_nan()));
    let mut other = buffers();
    let body = "Matrix left(a, Sizes(5, 6)), right(b, Sizes(3, 4));";
    clean(Run::new(&kernel(TILE, body)).threads(64, 64, &mut other));
    assert!(other[2].elements::<f32>().iter().all(|value| value.is_nan()));
}

#[test]
fn it_is_not_there_before_metal_4() {
    let options = Options { language_version: (3, 2), check: false, ..Options::default() };
    let error = emulator_msl::compile(&format!("{HEAD}kernel void f(device half *a [[buffer(0)]]) {{}}"), &options);
    let text = error.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("metal_tensor"), "{text}");
}
