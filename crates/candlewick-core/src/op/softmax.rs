//! y = softmax(scale x), by rows, with an optional causal mask.

use super::{Op, Operands, check_row_stride, operand};
use crate::{DType, Error, Result, Scalar};

/// y[i, j] = exp(scale x[i, j]) / sum over the unmasked j of exp(scale x[i, j]); masked elements are 0.
///
/// NaN and infinities follow IEEE 754: a row with a NaN or with +inf, or of -inf only, is NaN.
/// Backward: dx = scale · y · (dy - sum(y · dy)), from y and dy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Softmax {
    /// Rows.
    pub rows: usize,
    /// Columns: the length of each sum.
    pub cols: usize,
    /// Elements between rows of x (and of dx).
    pub x_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Factor of x, 1 / sqrt(head size) in attention.
    pub scale: Scalar,
    /// Which elements count.
    pub mask: Mask,
    /// Of x and y.
    pub dtype: DType,
}

/// Which elements of a softmax count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All.
    None,
    /// Rows are queries, columns are keys, and a query sees no later key. The last query sees the last key: row i, of
    /// every `queries` rows, sees the keys up to i + cols - queries.
    Causal {
        /// Rows per sequence; divides `rows`, and is at most `cols`.
        queries: usize,
    },
}

impl Softmax {
    /// Contiguous rows, scale 1, no mask.
    pub fn new(rows: usize, cols: usize, dtype: DType) -> Self {
        Softmax { rows, cols, x_row: cols, y_row: cols, scale: Scalar(1.0), mask: Mask::None, dtype }
    }

    /// Factor of x.
    pub fn scaled(mut self, scale: f32) -> Self {
        self.scale = scale.into();
        self
    }

    /// No query sees a later key; `queries` rows per sequence.
    pub fn causal(mut self, queries: usize) -> Self {
        self.mask = Mask::Causal { queries };
        self
    }

    /// How many leading elements of `row` count.
    pub const fn valid(&self, row: usize) -> usize {
        match self.mask {
            Mask::None => self.cols,
            Mask::Causal { queries } => row % queries + 1 + self.cols - queries,
        }
    }

    pub(super) fn elements(&self) -> f64 {
        self.rows as f64 * self.cols as f64
    }

    fn check(&self, name: &'static str) -> Result<()> {
        check_row_stride(name, "x_row", self.x_row, self.cols)?;
        check_row_stride(name, "y_row", self.y_row, self.cols)?;
        if let Mask::Causal { queries } = self.mask
            && (queries == 0 || queries > self.cols || !self.rows.is_multiple_of(queries))
        {
            return Err(Error::Descriptor {
                op: name,
                field: "mask",
                value: format!("Causal {{ queries: {queries} }} with {} rows and {} columns", self.rows, self.cols),
                remedy: "queries divide the rows, and there are at least as many columns (keys) as queries",
            });
        }
        Ok(())
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let name = Op::Softmax(*self).name();
        self.check(name)?;
        let rows = |operand_name, row| operand(name, operand_name, self.dtype, &[(self.rows, row), (self.cols, 1)]);
        Ok(Operands { inputs: vec![rows("x", self.x_row)?], outputs: vec![rows("y", self.y_row)?] })
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let name = Op::SoftmaxBackward(*self).name();
        self.check(name)?;
        let rows = |operand_name, row| operand(name, operand_name, self.dtype, &[(self.rows, row), (self.cols, 1)]);
        Ok(Operands {
            inputs: vec![rows("y", self.y_row)?, rows("dy", self.y_row)?],
            outputs: vec![rows("dx", self.x_row)?],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_query_sees_every_key() {
        let op = Softmax::new(4, 5, DType::F32).causal(2);
        assert_eq!((0..4).map(|row| op.valid(row)).collect::<Vec<_>>(), [4, 5, 4, 5]);
        assert!(op.operands().is_ok());
        assert!(op.causal(3).operands().is_err(), "3 does not divide 4 rows");
        assert!(Softmax::new(8, 5, DType::F32).causal(8).operands().is_err(), "more queries than keys");
        assert!(Softmax::new(0, 5, DType::F32).causal(0).operands().is_err());
    }
}
