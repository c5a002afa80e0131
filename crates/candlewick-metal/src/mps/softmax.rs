//! `MPSMatrixSoftMax`: f32 and f16, no scale and no mask.

use super::matrices::{Layout, Matrices, access};
use super::{Step, data_type};
use crate::ops::Build;
use crate::runtime::dispatch::Places;
use crate::runtime::encoder::{Accesses, Encoder};
use crate::runtime::hazard::Access;
use candlewick_core::op::Mask;
use candlewick_core::{DType, Result};
use objc2::AnyThread;
use objc2::rc::{Retained, autoreleasepool};
use objc2_metal_performance_shaders::{MPSMatrix, MPSMatrixSoftMax};

/// Whether MPS runs it.
pub(crate) fn runs(op: &candlewick_core::Softmax) -> bool {
    matches!(op.dtype, DType::F32 | DType::F16)
        && op.rows > 0
        && op.cols > 0
        && op.scale.get() == 1.0
        && op.mask == Mask::None
}

/// A prepared softmax.
pub(crate) struct Softmax {
    kernel: Retained<MPSMatrixSoftMax>,
    layouts: [Layout; 2],
    element: usize,
}

pub(crate) fn softmax(op: &candlewick_core::Softmax, build: &Build<'_>) -> Step {
    let element = op.dtype.bytes();
    let layout = |row: usize| Layout {
        rows: op.rows,
        columns: op.cols,
        matrices: 1,
        row_bytes: row * element,
        matrix_bytes: op.rows * row * element,
        data_type: data_type(op.dtype),
    };
    let device = build.shared().metal();
    // SAFETY: it takes its extent from the matrices.
    let kernel = autoreleasepool(|_| unsafe { MPSMatrixSoftMax::initWithDevice(MPSMatrixSoftMax::alloc(), device) });
    Step::Softmax(Softmax { kernel, layouts: [layout(op.x_row), layout(op.y_row)], element })
}

impl Softmax {
    #[inline]
    pub(super) fn encode(&self, encoder: &mut Encoder, matrices: &mut Matrices, places: &Places<'_>) -> Result<()> {
        let mut accesses = Accesses::new();
        let mut operands = [std::ptr::null::<MPSMatrix>(); 2];
        for (i, manner) in [Access::Read, Access::Write].into_iter().enumerate() {
            operands[i] = matrices.matrix(places[i], &self.layouts[i]);
            accesses.push(access(places[i], self.layouts[i].bytes(self.element), manner));
        }
        encoder.outside(&accesses, |commands| {
            // SAFETY: the matrices are alive: the cache keeps far more than two. They have the same shape.
            unsafe {
                let [input, result] = operands.map(|matrix| &*matrix);
                self.kernel.encodeToCommandBuffer_inputMatrix_resultMatrix(commands, input, result);
            }
        })
    }
}
