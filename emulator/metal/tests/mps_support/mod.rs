//! What the tests of Metal Performance Shaders share: buffers of numbers, matrices over them, and refusals.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use half::{bf16, f16};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandQueue, MTLCreateSystemDefaultDevice, MTLDevice,
    MTLResourceOptions,
};
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix, MPSMatrixDescriptor};

pub type Device = ProtocolObject<dyn MTLDevice>;
pub type Queue = ProtocolObject<dyn MTLCommandQueue>;
pub type Commands = ProtocolObject<dyn MTLCommandBuffer>;
pub type Buffer = ProtocolObject<dyn MTLBuffer>;

/// A device and a queue.
pub struct Gpu {
    pub device: Retained<Device>,
    pub queue: Retained<Queue>,
}

impl Gpu {
    pub fn new() -> Self {
        let device = MTLCreateSystemDefaultDevice().expect("a device");
        let queue = device.newCommandQueue().expect("a queue");
        Gpu { device, queue }
    }

    pub fn buffer(&self, bytes: usize) -> Retained<Buffer> {
        self.device.newBufferWithLength_options(bytes, MTLResourceOptions::StorageModeShared).expect("memory")
    }

    /// Encodes, commits and waits.
    pub fn run(&self, encode: impl FnOnce(&Commands)) {
        let commands = self.queue.commandBuffer().expect("a command buffer");
        encode(&commands);
        commands.commit();
        commands.waitUntilCompleted();
        assert_eq!(commands.status(), MTLCommandBufferStatus::Completed);
    }

    /// A matrix over a buffer that holds it exactly.
    pub fn grid(&self, shape: Shape) -> Grid {
        Grid::new(self, shape)
    }
}

/// A batch of matrices with padding behind each row, and rows behind each matrix.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub rows: usize,
    pub columns: usize,
    pub matrices: usize,
    pub padding: usize,
    pub spare_rows: usize,
    pub offset: usize,
    pub data_type: MPSDataType,
}

impl Shape {
    pub fn new(rows: usize, columns: usize, data_type: MPSDataType) -> Self {
        Shape { rows, columns, matrices: 1, padding: 0, spare_rows: 0, offset: 0, data_type }
    }

    /// Padding behind rows and matrices, and an offset in front.
    pub fn loose(self) -> Self {
        Shape { padding: 3, spare_rows: 2, offset: 5, ..self }
    }

    pub fn batched(self, matrices: usize) -> Self {
        Shape { matrices, ..self }
    }

    fn stride(&self) -> usize {
        self.columns + self.padding
    }

    fn index(&self, matrix: usize, row: usize, column: usize) -> usize {
        self.offset + matrix * (self.rows + self.spare_rows) * self.stride() + row * self.stride() + column
    }

    fn length(&self) -> usize {
        self.index(self.matrices - 1, self.rows - 1, self.columns - 1) + 1
    }
}

pub fn size(data_type: MPSDataType) -> usize {
    data_type.0 as usize % 256 / 8
}

/// A matrix, its buffer, and where its elements are.
pub struct Grid {
    pub shape: Shape,
    pub buffer: Retained<Buffer>,
    pub matrix: Retained<MPSMatrix>,
}

impl Grid {
    fn new(gpu: &Gpu, shape: Shape) -> Self {
        let element = size(shape.data_type);
        let buffer = gpu.buffer(shape.length() * element);
        let (row_bytes, matrix_rows) = (shape.stride() * element, shape.rows + shape.spare_rows);
        // SAFETY: the strides are those of the buffer.
        let matrix = unsafe {
            let descriptor =
                MPSMatrixDescriptor::matrixDescriptorWithRows_columns_matrices_rowBytes_matrixBytes_dataType(
                    shape.rows,
                    shape.columns,
                    shape.matrices,
                    row_bytes,
                    matrix_rows * row_bytes,
                    shape.data_type,
                );
            let offset = shape.offset * element;
            MPSMatrix::initWithBuffer_offset_descriptor(MPSMatrix::alloc(), &buffer, offset, &descriptor)
        };
        Grid { shape, buffer, matrix }
    }

    /// Sets every element.
    pub fn fill(self, mut value: impl FnMut(usize, usize, usize) -> f64) -> Self {
        for matrix in 0..self.shape.matrices {
            for row in 0..self.shape.rows {
                for column in 0..self.shape.columns {
                    let index = self.shape.index(matrix, row, column);
                    store(&self.buffer, self.shape.data_type, index, value(matrix, row, column));
                }
            }
        }
        self
    }

    /// An arbitrary number for every element, different for each seed, exact in every type.
    pub fn scatter(self, seed: usize) -> Self {
        let integral = matches!(self.shape.data_type, MPSDataType::Int8 | MPSDataType::Int16);
        self.fill(|matrix, row, column| {
            let number = (matrix * 31 + row * 7 + column * 13 + seed * 5) % 23;
            (number as f64 - 11.0) * if integral { 1.0 } else { 0.125 }
        })
    }

    pub fn get(&self, matrix: usize, row: usize, column: usize) -> f64 {
        load(&self.buffer, self.shape.data_type, self.shape.index(matrix, row, column))
    }

    /// Every number in the buffer but those of `written`, which must still be NaN.
    pub fn untouched_is_nan(&self, written: impl Fn(usize, usize, usize) -> bool) -> bool {
        let mut touched = vec![false; self.shape.length()];
        for matrix in 0..self.shape.matrices {
            for row in 0..self.shape.rows {
                for column in 0..self.shape.columns {
                    touched[self.shape.index(matrix, row, column)] = written(matrix, row, column);
                }
            }
        }
        let is_nan = |index| load(&self.buffer, self.shape.data_type, index).is_nan();
        touched.iter().enumerate().all(|(index, touched)| *touched != is_nan(index))
    }
}

fn element(buffer: &Buffer, data_type: MPSDataType, index: usize) -> *mut u8 {
    let length = buffer.length();
    assert!((index + 1) * size(data_type) <= length, "element {index} of a buffer of {length} bytes");
    let contents: NonNull<c_void> = buffer.contents();
    contents.as_ptr().cast::<u8>().wrapping_add(index * size(data_type))
}

/// Reads a number of a buffer.
pub fn load(buffer: &Buffer, data_type: MPSDataType, index: usize) -> f64 {
    let place = element(buffer, data_type, index);
    // SAFETY: the element lies in the buffer.
    unsafe {
        match data_type {
            MPSDataType::Float32 => f64::from(*place.cast::<f32>()),
            MPSDataType::Float16 => (*place.cast::<f16>()).to_f64(),
            MPSDataType::BFloat16 => (*place.cast::<bf16>()).to_f64(),
            MPSDataType::Int8 => f64::from(*place.cast::<i8>()),
            MPSDataType::Int16 => f64::from(*place.cast::<i16>()),
            other => panic!("{other:?}"),
        }
    }
}

/// Writes a number to a buffer.
pub fn store(buffer: &Buffer, data_type: MPSDataType, index: usize, value: f64) {
    let place = element(buffer, data_type, index);
    // SAFETY: the element lies in the buffer.
    unsafe {
        match data_type {
            MPSDataType::Float32 => *place.cast::<f32>() = value as f32,
            MPSDataType::Float16 => *place.cast::<f16>() = f16::from_f64(value),
            MPSDataType::BFloat16 => *place.cast::<bf16>() = bf16::from_f64(value),
            MPSDataType::Int8 => *place.cast::<i8>() = value as i8,
            MPSDataType::Int16 => *place.cast::<i16>() = value as i16,
            other => panic!("{other:?}"),
        }
    }
}

/// Half a unit in the last place, and a little for the sum in f32.
pub fn tolerance(data_type: MPSDataType) -> f64 {
    match data_type {
        MPSDataType::Float16 => 1.01 / 2048.0,
        MPSDataType::BFloat16 => 1.01 / 256.0,
        _ => 1e-6,
    }
}

/// Panics unless two numbers agree up to the rounding of the type.
#[track_caller]
pub fn assert_close(found: f64, wanted: f64, data_type: MPSDataType) {
    let allowed = tolerance(data_type) * wanted.abs().max(0.05);
    assert!((found - wanted).abs() <= allowed, "{found} instead of {wanted} ({data_type:?})");
}

/// The text of the exception that the code raises.
#[track_caller]
pub fn refusal<T>(code: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(code)) else { panic!("nothing was refused") };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&str>() {
            Ok(text) => (*text).to_owned(),
            Err(_) => panic!("a panic without text"),
        },
    }
}

/// Panics unless the code raises an exception that says all of this.
#[track_caller]
pub fn assert_refused<T>(parts: &[&str], code: impl FnOnce() -> T) {
    let text = refusal(code);
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
