//! The LoRA layer and its delta, forward and backward.
//!
//! A guess until a Mac measures it: from 16 rows on the products with W are worth simdgroup matrices.

use super::{Build, Work};
use crate::{ACCELERATE, MPS, MSL, SIMDGROUP, accelerate, mps, simdgroup};
use candlewick_core::backend::Engine;
use candlewick_core::{LoraDelta, LoraLinear, Op, Result};

/// Below so many rows the layer reads W and does little else.
const FEW_ROWS: usize = 16;

pub(super) fn linear_engines(op: &LoraLinear) -> Vec<Engine> {
    let mut engines = ordered(op.rows, simdgroup::runs_linear(op));
    if mps::runs_lora_linear(op) {
        engines.push(MPS);
    }
    if accelerate::runs_lora_linear(op) {
        engines.push(ACCELERATE);
    }
    engines
}

pub(super) fn backward_engines(op: &LoraLinear) -> Vec<Engine> {
    ordered(op.rows, simdgroup::runs_backward(op))
}

pub(super) fn delta_engines(op: &LoraDelta) -> Vec<Engine> {
    let mut engines = ordered(op.rows, simdgroup::runs_delta(op));
    if mps::runs_lora_delta(op) {
        engines.push(MPS);
    }
    if accelerate::runs_lora_delta(op) {
        engines.push(ACCELERATE);
    }
    engines
}

pub(super) fn delta_backward_engines(op: &LoraDelta) -> Vec<Engine> {
    ordered(op.rows, simdgroup::runs_delta(op))
}

fn ordered(rows: usize, simdgroup: bool) -> Vec<Engine> {
    match (simdgroup, rows < FEW_ROWS) {
        (false, _) => vec![MSL],
        (true, false) => vec![SIMDGROUP, MSL],
        (true, true) => vec![MSL, SIMDGROUP],
    }
}

pub(super) fn linear_work(op: &LoraLinear, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        SIMDGROUP => Ok(Work::Dispatches { sixteen: None, any: simdgroup::lora_linear(op, build)? }),
        MPS => Ok(Work::Mps(mps::lora_linear(op, build)?)),
        _ => Err(super::unlisted(&Op::LoraLinear(*op), engine)),
    }
}

pub(super) fn backward_work(op: &LoraLinear, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        SIMDGROUP => Ok(Work::Dispatches { sixteen: None, any: simdgroup::lora_linear_backward(op, build)? }),
        _ => Err(super::unlisted(&Op::LoraLinearBackward(*op), engine)),
    }
}

pub(super) fn delta_work(op: &LoraDelta, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        SIMDGROUP => Ok(Work::Dispatches { sixteen: None, any: simdgroup::lora_delta(op, build)? }),
        MPS => Ok(Work::Mps(mps::lora_delta(op, build)?)),
        _ => Err(super::unlisted(&Op::LoraDelta(*op), engine)),
    }
}

pub(super) fn delta_backward_work(op: &LoraDelta, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        SIMDGROUP => Ok(Work::Dispatches { sixteen: None, any: simdgroup::lora_delta_backward(op, build)? }),
        _ => Err(super::unlisted(&Op::LoraDeltaBackward(*op), engine)),
    }
}
