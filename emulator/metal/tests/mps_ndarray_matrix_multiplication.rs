//! `MPSNDArrayMatrixMultiplication` against sums in f64, in passes of its own and in open encoders.

mod mps_support;

use metal_emulator::{Drop, Rule, Settings, watch};
use mps_support::{Buffer, Commands, Gpu, assert_close, assert_refused, load, size, store};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_foundation::{NSArray, NSCopying, NSNumber};
use objc2_metal::{
    MTLBarrierScope, MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue, MTLComputeCommandEncoder, MTLDispatchType,
};
use objc2_metal_performance_shaders::{
    MPSDataType, MPSDimensionSlice, MPSNDArray, MPSNDArrayDescriptor, MPSNDArrayMatrixMultiplication,
};

const F32: MPSDataType = MPSDataType::Float32;

/// An array, its buffer and its lengths, fastest dimension first.
struct Array {
    array: Retained<MPSNDArray>,
    buffer: Retained<Buffer>,
    /// As they are stored.
    lengths: Vec<usize>,
    transposed: bool,
    data_type: MPSDataType,
}

impl Array {
    /// `lengths` as the kernel sees them; if transposed, the first two are stored the other way round.
    fn new(gpu: &Gpu, lengths: &[usize], data_type: MPSDataType, transposed: bool) -> Self {
        let mut stored = lengths.to_vec();
        if transposed {
            stored.swap(0, 1);
        }
        let numbers: Vec<_> = stored.iter().rev().map(|length| NSNumber::new_usize(*length)).collect();
        let offset = 3;
        let count = stored.iter().product::<usize>() + offset + 2;
        let buffer = gpu.buffer(count * size(data_type));
        // SAFETY: the array keeps the buffer.
        let array = unsafe {
            let shape = NSArray::from_retained_slice(&numbers);
            let descriptor = MPSNDArrayDescriptor::descriptorWithDataType_shape(data_type, &shape);
            descriptor.setPreferPackedRows(true);
            if transposed {
                descriptor.transposeDimension_withDimension(0, 1);
            }
            let offset = offset * size(data_type);
            MPSNDArray::initWithBuffer_offset_descriptor(MPSNDArray::alloc(), &buffer, offset, &descriptor)
        };
        Array { array, buffer, lengths: stored, transposed, data_type }
    }

    fn scatter(self, seed: usize) -> Self {
        for index in 0..self.lengths.iter().product() {
            store(&self.buffer, self.data_type, index + 3, ((index * 7 + seed * 5) % 19) as f64 * 0.25 - 2.0);
        }
        self
    }

    /// The element at (column, row, batch, batch), with broadcasting.
    fn get(&self, position: [usize; 4]) -> f64 {
        let [column, row, inner, outer] = position;
        let position = if self.transposed { [row, column, inner, outer] } else { position };
        let (mut index, mut step) = (3, 1);
        for (at, length) in position.into_iter().zip(&self.lengths) {
            index += if *length == 1 { 0 } else { at * step };
            step *= length;
        }
        load(&self.buffer, self.data_type, index)
    }
}

fn kernel(gpu: &Gpu, sources: usize) -> Retained<MPSNDArrayMatrixMultiplication> {
    // SAFETY: an initialiser.
    unsafe {
        MPSNDArrayMatrixMultiplication::initWithDevice_sourceCount(
            MPSNDArrayMatrixMultiplication::alloc(),
            &gpu.device,
            sources,
        )
    }
}

fn sources(arrays: &[&Array]) -> Retained<NSArray<MPSNDArray>> {
    let arrays: Vec<_> = arrays.iter().map(|array| array.array.clone()).collect();
    NSArray::from_retained_slice(&arrays)
}

fn encode(kernel: &MPSNDArrayMatrixMultiplication, commands: &Commands, inputs: &[&Array], result: &Array) {
    // SAFETY: the caller keeps the arrays until the command buffer has completed.
    unsafe {
        kernel.encodeToCommandBuffer_sourceArrays_destinationArray(commands, &sources(inputs), &result.array);
    }
}

/// Compares with f64, and what lies around the result with NaN.
fn check(inputs: &[&Array], result: &Array, interior: usize, alpha: f64, beta: f64) {
    let length = |index: usize| result.lengths.get(index).copied().unwrap_or(1);
    for outer in 0..length(3) {
        for inner in 0..length(2) {
            for row in 0..length(1) {
                for column in 0..length(0) {
                    let left = |k| inputs[0].get([k, row, inner, outer]);
                    let right = |k| inputs[1].get([column, k, inner, outer]);
                    let sum: f64 = (0..interior).map(|k| left(k) * right(k)).sum();
                    let addend = inputs.get(2).map_or(0.0, |addend| beta * addend.get([column, row, inner, outer]));
                    let found = result.get([column, row, inner, outer]);
                    assert_close(found, alpha * sum + addend, result.data_type);
                }
            }
        }
    }
    let count: usize = result.lengths.iter().product();
    for index in [0, 1, 2, count + 3, count + 4] {
        assert!(load(&result.buffer, result.data_type, index).is_nan(), "element {index} was written");
    }
}

#[test]
fn types_shapes_and_transposes() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for data_type in [F32, MPSDataType::Float16, MPSDataType::BFloat16] {
        for [rows, columns, interior] in [[1, 1, 1], [5, 3, 7], [17, 9, 33]] {
            for (left, right) in [(false, false), (true, false), (false, true), (true, true)] {
                let left = Array::new(&gpu, &[interior, rows], data_type, left).scatter(1);
                let right = Array::new(&gpu, &[columns, interior], data_type, right).scatter(2);
                let result = Array::new(&gpu, &[columns, rows], data_type, false);
                gpu.run(|commands| encode(&kernel(&gpu, 2), commands, &[&left, &right], &result));
                check(&[&left, &right], &result, interior, 1.0, 0.0);
            }
        }
    }
    watch.assert_clean();
}

#[test]
fn batches_are_broadcast() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let cases: [(&[usize], &[usize], &[usize]); 5] = [
        (&[5, 3, 2], &[4, 5, 2], &[4, 3, 2]),
        (&[5, 3, 2], &[4, 5], &[4, 3, 2]),
        (&[5, 3, 1, 3], &[4, 5, 2, 3], &[4, 3, 2, 3]),
        (&[5, 3], &[4, 5, 2, 3], &[4, 3, 2, 3]),
        (&[5, 3, 2, 1], &[4, 5, 1, 3], &[4, 3, 2, 3]),
    ];
    for (left, right, result) in cases {
        let left = Array::new(&gpu, left, F32, false).scatter(1);
        let right = Array::new(&gpu, right, F32, true).scatter(2);
        let result = Array::new(&gpu, result, F32, false);
        gpu.run(|commands| encode(&kernel(&gpu, 2), commands, &[&left, &right], &result));
        check(&[&left, &right], &result, 5, 1.0, 0.0);
    }
    watch.assert_clean();
}

#[test]
fn factors_and_addends() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let kernel = kernel(&gpu, 3);
    // SAFETY: properties.
    unsafe {
        assert_eq!((kernel.alpha(), kernel.beta()), (1.0, 1.0));
        kernel.setAlpha(-2.0);
        kernel.setBeta(0.5);
    }
    let kernel = kernel.copy();
    for addend in [&[4, 3, 2][..], &[4, 3], &[4], &[4, 1, 2]] {
        let left = Array::new(&gpu, &[5, 3, 2], F32, false).scatter(1);
        let right = Array::new(&gpu, &[4, 5, 2], F32, false).scatter(2);
        let addend = Array::new(&gpu, addend, F32, false).scatter(3);
        let result = Array::new(&gpu, &[4, 3, 2], F32, false);
        gpu.run(|commands| encode(&kernel, commands, &[&left, &right, &addend], &result));
        check(&[&left, &right, &addend], &result, 5, -2.0, 0.5);
    }
    watch.assert_clean();
}

#[test]
fn a_kernel_makes_its_own_result() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let left = Array::new(&gpu, &[5, 3], F32, false).scatter(1);
    let right = Array::new(&gpu, &[4, 5, 2], F32, false).scatter(2);
    let kernel = kernel(&gpu, 2);
    let result = Array::new(&gpu, &[4, 3, 2], F32, false);
    // SAFETY: the arrays live until the command buffers have completed; no state is given.
    unsafe {
        let inputs = sources(&[&left, &right]);
        let described = kernel.destinationArrayDescriptorForSourceArrays_sourceState(&inputs, None);
        assert_eq!((0..3).map(|index| described.lengthOfDimension(index)).collect::<Vec<_>>(), [4, 3, 2]);
        let commands = gpu.queue.commandBuffer().expect("a command buffer");
        let made = kernel.encodeToCommandBuffer_sourceArrays(&commands, &inputs);
        made.exportDataWithCommandBuffer_toBuffer_destinationDataType_offset_rowStrides(
            &commands,
            &result.buffer,
            F32,
            12,
            std::ptr::null_mut(),
        );
        commands.commit();
        commands.waitUntilCompleted();
        check(&[&left, &right], &result, 5, 1.0, 0.0);
        gpu.run(|commands| {
            kernel.encodeToCommandBuffer_sourceArrays_resultState_destinationArray(
                commands,
                &inputs,
                None,
                &result.array,
            );
        });
    }
    check(&[&left, &right], &result, 5, 1.0, 0.0);
    watch.assert_clean();
}

/// Two products in one concurrent encoder, the second of which reads the first one's result.
fn chain(gpu: &Gpu, barrier: bool) -> [Array; 4] {
    let left = Array::new(gpu, &[3, 3], F32, false).scatter(1);
    let right = Array::new(gpu, &[3, 3], F32, false).scatter(2);
    let (between, result) = (Array::new(gpu, &[3, 3], F32, false), Array::new(gpu, &[3, 3], F32, false));
    let kernel = kernel(gpu, 2);
    let commands = gpu.queue.commandBuffer().expect("a command buffer");
    let encoder = commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent).expect("an encoder");
    // SAFETY: the arrays live until the command buffer has completed.
    unsafe {
        kernel.encodeToCommandEncoder_commandBuffer_sourceArrays_destinationArray(
            Some(&encoder),
            &commands,
            &sources(&[&left, &right]),
            &between.array,
        );
        if barrier {
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
        kernel.encodeToCommandEncoder_commandBuffer_sourceArrays_destinationArray(
            Some(&encoder),
            &commands,
            &sources(&[&between, &right]),
            &result.array,
        );
    }
    encoder.endEncoding();
    commands.commit();
    commands.waitUntilCompleted();
    [left, right, between, result]
}

#[test]
fn an_open_encoder_needs_its_barriers() {
    let gpu = Gpu::new();
    for seed in 0..4 {
        let watch = watch(Settings::seeded(seed));
        let [left, right, between, result] = chain(&gpu, true);
        check(&[&left, &right], &between, 3, 1.0, 0.0);
        check(&[&between, &right], &result, 3, 1.0, 0.0);
        watch.assert_clean();
    }
    {
        let watch = watch(Settings::default());
        chain(&gpu, false);
        watch.assert_found(Rule::MissingBarrier);
    }
    let watch = watch(Settings { drop: Drop::Barriers, ..Settings::default() });
    chain(&gpu, true);
    watch.assert_found(Rule::MissingBarrier);
}

#[test]
fn neighbouring_columns_need_no_barrier() {
    let gpu = Gpu::new();
    let left = Array::new(&gpu, &[3, 5], F32, false).scatter(1);
    let right = Array::new(&gpu, &[2, 3], F32, false).scatter(2);
    let kernel = kernel(&gpu, 2);
    for (second, collides) in [(2, false), (1, true)] {
        let watch = watch(Settings::default());
        let result = Array::new(&gpu, &[6, 5], F32, false);
        let commands = gpu.queue.commandBuffer().expect("a command buffer");
        let encoder = commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent).expect("an encoder");
        for start in [0, second] {
            // SAFETY: the arrays live until the command buffer has completed.
            unsafe {
                let columns = result.array.descriptor();
                columns.sliceDimension_withSubrange(0, MPSDimensionSlice { start, length: 2 });
                kernel.encodeToCommandEncoder_commandBuffer_sourceArrays_destinationArray(
                    Some(&encoder),
                    &commands,
                    &sources(&[&left, &right]),
                    &result.array.arrayViewWithDescriptor(&columns).expect("a view"),
                );
            }
        }
        encoder.endEncoding();
        commands.commit();
        commands.waitUntilCompleted();
        if collides {
            watch.assert_found(Rule::MissingBarrier);
            continue;
        }
        watch.assert_clean();
        for row in 0..5 {
            for column in 0..6 {
                let found = result.get([column, row, 0, 0]);
                if column >= 4 {
                    assert!(found.is_nan(), "column {column} was written");
                    continue;
                }
                let sum = (0..3).map(|k| left.get([k, row, 0, 0]) * right.get([column % 2, k, 0, 0])).sum();
                assert_close(found, sum, F32);
            }
        }
    }
}

#[test]
fn refusals() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let array = |lengths: &[usize], data_type| Array::new(&gpu, lengths, data_type, false).scatter(1);
    let refused = |parts: &[&str], count: usize, inputs: &[&Array], result: &Array| {
        let kernel = kernel(&gpu, count);
        assert_refused(parts, || gpu.run(|commands| encode(&kernel, commands, inputs, result)));
    };
    let (left, right, result) = (array(&[5, 3], F32), array(&[4, 5], F32), array(&[4, 3], F32));
    let half = array(&[4, 3], MPSDataType::Float16);
    refused(&["cannot have different datatype", "MPSDataTypeFloat16"], 2, &[&left, &right], &half);
    refused(&["the shapes do not match: [3, 5] * [3, 5] -> [3, 4]"], 2, &[&left, &left], &result);
    refused(&["shapes do not match"], 2, &[&left, &right], &array(&[4, 3, 2], F32));
    refused(&["more than 4 dimensions"], 2, &[&left, &right], &array(&[4, 3, 1, 1, 2], F32));
    refused(&["3 source arrays", "sourceCount of 2"], 2, &[&left, &right, &result], &result);
    refused(&["[2, 4] added to [3, 4]"], 3, &[&left, &right, &array(&[4, 2], F32)], &result);
    let square = array(&[3, 3], F32);
    refused(&["overlaps source 0"], 2, &[&square, &square], &square);
    assert_refused(&["1 sources"], || kernel(&gpu, 1));
    let commands = gpu.queue.commandBuffer().expect("a command buffer");
    let other = gpu.queue.commandBuffer().expect("a command buffer");
    let encoder = other.computeCommandEncoder().expect("an encoder");
    assert_refused(&["the encoder belongs to another command buffer"], || {
        // SAFETY: refused.
        unsafe {
            kernel(&gpu, 2).encodeToCommandEncoder_commandBuffer_sourceArrays_destinationArray(
                Some(&encoder),
                &commands,
                &sources(&[&left, &right]),
                &result.array,
            );
        }
    });
    encoder.endEncoding();
}
