//! `MPSMatrix`, `MPSVector`, their descriptors, and what they refuse.

mod mps_support;

use metal_emulator::{Settings, watch};
use mps_support::{Gpu, Shape, assert_refused};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_metal::{MTLBuffer, MTLDevice, MTLResource, MTLResourceOptions};
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix, MPSMatrixDescriptor, MPSVector, MPSVectorDescriptor};

fn descriptor(rows: usize, columns: usize, row_bytes: usize, data_type: MPSDataType) -> Retained<MPSMatrixDescriptor> {
    // SAFETY: a descriptor is checked when it is used.
    unsafe {
        MPSMatrixDescriptor::matrixDescriptorWithRows_columns_rowBytes_dataType(rows, columns, row_bytes, data_type)
    }
}

fn batch(
    rows: usize,
    columns: usize,
    matrices: usize,
    row_bytes: usize,
    matrix_bytes: usize,
) -> Retained<MPSMatrixDescriptor> {
    // SAFETY: a descriptor is checked when it is used.
    unsafe {
        MPSMatrixDescriptor::matrixDescriptorWithRows_columns_matrices_rowBytes_matrixBytes_dataType(
            rows,
            columns,
            matrices,
            row_bytes,
            matrix_bytes,
            MPSDataType::Float32,
        )
    }
}

/// The descriptor's matrix over a buffer of this many bytes.
fn matrix(gpu: &Gpu, bytes: usize, offset: usize, descriptor: &MPSMatrixDescriptor) -> Retained<MPSMatrix> {
    let buffer = gpu.buffer(bytes);
    // SAFETY: the buffer is kept by the matrix.
    unsafe { MPSMatrix::initWithBuffer_offset_descriptor(MPSMatrix::alloc(), &buffer, offset, descriptor) }
}

#[test]
fn a_descriptor_keeps_what_it_is_given() {
    let _watch = watch(Settings::default());
    let descriptor = descriptor(3, 5, 32, MPSDataType::Float32);
    // SAFETY: properties of a descriptor.
    unsafe {
        assert_eq!((descriptor.rows(), descriptor.columns(), descriptor.matrices()), (3, 5, 1));
        assert_eq!((descriptor.rowBytes(), descriptor.matrixBytes()), (32, 96));
        descriptor.setRows(4);
        descriptor.setColumns(6);
        descriptor.setRowBytes(48);
        descriptor.setDataType(MPSDataType::Float16);
        assert_eq!((descriptor.rows(), descriptor.columns(), descriptor.rowBytes()), (4, 6, 48));
        assert_eq!(descriptor.dataType(), MPSDataType::Float16);
        // Fixed when the descriptor is made.
        assert_eq!(descriptor.matrixBytes(), 96);
        #[expect(deprecated, reason = "programs still use it")]
        let old = MPSMatrixDescriptor::matrixDescriptorWithDimensions_columns_rowBytes_dataType(
            2,
            2,
            8,
            MPSDataType::Float32,
        );
        assert_eq!((old.rows(), old.matrixBytes()), (2, 16));
    }
}

#[test]
fn recommended_strides() {
    let _watch = watch(Settings::default());
    // SAFETY: functions of numbers.
    unsafe {
        let rows = |columns, data_type| MPSMatrixDescriptor::rowBytesForColumns_dataType(columns, data_type);
        assert_eq!(rows(0, MPSDataType::Float32), 0);
        assert_eq!(rows(1, MPSDataType::Float32), 4);
        assert_eq!(rows(2, MPSDataType::Float32), 16);
        assert_eq!(rows(5, MPSDataType::Float32), 32);
        assert_eq!(rows(9, MPSDataType::Float16), 32);
        assert_eq!(rows(2, MPSDataType::Int8), 4);
        #[expect(deprecated, reason = "programs still use it")]
        let old = MPSMatrixDescriptor::rowBytesFromColumns_dataType(5, MPSDataType::Float32);
        assert_eq!(old, 32);
        assert_eq!(MPSVectorDescriptor::vectorBytesForLength_dataType(5, MPSDataType::Float32), 32);
    }
}

#[test]
fn a_matrix_reports_its_shape() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let grid = gpu.grid(Shape::new(3, 5, MPSDataType::Float16).loose().batched(2));
    // SAFETY: properties of a matrix.
    unsafe {
        let matrix = &grid.matrix;
        assert_eq!((matrix.rows(), matrix.columns(), matrix.matrices()), (3, 5, 2));
        assert_eq!((matrix.rowBytes(), matrix.matrixBytes(), matrix.offset()), (16, 80, 10));
        assert_eq!((matrix.dataType(), matrix.resourceSize()), (MPSDataType::Float16, 0));
        assert_eq!(Retained::as_ptr(&matrix.data()), Retained::as_ptr(&grid.buffer));
        assert_eq!(Retained::as_ptr(&matrix.device()), Retained::as_ptr(&gpu.device));
        gpu.run(|commands| matrix.synchronizeOnCommandBuffer(commands));
    }
}

#[test]
fn a_matrix_without_a_buffer_makes_one_when_it_is_needed() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let before = metal_emulator::account::counts().gpu.buffers;
    // SAFETY: properties of a matrix.
    unsafe {
        let descriptor = batch(3, 5, 2, 32, 96);
        let matrix = MPSMatrix::initWithDevice_descriptor(MPSMatrix::alloc(), &gpu.device, &descriptor);
        assert_eq!(matrix.resourceSize(), 192);
        assert_eq!(metal_emulator::account::counts().gpu.buffers, before);
        assert_eq!(matrix.data().length(), 192);
        assert_eq!(Retained::as_ptr(&matrix.data()), Retained::as_ptr(&matrix.data()));
    }
}

#[test]
fn a_matrix_fits_its_buffer_to_the_byte() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // (matrices-1) * matrixBytes + (rows-1) * rowBytes + columns * (element size)
    matrix(&gpu, 96 + 2 * 32 + 20, 0, &batch(3, 5, 2, 32, 96));
    assert_refused(&["[MPSMatrix initWithBuffer:offset:descriptor:]", "179 bytes", "180"], || {
        matrix(&gpu, 96 + 2 * 32 + 19, 0, &batch(3, 5, 2, 32, 96))
    });
    assert_refused(&["buffer is not large enough", "offset 4", "184"], || {
        matrix(&gpu, 180, 4, &batch(3, 5, 2, 32, 96))
    });
}

#[test]
fn strides_that_cannot_be_are_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let float = MPSDataType::Float32;
    assert_refused(&["rowBytes = 5", "5 columns of MPSDataTypeFloat32 take 20", "counts bytes"], || {
        matrix(&gpu, 1024, 0, &descriptor(3, 5, 5, float))
    });
    assert_refused(&["rowBytes = 10", "elements of 2 bytes: is the data type right?"], || {
        matrix(&gpu, 1024, 0, &descriptor(3, 5, 10, float))
    });
    assert_refused(&["rowBytes = 22 is not a multiple of 4"], || matrix(&gpu, 1024, 0, &descriptor(3, 5, 22, float)));
    assert_refused(&["offset = 6 is not a multiple of 4"], || matrix(&gpu, 1024, 6, &descriptor(3, 5, 20, float)));
    assert_refused(&["matrixBytes = 100 is not a multiple of rowBytes = 32"], || {
        matrix(&gpu, 1024, 0, &batch(3, 5, 2, 32, 100))
    });
    assert_refused(&["matrixBytes = 64 is less than 3 rows * rowBytes = 32"], || {
        matrix(&gpu, 1024, 0, &batch(3, 5, 2, 32, 64))
    });
    assert_refused(&["no elements"], || matrix(&gpu, 1024, 0, &descriptor(0, 5, 20, float)));
}

#[test]
fn a_type_that_is_none_is_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    assert_refused(&["MPSDataType(0x00000011)"], || matrix(&gpu, 1024, 0, &descriptor(2, 2, 16, MPSDataType(17))));
    assert_refused(&["MPSDataTypeInvalid"], || matrix(&gpu, 1024, 0, &descriptor(2, 2, 16, MPSDataType::Invalid)));
    assert_refused(&["[MPSMatrix init]"], || {
        // SAFETY: refused.
        unsafe { MPSMatrix::init(MPSMatrix::alloc()) }
    });
}

#[test]
fn vectors() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let buffer = gpu.buffer(64);
    // SAFETY: properties of vectors; the buffer is kept by them.
    unsafe {
        let one = MPSVectorDescriptor::vectorDescriptorWithLength_dataType(7, MPSDataType::Float32);
        assert_eq!((one.length(), one.vectors(), one.vectorBytes()), (7, 1, 28));
        let two = MPSVectorDescriptor::vectorDescriptorWithLength_vectors_vectorBytes_dataType(
            7,
            2,
            32,
            MPSDataType::Float32,
        );
        let vector = MPSVector::initWithBuffer_offset_descriptor(MPSVector::alloc(), &buffer, 4, &two);
        assert_eq!((vector.length(), vector.vectors(), vector.vectorBytes(), vector.offset()), (7, 2, 32, 4));
        assert_eq!(vector.dataType(), MPSDataType::Float32);
        let lazy = MPSVector::initWithDevice_descriptor(MPSVector::alloc(), &gpu.device, &two);
        assert_eq!((lazy.resourceSize(), lazy.data().length()), (64, 64));
        assert_refused(&["[MPSVector initWithBuffer:offset:descriptor:]", "buffer is not large enough"], || {
            MPSVector::initWithBuffer_offset_descriptor(MPSVector::alloc(), &buffer, 8, &two)
        });
        let short =
            MPSVectorDescriptor::vectorDescriptorWithLength_vectors_vectorBytes_dataType(7, 2, 7, MPSDataType::Float32);
        assert_refused(&["vectorBytes = 7", "number of elements"], || {
            MPSVector::initWithBuffer_descriptor(MPSVector::alloc(), &buffer, &short)
        });
    }
}

#[test]
fn the_functions_of_the_framework() {
    use objc2_metal_performance_shaders as mps;
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // SAFETY: they have no requirements.
    unsafe {
        assert!(mps::MPSSupportsMTLDevice(Some(&gpu.device)));
        assert!(!mps::MPSSupportsMTLDevice(None));
        let preferred = mps::MPSGetPreferredDevice(mps::MPSDeviceOptions::Default).expect("a device");
        assert_eq!(preferred.name().to_string(), gpu.device.name().to_string());
        gpu.run(|commands| {
            mps::MPSHintTemporaryMemoryHighWaterMark(commands, 1 << 20);
            mps::MPSSetHeapCacheDuration(commands, 1.0);
        });
    }
}

#[test]
fn private_storage_is_accepted() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let buffer = gpu.device.newBufferWithLength_options(64, MTLResourceOptions::StorageModePrivate).expect("memory");
    // SAFETY: the buffer is kept by the matrix.
    let matrix = unsafe {
        let descriptor = descriptor(4, 4, 16, MPSDataType::Float32);
        MPSMatrix::initWithBuffer_descriptor(MPSMatrix::alloc(), &buffer, &descriptor)
    };
    // SAFETY: a property.
    assert_eq!(unsafe { matrix.data() }.storageMode(), buffer.storageMode());
}
