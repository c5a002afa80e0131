//! Every kernel on every instruction set of this CPU, against plain loops in f64.

mod matrices;
mod pairs;
mod products;
mod rows;
#[cfg(target_arch = "x86_64")]
mod tiles;

use super::{Kernels, kernels};
use crate::simd::Isa;
use candlewick_core::DType;
use half::{bf16, f16};

/// Take every size, or every fifth under Miri, which is slow.
const STEP: usize = if cfg!(miri) { 5 } else { 1 };

/// The tables that run here.
fn tables() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().filter_map(kernels)
}

/// Numbers in -1..1, the same for the same seed.
fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Numbers in memory in one format, aligned as their type is.
#[derive(Clone, Debug)]
struct Numbers {
    dtype: DType,
    n: usize,
    memory: Vec<u32>,
}

impl Numbers {
    /// `values`, rounded to `dtype`.
    fn new(dtype: DType, values: &[f32]) -> Numbers {
        let mut bytes: Vec<u8> = match dtype {
            DType::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect(),
            DType::U32 | DType::U8 => unreachable!("kernels compute in floats"),
            DType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_ne_bytes()).collect(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let memory = bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
        Numbers { dtype, n: values.len(), memory }
    }

    fn random(dtype: DType, n: usize, seed: u64) -> Numbers {
        Numbers::new(dtype, &random(n, seed))
    }

    fn ptr(&self) -> *const u8 {
        self.memory.as_ptr().cast()
    }

    fn mut_ptr(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr().cast()
    }

    /// A pointer to element `i`.
    fn at(&self, i: usize) -> *const u8 {
        self.ptr().wrapping_add(i * self.dtype.bytes())
    }

    fn values(&self) -> Vec<f32> {
        let bytes: Vec<u8> = self.memory.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let pairs = bytes.chunks_exact(2).take(self.n).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        match self.dtype {
            DType::F32 => self.memory.iter().map(|word| f32::from_bits(*word)).collect(),
            DType::F16 => pairs.map(|bits| f16::from_bits(bits).to_f32()).collect(),
            DType::U32 | DType::U8 => unreachable!("kernels compute in floats"),
            DType::BF16 => pairs.map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        }
    }
}

/// Asserts that `got` is `want`, rounded to `dtype` and off by at most `error` before that. NaN equals NaN.
#[track_caller]
fn assert_near(got: f32, want: f64, error: f64, dtype: DType, what: &dyn std::fmt::Display) {
    if want.is_nan() || got.is_nan() {
        assert!(want.is_nan() && got.is_nan(), "{what}: {got}, expected {want}");
        return;
    }
    let allowed = error + dtype.unit_roundoff() * (want.abs() + error) + 1e-7 * f64::from(dtype != DType::F32);
    let off = (f64::from(got) - want).abs();
    assert!(off <= allowed, "{what}: {got}, expected {want}, off by {off:e}, allowed {allowed:e}");
}

#[test]
fn assert_near_can_fail() {
    let fails = |got, want| std::panic::catch_unwind(|| assert_near(got, want, 1e-6, DType::F32, &"")).is_err();
    assert!(!fails(1.0, 1.0 + 1e-7));
    assert!(fails(1.0, 1.0 + 1e-5));
    assert!(fails(f32::NAN, 1.0));
    assert!(fails(1.0, f64::NAN));
}
