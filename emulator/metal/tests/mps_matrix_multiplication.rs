//! `MPSMatrixMultiplication` against sums in f64.

mod mps_support;

use metal_emulator::{Settings, watch};
use mps_support::{Gpu, Grid, Shape, assert_close, assert_refused};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2_foundation::{NSCopying, NSString};
use objc2_metal::{MTLCommandBuffer, MTLCommandEncoder, MTLCommandQueue, MTLOrigin};
use objc2_metal_performance_shaders::{MPSDataType, MPSKernelOptions, MPSMatrixMultiplication};

const F32: MPSDataType = MPSDataType::Float32;
const F16: MPSDataType = MPSDataType::Float16;

fn origin(row: usize, column: usize) -> MTLOrigin {
    MTLOrigin { x: row, y: column, z: 0 }
}

/// A kernel, and what it is to compute.
#[derive(Clone, Copy)]
struct Case {
    transpose: [bool; 2],
    /// Rows, columns and the length of the sums.
    size: [usize; 3],
    alpha: f64,
    beta: f64,
    types: [MPSDataType; 3],
    /// First elements of left, right and result.
    origins: [(usize, usize); 3],
    matrices: usize,
    batch: Option<(usize, usize)>,
}

impl Case {
    fn new(size: [usize; 3], data_type: MPSDataType) -> Self {
        Case {
            transpose: [false; 2],
            size,
            alpha: 1.0,
            beta: 0.0,
            types: [data_type; 3],
            origins: [(0, 0); 3],
            matrices: 1,
            batch: None,
        }
    }

    fn kernel(&self, gpu: &Gpu) -> Retained<MPSMatrixMultiplication> {
        let ([left, right], [rows, columns, interior]) = (self.transpose, self.size);
        // SAFETY: an initialiser and properties.
        unsafe {
            let kernel = MPSMatrixMultiplication::initWithDevice_transposeLeft_transposeRight_resultRows_resultColumns_interiorColumns_alpha_beta(
                MPSMatrixMultiplication::alloc(), &gpu.device, left, right, rows, columns, interior, self.alpha, self.beta,
            );
            let [left, right, result] = self.origins.map(|(row, column)| origin(row, column));
            kernel.setLeftMatrixOrigin(left);
            kernel.setRightMatrixOrigin(right);
            kernel.setResultMatrixOrigin(result);
            if let Some((start, size)) = self.batch {
                kernel.setBatchStart(start);
                kernel.setBatchSize(size);
            }
            kernel
        }
    }

    fn grids(&self, gpu: &Gpu) -> [Grid; 3] {
        let [rows, columns, interior] = self.size;
        let stored = [
            if self.transpose[0] { (interior, rows) } else { (rows, interior) },
            if self.transpose[1] { (columns, interior) } else { (interior, columns) },
            (rows, columns),
        ];
        std::array::from_fn(|index| {
            let ((rows, columns), (row, column)) = (stored[index], self.origins[index]);
            // A little larger than the window.
            let shape = Shape::new(rows + row + index, columns + column + 1, self.types[index]);
            let grid = gpu.grid(shape.loose().batched(self.matrices));
            if index < 2 || self.beta != 0.0 { grid.scatter(index) } else { grid }
        })
    }

    /// Multiplies on the emulated GPU and in f64, and compares every byte.
    fn check(&self, gpu: &Gpu) {
        let grids = self.grids(gpu);
        let [left, right, result] = &grids;
        let [rows, columns, interior] = self.size;
        let at = |grid: usize, matrix: usize, row: usize, column: usize| {
            let swapped = grid < 2 && self.transpose[grid];
            let (row, column) = if swapped { (column, row) } else { (row, column) };
            grids[grid].get(matrix, row + self.origins[grid].0, column + self.origins[grid].1)
        };
        let (first, count) = self.batch.unwrap_or((0, self.matrices));
        let mut wanted = Vec::new();
        for matrix in first..first + count {
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f64 = (0..interior).map(|k| at(0, matrix, row, k) * at(1, matrix, k, column)).sum();
                    let addend = if self.beta == 0.0 { 0.0 } else { self.beta * at(2, matrix, row, column) };
                    wanted.push(self.alpha * sum + addend);
                }
            }
        }
        let kernel = self.kernel(gpu);
        gpu.run(|commands| {
            // SAFETY: the matrices live until the command buffer has completed.
            unsafe {
                kernel.encodeToCommandBuffer_leftMatrix_rightMatrix_resultMatrix(
                    commands,
                    &left.matrix,
                    &right.matrix,
                    &result.matrix,
                );
            }
        });
        let mut wanted = wanted.into_iter();
        for matrix in first..first + count {
            for row in 0..rows {
                for column in 0..columns {
                    assert_close(at(2, matrix, row, column), wanted.next().expect("a value"), self.types[2]);
                }
            }
        }
        if self.beta == 0.0 {
            let ((row_0, column_0), batch) = (self.origins[2], first..first + count);
            assert!(result.untouched_is_nan(|matrix, row, column| {
                let (in_rows, in_columns) = (row_0..row_0 + rows, column_0..column_0 + columns);
                batch.contains(&matrix) && in_rows.contains(&row) && in_columns.contains(&column)
            }));
        }
    }
}

#[test]
fn shapes_and_transposes() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for size in [[1, 1, 1], [1, 7, 3], [5, 1, 2], [4, 4, 4], [7, 13, 11], [33, 17, 65]] {
        for transpose in [[false, false], [true, false], [false, true], [true, true]] {
            Case { transpose, ..Case::new(size, F32) }.check(&gpu);
            Case { transpose, ..Case::new(size, F16) }.check(&gpu);
        }
    }
    watch.assert_clean();
}

#[test]
fn factors() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    for (alpha, beta) in [(2.0, 0.0), (-0.5, 1.0), (0.25, -2.0), (0.0, 1.0)] {
        Case { alpha, beta, ..Case::new([6, 5, 9], F32) }.check(&gpu);
        Case { alpha, beta, ..Case::new([6, 5, 9], F16) }.check(&gpu);
    }
    watch.assert_clean();
}

#[test]
fn types() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let (i8, i16) = (MPSDataType::Int8, MPSDataType::Int16);
    for types in [[F16, F16, F32], [F32, F16, F32], [i8, i8, F32], [i16, i16, F32], [i8, i8, F16], [i16, i16, F16]] {
        for transpose in [[false, true], [true, false]] {
            Case { types, transpose, ..Case::new([3, 5, 7], F32) }.check(&gpu);
        }
    }
    watch.assert_clean();
}

#[test]
fn origins_and_batches() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let origins = [(1, 2), (3, 1), (2, 4)];
    for transpose in [[false, false], [true, true]] {
        Case { origins, transpose, ..Case::new([3, 4, 5], F32) }.check(&gpu);
        Case { matrices: 3, transpose, ..Case::new([3, 4, 5], F32) }.check(&gpu);
        Case { matrices: 4, batch: Some((1, 2)), origins, transpose, ..Case::new([3, 4, 5], F16) }.check(&gpu);
    }
    watch.assert_clean();
}

#[test]
fn half_sums_are_rounded_once() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let shape = |rows, columns| Shape::new(rows, columns, F16);
    // 4096 ones: a sum in half precision would stop at 2048.
    let left = gpu.grid(shape(1, 4096)).fill(|_, _, _| 1.0);
    let right = gpu.grid(shape(4096, 1)).fill(|_, _, _| 1.0);
    let result = gpu.grid(shape(1, 1));
    let kernel = Case::new([1, 1, 4096], F16).kernel(&gpu);
    gpu.run(|commands| encode(&kernel, commands, [&left, &right, &result]));
    assert_eq!(result.get(0, 0, 0), 4096.0);
    watch.assert_clean();
}

#[test]
fn factors_have_the_type_of_the_result() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let product = |result: MPSDataType| {
        let (left, right) = (gpu.grid(Shape::new(1, 1, F16)).fill(|_, _, _| 3.0), gpu.grid(Shape::new(1, 1, F16)));
        let (right, result) = (right.fill(|_, _, _| 1.0), gpu.grid(Shape::new(1, 1, result)));
        let kernel = Case { alpha: 0.1, ..Case::new([1, 1, 1], F16) }.kernel(&gpu);
        gpu.run(|commands| encode(&kernel, commands, [&left, &right, &result]));
        result.get(0, 0, 0)
    };
    assert_eq!(product(F32), f64::from(0.1_f32 * 3.0));
    // 0.1 in half precision is 0.09997559, and three of it lie nearest to this.
    assert_eq!(product(F16), 0.2998046875);
    watch.assert_clean();
}

fn encode(kernel: &MPSMatrixMultiplication, commands: &mps_support::Commands, [left, right, result]: [&Grid; 3]) {
    // SAFETY: the caller keeps the matrices until the command buffer has completed.
    unsafe {
        kernel.encodeToCommandBuffer_leftMatrix_rightMatrix_resultMatrix(
            commands,
            &left.matrix,
            &right.matrix,
            &result.matrix,
        );
    }
}

#[test]
fn a_nan_in_the_result_leaks_only_where_asked_for() {
    for (leaks, settings) in
        [(false, Settings::default()), (true, Settings { mps_beta_zero_reads: true, ..Settings::default() })]
    {
        let watch = watch(settings);
        let gpu = Gpu::new();
        let case = Case::new([2, 2, 2], F32);
        let [left, right, result] = case.grids(&gpu);
        gpu.run(|commands| encode(&case.kernel(&gpu), commands, [&left, &right, &result]));
        assert_eq!(result.get(0, 0, 0).is_nan(), leaks);
        watch.assert_clean();
    }
}

#[test]
fn properties_and_copies() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // SAFETY: properties of kernels.
    unsafe {
        let kernel = MPSMatrixMultiplication::initWithDevice_resultRows_resultColumns_interiorColumns(
            MPSMatrixMultiplication::alloc(),
            &gpu.device,
            2,
            3,
            4,
        );
        assert_eq!(kernel.leftMatrixOrigin(), origin(0, 0));
        assert_eq!(kernel.batchStart(), 0);
        assert!(kernel.label().is_none());
        kernel.setLabel(Some(&NSString::from_str("scores")));
        kernel.setOptions(MPSKernelOptions::SkipAPIValidation);
        kernel.setRightMatrixOrigin(origin(1, 2));
        kernel.setBatchSize(5);
        let zoned: Retained<MPSMatrixMultiplication> =
            Retained::cast_unchecked(kernel.copyWithZone_device(std::ptr::null_mut(), None));
        let copies = [zoned, kernel.copy()];
        for copy in copies {
            assert_ne!(Retained::as_ptr(&copy), Retained::as_ptr(&kernel));
            assert_eq!(copy.label().expect("a label").to_string(), "scores");
            assert_eq!(copy.options(), MPSKernelOptions::SkipAPIValidation);
            assert_eq!((copy.rightMatrixOrigin(), copy.batchSize()), (origin(1, 2), 5));
            assert_eq!(Retained::as_ptr(&copy.device()), Retained::as_ptr(&gpu.device));
        }
    }
}

/// What encoding this case raises, with other grids than its own if asked for.
#[track_caller]
fn refused(gpu: &Gpu, case: Case, parts: &[&str], change: impl FnOnce([Grid; 3]) -> [Grid; 3]) {
    let grids = change(case.grids(gpu));
    let kernel = case.kernel(gpu);
    assert_refused(parts, || {
        let commands = gpu.queue.commandBuffer().expect("a command buffer");
        encode(&kernel, &commands, [&grids[0], &grids[1], &grids[2]]);
    });
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let case = Case::new([4, 5, 6], F32);
    let small = |rows, columns| gpu.grid(Shape::new(rows, columns, F32));
    let exceeds = "number of requested rows or columns exceeds the";
    refused(&gpu, case, &[exceeds, "left matrix", "4 x 6", "3 rows"], |[_, b, c]| [small(3, 6), b, c]);
    refused(&gpu, case, &[exceeds, "right matrix", "6 x 5", "4 columns"], |[a, _, c]| [a, small(6, 4), c]);
    refused(&gpu, case, &[exceeds, "result matrix", "4 x 5"], |[a, b, _]| [a, b, small(4, 4)]);
    let shifted = Case { origins: [(0, 0), (0, 0), (1, 0)], ..case };
    refused(&gpu, shifted, &["result matrix", "from row 1, column 0"], |[a, b, _]| [a, b, small(4, 5)]);
    let outside = Case { origins: [(9, 0), (0, 0), (0, 0)], ..case };
    refused(&gpu, outside, &["the origin of the left matrix is row 9"], |[_, b, c]| [small(4, 6), b, c]);
    let transposed = Case { transpose: [true, false], ..case };
    refused(&gpu, transposed, &["left matrix", "6 x 4"], |[_, b, c]| [small(4, 6), b, c]);
    let grids = case.grids(&gpu);
    let empty = Case::new([0, 5, 6], F32).kernel(&gpu);
    assert_refused(&["no elements"], || {
        gpu.run(|commands| encode(&empty, commands, [&grids[0], &grids[1], &grids[2]]))
    });
}

#[test]
fn batches_that_are_not_there_are_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let case = Case { matrices: 2, ..Case::new([2, 2, 2], F32) };
    let two = "has 2 matrices";
    refused(&gpu, Case { batch: Some((1, 2)), ..case }, &["batchStart = 1 and batchSize = 2", two], |grids| grids);
    refused(&gpu, Case { batch: Some((2, 1)), ..case }, &["batchStart = 2", two], |grids| grids);
    refused(&gpu, Case { batch: Some((2, usize::MAX)), ..case }, &["batchStart = 2, but", two], |grids| grids);
    refused(&gpu, Case { batch: Some((0, 0)), ..case }, &["batchSize is 0"], |grids| grids);
}

#[test]
fn types_that_do_not_go_together_are_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let (bf16, i8) = (MPSDataType::BFloat16, MPSDataType::Int8);
    for (types, text) in [
        ([bf16, bf16, F32], "input data type must be one of"),
        ([F32, bf16, F32], "the right one is MPSDataTypeBFloat16"),
        ([F16, F32, F32], "mixed inputs"),
        ([F32, F16, F16], "mixed inputs"),
        ([i8, F32, F32], "mixed inputs"),
        ([F32, F32, F16], "unsupported data types"),
        ([F32, F32, bf16], "are results; this is MPSDataTypeBFloat16"),
        ([i8, i8, i8], "are results"),
    ] {
        refused(&gpu, Case { types, ..Case::new([2, 2, 2], F32) }, &["[MPSMatrixMultiplication", text], |grids| grids);
    }
}

#[test]
fn a_result_over_its_inputs_is_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let case = Case::new([4, 4, 4], F32);
    let [left, right, _] = case.grids(&gpu);
    let kernel = case.kernel(&gpu);
    assert_refused(&["the result overlaps the right matrix"], || {
        gpu.run(|commands| encode(&kernel, commands, [&left, &right, &right]));
    });
}

#[test]
fn command_buffers_in_the_wrong_state_are_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    let case = Case::new([2, 2, 2], F32);
    let [left, right, result] = case.grids(&gpu);
    let kernel = case.kernel(&gpu);
    let committed = gpu.queue.commandBuffer().expect("a command buffer");
    committed.commit();
    assert_refused(&["MPSMatrixMultiplication", "commit"], || encode(&kernel, &committed, [&left, &right, &result]));
    committed.waitUntilCompleted();
    let busy = gpu.queue.commandBuffer().expect("a command buffer");
    let encoder = busy.computeCommandEncoder().expect("an encoder");
    assert_refused(&["MPSMatrixMultiplication", "encoder"], || encode(&kernel, &busy, [&left, &right, &result]));
    encoder.endEncoding();
    assert_refused(&["[MPSMatrixMultiplication initWithDevice:]"], || {
        // SAFETY: refused.
        unsafe { MPSMatrixMultiplication::initWithDevice(MPSMatrixMultiplication::alloc(), &gpu.device) }
    });
}

/// Lets the threads of a test use an object of the typed crate.
struct Shared<T>(T);
// SAFETY: the test breaks the rule on purpose; the emulator refuses.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

#[test]
fn one_kernel_on_two_threads_is_refused() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // Rows with a gap between them keep the encoder busy with their ranges.
    let case = Case::new([512, 2, 2], F32);
    let shared = Shared((case.kernel(&gpu), case.grids(&gpu), &gpu));
    let found = std::sync::atomic::AtomicBool::new(false);
    let work = || {
        let Shared((kernel, [left, right, result], gpu)) = &shared;
        for _ in 0..20_000 {
            if found.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            objc2::rc::autoreleasepool(|_| {
                let commands = gpu.queue.commandBuffer().expect("a command buffer");
                let encoding = std::panic::AssertUnwindSafe(|| encode(kernel, &commands, [left, right, result]));
                if let Err(text) = std::panic::catch_unwind(encoding) {
                    let text = text.downcast_ref::<String>().cloned().unwrap_or_default();
                    assert!(text.contains("two threads use one MPSMatrixMultiplication"), "{text}");
                    found.store(true, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    assert!(found.load(std::sync::atomic::Ordering::Relaxed), "two threads never met in the kernel");
}

#[test]
fn a_product_of_256_takes_a_fraction_of_a_second() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let grid = |seed| gpu.grid(Shape::new(256, 256, F16)).scatter(seed);
    let (left, right, result) = (grid(1), grid(2), gpu.grid(Shape::new(256, 256, F16)));
    let kernel = Case::new([256, 256, 256], F16).kernel(&gpu);
    let start = std::time::Instant::now();
    gpu.run(|commands| encode(&kernel, commands, [&left, &right, &result]));
    let took = start.elapsed();
    eprintln!("256^3 in f16: {took:?}");
    // Tens of milliseconds on an idle machine.
    assert!(took.as_secs_f64() < 2.0, "{took:?}");
    for (row, column) in [(0, 0), (17, 255), (255, 3)] {
        let sum = (0..256).map(|k| left.get(0, row, k) * right.get(0, k, column)).sum();
        assert_close(result.get(0, row, column), sum, F16);
    }
    watch.assert_clean();
}
