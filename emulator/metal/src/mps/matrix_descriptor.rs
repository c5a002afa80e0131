//! `MPSMatrixDescriptor` and `MPSVectorDescriptor` (MPSMatrix.h).

use std::cell::Cell;

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{DefinedClass, define_class, msg_send};
use objc2_metal_performance_shaders::MPSDataType;

use super::data_type;
use crate::foundation::new_object;

/// A batch of matrices; a vector is a matrix of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) matrices: usize,
    pub(super) row_bytes: usize,
    pub(super) matrix_bytes: usize,
    pub(super) data_type: MPSDataType,
}

impl Shape {
    const EMPTY: Shape =
        Shape { rows: 0, columns: 0, matrices: 0, row_bytes: 0, matrix_bytes: 0, data_type: MPSDataType::Invalid };
}

/// The stride that MPS recommends. The rule is not in MPSMatrix.h ("using this row stride to construct your array is
/// recommended, but not required"). This one was measured on macOS 26.5 by Charon, a public reimplementation of MPS:
/// no bytes for no columns, one element for one column, else a multiple of 16 bytes for floats and of 4 elements for
/// integers.
fn recommended_stride(elements: usize, data_type: MPSDataType) -> usize {
    let size = data_type::size(data_type);
    match elements {
        0 => 0,
        1 => size,
        _ if data_type::is_float(data_type) => (elements * size).next_multiple_of(16),
        _ => elements.next_multiple_of(4) * size,
    }
}

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSMatrixDescriptor"]
    #[ivars = Cell<Shape>]
    pub(super) struct EmulatedMatrixDescriptor;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedMatrixDescriptor {}

    impl EmulatedMatrixDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            let this = this.set_ivars(Cell::new(Shape::EMPTY));
            // SAFETY: NSObject's `init` takes no arguments.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(matrixDescriptorWithDimensions:columns:rowBytes:dataType:))]
        fn with_dimensions(rows: usize, columns: usize, row_bytes: usize, data_type: MPSDataType) -> Retained<Self> {
            Self::single(rows, columns, row_bytes, data_type)
        }

        #[unsafe(method_id(matrixDescriptorWithRows:columns:rowBytes:dataType:))]
        fn with_rows(rows: usize, columns: usize, row_bytes: usize, data_type: MPSDataType) -> Retained<Self> {
            Self::single(rows, columns, row_bytes, data_type)
        }

        #[unsafe(method_id(matrixDescriptorWithRows:columns:matrices:rowBytes:matrixBytes:dataType:))]
        fn with_matrices(
            rows: usize,
            columns: usize,
            matrices: usize,
            row_bytes: usize,
            matrix_bytes: usize,
            data_type: MPSDataType,
        ) -> Retained<Self> {
            new_object(Cell::new(Shape { rows, columns, matrices, row_bytes, matrix_bytes, data_type }))
        }

        #[unsafe(method(rowBytesFromColumns:dataType:))]
        fn row_bytes_from_columns(columns: usize, data_type: MPSDataType) -> usize {
            recommended_stride(columns, data_type)
        }

        #[unsafe(method(rowBytesForColumns:dataType:))]
        fn row_bytes_for_columns(columns: usize, data_type: MPSDataType) -> usize {
            recommended_stride(columns, data_type)
        }

        #[unsafe(method(rows))]
        fn rows(&self) -> usize {
            self.shape().rows
        }

        #[unsafe(method(setRows:))]
        fn set_rows(&self, rows: usize) {
            self.ivars().set(Shape { rows, ..self.shape() });
        }

        #[unsafe(method(columns))]
        fn columns(&self) -> usize {
            self.shape().columns
        }

        #[unsafe(method(setColumns:))]
        fn set_columns(&self, columns: usize) {
            self.ivars().set(Shape { columns, ..self.shape() });
        }

        #[unsafe(method(matrices))]
        fn matrices(&self) -> usize {
            self.shape().matrices
        }

        #[unsafe(method(dataType))]
        fn data_type(&self) -> MPSDataType {
            self.shape().data_type
        }

        #[unsafe(method(setDataType:))]
        fn set_data_type(&self, data_type: MPSDataType) {
            self.ivars().set(Shape { data_type, ..self.shape() });
        }

        #[unsafe(method(rowBytes))]
        fn row_bytes(&self) -> usize {
            self.shape().row_bytes
        }

        #[unsafe(method(setRowBytes:))]
        fn set_row_bytes(&self, row_bytes: usize) {
            self.ivars().set(Shape { row_bytes, ..self.shape() });
        }

        #[unsafe(method(matrixBytes))]
        fn matrix_bytes(&self) -> usize {
            self.shape().matrix_bytes
        }
    }
);

impl EmulatedMatrixDescriptor {
    /// "The number of matrices described is initialized to 1." That `matrixBytes` is rows * rowBytes, fixed when the
    /// descriptor is made, is not documented; Charon measured it on macOS 26.5.
    fn single(rows: usize, columns: usize, row_bytes: usize, data_type: MPSDataType) -> Retained<Self> {
        let matrix_bytes = rows.saturating_mul(row_bytes);
        new_object(Cell::new(Shape { rows, columns, matrices: 1, row_bytes, matrix_bytes, data_type }))
    }

    /// What it describes now.
    pub(super) fn shape(&self) -> Shape {
        self.ivars().get()
    }
}

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSVectorDescriptor"]
    #[ivars = Cell<Shape>]
    pub(super) struct EmulatedVectorDescriptor;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedVectorDescriptor {}

    impl EmulatedVectorDescriptor {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            let this = this.set_ivars(Cell::new(Shape { rows: 1, ..Shape::EMPTY }));
            // SAFETY: NSObject's `init` takes no arguments.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(vectorDescriptorWithLength:dataType:))]
        fn with_length(length: usize, data_type: MPSDataType) -> Retained<Self> {
            Self::of_vectors(length, 1, length.saturating_mul(data_type::size(data_type)), data_type)
        }

        #[unsafe(method_id(vectorDescriptorWithLength:vectors:vectorBytes:dataType:))]
        fn with_vectors(length: usize, vectors: usize, vector_bytes: usize, data_type: MPSDataType) -> Retained<Self> {
            Self::of_vectors(length, vectors, vector_bytes, data_type)
        }

        #[unsafe(method(vectorBytesForLength:dataType:))]
        fn vector_bytes_for_length(length: usize, data_type: MPSDataType) -> usize {
            recommended_stride(length, data_type)
        }

        #[unsafe(method(length))]
        fn length(&self) -> usize {
            self.shape().columns
        }

        #[unsafe(method(setLength:))]
        fn set_length(&self, length: usize) {
            self.ivars().set(Shape { columns: length, ..self.shape() });
        }

        #[unsafe(method(vectors))]
        fn vectors(&self) -> usize {
            self.shape().matrices
        }

        #[unsafe(method(dataType))]
        fn data_type(&self) -> MPSDataType {
            self.shape().data_type
        }

        #[unsafe(method(setDataType:))]
        fn set_data_type(&self, data_type: MPSDataType) {
            self.ivars().set(Shape { data_type, ..self.shape() });
        }

        #[unsafe(method(vectorBytes))]
        fn vector_bytes(&self) -> usize {
            self.shape().matrix_bytes
        }
    }
);

impl EmulatedVectorDescriptor {
    fn of_vectors(length: usize, vectors: usize, vector_bytes: usize, data_type: MPSDataType) -> Retained<Self> {
        new_object(Cell::new(Shape {
            rows: 1,
            columns: length,
            matrices: vectors,
            row_bytes: vector_bytes,
            matrix_bytes: vector_bytes,
            data_type,
        }))
    }

    /// What it describes now.
    pub(super) fn shape(&self) -> Shape {
        self.ivars().get()
    }
}
