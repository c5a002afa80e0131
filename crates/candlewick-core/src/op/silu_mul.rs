//! y = silu(gate) · up: the middle of a SwiGLU feed-forward.

use super::{Op, Operands, check_row_stride, matrix};
use crate::{DType, Result};

/// y = gate / (1 + exp(-gate)) · up (Shazeer, "GLU variants improve transformer", 2020), element by element.
///
/// Backward, with s = 1 / (1 + exp(-gate)): dup = dy · gate · s, dgate = dy · up · s · (1 + gate · (1 - s)).
/// In place is legal: y may be gate or up, dgate and dup may be gate, up or dy, each where the layouts are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiluMul {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements between rows of gate (and of dgate).
    pub gate_row: usize,
    /// Elements between rows of up (and of dup).
    pub up_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Of every operand.
    pub dtype: DType,
}

impl SiluMul {
    /// Contiguous rows.
    pub fn new(rows: usize, cols: usize, dtype: DType) -> Self {
        SiluMul { rows, cols, gate_row: cols, up_row: cols, y_row: cols, dtype }
    }

    pub(super) fn elements(&self) -> f64 {
        self.rows as f64 * self.cols as f64
    }

    fn check(&self, op: &'static str) -> Result<()> {
        check_row_stride(op, "gate_row", self.gate_row, self.cols)?;
        check_row_stride(op, "up_row", self.up_row, self.cols)?;
        check_row_stride(op, "y_row", self.y_row, self.cols)
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::SiluMul(*self).name();
        self.check(op)?;
        let rows = |name, row| matrix(op, name, self.dtype, self.rows, row, self.cols);
        Ok(Operands {
            inputs: vec![rows("gate", self.gate_row)?, rows("up", self.up_row)?],
            outputs: vec![rows("y", self.y_row)?],
        })
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let op = Op::SiluMulBackward(*self).name();
        self.check(op)?;
        let rows = |name, row| matrix(op, name, self.dtype, self.rows, row, self.cols);
        Ok(Operands {
            inputs: vec![rows("gate", self.gate_row)?, rows("up", self.up_row)?, rows("dy", self.y_row)?],
            outputs: vec![rows("dgate", self.gate_row)?, rows("dup", self.up_row)?],
        })
    }
}
