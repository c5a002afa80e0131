//! The matrix product.
//!
//! The order of engines is a guess until it is measured: products with few rows or columns read one operand and do
//! little else, which own kernels do in one launch; tensor cores where they say so; cuBLASLt for the rest.

use super::{Build, Here, Step, Work};
use crate::{CUBLASLT, FUSED, MMA, cublaslt, mma};
use candlewick_core::backend::Engine;
use candlewick_core::{DType, MatMul, Op, Result};

/// Up to so many rows or columns a product is narrow.
const NARROW: usize = 8;

/// Up to so many rows, columns and terms own kernels are quicker in f32 with B transposed: on an H100 64x64x64 took 4.1 us in a
/// graph where cuBLASLt's took 5.9 (128x128x128: 4.3 by cuBLASLt, which was the best; so without a transpose).
const TINY: usize = 64;

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
    let turned = matmul.dtype == DType::F32 && matmul.trans_b && !matmul.trans_a;
    let tiny = turned && matmul.m.max(matmul.n).max(matmul.k) <= TINY;
    let at = if narrow || tiny { 0 } else { engines.len() };
    engines.insert(at, FUSED);
    engines
}

pub(super) fn cublaslt(op: &MatMul, build: &mut Build<'_>) -> Result<Work> {
    Ok(Work::products(vec![Step::Product(Box::new(cublaslt::matmul(op, build)?))]))
}
