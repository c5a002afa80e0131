//! The matrix product.
//!
//! The order of engines is a guess from what others published (MLX: tiles from 32 rows and columns on), until a Mac
//! measures it: narrow products go to kernels for those, others to simdgroup matrices, MPS comes last because the first
//! attempt at this library found its overhead larger than the arithmetic.

use super::{Build, Work};
use crate::{MPS, MPS_NDARRAY, MSL, NAIVE_MPS, SIMDGROUP, mps, simdgroup};
use candlewick_core::backend::Engine;
use candlewick_core::{MatMul, Op, Result};

/// Below so many rows or columns a product is narrow.
const NARROW: usize = 16;

pub(super) fn engines(op: &MatMul) -> Vec<Engine> {
    let mut engines = vec![MSL];
    if simdgroup::runs_matmul(op) {
        let narrow = op.m.min(op.n) < NARROW;
        engines.insert(usize::from(narrow), SIMDGROUP);
    }
    if mps::ndarray_runs(op) {
        engines.push(MPS_NDARRAY);
    }
    if mps::runs_matmul(op) {
        engines.push(MPS);
    }
    engines
}

pub(super) fn work(op: &MatMul, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        SIMDGROUP => Ok(Work::Dispatches { sixteen: None, any: simdgroup::matmul(op, build)? }),
        MPS => Ok(Work::Mps(mps::matmul(op, build)?)),
        MPS_NDARRAY => Ok(Work::Mps(vec![mps::ndarray_matmul(op, build)])),
        NAIVE_MPS => Ok(Work::Naive(mps::NaiveProduct::new(op))),
        _ => Err(super::unlisted(&Op::MatMul(*op), engine)),
    }
}
