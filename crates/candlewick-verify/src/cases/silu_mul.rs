//! y = silu(gate) · up, and its backward.

use super::rows::{GPU_ROWS, ROWS};
use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::rng::Rng;
use candlewick::op::{Operand, SiluMul};
use candlewick::{DType, Op};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Gated(pub(crate) fn(SiluMul) -> Op);

impl Operation for Gated {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        ROWS.map(|(rows, cols)| self.0(SiluMul::new(rows, cols, dtype))).to_vec()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        GPU_ROWS.map(|(rows, cols)| self.0(SiluMul::new(rows, cols, dtype))).to_vec()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, cols] = draw.sizes(1 << 16);
        let mut op = SiluMul::new(rows, cols, draw.dtype);
        if draw.rng.chance(20) {
            // Both in one tensor, side by side.
            (op.gate_row, op.up_row) = (2 * cols, 2 * cols);
        } else {
            (op.gate_row, op.up_row) = (draw.stride(cols), draw.stride(cols));
        }
        op.y_row = draw.stride(cols);
        self.0(op)
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let (Op::SiluMul(op) | Op::SiluMulBackward(op)) = op else { unreachable!("{op} is no silu") };
        let row = match operand {
            "gate" | "dgate" => op.gate_row,
            "up" | "dup" => op.up_row,
            _ => op.y_row,
        };
        vec![(op.rows, row), (op.cols, 1)]
    }

    fn ordinary(&self, _op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        // Up to where the exponential still is a number in f32: an infinite `up` would show where it is not.
        let width = if operand.name == "gate" { rng.pick(&[1.0, 10.0, 60.0]) } else { 1.0 };
        uniform(0.0, width, count, rng)
    }

    fn terms(&self, op: &Op, inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        match op {
            // dgate has a root, where 1 + gate (1 - s) is near zero; its terms are at most twice this.
            Op::SiluMulBackward(_) => {
                let (up, dy) = (finite_largest(&inputs[1]), finite_largest(&inputs[2]));
                let gate = finite_largest(inputs[0].iter().filter(|gate| **gate > 0.0));
                Terms::Magnitudes(vec![up * dy, gate.max(0.3) * dy])
            }
            _ => Terms::DoNotCancel,
        }
    }
}
