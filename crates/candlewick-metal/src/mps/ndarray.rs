//! `MPSNDArrayMatrixMultiplication`: the product of MPS that can be encoded into an encoder that is open.
//!
//! Rows must lie side by side (`preferPackedRows`, macOS 15). C is never given, so that it is never read.

use super::matrices::{Arrays, Matrices, access};
use super::{Step, data_type};
use crate::ops::Build;
use crate::runtime::dispatch::{Place, Places};
use crate::runtime::encoder::{Accesses, Encoder};
use crate::runtime::hazard::Access;
use crate::runtime::objects::macos;
use candlewick_core::op::Format;
use candlewick_core::{DType, MatMul, Result};
use objc2::AnyThread;
use objc2::rc::{Retained, autoreleasepool};
use objc2_foundation::NSArray;
use objc2_metal_performance_shaders::{
    MPSDataType, MPSNDArray, MPSNDArrayDescriptor, MPSNDArrayMatrixMultiplication, MPSNDArrayMultiaryKernel,
};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A batch of stored matrices.
#[derive(Clone, Copy)]
struct Stored {
    rows: usize,
    columns: usize,
    matrices: usize,
    transposed: bool,
    bytes: u64,
}

/// A prepared product.
pub(crate) struct Product {
    kernel: Retained<MPSNDArrayMatrixMultiplication>,
    operands: [Stored; 3],
    data_type: MPSDataType,
    /// Tells products apart in the cache of arrays.
    number: u64,
}

/// The batch as one dimension of matrices that follow each other; A or B may be one for all.
fn batch(op: &MatMul) -> Option<[usize; 3]> {
    let used: Vec<usize> = (0..3).filter(|&i| op.batch.dims[i] != 1).collect();
    let sizes = [op.m * op.k, op.k * op.n, op.m * op.n];
    let mut counts = [1usize; 3];
    for (operand, strides) in [op.batch.a, op.batch.b, op.batch.c].into_iter().enumerate() {
        if operand < 2 && used.iter().all(|&i| strides[i] == 0) {
            continue;
        }
        for &i in used.iter().rev() {
            if strides[i] != counts[operand] * sizes[operand] {
                return None;
            }
            counts[operand] *= op.batch.dims[i];
        }
    }
    Some(counts)
}

/// Whether the system has it.
pub(crate) fn is_offered() -> bool {
    macos(15, 0)
}

/// Whether it runs a product.
pub(crate) fn runs(op: &MatMul) -> bool {
    let (a_cols, b_cols) = (if op.trans_a { op.m } else { op.k }, if op.trans_b { op.k } else { op.n });
    let packed = op.lda == a_cols && (op.ldb == b_cols || op.b_format == Format::Packed) && op.ldc == op.n;
    let empty = op.m == 0 || op.n == 0 || op.k == 0 || op.batch.count() == 0;
    // MPSNDArray.h: "The product of all dimension lengths must be less than 2**31".
    let small = |rows: usize, cols: usize| {
        rows.checked_mul(cols).and_then(|size| size.checked_mul(op.batch.count())).is_some_and(|size| size < 1 << 31)
    };
    packed
        && !empty
        && op.dtype != DType::BF16
        && op.alpha.get() != 0.0
        && op.beta.get() == 0.0
        && small(op.m, op.k)
        && small(op.k, op.n)
        && small(op.m, op.n)
        && batch(op).is_some()
}

/// A product of tensors that [`runs`] accepts.
pub(crate) fn matmul(op: &MatMul, build: &Build<'_>) -> Step {
    static PRODUCTS: AtomicU64 = AtomicU64::new(0);
    let [a, b, c] = batch(op).unwrap_or([1; 3]);
    let stored = |rows: usize, columns: usize, matrices: usize, transposed: bool| {
        let bytes = (rows * columns * matrices * op.dtype.bytes()) as u64;
        let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
        Stored { rows, columns, matrices, transposed, bytes }
    };
    let operands = [stored(op.m, op.k, a, op.trans_a), stored(op.k, op.n, b, op.trans_b), stored(op.m, op.n, c, false)];
    let kernel = autoreleasepool(|_| {
        let kernel = MPSNDArrayMatrixMultiplication::alloc();
        let device = build.shared().metal();
        // SAFETY: a product has two sources.
        let kernel = unsafe { MPSNDArrayMatrixMultiplication::initWithDevice_sourceCount(kernel, device, 2) };
        // SAFETY: a plain number.
        unsafe { kernel.setAlpha(f64::from(op.alpha.get())) };
        kernel
    });
    let number = PRODUCTS.fetch_add(1, Ordering::Relaxed);
    Step::Array(Product { kernel, operands, data_type: data_type(op.dtype), number })
}

impl Stored {
    fn array(&self, place: Place<'_>, data_type: MPSDataType) -> Retained<MPSNDArray> {
        // The fastest dimension first.
        let mut sizes = [self.columns, self.rows, self.matrices];
        let count = if self.matrices == 1 { 2 } else { 3 };
        // SAFETY: `count` sizes are there, and the tensor's length was compared with the operation's span.
        unsafe {
            let descriptor = MPSNDArrayDescriptor::descriptorWithDataType_dimensionCount_dimensionSizes(
                data_type,
                count,
                NonNull::from(&mut sizes).cast(),
            );
            descriptor.setPreferPackedRows(true);
            if self.transposed {
                descriptor.transposeDimension_withDimension(0, 1);
            }
            let buffer = place.block.buffer();
            MPSNDArray::initWithBuffer_offset_descriptor(MPSNDArray::alloc(), buffer, place.offset, &descriptor)
        }
    }
}

impl Product {
    /// Its arrays at these places.
    pub(super) fn make_views(&self, matrices: &mut Matrices, places: &Places<'_>) {
        self.arrays(matrices, [places[0], places[1], places[2]]);
    }

    #[inline]
    fn arrays<'a>(&self, matrices: &'a mut Matrices, places: [Place<'_>; 3]) -> &'a Arrays {
        matrices.arrays(self.number, places, || {
            let [left, right, destination] = [0, 1, 2].map(|i| self.operands[i].array(places[i], self.data_type));
            Arrays { sources: NSArray::from_retained_slice(&[left, right]), destination }
        })
    }

    #[inline]
    pub(super) fn encode(&self, encoder: &mut Encoder, matrices: &mut Matrices, places: &Places<'_>) -> Result<()> {
        let places = [places[0], places[1], places[2]];
        let mut accesses = Accesses::new();
        for ((place, stored), manner) in
            places.iter().zip(&self.operands).zip([Access::Read, Access::Read, Access::Write])
        {
            accesses.push(access(*place, stored.bytes, manner));
        }
        let arrays = self.arrays(matrices, places);
        let kernel: &MPSNDArrayMultiaryKernel = &self.kernel;
        encoder.inside(&accesses, |compute, commands| {
            let (sources, destination) = (&arrays.sources, &arrays.destination);
            // SAFETY: the arrays have the shapes that the kernel expects, and the encoder is the command buffer's.
            unsafe {
                kernel.encodeToCommandEncoder_commandBuffer_sourceArrays_destinationArray(
                    Some(compute),
                    commands,
                    sources,
                    destination,
                );
            }
        })
    }
}
