//! SiLU times up with the product that makes gate and up, and their gradients with the product that makes SiLU's.

use super::{Together, launched, same};
use crate::CUBLASLT;
use crate::kernel::Kernel;
use crate::mma::silu_product;
use crate::ops::Build;
use candlewick_core::tape;
use candlewick_core::{Op, Result};

/// From so many rows on: a tile has 128.
const MANY_ROWS: usize = 128;

/// A layer without a rank, and SiLU of two halves of what it makes.
///
/// # Errors
/// What the compiler says.
pub(super) fn forward(steps: &[tape::Step<Kernel>], at: usize, build: &mut Build<'_>) -> Result<Option<Together>> {
    let Some([layer, silu]) = steps.get(at..at + 2) else { return Ok(None) };
    let (Op::LoraLinear(op), Op::SiluMul(of)) = (*layer.kernel.op(), *silu.kernel.op()) else { return Ok(None) };
    let (made, y) = (layer.outputs[0], silu.outputs[0]);
    // Where gate and up begin in the layer's rows.
    let columns = [0, 1].map(|i| {
        let place = silu.inputs[i];
        let bytes = place.offset.checked_sub(made.offset).filter(|_| place.memory == made.memory)?;
        Some(bytes / op.dtype.bytes())
    });
    let [Some(gate), Some(up)] = columns else { return Ok(None) };
    let halves = [gate, up] == [0, of.cols] || [up, gate] == [0, of.cols];
    let fits = halves
        && op.out_features == 2 * of.cols
        && [of.gate_row, of.up_row] == [op.y_row; 2]
        && (op.rows, layer.kernel.engine()) == (of.rows, CUBLASLT)
        && op.rows >= MANY_ROWS;
    let apart = layer.inputs[..2].iter().all(|read| !read.meets(&made) && !read.meets(&y)) && !made.meets(&y);
    if !fits || !apart {
        return Ok(None);
    }
    let both = layer.until(0) > at + 2;
    let Some(program) = silu_product::forward(&op, &of, [gate, up], both, build.chip()) else { return Ok(None) };
    launched(&program, 2, (layer.inputs[..2].to_vec(), &[made, y]), 0, build).map(Some)
}

/// The product that makes SiLU's dy, and its backward.
///
/// # Errors
/// What the compiler says.
pub(super) fn backward(steps: &[tape::Step<Kernel>], at: usize, build: &mut Build<'_>) -> Result<Option<Together>> {
    let Some([product, silu]) = steps.get(at..at + 2) else { return Ok(None) };
    let (Op::MatMul(op), Op::SiluMulBackward(of)) = (*product.kernel.op(), *silu.kernel.op()) else { return Ok(None) };
    let [gate, up, dy] = silu.inputs[..] else { return Ok(None) };
    let [dgate, dup] = silu.outputs[..] else { return Ok(None) };
    let passes = same(&dy, &product.outputs[0]) && of.y_row == op.ldc && product.until(0) <= at + 2;
    let places = [product.inputs[0], product.inputs[1], gate, up];
    // In place a tile has been read before its gradients are written.
    let written = [&dgate, &dup];
    let in_place = same(&gate, &dgate) && same(&up, &dup);
    let read = if in_place { &places[..2] } else { &places };
    let apart = !read.iter().any(|read| written.iter().any(|output| read.meets(output)));
    if !passes || !apart || op.m < MANY_ROWS || product.kernel.engine() != CUBLASLT {
        return Ok(None);
    }
    let Some(program) = silu_product::backward(&op, &of, build.chip()) else { return Ok(None) };
    launched(&program, 2, (places.to_vec(), &[dgate, dup]), 0, build).map(Some)
}
