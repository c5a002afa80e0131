//! Reproducible tensors, and comparison with Candlewick's f64 reference.
#![allow(dead_code, missing_docs)] // Each test file uses its part.

use candle_core::{DType, Device, Tensor, Var};
use candlewick::{Op, reference};

pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Numbers in [-1, 1), the same for the same seed.
pub fn tensor(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

pub fn var(seed: u64, shape: &[usize], dtype: DType) -> Var {
    Var::from_tensor(&tensor(seed, shape, dtype)).unwrap()
}

/// The same tensor as a view whose memory has a gap before it and between its rows.
pub fn with_gaps(tensor: &Tensor) -> Tensor {
    let dim = tensor.rank() - 1;
    let border = Tensor::full(7f32, &tensor.dims()[..dim], tensor.device()).unwrap();
    let border = border.unsqueeze(dim).unwrap().to_dtype(tensor.dtype()).unwrap();
    let wide = Tensor::cat(&[&border, tensor, &border], dim).unwrap();
    wide.narrow(dim, 1, tensor.dims()[dim]).unwrap()
}

/// The same tensor as a view of its transpose.
pub fn through_transpose(tensor: &Tensor) -> Tensor {
    tensor.t().unwrap().contiguous().unwrap().t().unwrap()
}

pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// What the f64 reference makes of contiguous operands: one vector for each length.
pub fn reference<const N: usize>(op: impl Into<Op>, inputs: &[&[f64]], lengths: [usize; N]) -> [Vec<f64>; N] {
    let mut outputs = lengths.map(|length| vec![0.0; length]);
    let mut slices: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(&op.into(), inputs, &mut slices).unwrap();
    outputs
}

/// Relative to the largest magnitude expected.
#[track_caller]
pub fn assert_close(found: &Tensor, expected: &[f64], bound: f64, what: &str) {
    let found = numbers(found);
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / largest;
        assert!(error <= bound, "{what}: element {i} is {found}, expected {expected}: {error:e} > {bound:e}");
    }
}

/// d(sum of weights · f(at)) / d(at), by central differences.
pub fn differences(at: &[f64], weights: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let step = 1e-5;
    let value = |at: &[f64]| f(at).iter().zip(weights).map(|(y, weight)| y * weight).sum::<f64>();
    (0..at.len())
        .map(|i| {
            let (mut up, mut down) = (at.to_vec(), at.to_vec());
            up[i] += step;
            down[i] -= step;
            (value(&up) - value(&down)) / (2.0 * step)
        })
        .collect()
}

/// A scalar whose gradient with respect to `y` is `weights`.
pub fn weighted_sum(y: &Tensor, weights: &Tensor) -> Tensor {
    y.mul(weights).unwrap().sum_all().unwrap()
}
