//! `MPSMatrixUnaryKernel` and `MPSMatrixBinaryKernel`: origins and batches (MPSMatrixTypes.h).

use std::ops::Range;

use objc2::rc::{Allocated, Retained};
use objc2::{DefinedClass, define_class, msg_send};
use objc2_metal::MTLOrigin;

use super::call::Call;
use super::kernel::{EmulatedKernel, Fields};
use super::object::Device;

/// [0, 0].
pub(super) const ORIGIN: MTLOrigin = MTLOrigin { x: 0, y: 0, z: 0 };

/// Which matrices of its operands a kernel processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// `batchStart`.
    pub(super) start: usize,
    /// `batchSize`.
    pub(super) size: usize,
}

impl Batch {
    /// "By default allows all matrices available at encoding time to be processed" (MPSMatrixTypes.h). The value that
    /// says so is not documented; NSUIntegerMax is chosen, as `sourceRows` has it in MPSMatrixSoftMax.h.
    pub(super) const ALL: Batch = Batch { start: 0, size: usize::MAX };

    /// The matrices to process, given how many the operands have.
    ///
    /// "Each matrix within the range specified by batchStart and batchSize, which also specifies a valid set of
    /// matrices within leftMatrix, rightMatrix, and resultMatrix, will be processed" (MPSMatrixMultiplication.h).
    pub(super) fn range(self, call: Call, operands: &[(&str, usize)]) -> Range<usize> {
        let Batch { start, size } = self;
        // Not documented; refused because nobody encodes a kernel that is to do nothing.
        call.require(size != 0, || "batchSize is 0".to_owned());
        for (what, available) in operands {
            call.require(start < *available, || {
                format!("batchStart = {start}, but the {what} has {available} matrices")
            });
            let end = start.checked_add(size).filter(|end| end <= available);
            call.require(size == usize::MAX || end.is_some(), || {
                format!("batchStart = {start} and batchSize = {size}, but the {what} has {available} matrices")
            });
        }
        let available = operands.iter().map(|(_, available)| *available).min().unwrap_or(0);
        start..start.saturating_add(size).min(available)
    }
}

/// The properties of `MPSMatrixUnaryKernel`.
#[derive(Clone, Copy)]
pub(super) struct Unary {
    /// `sourceMatrixOrigin`.
    pub(super) source: MTLOrigin,
    /// `resultMatrixOrigin`.
    pub(super) result: MTLOrigin,
    /// `batchStart` and `batchSize`.
    pub(super) batch: Batch,
}

/// The properties of `MPSMatrixBinaryKernel`.
#[derive(Clone, Copy)]
pub(super) struct Binary {
    /// `primarySourceMatrixOrigin`.
    pub(super) primary: MTLOrigin,
    /// `secondarySourceMatrixOrigin`.
    pub(super) secondary: MTLOrigin,
    /// `resultMatrixOrigin`.
    pub(super) result: MTLOrigin,
    /// `batchStart` and `batchSize`.
    pub(super) batch: Batch,
}

define_class!(
    // SAFETY: EmulatedKernel's initialiser is called.
    #[unsafe(super(EmulatedKernel))]
    #[name = "MPSMatrixUnaryKernel"]
    #[ivars = Fields<Unary>]
    pub(super) struct EmulatedUnaryKernel;

    impl EmulatedUnaryKernel {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(this: Allocated<Self>, device: &Device) -> Retained<Self> {
            let _own = emulator_objc::own();
            let this = this.set_ivars(Fields::new(Unary { source: ORIGIN, result: ORIGIN, batch: Batch::ALL }));
            // SAFETY: the superclass has this initialiser.
            unsafe { msg_send![super(this), initWithDevice: device] }
        }

        #[unsafe(method(sourceMatrixOrigin))]
        fn source_matrix_origin(&self) -> MTLOrigin {
            self.enter().source
        }

        #[unsafe(method(setSourceMatrixOrigin:))]
        fn set_source_matrix_origin(&self, origin: MTLOrigin) {
            self.enter().source = origin;
        }

        #[unsafe(method(resultMatrixOrigin))]
        fn result_matrix_origin(&self) -> MTLOrigin {
            self.enter().result
        }

        #[unsafe(method(setResultMatrixOrigin:))]
        fn set_result_matrix_origin(&self, origin: MTLOrigin) {
            self.enter().result = origin;
        }

        #[unsafe(method(batchStart))]
        fn batch_start(&self) -> usize {
            self.enter().batch.start
        }

        #[unsafe(method(setBatchStart:))]
        fn set_batch_start(&self, start: usize) {
            self.enter().batch.start = start;
        }

        #[unsafe(method(batchSize))]
        fn batch_size(&self) -> usize {
            self.enter().batch.size
        }

        #[unsafe(method(setBatchSize:))]
        fn set_batch_size(&self, size: usize) {
            self.enter().batch.size = size;
        }
    }
);

impl EmulatedUnaryKernel {
    /// Sole use of its properties.
    pub(super) fn enter(&self) -> std::sync::MutexGuard<'_, Unary> {
        self.ivars().enter("MPSMatrixUnaryKernel")
    }

    /// Takes over the properties of the kernel it is a copy of.
    pub(super) fn copy_unary(&self, original: &EmulatedUnaryKernel) {
        self.copy_common(original);
        *self.enter() = *original.enter();
    }
}

define_class!(
    // SAFETY: EmulatedKernel's initialiser is called.
    #[unsafe(super(EmulatedKernel))]
    #[name = "MPSMatrixBinaryKernel"]
    #[ivars = Fields<Binary>]
    pub(super) struct EmulatedBinaryKernel;

    impl EmulatedBinaryKernel {
        #[unsafe(method_id(initWithDevice:))]
        fn init_with_device(this: Allocated<Self>, device: &Device) -> Retained<Self> {
            let _own = emulator_objc::own();
            let origins = Binary { primary: ORIGIN, secondary: ORIGIN, result: ORIGIN, batch: Batch::ALL };
            let this = this.set_ivars(Fields::new(origins));
            // SAFETY: the superclass has this initialiser.
            unsafe { msg_send![super(this), initWithDevice: device] }
        }

        #[unsafe(method(primarySourceMatrixOrigin))]
        fn primary_source_matrix_origin(&self) -> MTLOrigin {
            self.enter().primary
        }

        #[unsafe(method(setPrimarySourceMatrixOrigin:))]
        fn set_primary_source_matrix_origin(&self, origin: MTLOrigin) {
            self.enter().primary = origin;
        }

        #[unsafe(method(secondarySourceMatrixOrigin))]
        fn secondary_source_matrix_origin(&self) -> MTLOrigin {
            self.enter().secondary
        }

        #[unsafe(method(setSecondarySourceMatrixOrigin:))]
        fn set_secondary_source_matrix_origin(&self, origin: MTLOrigin) {
            self.enter().secondary = origin;
        }

        #[unsafe(method(resultMatrixOrigin))]
        fn result_matrix_origin(&self) -> MTLOrigin {
            self.enter().result
        }

        #[unsafe(method(setResultMatrixOrigin:))]
        fn set_result_matrix_origin(&self, origin: MTLOrigin) {
            self.enter().result = origin;
        }

        #[unsafe(method(batchStart))]
        fn batch_start(&self) -> usize {
            self.enter().batch.start
        }

        #[unsafe(method(setBatchStart:))]
        fn set_batch_start(&self, start: usize) {
            self.enter().batch.start = start;
        }

        #[unsafe(method(batchSize))]
        fn batch_size(&self) -> usize {
            self.enter().batch.size
        }

        #[unsafe(method(setBatchSize:))]
        fn set_batch_size(&self, size: usize) {
            self.enter().batch.size = size;
        }
    }
);

impl EmulatedBinaryKernel {
    /// Sole use of its properties.
    pub(super) fn enter(&self) -> std::sync::MutexGuard<'_, Binary> {
        self.ivars().enter("MPSMatrixBinaryKernel")
    }

    /// Takes over the properties of the kernel it is a copy of.
    pub(super) fn copy_binary(&self, original: &EmulatedBinaryKernel) {
        self.copy_common(original);
        *self.enter() = *original.enter();
    }
}
