//! `alpha * A * B + beta * C`, which every product of Metal Performance Shaders computes.

use super::data_type;
use super::strided::{Layout, Plane};
use objc2_metal_performance_shaders::MPSDataType;

/// The factors of a product, as its kernel holds them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    alpha: f32,
    beta: f32,
}

impl Factors {
    /// Factors "of the same data type as values of C", "subject to rounding" (MPSMatrixMultiplication.h).
    pub(super) fn new(result: MPSDataType, alpha: f64, beta: f64) -> Self {
        Factors { alpha: data_type::scalar(result, alpha), beta: data_type::scalar(result, beta) }
    }

    /// Whether C is read. MPSMatrixMultiplication.h says of the result only that it is read "if necessary"; it does not
    /// say that beta = 0 makes that unnecessary, so a setting lets a NaN in C leak.
    pub(super) fn reads_addend(&self) -> bool {
        self.beta != 0.0 || crate::settings::current().mps_beta_zero_reads
    }
}

/// A matrix and the memory it is in.
pub(super) type Located = (Plane, *mut u8);

/// Multiplies: sums in f32 in ascending order, one rounding to the result's type.
///
/// # Safety
/// Each plane lies in the memory that starts at its address. The shapes match.
pub(super) unsafe fn multiply(
    left: Located,
    right: Located,
    addend: Option<Located>,
    result: Located,
    factors: Factors,
) {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (left.0.load(left.1), right.0.load(right.1)) };
    let mut sums = sums(&a, &b, left.0.columns.length, right.0.columns.length);
    match addend {
        Some((plane, base)) => {
            // SAFETY: the caller's promise.
            let c = unsafe { plane.load(base) };
            sums.iter_mut().zip(&c).for_each(|(sum, c)| *sum = factors.alpha * *sum + factors.beta * c);
        }
        None => sums.iter_mut().for_each(|sum| *sum *= factors.alpha),
    }
    // SAFETY: the caller's promise.
    unsafe { result.0.store(result.1, &sums) };
}

/// The product of two row-major matrices. Whole rows are added at a time: the order of each sum stays plain.
fn sums(left: &[f32], right: &[f32], inner: usize, columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; left.len() / inner * columns];
    for (factors, sums) in left.chunks_exact(inner).zip(sums.chunks_exact_mut(columns)) {
        for (factor, row) in factors.iter().zip(right.chunks_exact(columns)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += factor * value;
            }
        }
    }
    sums
}

/// A product of every matrix of a batch, without the memories.
pub(super) struct BatchedProduct {
    /// Left, right and result, as they are multiplied.
    pub(super) layouts: [Layout; 3],
    /// alpha and beta.
    pub(super) factors: Factors,
    /// Whether the result is read.
    pub(super) reads_addend: bool,
}

impl BatchedProduct {
    /// `memories`: left, right, result.
    pub(super) fn run(&self, memories: &[*mut u8]) {
        for index in 0..self.layouts[2].axes[2].length {
            let [left, right, result] =
                std::array::from_fn(|operand| (self.layouts[operand].plane(&[index]), memories[operand]));
            let addend = self.reads_addend.then_some(result);
            // SAFETY: the windows were checked against their matrices, and those against their buffers.
            unsafe { multiply(left, right, addend, result, self.factors) };
        }
    }
}
