//! Products on the CPU by Apple's Accelerate (engine `metal/accelerate`), on the memory that the GPU shares: nothing is
//! copied.
//!
//! A product that is waited for at once takes the GPU tens of microseconds to start and to report; the CPU's matrix unit,
//! which Accelerate uses, has multiplied 64x64x64 by then. It pays only where nothing has to be waited for: a product
//! runs here where nothing was encoded on the stream since its last wait, and is encoded for the GPU otherwise. That
//! depends on the order of the calls alone, never on how far the GPU is, so a program gets the same numbers every time.
//!
//! f32 alone: `cblas_sgemm` has no sibling for f16 or bf16.

use crate::ops::Build;
use crate::runtime::dispatch::Places;
use candlewick_core::op::{Batch, Format};
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Op, Result};
use std::ffi::c_int;

// vecLib's cblas.h; its integers have 32 bits, as ACCELERATE_LAPACK_ILP64 is not asked for.
#[cfg_attr(target_vendor = "apple", link(name = "Accelerate", kind = "framework"))]
unsafe extern "C-unwind" {
    #[rustfmt::skip]
    fn cblas_sgemm(
        order: c_int,
        trans_a: c_int,
        trans_b: c_int,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: f32,
        a: *const f32,
        lda: c_int,
        b: *const f32,
        ldb: c_int,
        beta: f32,
        c: *mut f32,
        ldc: c_int,
    );
}

/// cblas.h, `CblasRowMajor`.
const ROW_MAJOR: c_int = 101;
/// cblas.h, `CblasNoTrans` and `CblasTrans`.
const TRANSPOSE: [c_int; 2] = [111, 112];

/// Up to so many multiply-adds it is preferred: 128x128x128. A guess, until a Mac measures it: they take the matrix unit
/// of an M1 about 3 us, and waiting for a GPU ten times that.
const TINY: usize = 1 << 21;
/// And up to so many bytes: they fit the cache next to the core.
const TINY_BYTES: f64 = (1 << 18) as f64;
/// Beyond so many multiply-adds it is not offered: `encode` would take longer than waiting for the GPU does.
const MOST: usize = 1 << 24;

/// Whether `op`, which it runs, is so small that it comes first.
pub(crate) fn is_tiny(op: &MatMul) -> bool {
    work(op.m, op.n, op.k, op.batch.count()) <= TINY && Op::from(*op).bytes() <= TINY_BYTES
}

/// Whether it runs a product. Empty ones and those of which nothing but beta C is left are as well off elsewhere.
pub(crate) fn runs_matmul(op: &MatMul) -> bool {
    let sizes = [op.m, op.n, op.k, op.batch.count()];
    op.dtype == DType::F32
        && sizes.iter().all(|&size| size > 0)
        && [op.lda, op.ldb, op.ldc].iter().all(|&row| c_int::try_from(row).is_ok())
        && work(op.m, op.n, op.k, op.batch.count()) <= MOST
        && op.alpha.get() != 0.0
}

fn work(m: usize, n: usize, k: usize, batch: usize) -> usize {
    m.saturating_mul(n).saturating_mul(k).saturating_mul(batch)
}

/// Whether it runs a layer: three products, the last added to the first. Never preferred.
pub(crate) fn runs_lora_linear(op: &LoraLinear) -> bool {
    !op.bias && runs_lora_delta(&delta_of(op)) && runs_matmul(&base_of(op))
}

/// Whether it runs a delta: two products.
pub(crate) fn runs_lora_delta(op: &LoraDelta) -> bool {
    let [down, up] = products_of(op);
    op.scale.get() != 0.0 && runs_matmul(&down) && runs_matmul(&up)
}

/// Where a matrix is.
#[derive(Clone, Copy)]
enum Where {
    /// A tensor of the call.
    Tensor(usize),
    /// Memory of the prepared kernel, which owns it.
    Own(*mut f32),
}

impl Where {
    fn pointer(self, places: &Places<'_>) -> *mut f32 {
        match self {
            Where::Tensor(index) => places[index].block.contents().wrapping_add(places[index].offset).cast(),
            Where::Own(pointer) => pointer,
        }
    }
}

/// A prepared product.
pub(crate) struct Product {
    op: MatMul,
    ldb: usize,
    /// A, B and C.
    operands: [Where; 3],
}

/// C = alpha A B + beta C.
pub(crate) fn matmul(op: &MatMul) -> Vec<Product> {
    vec![Product::new(*op, [0, 1, 2].map(Where::Tensor))]
}

/// y = x W^T or y += x W^T, then y += (s x A^T) B^T.
pub(crate) fn lora_linear(op: &LoraLinear, build: &mut Build<'_>) -> Result<Vec<Product>> {
    let mut products = vec![Product::new(base_of(op), [0, 1, 4].map(Where::Tensor))];
    products.extend(delta(&delta_of(op), [0, 2, 3, 4], build)?);
    Ok(products)
}

/// h = s x A^T, then y = h B^T or y += h B^T.
pub(crate) fn lora_delta(op: &LoraDelta, build: &mut Build<'_>) -> Result<Vec<Product>> {
    delta(op, [0, 1, 2, 3], build)
}

fn delta(op: &LoraDelta, [x, a, b, y]: [usize; 4], build: &mut Build<'_>) -> Result<Vec<Product>> {
    let [down, up] = products_of(op);
    let own = build.own(op.rows * op.rank * size_of::<f32>())?;
    let h = Where::Own(build.part(own).pointer().cast());
    let down = Product::new(down, [Where::Tensor(x), Where::Tensor(a), h]);
    Ok(vec![down, Product::new(up, [h, Where::Tensor(b), Where::Tensor(y)])])
}

fn base_of(op: &LoraLinear) -> MatMul {
    let LoraLinear { rows, in_features, out_features, x_row, y_row, dtype, .. } = *op;
    let base = MatMul::new(rows, out_features, in_features, dtype).trans_b();
    MatMul { lda: x_row, ldc: y_row, ..base.scaled(1.0, if op.accumulate { 1.0 } else { 0.0 }) }
}

fn delta_of(op: &LoraLinear) -> LoraDelta {
    let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
    LoraDelta { x_row, y_row, ..LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype) }.accumulate()
}

fn products_of(op: &LoraDelta) -> [MatMul; 2] {
    let LoraDelta { rows, in_features, out_features, rank, scale, .. } = *op;
    let down = MatMul::new(rows, rank, in_features, op.dtype).trans_b().scaled(scale.get(), 0.0);
    let up = MatMul::new(rows, out_features, rank, op.dtype).trans_b();
    let up = up.scaled(1.0, if op.accumulate { 1.0 } else { 0.0 });
    [MatMul { lda: op.x_row, ..down }, MatMul { ldc: op.y_row, ..up }]
}

impl Product {
    fn new(op: MatMul, operands: [Where; 3]) -> Self {
        // Packed, the stored rows lie side by side.
        let packed = if op.trans_b { op.k } else { op.n };
        let ldb = if op.b_format == Format::Packed { packed } else { op.ldb };
        Product { op, ldb, operands }
    }

    /// Runs it now, on the calling thread.
    ///
    /// # Safety
    /// The tensors have the sizes that it was prepared for, C is borrowed alone, and no pending work uses any of them.
    pub(crate) unsafe fn run(&self, places: &Places<'_>) {
        let MatMul { m, n, k, trans_a, trans_b, lda, ldc, alpha, beta, batch, .. } = self.op;
        let [a, b, c] = self.operands.map(|place| place.pointer(places));
        let int = |size: usize| size as c_int;
        for index in 0..batch.count() {
            let (a_at, b_at, c_at) = batch.offsets(index);
            // Products that share a C are added up: what C held before counts once.
            let beta = if is_first(&batch, index) { beta.get() } else { 1.0 };
            let trans = [trans_a, trans_b].map(|trans| TRANSPOSE[usize::from(trans)]);
            // SAFETY: the matrices lie within their tensors, as the operation's spans say; the rest is the caller's.
            unsafe {
                let (a, b, c) = (a.add(a_at), b.add(b_at), c.add(c_at));
                let (m, n, k) = (int(m), int(n), int(k));
                let (lda, ldb, ldc) = (int(lda), int(self.ldb), int(ldc));
                cblas_sgemm(ROW_MAJOR, trans[0], trans[1], m, n, k, alpha.get(), a, lda, b, ldb, beta, c, ldc);
            }
        }
    }
}

/// Whether a product is the first of those that share its C.
fn is_first(batch: &Batch, index: usize) -> bool {
    let inner = [batch.dims[1] * batch.dims[2], batch.dims[2], 1];
    (0..3).all(|i| batch.c[i] != 0 || (index / inner[i]).is_multiple_of(batch.dims[i]))
}
