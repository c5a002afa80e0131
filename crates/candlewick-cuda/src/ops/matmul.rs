//! The matrix product.
//!
//! The order of engines is a guess until it is measured: products with few rows or columns read one operand and do
//! little else, which own kernels do in one launch; tensor cores where they say so; cuBLASLt for the rest.

use super::{Build, Here, Step, Work};
use crate::{CUBLASLT, FUSED, MMA, cublaslt, mma};
use candlewick_core::backend::Engine;
use candlewick_core::{MatMul, Op, Result};

/// Up to so many rows or columns a product is narrow.
const NARROW: usize = 8;

pub(super) fn engines(matmul: &MatMul, op: &Op, here: Here<'_>) -> Vec<Engine> {
    let mut engines = Vec::with_capacity(3);
    if here.has_mma(op) {
        engines.push(MMA);
    }
    if here.blas && cublaslt::runs_matmul(matmul) {
        let at = if mma::prefers(op, here.chip) { engines.len() } else { 0 };
        engines.insert(at, CUBLASLT);
    }
    let narrow = matmul.m.min(matmul.n) <= NARROW && !mma::prefers(op, here.chip);
    let at = if narrow { 0 } else { engines.len() };
    engines.insert(at, FUSED);
    engines
}

pub(super) fn cublaslt(op: &MatMul, build: &mut Build<'_>) -> Result<Work> {
    Ok(Work::products(vec![Step::Product(Box::new(cublaslt::matmul(op, build)?))]))
}
