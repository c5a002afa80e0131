//! The shape rules on arbitrary bytes: `cargo +nightly fuzz run shape_rules`.
//!
//! No size, stride or scalar may panic, and an operand's span is never shorter than what its offsets reach.
//! `crates/candlewick-core/tests/shape_rules.rs` does the same with proptest on stable Rust.
#![no_main]

use arbitrary::Arbitrary;
use candlewick_core::op::{Batch, Format};
use candlewick_core::{DType, Layout, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Of two tensors, as (size, stride).
    tensors: [Vec<(Size, Size)>; 2],
    sizes: [Size; 4],
    strides: [Size; 3],
    batch: [[Size; 3]; 4],
    flags: [bool; 4],
    scalars: [f32; 2],
}

/// Mostly small, so that shapes fit each other.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Small(u8),
    Any(usize),
}

impl Size {
    fn get(self) -> usize {
        match self {
            Size::Small(size) => usize::from(size % 9),
            Size::Any(size) => size,
        }
    }
}

fuzz_target!(|input: Input| {
    let dtype = DType::F32;
    let [a, b] = input.tensors.map(|dims| dims.into_iter().map(|(size, stride)| (size.get(), stride.get())).unzip());
    let (a, b): ((Vec<usize>, Vec<usize>), (Vec<usize>, Vec<usize>)) = (a, b);
    if let Ok((op, shape)) = MatMul::of(Layout::new(&a.0, &a.1), Layout::new(&b.0, &b.1), dtype) {
        assert_eq!(shape.last(), Some(&op.n));
        for op in [op, op.grad_a().op, op.grad_b().op] {
            check(op.into());
        }
    }
    let [m, n, k, rank] = input.sizes.map(Size::get);
    let [x_row, y_row, other] = input.strides.map(Size::get);
    let [dims, of_a, of_b, of_c] = input.batch.map(|sizes| sizes.map(Size::get));
    let [first, second, third, packed] = input.flags;
    let [alpha, beta] = input.scalars;
    let format = if packed { Format::Packed } else { Format::Plain };
    let product = MatMul {
        batch: Batch { dims, a: of_a, b: of_b, c: of_c },
        trans_a: first,
        trans_b: second,
        lda: x_row,
        ldb: y_row,
        ldc: other,
        b_format: format,
        ..MatMul::new(m, n, k, dtype).scaled(alpha, beta)
    };
    let softmax = Softmax { x_row, y_row, ..Softmax::new(m, n, dtype).scaled(alpha) };
    let softmax = if first { softmax.causal(other) } else { softmax };
    let norm = RmsNorm { x_row, y_row, ..RmsNorm::new(m, n, alpha, dtype) };
    let linear = LoraLinear::new(m, n, k, rank, alpha, dtype);
    let linear = LoraLinear { x_row, y_row, bias: third, w_format: format, ..linear };
    let delta = LoraDelta { x_row, y_row, accumulate: third, ..LoraDelta::new(m, n, k, rank, alpha, dtype) };
    for op in [
        Op::MatMul(product),
        Op::MatMul(product.grad_a().op),
        Op::MatMul(product.grad_b().op),
        Op::Softmax(softmax),
        Op::SoftmaxBackward(softmax),
        Op::RmsNorm(norm),
        Op::RmsNormBackward(norm),
        Op::LoraLinear(linear),
        Op::LoraLinearBackward(linear),
        Op::LoraDelta(delta),
        Op::LoraDeltaBackward(delta),
    ] {
        check(op);
    }
});

fn check(op: Op) {
    let _ = (op.flops(), op.bytes(), op.error_bound(), op.to_string(), op.packed_factor());
    let _ = candlewick_core::dispatch::Bucket::of(&op);
    let operands = match op.operands() {
        Ok(operands) => operands,
        Err(error) => return assert!(error.to_string().starts_with(op.name())),
    };
    if let Op::MatMul(op) = op {
        let count = op.batch.count();
        let matrix = |rows: usize, row: usize, cols: usize| if cols == 0 { 0 } else { (rows - 1) * row + cols };
        if count > 0 && op.m > 0 && op.n > 0 && op.k > 0 {
            // The last product's matrices are not always the last in memory, but none may leave its span.
            for index in [0, count / 2, count - 1] {
                let (a, b, c) = op.batch.offsets(index);
                let (a_rows, a_cols) = if op.trans_a { (op.k, op.m) } else { (op.m, op.k) };
                let (b_rows, b_cols) = if op.trans_b { (op.n, op.k) } else { (op.k, op.n) };
                assert!(a + matrix(a_rows, op.lda, a_cols) <= operands.inputs[0].span);
                assert!(b + matrix(b_rows, op.ldb, b_cols) <= operands.inputs[1].span);
                assert!(c + matrix(op.m, op.ldc, op.n) <= operands.outputs[0].span);
            }
        }
    }
}
