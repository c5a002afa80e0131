//! y = a + b.

use super::{Op, Operands, check_row_stride, matrix};
use crate::{DType, Result};

/// y = a + b, element by element: a residual connection, or the sum of two gradients. Its backward is dy, twice.
///
/// In place is legal: y may be a or b where the layouts are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Add {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements between rows of a.
    pub a_row: usize,
    /// Elements between rows of b; 0 adds its one row to every row of a, as a bias.
    pub b_row: usize,
    /// Elements between rows of y.
    pub y_row: usize,
    /// Of every operand.
    pub dtype: DType,
}

impl Add {
    /// Contiguous rows.
    pub fn new(rows: usize, cols: usize, dtype: DType) -> Self {
        Add { rows, cols, a_row: cols, b_row: cols, y_row: cols, dtype }
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::Add(*self).name();
        check_row_stride(op, "a_row", self.a_row, self.cols)?;
        if self.b_row != 0 {
            check_row_stride(op, "b_row", self.b_row, self.cols)?;
        }
        check_row_stride(op, "y_row", self.y_row, self.cols)?;
        let rows = |name, row| matrix(op, name, self.dtype, self.rows, row, self.cols);
        Ok(Operands {
            inputs: vec![rows("a", self.a_row)?, rows("b", self.b_row)?],
            outputs: vec![rows("y", self.y_row)?],
        })
    }
}
