//! The tensors of an adapter, in memory as they are stored.

use crate::{Error, Result};
use candlewick_core::{DType, Element};
use half::{bf16, f16};
use std::path::Path;

/// A small tensor: contiguous, little-endian, as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its sizes, the one that varies slowest first.
    pub shape: Vec<usize>,
    /// Its numbers' format.
    pub dtype: DType,
    /// Its numbers.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// Rounds numbers to `dtype`, to nearest.
    ///
    /// # Panics
    /// Where there are not as many numbers as the shape says.
    pub fn from_f32(shape: &[usize], dtype: DType, numbers: &[f32]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), numbers.len(), "one number for each element of {shape:?}");
        let mut bytes = Vec::with_capacity(numbers.len() * dtype.bytes());
        numbers.iter().for_each(|&number| put(dtype, number.into(), &mut bytes));
        Tensor { shape: shape.to_vec(), dtype, bytes }
    }

    /// Its numbers. Exact.
    pub fn to_f32(&self) -> Vec<f32> {
        numbers(self.dtype, &self.bytes).map(|number| number as f32).collect()
    }

    pub(super) fn read(name: &str, view: crate::safetensors::View<'_>) -> Result<Tensor> {
        let dtype = crate::weights::float(view.path, name, view.dtype)?;
        Ok(Tensor { shape: view.shape.to_vec(), dtype, bytes: view.bytes.to_vec() })
    }

    /// Two sizes, neither zero.
    pub(super) fn check_matrix(self, path: &Path, name: &str) -> Result<Tensor> {
        match self.shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => Ok(self),
            _ => Err(Error::damaged(path, name, format!("has shape {:?}, not two sizes", self.shape))),
        }
    }

    pub(super) fn transposed(&self) -> Tensor {
        let (rows, cols, size) = (self.shape[0], self.shape[1], self.dtype.bytes());
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for (col, row) in (0..cols).flat_map(|col| (0..rows).map(move |row| (col, row))) {
            let at = (row * cols + col) * size;
            bytes.extend_from_slice(&self.bytes[at..at + size]);
        }
        Tensor { shape: vec![cols, rows], dtype: self.dtype, bytes }
    }
}

/// The numbers in the bytes of a float format. Exact. None of an integer format.
pub(crate) fn numbers(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks_exact(dtype.bytes()).map(move |b| match dtype {
        DType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).to_f64(),
        DType::F16 => f16::from_le_bytes([b[0], b[1]]).to_f64(),
        DType::BF16 => bf16::from_le_bytes([b[0], b[1]]).to_f64(),
        DType::U32 | DType::U8 => f64::NAN,
    })
}

/// Appends a number, rounded once to nearest.
pub(crate) fn put(dtype: DType, number: f64, bytes: &mut Vec<u8>) {
    match dtype {
        DType::F32 => bytes.extend_from_slice(&f32::from_f64(number).to_le_bytes()),
        DType::F16 => bytes.extend_from_slice(&f16::from_f32(to_odd(number)).to_le_bytes()),
        DType::BF16 => bytes.extend_from_slice(&bf16::from_f32(to_odd(number)).to_le_bytes()),
        DType::U32 | DType::U8 => unreachable!("tensors of adapters and merged weights are floats"),
    }
}

/// An f32 that rounds to a 16-bit float as the f64 would: rounded "to odd" (Boldo and Melquiond, 2008). Rounding to nearest
/// twice can end at the wrong neighbour, and `half`'s own conversion looks at the upper half of an f64 only.
fn to_odd(number: f64) -> f32 {
    let near = number as f32;
    if f64::from(near) == number || number.is_nan() {
        return near;
    }
    let below = if f64::from(near).abs() > number.abs() { near.to_bits() - 1 } else { near.to_bits() };
    f32::from_bits(below | 1)
}
