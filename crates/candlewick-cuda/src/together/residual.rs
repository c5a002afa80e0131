//! A product and the sum behind it, in one call: the library reads another matrix than it writes.

use super::{Together, fits, same};
use crate::CUBLASLT;
use crate::cublaslt::{Product, Where, lora_linear_backward};
use crate::kernel::Kernel;
use crate::ops::{Build, Step, Work};
use candlewick_core::tape::{self, Place};
use candlewick_core::{LoraLinear, MatMul, Op, Result};

/// The steps at `at` and behind it as one, if they are a layer without a rank and its residual, or a layer's backward and
/// another gradient of what it read, and nobody else reads what lies between them.
///
/// # Errors
/// No algorithm, or no memory.
pub(super) fn residual(steps: &[tape::Step<Kernel>], at: usize, build: &mut Build<'_>) -> Result<Option<Together>> {
    let (Some(layer), Some(sum)) = (steps.get(at), steps.get(at + 1)) else { return Ok(None) };
    let Op::Add(add) = *sum.kernel.op() else { return Ok(None) };
    let Some(i) = (0..2).find(|&i| same(&sum.inputs[i], &layer.outputs[0])) else { return Ok(None) };
    let (added, to) = (sum.inputs[1 - i], sum.outputs[0]);
    let touched = layer.inputs.iter().chain(&layer.outputs[1..]);
    let apart = touched.chain([&added]).all(|place| !place.meets(&to) || (place == &added && same(place, &to)));
    let passes = apart && layer.until(0) <= at + 2;
    if layer.kernel.engine() != CUBLASLT {
        return Ok(None);
    }
    match *layer.kernel.op() {
        Op::LoraLinear(op) if passes && fits(&op, &add, op.y_row, op.out_features) => {
            let read = &layer.inputs[..2 + usize::from(op.bias)];
            let places: Vec<Place> = read.iter().copied().chain([added, to]).collect();
            if op.rank > 0 || op.accumulate {
                return Ok(None);
            }
            let work = Work::products(vec![layer_added(&op, build)?]);
            Ok(Some(Together { steps: 2, work, engine: CUBLASLT, places, alignment: 1, keeps: None }))
        }
        Op::LoraLinearBackward(op) if passes && fits(&op, &add, op.x_row, op.in_features) => {
            let mut places: Vec<Place> = layer.inputs.iter().chain(&layer.outputs).copied().collect();
            places[layer.inputs.len()] = to;
            places.push(added);
            let work = lora_linear_backward(&op, true, build)?;
            Ok(Some(Together { steps: 2, work, engine: CUBLASLT, places, alignment: 1, keeps: None }))
        }
        _ => Ok(None),
    }
}

/// y = x Wᵀ + bias + another matrix: x, W, [bias], that, y.
fn layer_added(op: &LoraLinear, build: &mut Build<'_>) -> Result<Step> {
    let mut base = MatMul::new(op.rows, op.out_features, op.in_features, op.dtype).trans_b().scaled(1.0, 1.0);
    (base.lda, base.ldc) = (op.x_row, op.y_row);
    let behind = 2 + usize::from(op.bias);
    let [x, w, bias, added, to] = [0, 1, 2, behind, behind + 1].map(Where::Tensor);
    let product = Product::new(&base, &Op::from(*op), [x, w, to], op.bias.then_some(bias), build)?;
    Ok(Step::Product(Box::new(product.added(added))))
}
