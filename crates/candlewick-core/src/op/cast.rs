//! y = x in another float format.

use super::{Op, Operands, vector};
use crate::{DType, Error, Result};

/// y = x, rounded to nearest, ties to even. What is too large becomes infinite, NaN stays NaN.
///
/// Its backward is the cast in the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cast {
    /// How many.
    pub elements: usize,
    /// Of x.
    pub from: DType,
    /// Of y.
    pub to: DType,
}

impl Cast {
    /// All its fields.
    pub fn new(elements: usize, from: DType, to: DType) -> Self {
        Cast { elements, from, to }
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::Cast(*self).name();
        if !self.from.is_float() {
            return Err(Error::UnsupportedDType { op, operand: "x", found: self.from.to_string() });
        }
        Ok(Operands {
            inputs: vec![vector(op, "x", self.from, self.elements)?],
            outputs: vec![vector(op, "y", self.to, self.elements)?],
        })
    }
}
