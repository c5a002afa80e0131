//! y = x / sqrt(mean(x²) + eps) · weight, by rows.

use super::{Op, Operands, check_row_stride, operand};
use crate::{DType, Error, Result, Scalar};

/// Root mean square normalisation (Zhang and Sennrich, 2019): y = x · r · weight with r = 1 / sqrt(mean(x²) + eps).
///
/// Backward: dx = r · (weight · dy) - x · r³ / cols · sum(weight · dy · x), dweight = sum over rows of dy · x · r.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RmsNorm {
    /// Rows.
    pub rows: usize,
    /// Columns: the length of each mean, and of the weight.
    pub cols: usize,
    /// Elements between rows of x (and of dx).
    pub x_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Added to the mean square.
    pub eps: Scalar,
    /// The backward makes dx alone: the weight is not trained.
    pub frozen: bool,
    /// Of x, weight and y.
    pub dtype: DType,
}

impl RmsNorm {
    /// Contiguous rows.
    pub fn new(rows: usize, cols: usize, eps: f32, dtype: DType) -> Self {
        RmsNorm { rows, cols, x_row: cols, y_row: cols, eps: eps.into(), frozen: false, dtype }
    }

    pub(super) fn elements(&self) -> f64 {
        self.rows as f64 * self.cols as f64
    }

    fn check(&self, name: &'static str) -> Result<()> {
        check_row_stride(name, "x_row", self.x_row, self.cols)?;
        check_row_stride(name, "y_row", self.y_row, self.cols)?;
        if self.eps.get() < 0.0 || self.eps.get().is_nan() {
            return Err(Error::Descriptor {
                op: name,
                field: "eps",
                value: self.eps.to_string(),
                remedy: "eps is zero or more",
            });
        }
        Ok(())
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let name = Op::RmsNorm(*self).name();
        self.check(name)?;
        let rows = |operand_name, row| operand(name, operand_name, self.dtype, &[(self.rows, row), (self.cols, 1)]);
        let weight = operand(name, "weight", self.dtype, &[(self.cols, 1)])?;
        Ok(Operands { inputs: vec![rows("x", self.x_row)?, weight], outputs: vec![rows("y", self.y_row)?] })
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let name = Op::RmsNormBackward(*self).name();
        self.check(name)?;
        let rows = |operand_name, row| operand(name, operand_name, self.dtype, &[(self.rows, row), (self.cols, 1)]);
        let weight = |operand_name| operand(name, operand_name, self.dtype, &[(self.cols, 1)]);
        let inputs = vec![rows("x", self.x_row)?, weight("weight")?, rows("dy", self.y_row)?];
        let mut outputs = vec![rows("dx", self.x_row)?];
        if !self.frozen {
            outputs.push(weight("dweight")?);
        }
        Ok(Operands { inputs, outputs })
    }
}
