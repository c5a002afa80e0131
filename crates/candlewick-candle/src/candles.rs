//! Candle's own operations, on its memory: what [`crate::engine`] weighs against Candlewick's.
//!
//! Products go through Candle's backend, below its autograd, so that a forward of Candle's has a backward of ours.

use crate::compute::{Compute, Source};
use crate::error::Result;
use candle_core::backend::BackendStorage;
use candle_core::op::Add;
use candle_core::{Layout, Shape};
use candlewick::{DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};

/// Whether Candle has this operation: within the same error bound, and without a copy before it.
pub(crate) fn has(op: &Op) -> bool {
    let empty = |sizes: &[usize]| sizes.contains(&0);
    match *op {
        Op::MatMul(op) => {
            let (m, n, k, count) = (op.m, op.n, op.k, op.batch.count());
            let mut plain = MatMul::new(m, n, k, op.dtype);
            plain = if op.trans_a { plain.trans_a() } else { plain };
            plain = if op.trans_b { plain.trans_b() } else { plain };
            plain = if count > 1 { plain.batched(count) } else { plain };
            op == plain && !empty(&[m, n, k, count])
        }
        Op::Softmax(op) => {
            let plain = Softmax { scale: op.scale, ..Softmax::new(op.rows, op.cols, DType::F32) };
            op == plain && !empty(&[op.rows, op.cols])
        }
        Op::RmsNorm(op) => {
            let plain = RmsNorm { eps: op.eps, ..RmsNorm::new(op.rows, op.cols, 0.0, DType::F32) };
            op == plain && !empty(&[op.rows, op.cols])
        }
        Op::LoraLinear(op) => {
            let LoraLinear { rows, in_features, out_features, rank, .. } = op;
            let plain = LoraLinear {
                scale: op.scale,
                bias: op.bias,
                w_format: op.w_format,
                ..LoraLinear::new(rows, in_features, out_features, rank, 1.0, DType::F32)
            };
            op == plain && !empty(&[rows, in_features, out_features])
        }
        Op::LoraDelta(op) => {
            let LoraDelta { rows, in_features, out_features, rank, .. } = op;
            let plain =
                LoraDelta { scale: op.scale, ..LoraDelta::new(rows, in_features, out_features, rank, 1.0, DType::F32) };
            op == plain && !empty(&[rows, in_features, out_features, rank])
        }
        _ => false,
    }
}

/// A memory, and the first element of a tensor there.
type At<'a, S> = (&'a S, usize);

/// Runs a product or a LoRA layer, with W plain, into new memory.
pub(crate) fn run<S: Compute>(op: &Op, inputs: &[Source<'_, S>]) -> Result<S> {
    let at = |index: usize| match inputs.get(index) {
        Some(&Source::Tensor(storage, layout)) => (storage, layout.start_offset()),
        _ => unreachable!("{op} has this operand, and Candle's own is given none that is packed"),
    };
    match *op {
        Op::MatMul(op) => product(&op, at(0), at(1)),
        Op::LoraLinear(op) => {
            let LoraLinear { rows, in_features, out_features, rank, scale, bias, .. } = op;
            let mut y = product(&MatMul::new(rows, out_features, in_features, op.dtype).trans_b(), at(0), at(1))?;
            let whole = Layout::contiguous((rows, out_features));
            if bias {
                let (bias, start) = at(2);
                let every_row = Layout::new(Shape::from((rows, out_features)), vec![0, 1], start);
                y = y.binary_impl::<Add>(bias, &whole, &every_row)?;
            }
            if rank > 0 {
                let first = 2 + usize::from(bias);
                let delta = LoraDelta::new(rows, in_features, out_features, rank, scale.get(), op.dtype);
                y = y.binary_impl::<Add>(&self::delta(&delta, at(0), at(first), at(first + 1))?, &whole, &whole)?;
            }
            Ok(y)
        }
        Op::LoraDelta(op) => delta(&op, at(0), at(1), at(2)),
        _ => unreachable!("{op} is none that `has` says Candle has"),
    }
}

/// op(A) op(B), as `Tensor::matmul` asks Candle's backend for it.
fn product<S: BackendStorage>(op: &MatMul, (a, a_start): At<'_, S>, (b, b_start): At<'_, S>) -> Result<S> {
    let count = op.batch.count();
    let matrices = |rows: usize, columns: usize, transposed: bool, start: usize| {
        let strides = if transposed { [1, rows] } else { [columns, 1] };
        if count == 1 {
            Layout::new(Shape::from((rows, columns)), strides.to_vec(), start)
        } else {
            Layout::new(Shape::from((count, rows, columns)), vec![rows * columns, strides[0], strides[1]], start)
        }
    };
    let (a_layout, b_layout) = (matrices(op.m, op.k, op.trans_a, a_start), matrices(op.k, op.n, op.trans_b, b_start));
    Ok(a.matmul(b, (count, op.m, op.n, op.k), &a_layout, &b_layout)?)
}

/// scale (x Aᵀ) Bᵀ.
fn delta<S: BackendStorage>(op: &LoraDelta, x: At<'_, S>, a: At<'_, S>, b: At<'_, S>) -> Result<S> {
    let &LoraDelta { rows, in_features, out_features, rank, scale, dtype, .. } = op;
    let h = product(&MatMul::new(rows, rank, in_features, dtype).trans_b(), x, a)?;
    let y = product(&MatMul::new(rows, out_features, rank, dtype).trans_b(), (&h, 0), b)?;
    if scale.get() == 1.0 {
        return Ok(y);
    }
    Ok(y.affine(&Layout::contiguous((rows, out_features)), f64::from(scale.get()), 0.0)?)
}
