//! `MPSNDArray` and its descriptor: order of dimensions, views, copies, and what they refuse.

mod mps_support;

use std::ffi::c_void;
use std::ptr::NonNull;

use metal_emulator::{Settings, watch};
use mps_support::{Gpu, assert_refused, load, store};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_foundation::{NSArray, NSNumber, NSString};
use objc2_metal::MTLBuffer;
use objc2_metal_performance_shaders::{
    MPSAliasingStrategy, MPSDataType, MPSDimensionSlice, MPSNDArray, MPSNDArrayDescriptor,
};

const F32: MPSDataType = MPSDataType::Float32;

/// Slowest dimension first.
fn shape(lengths: &[usize]) -> Retained<NSArray<NSNumber>> {
    let numbers: Vec<_> = lengths.iter().map(|length| NSNumber::new_usize(*length)).collect();
    NSArray::from_retained_slice(&numbers)
}

fn descriptor(lengths: &[usize], data_type: MPSDataType) -> Retained<MPSNDArrayDescriptor> {
    // SAFETY: a descriptor.
    unsafe {
        let descriptor = MPSNDArrayDescriptor::descriptorWithDataType_shape(data_type, &shape(lengths));
        descriptor.setPreferPackedRows(true);
        descriptor
    }
}

fn over(gpu: &Gpu, bytes: usize, offset: usize, descriptor: &MPSNDArrayDescriptor) -> Retained<MPSNDArray> {
    let buffer = gpu.buffer(bytes);
    // SAFETY: the array keeps the buffer.
    unsafe { MPSNDArray::initWithBuffer_offset_descriptor(MPSNDArray::alloc(), &buffer, offset, descriptor) }
}

/// An array of 0, 1, 2 and so on.
fn counting(gpu: &Gpu, lengths: &[usize]) -> Retained<MPSNDArray> {
    let count: usize = lengths.iter().product();
    let array = over(gpu, count * 4, 0, &descriptor(lengths, F32));
    // SAFETY: a property.
    let buffer = unsafe { array.userBuffer() }.expect("the given buffer");
    (0..count).for_each(|index| store(&buffer, F32, index, index as f64));
    array
}

/// The elements, fastest dimension first.
fn read(array: &MPSNDArray) -> Vec<f32> {
    // SAFETY: the vector has room for every element.
    unsafe {
        let count: usize = (0..array.numberOfDimensions()).map(|index| array.lengthOfDimension(index)).product();
        let mut values = vec![f32::NAN; count];
        let to: NonNull<c_void> = NonNull::new(values.as_mut_ptr().cast()).expect("a vector");
        array.readBytes_strideBytes(to, std::ptr::null_mut());
        values
    }
}

#[test]
fn dimensions_count_from_the_fastest() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // SAFETY: properties; the sizes outlive the calls.
    unsafe {
        let by_shape = descriptor(&[32, 6, 5, 3], F32);
        let mut sizes = [3, 5, 6, 32];
        let by_sizes = MPSNDArrayDescriptor::descriptorWithDataType_dimensionCount_dimensionSizes(
            F32,
            4,
            NonNull::from(&mut sizes[0]),
        );
        for descriptor in [&by_shape, &by_sizes] {
            assert_eq!(descriptor.numberOfDimensions(), 4);
            let lengths: Vec<_> = (0..5).map(|index| descriptor.lengthOfDimension(index)).collect();
            assert_eq!(lengths, [3, 5, 6, 32, 1]);
            let shape: Vec<_> = descriptor.getShape().iter().map(|number| number.as_usize()).collect();
            assert_eq!(shape, [32, 6, 5, 3]);
        }
        assert_eq!(by_shape.sliceRangeForDimension(1), MPSDimensionSlice { start: 0, length: 5 });
        assert_eq!(by_shape.sliceRangeForDimension(9), MPSDimensionSlice { start: 0, length: 1 });
        by_shape.transposeDimension_withDimension(0, 3);
        assert_eq!((by_shape.lengthOfDimension(0), by_shape.lengthOfDimension(3)), (32, 3));
        let mut order = [1, 2, 3, 0];
        by_sizes.permuteWithDimensionOrder(NonNull::from(&mut order[0]));
        let lengths: Vec<_> = (0..4).map(|index| by_sizes.lengthOfDimension(index)).collect();
        assert_eq!(lengths, [32, 3, 5, 6]);
        by_sizes.reshapeWithShape(&shape(&[2, 7]));
        by_sizes.setNumberOfDimensions(3);
        assert_eq!((by_sizes.lengthOfDimension(0), by_sizes.lengthOfDimension(2)), (7, 1));
        assert!(!by_sizes.preferPackedRows());
        let array = counting(&gpu, &[2, 3]);
        assert_eq!((array.lengthOfDimension(0), array.lengthOfDimension(1)), (3, 2));
        assert_eq!((array.dataType(), array.dataTypeSize(), array.resourceSize()), (F32, 4, 24));
        assert!(array.label().is_none() && array.parent().is_none());
        array.setLabel(Some(&NSString::from_str("weights")));
        assert_eq!(array.label().expect("a label").to_string(), "weights");
    }
}

#[test]
fn rows_are_padded_unless_packed() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let packed = descriptor(&[2, 3], F32);
    over(&gpu, 24, 0, &packed);
    // SAFETY: a property.
    unsafe { packed.setPreferPackedRows(false) };
    let class = "[MPSNDArray initWithBuffer:offset:descriptor:]";
    assert_refused(&[class, "buffer is not large enough. Must be", "preferPackedRows"], || over(&gpu, 24, 0, &packed));
    over(&gpu, 256, 0, &packed);
}

#[test]
fn refusals() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    assert_refused(&["Must be 28 bytes", "offset 4"], || over(&gpu, 24, 4, &descriptor(&[2, 3], F32)));
    assert_refused(&["offset = 2 is not a multiple of 4"], || over(&gpu, 64, 2, &descriptor(&[2, 3], F32)));
    assert_refused(&["2**31"], || descriptor(&[1 << 16, 1 << 15], F32));
    assert_refused(&["17 dimensions"], || descriptor(&[1; 17], F32));
    assert_refused(&["length 0"], || descriptor(&[2, 0], F32));
    assert_refused(&["MPSDataTypeInvalid"], || over(&gpu, 64, 0, &descriptor(&[2], MPSDataType::Invalid)));
    let described = descriptor(&[2, 3], F32);
    // SAFETY: refused.
    unsafe {
        let slice = MPSDimensionSlice { start: 2, length: 2 };
        assert_refused(&["2 + 2 does not fit in dimension 0 of length 3"], || {
            described.sliceDimension_withSubrange(0, slice);
        });
        assert_refused(&["dimension 2 of an array with 2"], || described.transposeDimension_withDimension(0, 2));
        assert_refused(&["1 dimensions leave out"], || described.setNumberOfDimensions(1));
        let mut order = [0, 0];
        assert_refused(&["[0, 0] is no permutation"], || {
            described.permuteWithDimensionOrder(NonNull::from(&mut order[0]));
        });
    }
}

#[test]
fn views_slice_and_then_transpose() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let array = counting(&gpu, &[2, 3, 4]);
    // SAFETY: properties and views.
    unsafe {
        let described = array.descriptor();
        described.sliceDimension_withSubrange(0, MPSDimensionSlice { start: 1, length: 2 });
        described.transposeDimension_withDimension(0, 1);
        let view = array.arrayViewWithDescriptor(&described).expect("a view");
        assert_eq!((0..3).map(|index| view.lengthOfDimension(index)).collect::<Vec<_>>(), [3, 2, 2]);
        assert_eq!(read(&view), [1.0, 5.0, 9.0, 2.0, 6.0, 10.0, 13.0, 17.0, 21.0, 14.0, 18.0, 22.0]);
        assert_eq!(Retained::as_ptr(&view.parent().expect("a parent")), Retained::as_ptr(&array));
        // A view of a view.
        let again = view.descriptor();
        again.transposeDimension_withDimension(0, 1);
        again.sliceDimension_withSubrange(2, MPSDimensionSlice { start: 1, length: 1 });
        let twice = view.arrayViewWithDescriptor(&again).expect("a view");
        assert_eq!(read(&twice), [13.0, 14.0, 17.0, 18.0, 21.0, 22.0]);
        // A new shape, for what is contiguous.
        let flat = array.arrayViewWithDescriptor(&descriptor(&[6, 4], F32)).expect("a view");
        assert_eq!((flat.lengthOfDimension(0), flat.lengthOfDimension(1)), (4, 6));
        assert!(view.arrayViewWithDescriptor(&descriptor(&[12], F32)).is_none());
        let windows = array.arrayViewWithShape_strides(Some(&shape(&[3, 2])), &shape(&[1, 1])).expect("a view");
        assert_eq!(read(&windows), [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        assert!(array.arrayViewWithShape_strides(Some(&shape(&[3, 2])), &shape(&[12, 2])).is_none());
        assert!(array.arrayViewWithShape_strides(Some(&shape(&[3, 2])), &shape(&[12, 1])).is_none());
        let (mut lengths, mut strides) = ([2, 2], [1, 12]);
        let columns = array.arrayViewWithDimensionCount_dimensionSizes_strides(
            2,
            NonNull::from(&mut lengths[0]),
            NonNull::from(&mut strides[0]),
        );
        assert_eq!(read(&columns.expect("a view")), [0.0, 1.0, 12.0, 13.0]);
    }
    watch.assert_clean();
}

#[test]
fn views_that_must_not_alias_are_copies() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let array = counting(&gpu, &[2, 3]);
    // SAFETY: properties and views.
    unsafe {
        let transposed = array.descriptor();
        transposed.transposeDimension_withDimension(0, 1);
        let half = array.descriptor();
        half.setDataType(MPSDataType::Float16);
        let mut views = Vec::new();
        gpu.run(|commands| {
            let view = |described, aliasing| {
                array.arrayViewWithCommandBuffer_descriptor_aliasing(commands, described, aliasing)
            };
            views.push(view(&transposed, MPSAliasingStrategy::Default).expect("a view"));
            views.push(view(&transposed, MPSAliasingStrategy::ShallNotAlias).expect("a copy"));
            views.push(view(&half, MPSAliasingStrategy::Default).expect("a copy"));
            assert!(view(&half, MPSAliasingStrategy::ShallAlias).is_none());
        });
        assert!(views[0].parent().is_some() && views[1].parent().is_none());
        let wanted = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
        assert_eq!((read(&views[0]), read(&views[1])), (wanted.to_vec(), wanted.to_vec()));
        let buffer = gpu.buffer(24);
        gpu.run(|commands| {
            views[2].exportDataWithCommandBuffer_toBuffer_destinationDataType_offset_rowStrides(
                commands,
                &buffer,
                F32,
                0,
                std::ptr::null_mut(),
            );
        });
        assert_eq!((0..6).map(|index| load(&buffer, F32, index)).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    watch.assert_clean();
}

#[test]
fn the_host_reads_and_writes_with_strides() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // SAFETY: the strides stay inside the vectors.
    unsafe {
        let padded = MPSNDArrayDescriptor::descriptorWithDataType_shape(F32, &shape(&[2, 3]));
        let array = MPSNDArray::initWithDevice_descriptor(MPSNDArray::alloc(), &gpu.device, &padded);
        assert!(array.userBuffer().is_none());
        let mut values = [1.0_f32, 2.0, 3.0, f32::NAN, 4.0, 5.0, 6.0, f32::NAN];
        let mut strides = [4, 16];
        array.writeBytes_strideBytes(NonNull::from(&mut values[0]).cast(), strides.as_mut_ptr());
        assert_eq!(read(&array), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        // "0 and negative values are permitted."
        let mut backwards = [0.0_f32; 6];
        let mut strides = [-4, -12];
        array.readBytes_strideBytes(NonNull::from(&mut backwards[5]).cast(), strides.as_mut_ptr());
        assert_eq!(backwards, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        let scalar = MPSNDArray::initWithDevice_scalar(MPSNDArray::alloc(), &gpu.device, 2.5);
        assert_eq!(read(&scalar), [2.5]);
    }
}

#[test]
fn buffers_are_imported_and_exported_with_strides() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let array = counting(&gpu, &[2, 2, 3]);
    let buffer = gpu.buffer(64);
    let half = MPSDataType::Float16;
    // Rows of 4 and matrices of 10 halves, from the second one on.
    let mut strides = [8, 20];
    // SAFETY: the operands live until the command buffers have completed.
    unsafe {
        gpu.run(|commands| {
            array.exportDataWithCommandBuffer_toBuffer_destinationDataType_offset_rowStrides(
                commands,
                &buffer,
                half,
                2,
                strides.as_mut_ptr(),
            );
        });
        for index in 0..32_usize {
            let (matrix, row, column) =
                (index.wrapping_sub(1) / 10, index.wrapping_sub(1) % 10 / 4, index.wrapping_sub(1) % 10 % 4);
            let value = load(&buffer, half, index);
            if matrix < 2 && row < 2 && column < 3 {
                assert_eq!(value, (matrix * 6 + row * 3 + column) as f64);
            } else {
                assert!(value.is_nan(), "element {index} was written");
            }
        }
        let copy = over(&gpu, 48, 0, &descriptor(&[2, 2, 3], F32));
        gpu.run(|commands| {
            copy.importDataWithCommandBuffer_fromBuffer_sourceDataType_offset_rowStrides(
                commands,
                &buffer,
                half,
                2,
                strides.as_mut_ptr(),
            );
        });
        assert_eq!(read(&copy), read(&array));
        assert_refused(&["[MPSNDArray exportData", "Must be 48 bytes, is 40"], || {
            gpu.run(|commands| {
                array.exportDataWithCommandBuffer_toBuffer_destinationDataType_offset_rowStrides(
                    commands,
                    &gpu.buffer(40),
                    F32,
                    0,
                    std::ptr::null_mut(),
                );
            });
        });
        assert_refused(&["no conversion from MPSDataTypeFloat32 to MPSDataTypeInt8"], || {
            gpu.run(|commands| {
                array.exportDataWithCommandBuffer_toBuffer_destinationDataType_offset_rowStrides(
                    commands,
                    &buffer,
                    MPSDataType::Int8,
                    0,
                    std::ptr::null_mut(),
                );
            });
        });
    }
    assert_eq!(buffer.length(), 64);
    watch.assert_clean();
}
