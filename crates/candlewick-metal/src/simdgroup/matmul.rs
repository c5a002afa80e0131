//! The matrix product.

use super::{Product, Strides, Tensor, fits};
use crate::ops::Build;
use crate::runtime::dispatch::Dispatch;
use candlewick_core::op::Format;
use candlewick_core::{MatMul, Result};

/// Whether the engine runs a product: one that is neither empty nor sums over batches.
pub(crate) fn runs_matmul(op: &MatMul) -> bool {
    let summed = (0..3).any(|i| op.batch.dims[i] > 1 && op.batch.c[i] == 0);
    !summed && fits(&[op.m, op.n, op.k, op.batch.count()])
}

/// A, B and C of a product that [`runs_matmul`] accepts.
pub(crate) fn tensors(op: &MatMul) -> [Tensor; 3] {
    let tensor = |index, transposed: bool, [rows, cols]: [usize; 2], row: usize, batch: [usize; 3]| {
        // As it is stored: [cols, rows] where it is transposed.
        let (stored_rows, stored_cols) = if transposed { (cols, rows) } else { (rows, cols) };
        let batches: usize = (0..3).map(|i| (op.batch.dims[i] - 1) * batch[i]).sum();
        let elements = batches + (stored_rows - 1) * row + stored_cols;
        let strides = if transposed { Strides::new(1, row) } else { Strides::new(row, 1) };
        let strides = Strides { batch: batch.map(|stride| stride as u64), ..strides };
        Tensor { index, bytes: elements * op.dtype.bytes(), strides }
    };
    // Packed, the stored rows lie side by side.
    let packed = if op.trans_b { op.k } else { op.n };
    let ldb = if op.b_format == Format::Packed { packed } else { op.ldb };
    let a = tensor(0, op.trans_a, [op.m, op.k], op.lda, op.batch.a);
    let b = tensor(1, op.trans_b, [op.k, op.n], ldb, op.batch.b);
    let c = tensor(2, false, [op.m, op.n], op.ldc, op.batch.c);
    [a, b, c]
}

/// A product that [`runs_matmul`] accepts.
pub(crate) fn matmul(op: &MatMul, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
    let [a, b, c] = tensors(op);
    let product = Product {
        factors: Some((a, b, op.k)),
        batch: op.batch.dims,
        alpha: op.alpha.get(),
        beta: op.beta.get(),
        ..Product::new(c, op.m, op.n, op.dtype)
    };
    product.dispatches(build)
}
