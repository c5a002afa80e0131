//! A product and the sum behind it, in one call: the library reads another matrix than it writes.

use super::product::{Product, Where};
use crate::CUBLASLT;
use crate::ops::{Build, Step};
use crate::stream::Kernel;
use candlewick_core::tape::{self, Place};
use candlewick_core::{Add, LoraLinear, MatMul, Op, Result};

/// A layer without a rank, and what is added to it: x, W, [bias], what is added, y.
pub(crate) struct Residual {
    /// What runs, on tensors in this order.
    pub(crate) product: Step,
    /// Their places.
    pub(crate) places: Vec<Place>,
}

/// The steps at `at` and behind it as one product, if they are that and nobody else reads what lies between them.
///
/// # Errors
/// No algorithm, or no memory.
pub(crate) fn residual(steps: &[tape::Step<Kernel>], at: usize, build: &mut Build<'_>) -> Result<Option<Residual>> {
    let (Some(layer), Some(sum)) = (steps.get(at), steps.get(at + 1)) else { return Ok(None) };
    let (Op::LoraLinear(op), Op::Add(add)) = (*layer.kernel.op(), *sum.kernel.op()) else { return Ok(None) };
    let y = layer.outputs[0];
    let Some(i) = (0..2).find(|&i| same(&sum.inputs[i], &y)) else { return Ok(None) };
    let (added, to) = (sum.inputs[1 - i], sum.outputs[0]);
    let read = &layer.inputs[..2 + usize::from(op.bias)];
    let apart = read.iter().all(|input| !input.meets(&to)) && (same(&added, &to) || !added.meets(&to));
    if layer.kernel.engine() != CUBLASLT || layer.until > at + 2 || !fits(&op, &add) || !apart {
        return Ok(None);
    }
    let mut base = MatMul::new(op.rows, op.out_features, op.in_features, op.dtype).trans_b().scaled(1.0, 1.0);
    (base.lda, base.ldc) = (op.x_row, op.y_row);
    let places: Vec<Place> = read.iter().copied().chain([added, to]).collect();
    let [x, w, bias, added, to] = [0, 1, 2, places.len() - 2, places.len() - 1].map(Where::Tensor);
    let product = Product::new(&base, &Op::from(op), [x, w, to], op.bias.then_some(bias), build)?.added(added);
    Ok(Some(Residual { product: Step::Product(Box::new(product)), places }))
}

fn same(a: &Place, b: &Place) -> bool {
    (a.memory, a.bytes()) == (b.memory, b.bytes())
}

fn fits(op: &LoraLinear, add: &Add) -> bool {
    let rows = [add.a_row, add.b_row, add.y_row].iter().all(|&row| row == op.y_row);
    op.rank == 0 && !op.accumulate && rows && (add.rows, add.cols) == (op.rows, op.out_features)
}
