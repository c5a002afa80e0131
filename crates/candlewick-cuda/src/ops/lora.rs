//! The LoRA layer and its delta, forward and backward.
//!
//! The order of engines is a guess until it is measured: one fused kernel or two where rows are few, tensor cores where
//! they say so, products of cuBLASLt's where rows are many.

use super::{Build, Here, Work, unlisted};
use crate::{CUBLASLT, FUSED, MMA, cublaslt, mma};
use candlewick_core::backend::Engine;
use candlewick_core::{Op, Result};

/// Up to so many rows the layer reads W and does little else.
const FEW_ROWS: usize = 32;

/// Up to so many rows a layer without a rank is matrix-vector products, which bring W ahead of x.
const FEW_ROWS_OF_BASE: usize = 4;

/// A backward is seven launches of own kernels. On an H100, bf16, 32x512x512 r8, they took 29 us in a graph, where
/// PyTorch's products take 14.
const FEW_ROWS_BACKWARD: usize = 8;

pub(super) fn engines(op: &Op, here: Here<'_>) -> Vec<Engine> {
    let few = match op {
        Op::LoraLinear(op) => op.rows <= FEW_ROWS,
        Op::LoraLinearBackward(op) => op.rows <= FEW_ROWS_BACKWARD,
        Op::LoraDelta(op) => op.rows <= FEW_ROWS,
        Op::LoraDeltaBackward(op) => op.rows <= FEW_ROWS_BACKWARD,
        _ => true,
    };
    let mut engines = vec![FUSED];
    if here.blas && cublaslt::runs_lora(op) {
        engines.insert(usize::from(few), CUBLASLT);
    }
    if here.has_mma(op) {
        let vectors = matches!(op, Op::LoraLinear(op) if op.rank == 0 && op.rows <= FEW_ROWS_OF_BASE);
        let at = if mma::prefers(op, here.chip) && !vectors { 0 } else { engines.len() };
        engines.insert(at, MMA);
    }
    engines
}

pub(super) fn cublaslt(op: &Op, build: &mut Build<'_>) -> Result<Work> {
    match op {
        Op::LoraLinear(op) => Ok(Work::products(cublaslt::lora_linear(op, build)?)),
        Op::LoraLinearBackward(op) => cublaslt::lora_linear_backward(op, false, build),
        Op::LoraDelta(op) => Ok(Work::products(cublaslt::lora_delta(op, build)?)),
        Op::LoraDeltaBackward(op) => cublaslt::lora_delta_backward(op, build),
        _ => Err(unlisted(op, CUBLASLT, build)),
    }
}
