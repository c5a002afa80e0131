//! `MPSMatrixVectorMultiplication` against sums in f64.

mod mps_support;

use metal_emulator::{Settings, watch};
use mps_support::{Gpu, Grid, Shape, assert_close, assert_refused};
use objc2::AnyThread;
use objc2_foundation::NSCopying;
use objc2_metal::MTLOrigin;
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrixVectorMultiplication, MPSVector, MPSVectorDescriptor};

const F32: MPSDataType = MPSDataType::Float32;

fn origin(row: usize, column: usize) -> MTLOrigin {
    MTLOrigin { x: row, y: column, z: 0 }
}

#[test]
fn a_matrix_and_vectors() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for (transpose, beta) in [(false, 0.0), (true, 0.0), (true, 0.5)] {
        let (rows, columns) = (5, 7);
        let shape = if transpose { Shape::new(columns, rows, F32) } else { Shape::new(rows, columns, F32) };
        let matrix = gpu.grid(shape.loose().batched(2)).scatter(1);
        // Vectors that start at their second element.
        let vectors = [gpu.grid(Shape::new(2, columns + 1, F32)).scatter(2), gpu.grid(Shape::new(2, rows + 1, F32))];
        let [input, result] = vectors;
        let result = if beta == 0.0 { result } else { result.scatter(3) };
        let before: Vec<f64> = (0..2 * (rows + 1)).map(|i| result.get(0, i / (rows + 1), i % (rows + 1))).collect();
        let vector = |grid: &Grid, length: usize| {
            // SAFETY: both vectors lie in the buffer.
            unsafe {
                let descriptor = MPSVectorDescriptor::vectorDescriptorWithLength_vectors_vectorBytes_dataType(
                    length + 1,
                    2,
                    (length + 1) * 4,
                    F32,
                );
                MPSVector::initWithBuffer_descriptor(MPSVector::alloc(), &grid.buffer, &descriptor)
            }
        };
        let (x, y) = (vector(&input, columns), vector(&result, rows));
        // SAFETY: the operands live until the command buffer has completed.
        unsafe {
            let kernel = MPSMatrixVectorMultiplication::initWithDevice_transpose_rows_columns_alpha_beta(
                MPSMatrixVectorMultiplication::alloc(),
                &gpu.device,
                transpose,
                rows,
                columns,
                2.0,
                beta,
            );
            kernel.setSecondarySourceMatrixOrigin(origin(1, 0));
            kernel.setResultMatrixOrigin(origin(1, 0));
            let kernel = kernel.copy();
            gpu.run(|commands| {
                kernel.encodeToCommandBuffer_inputMatrix_inputVector_resultVector(commands, &matrix.matrix, &x, &y);
            });
            kernel.setResultMatrixOrigin(origin(1, 1));
            assert_refused(&["[MPSMatrixVectorMultiplication", "origin of the result vector has y = 1"], || {
                gpu.run(|commands| {
                    kernel.encodeToCommandBuffer_inputMatrix_inputVector_resultVector(commands, &matrix.matrix, &x, &y);
                });
            });
        }
        for batch in 0..2 {
            for row in 0..rows {
                let element = |k: usize| if transpose { matrix.get(batch, k, row) } else { matrix.get(batch, row, k) };
                let sum: f64 = (0..columns).map(|k| element(k) * input.get(0, batch, k + 1)).sum();
                let addend = if beta == 0.0 { 0.0 } else { beta * before[batch * (rows + 1) + row + 1] };
                assert_close(result.get(0, batch, row + 1), 2.0 * sum + addend, F32);
            }
            assert_eq!(result.get(0, batch, 0).to_bits(), before[batch * (rows + 1)].to_bits());
        }
    }
    watch.assert_clean();
}
