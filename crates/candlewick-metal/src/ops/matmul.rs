//! The matrix product.
//!
//! The order of engines is a guess from what others published (MLX: tiles from 32 rows and columns on), until a Mac
//! measures it: narrow products go to kernels for those, others to the GPU's matrix units or to simdgroup matrices, MPS comes last because the first
//! attempt at this library found its overhead larger than the arithmetic. Tiny products go to the CPU, unless work is
//! pending (`accelerate.rs`).

use super::{Build, Work};
use crate::memory::Newer;
use crate::{ACCELERATE, MPS, MPS_NDARRAY, MSL, NAIVE_MPS, SIMDGROUP, TENSOR, accelerate, mps, simdgroup, tensor};
use candlewick_core::backend::Engine;
use candlewick_core::{MatMul, Op, Result};

/// Below so many rows or columns a product is narrow.
const NARROW: usize = 16;

pub(super) fn engines(op: &MatMul, newer: Newer) -> Vec<Engine> {
    let mut engines = vec![MSL];
    if simdgroup::runs_matmul(op) {
        let narrow = op.m.min(op.n) < NARROW;
        engines.insert(usize::from(narrow), SIMDGROUP);
        if newer.tensor && tensor::runs(op) {
            engines.insert(usize::from(narrow), TENSOR);
        }
    }
    if newer.ndarray && mps::ndarray_runs(op) {
        engines.push(MPS_NDARRAY);
    }
    if mps::runs_matmul(op) {
        engines.push(MPS);
    }
    if accelerate::runs_matmul(op) {
        let at = if accelerate::is_tiny(op) { 0 } else { engines.len() };
        engines.insert(at, ACCELERATE);
    }
    engines
}

pub(super) fn work(op: &MatMul, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        SIMDGROUP => Ok(Work::Dispatches { sixteen: None, any: simdgroup::matmul(op, build)? }),
        TENSOR => tensor::matmul(op, build),
        MPS => Ok(Work::Mps(mps::matmul(op, build)?)),
        MPS_NDARRAY => Ok(Work::Mps(vec![mps::ndarray_matmul(op, build)])),
        NAIVE_MPS => Ok(Work::Naive(mps::NaiveProduct::new(op))),
        _ => Err(super::unlisted(&Op::MatMul(*op), engine)),
    }
}
