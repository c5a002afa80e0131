//! `MPSMatrixSoftMax`, `MPSMatrixLogSoftMax` and their gradients against f64.

mod mps_support;

use metal_emulator::{Settings, watch};
use mps_support::{Commands, Gpu, Grid, Shape, assert_close, assert_refused};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_foundation::NSCopying;
use objc2_metal::MTLOrigin;
use objc2_metal_performance_shaders::{
    MPSDataType, MPSMatrixLogSoftMax, MPSMatrixLogSoftMaxGradient, MPSMatrixSoftMax, MPSMatrixSoftMaxGradient,
};

const F32: MPSDataType = MPSDataType::Float32;
const F16: MPSDataType = MPSDataType::Float16;

fn origin(row: usize, column: usize) -> MTLOrigin {
    MTLOrigin { x: row, y: column, z: 0 }
}

fn softmax(gpu: &Gpu) -> Retained<MPSMatrixSoftMax> {
    // SAFETY: an initialiser.
    unsafe { MPSMatrixSoftMax::initWithDevice(MPSMatrixSoftMax::alloc(), &gpu.device) }
}

fn log_softmax(gpu: &Gpu) -> Retained<MPSMatrixSoftMax> {
    // SAFETY: an initialiser.
    unsafe { MPSMatrixLogSoftMax::initWithDevice(MPSMatrixLogSoftMax::alloc(), &gpu.device) }.into_super()
}

fn encode(kernel: &MPSMatrixSoftMax, commands: &Commands, input: &Grid, result: &Grid) {
    // SAFETY: the caller keeps the matrices until the command buffer has completed.
    unsafe { kernel.encodeToCommandBuffer_inputMatrix_resultMatrix(commands, &input.matrix, &result.matrix) };
}

/// Compares rows from (row, column) on with softmax of the input's rows.
fn check(input: &Grid, from: (usize, usize), result: &Grid, to: (usize, usize), size: (usize, usize), logarithm: bool) {
    for matrix in 0..input.shape.matrices {
        for row in 0..size.0 {
            let value = |column: usize| input.get(matrix, from.0 + row, from.1 + column);
            let sum: f64 = (0..size.1).map(|column| value(column).exp()).sum();
            for column in 0..size.1 {
                let wanted = if logarithm { value(column) - sum.ln() } else { value(column).exp() / sum };
                assert_close(result.get(matrix, to.0 + row, to.1 + column), wanted, result.shape.data_type);
            }
        }
    }
}

#[test]
fn whole_matrices() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for data_type in [F32, F16] {
        for (rows, columns) in [(1, 1), (1, 9), (7, 1), (5, 33)] {
            for logarithm in [false, true] {
                let input = gpu.grid(Shape::new(rows, columns, data_type).loose().batched(2)).scatter(1);
                let result = gpu.grid(Shape::new(rows, columns, data_type).loose().batched(2));
                let kernel = if logarithm { log_softmax(&gpu) } else { softmax(&gpu) };
                gpu.run(|commands| encode(&kernel, commands, &input, &result));
                check(&input, (0, 0), &result, (0, 0), (rows, columns), logarithm);
                assert!(result.untouched_is_nan(|_, _, _| true));
            }
        }
    }
    watch.assert_clean();
}

#[test]
fn windows_and_copies_of_kernels() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for logarithm in [false, true] {
        let input = gpu.grid(Shape::new(6, 9, F32).loose()).scatter(4);
        let result = gpu.grid(Shape::new(7, 8, F32));
        let kernel = if logarithm { log_softmax(&gpu) } else { softmax(&gpu) };
        // SAFETY: properties.
        let kernel = unsafe {
            assert_eq!((kernel.sourceRows(), kernel.sourceColumns()), (usize::MAX, usize::MAX));
            kernel.setSourceRows(3);
            kernel.setSourceMatrixOrigin(origin(1, 4));
            kernel.setResultMatrixOrigin(origin(2, 3));
            kernel.copy()
        };
        gpu.run(|commands| encode(&kernel, commands, &input, &result));
        // All columns from column 4 on.
        check(&input, (1, 4), &result, (2, 3), (3, 5), logarithm);
        assert!(result.untouched_is_nan(|_, row, column| (2..5).contains(&row) && (3..8).contains(&column)));
    }
    watch.assert_clean();
}

#[test]
fn large_values_do_not_overflow() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let input = gpu.grid(Shape::new(1, 2, F32)).fill(|_, _, column| 1000.0 - column as f64);
    let result = gpu.grid(Shape::new(1, 2, F32));
    gpu.run(|commands| encode(&softmax(&gpu), commands, &input, &result));
    assert_close(result.get(0, 0, 0), 1.0 / (1.0 + (-1.0_f64).exp()), F32);
    watch.assert_clean();
}

#[test]
fn in_place() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let grid = gpu.grid(Shape::new(3, 4, F32).loose()).scatter(2);
    let original = gpu.grid(Shape::new(3, 4, F32)).scatter(2);
    gpu.run(|commands| encode(&softmax(&gpu), commands, &grid, &grid));
    check(&original, (0, 0), &grid, (0, 0), (3, 4), false);
    watch.assert_clean();
}

#[test]
fn gradients() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for data_type in [F32, F16] {
        for logarithm in [false, true] {
            let shape = Shape::new(4, 6, data_type).loose().batched(2);
            let gradient = gpu.grid(shape).scatter(1);
            let forward = gpu.grid(shape).fill(|matrix, row, column| {
                let share = ((matrix + row * 3 + column) % 5 + 1) as f64 / 16.0;
                if logarithm { -share } else { share }
            });
            let result = gpu.grid(shape);
            // SAFETY: properties; the matrices live until the command buffer has completed.
            unsafe {
                let kernel: Retained<MPSMatrixSoftMaxGradient> = if logarithm {
                    MPSMatrixLogSoftMaxGradient::initWithDevice(MPSMatrixLogSoftMaxGradient::alloc(), &gpu.device)
                        .into_super()
                } else {
                    MPSMatrixSoftMaxGradient::initWithDevice(MPSMatrixSoftMaxGradient::alloc(), &gpu.device)
                };
                kernel.setSourceColumns(4);
                kernel.setPrimarySourceMatrixOrigin(origin(1, 0));
                kernel.setSecondarySourceMatrixOrigin(origin(0, 1));
                kernel.setResultMatrixOrigin(origin(1, 2));
                let kernel = kernel.copy();
                gpu.run(|commands| {
                    kernel.encodeToCommandBuffer_gradientMatrix_forwardOutputMatrix_resultMatrix(
                        commands,
                        &gradient.matrix,
                        &forward.matrix,
                        &result.matrix,
                    );
                });
            }
            for matrix in 0..2 {
                for row in 0..3 {
                    let d = |column: usize| gradient.get(matrix, row + 1, column);
                    let y = |column: usize| forward.get(matrix, row, column + 1);
                    let weighted: f64 = (0..4).map(|column| d(column) * if logarithm { 1.0 } else { y(column) }).sum();
                    for column in 0..4 {
                        let wanted = if logarithm {
                            d(column) - y(column).exp() * weighted
                        } else {
                            y(column) * (d(column) - weighted)
                        };
                        assert_close(result.get(matrix, row + 1, column + 2), wanted, data_type);
                    }
                }
            }
            assert!(result.untouched_is_nan(|_, row, column| (1..4).contains(&row) && (2..6).contains(&column)));
        }
    }
    watch.assert_clean();
}

#[test]
fn refusals() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let kernel = softmax(&gpu);
    let grid = |rows, columns, data_type| gpu.grid(Shape::new(rows, columns, data_type));
    let refused = |parts: &[&str], input: &Grid, result: &Grid| {
        assert_refused(parts, || gpu.run(|commands| encode(&kernel, commands, input, result)));
    };
    let bf16 = MPSDataType::BFloat16;
    refused(&["data types must match", "MPSDataTypeFloat16"], &grid(2, 2, F32), &grid(2, 2, F16));
    refused(&["MPSDataTypeBFloat16", "only"], &grid(2, 2, bf16), &grid(2, 2, bf16));
    refused(&["exceeds the result matrix's size", "3 x 3"], &grid(3, 3, F32), &grid(3, 2, F32));
    let overlapping = grid(4, 4, F32);
    // SAFETY: properties.
    unsafe {
        kernel.setResultMatrixOrigin(origin(1, 0));
        kernel.setSourceRows(3);
    }
    refused(&["overlaps the input matrix"], &overlapping, &overlapping);
    // SAFETY: a property.
    unsafe { kernel.setSourceMatrixOrigin(MTLOrigin { x: 0, y: 0, z: 1 }) };
    refused(&["[MPSMatrixSoftMax", "z = 1; it must be 0"], &grid(4, 4, F32), &grid(4, 4, F32));
}
