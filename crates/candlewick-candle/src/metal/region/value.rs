//! A tensor inside a region.

use super::refused;
use crate::error::{Described, Result};
use candle_core::DType;
use std::sync::Arc;

/// A tensor inside a region: an input, or what an operation made. Where every clone is dropped, later operations of the
/// region may use its memory.
#[derive(Clone, Debug)]
pub struct Value {
    pub(super) region: u64,
    /// Which memory of the region.
    pub(super) memory: usize,
    /// Elements before the first.
    pub(super) start: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dtype: DType,
    /// Counts who uses the memory.
    pub(super) _used: Arc<()>,
}

impl Value {
    /// Its sizes.
    pub fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// Its dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The view with its last two dimensions swapped, for products.
    ///
    /// # Errors
    /// Fewer than two dimensions.
    pub fn t(&self) -> candle_core::Result<Value> {
        let mut view = self.clone();
        let [.., rows, cols] = &mut view.shape[..] else {
            let what = format!("a value of shape {:?} has no transpose", self.shape);
            return Err(refused(what, "a matrix has at least two dimensions").into());
        };
        std::mem::swap(rows, cols);
        if let [.., row, col] = &mut view.strides[..] {
            std::mem::swap(row, col);
        }
        Ok(view)
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// A shape with another number of elements, or a value that is not contiguous.
    pub fn reshape(&self, shape: &[usize]) -> candle_core::Result<Value> {
        let elements: usize = self.shape.iter().product();
        if shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)) != Some(elements) {
            let what = format!("a value of shape {:?} cannot have shape {shape:?}", self.shape);
            return Err(refused(what, "both have as many elements").into());
        }
        if !self.is_contiguous() {
            let what = format!("a value of shape {:?} with strides {:?} has no other shape", self.shape, self.strides);
            return Err(refused(what, "reshape before `t`, or make the tensor contiguous before the region").into());
        }
        Ok(Value { shape: shape.into(), strides: contiguous(shape), ..self.clone() })
    }

    /// Whether its elements lie without gaps, in order.
    pub(super) fn is_contiguous(&self) -> bool {
        let expected = contiguous(&self.shape);
        let same = self.shape.iter().zip(self.strides.iter().zip(&expected));
        self.shape.contains(&0) || same.into_iter().all(|(&size, (stride, expected))| size == 1 || stride == expected)
    }

    /// Elements from the first to the last.
    pub(super) fn span(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        1 + self.shape.iter().zip(&self.strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>()
    }

    pub(super) fn layout(&self) -> candlewick::Layout<'_> {
        candlewick::Layout::new(&self.shape, &self.strides)
    }

    /// The value where it is contiguous: regions copy nothing.
    pub(super) fn require_contiguous(&self, op: &'static str, operand: &'static str) -> Result<&Self> {
        if self.is_contiguous() { Ok(self) } else { Err(self.strides_error(op, operand)) }
    }

    #[cold]
    pub(super) fn strides_error(&self, op: &'static str, operand: &'static str) -> crate::Error {
        crate::Error::Candlewick(candlewick::Error::Strides {
            op,
            operand,
            shape: self.shape.as_slice().into(),
            strides: self.strides.as_slice().into(),
            remedy: "call `contiguous` on the tensor before the region",
        })
    }
}

impl Described for Value {
    fn dims(&self) -> &[usize] {
        &self.shape
    }
    fn dtype(&self) -> DType {
        self.dtype
    }
}

/// The strides of a shape without gaps.
pub(super) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}
