//! What matrices and vectors have in common: a shape, and a buffer that must hold it (MPSMatrix.h).

use std::sync::OnceLock;

use objc2::Message;
use objc2::rc::Retained;
use objc2_metal::{MTLBuffer, MTLDevice, MTLOrigin, MTLResource, MTLResourceOptions};
use objc2_metal_performance_shaders::MPSDataType;

use super::call::Call;
use super::data_type;
use super::matrix_descriptor::Shape;
use super::object::{Device, MetalBuffer, require_same_device};
use super::strided::{Axis, Layout, Operand};
use crate::metal::buffer::Buffer;

/// A shape and where its elements are: a matrix or a vector.
pub(super) struct Storage {
    /// The device on which it will be used.
    pub(super) device: Retained<Device>,
    /// Its shape.
    pub(super) shape: Shape,
    /// Bytes before the first element.
    pub(super) offset: usize,
    /// Whether the program gave the buffer; else it is made when it is first needed.
    given: bool,
    data: OnceLock<Retained<MetalBuffer>>,
}

impl Storage {
    /// In a buffer of the program.
    pub(super) fn over(call: Call, buffer: &MetalBuffer, offset: usize, shape: Shape) -> Self {
        let _own = emulator_objc::own();
        check(call, &shape);
        let size = data_type::size(shape.data_type);
        // Not documented for the offset; chosen because a GPU reads elements at multiples of their size only.
        call.require(offset.is_multiple_of(size), || {
            format!(
                "offset = {offset} is not a multiple of {size} bytes, the size of {}",
                data_type::name(shape.data_type)
            )
        });
        // "The provided MTLBuffer must have enough storage to hold (matrices-1) * matrixBytes + (rows-1) * rowBytes +
        // columns * (element size) bytes."
        let (needed, length) = (offset.saturating_add(extent(&shape)), buffer.length());
        call.require(needed <= length, || {
            let Shape { rows, columns, matrices, row_bytes, matrix_bytes, .. } = shape;
            format!(
                "buffer is not large enough: {length} bytes, but offset {offset} + {} matrices * {matrix_bytes} + {} \
                 rows * {row_bytes} + {columns} columns * {size} = {needed}",
                matrices - 1,
                rows - 1
            )
        });
        let device = buffer.device();
        Storage { device, shape, offset, given: true, data: OnceLock::from(buffer.retain()) }
    }

    /// In a buffer that is yet to be made.
    pub(super) fn lazy(call: Call, device: &Device, shape: Shape) -> Self {
        check(call, &shape);
        Storage { device: device.retain(), shape, offset: 0, given: false, data: OnceLock::new() }
    }

    /// "The storage to hold the matrix data will only be allocated when it is needed". Its storage mode is not
    /// documented; shared is chosen, which `data.contents` needs.
    pub(super) fn data(&self) -> &Retained<MetalBuffer> {
        self.data.get_or_init(|| {
            let length = self.bytes();
            let buffer = self.device.newBufferWithLength_options(length, MTLResourceOptions::StorageModeShared);
            buffer.unwrap_or_else(|| crate::foundation::raise("MPSMatrix", &format!("no memory for {length} bytes")))
        })
    }

    fn bytes(&self) -> usize {
        let Shape { rows, matrices, row_bytes, matrix_bytes, .. } = self.shape;
        (matrices - 1) * matrix_bytes + rows * row_bytes
    }

    /// "Get the number of bytes used to allocate underlying MTLResources"; where the buffer was given, "0 will be
    /// returned" (MPSVector's comment; MPSMatrix's names images).
    pub(super) fn resource_size(&self) -> usize {
        if self.given { 0 } else { self.bytes() }
    }

    /// The number of matrices or vectors.
    pub(super) fn matrices(&self) -> usize {
        self.shape.matrices
    }

    /// What its elements are.
    pub(super) fn data_type(&self) -> MPSDataType {
        self.shape.data_type
    }

    /// Rows and columns from an origin on. `x` is the row and `y` the column: MPSMatrixSoftMax.h has `sourceRows` start
    /// "from sourceMatrixOrigin.x" and `sourceColumns` "from sourceMatrixOrigin.y". "The z value must be 0."
    pub(super) fn available_from(&self, call: Call, what: &str, origin: MTLOrigin) -> (usize, usize) {
        let MTLOrigin { x, y, z } = origin;
        let Shape { rows, columns, .. } = self.shape;
        call.require(z == 0, || format!("the origin of the {what} has z = {z}; it must be 0"));
        call.require(x < rows && y < columns, || {
            format!("the origin of the {what} is row {x}, column {y}, but it has {rows} rows and {columns} columns")
        });
        (rows - x, columns - y)
    }

    /// A window of each matrix of a batch.
    pub(super) fn operand(&self, call: Call, what: &str, window: Window) -> Operand {
        let _own = emulator_objc::own();
        let Window { origin, rows, columns, batch } = window;
        let (rows_left, columns_left) = self.available_from(call, what, origin);
        call.require(rows <= rows_left && columns <= columns_left, || {
            let Shape { rows: all_rows, columns: all_columns, .. } = self.shape;
            format!(
                "number of requested rows or columns exceeds the {what}'s size: {rows} x {columns} elements from row \
                 {}, column {} on, but it has {all_rows} rows and {all_columns} columns",
                origin.x, origin.y
            )
        });
        let Shape { row_bytes, matrix_bytes, data_type, .. } = self.shape;
        let size = data_type::size(data_type);
        let axes = vec![
            Axis { length: columns, stride: size },
            Axis { length: rows, stride: row_bytes },
            Axis { length: batch.len(), stride: matrix_bytes },
        ];
        let offset = self.offset + batch.start * matrix_bytes + origin.x * row_bytes + origin.y * size;
        let memory = Buffer::of(&**self.data()).memory().clone();
        Operand { memory, layout: Layout { offset, axes, data_type } }
    }

    /// Refuses an operand of another device.
    pub(super) fn require_device(&self, call: Call, kernel: &Device, what: &str) {
        require_same_device(call, kernel, what, &self.device);
    }
}

/// A part of every matrix of a batch.
pub(super) struct Window {
    /// Its first element.
    pub(super) origin: MTLOrigin,
    /// Its rows.
    pub(super) rows: usize,
    /// Its columns.
    pub(super) columns: usize,
    /// Which matrices.
    pub(super) batch: std::ops::Range<usize>,
}

/// From the first byte of the first element to the last byte of the last.
fn extent(shape: &Shape) -> usize {
    let Shape { rows, columns, matrices, row_bytes, matrix_bytes, data_type } = *shape;
    let (matrices, rows) = ((matrices - 1).saturating_mul(matrix_bytes), (rows - 1).saturating_mul(row_bytes));
    matrices.saturating_add(rows).saturating_add(columns.saturating_mul(data_type::size(data_type)))
}

fn check(call: Call, shape: &Shape) {
    let Shape { rows, columns, matrices, row_bytes, matrix_bytes, data_type } = *shape;
    let (size, name) = (data_type::checked_size(call, data_type), data_type::name(data_type));
    let (stride, units) =
        if call.class() == "MPSVector" { ("vectorBytes", "elements") } else { ("rowBytes", "columns") };
    // Not documented; refused because the sizes below are those of the last row and matrix, which must be there.
    call.require(rows > 0 && columns > 0 && matrices > 0, || {
        format!("{matrices} matrices or vectors of {rows} x {columns} have no elements")
    });
    // "Provided that the stride used is still large enough to allocate a full row of data" (MPSMatrix.h). MPS asserts
    // "not enough rowBytes for all the columns" (MPSMatrix.mm:222, as bug reports quote it).
    let needed = columns.saturating_mul(size);
    call.require(row_bytes >= needed, || {
        let hint = match row_bytes {
            bytes if bytes == columns => format!("; {stride} counts bytes, and this is the number of {units}"),
            bytes if bytes.is_multiple_of(columns) => {
                format!("; this would do for elements of {} bytes: is the data type right?", bytes / columns)
            }
            _ => String::new(),
        };
        format!(
            "not enough {stride} for all the {units}: {stride} = {row_bytes}, but {columns} {units} of {name} take \
             {needed}{hint}"
        )
    });
    // rowBytes "must be a multiple of the element size".
    call.require(row_bytes.is_multiple_of(size), || {
        format!("{stride} = {row_bytes} is not a multiple of {size} bytes, the size of {name}")
    });
    if matrices > 1 {
        // matrixBytes "must be a multiple of rowBytes", and "at least equal to rows * rowBytes".
        call.require(matrix_bytes.is_multiple_of(row_bytes), || {
            format!("matrixBytes = {matrix_bytes} is not a multiple of rowBytes = {row_bytes}")
        });
        call.require(matrix_bytes >= rows.saturating_mul(row_bytes), || {
            format!("matrixBytes = {matrix_bytes} is less than {rows} rows * rowBytes = {row_bytes}")
        });
    }
}
