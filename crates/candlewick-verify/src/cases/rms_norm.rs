//! y = x / sqrt(mean(x²) + eps) · weight, by rows, and its backward.

use super::rows::{GPU_ROWS, ROWS};
use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::case::Values;
use crate::rng::Rng;
use candlewick::op::Operand;
use candlewick::{DType, Op, RmsNorm};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Rows(pub(crate) fn(RmsNorm) -> Op);

impl Operation for Rows {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        ROWS.map(|(rows, cols)| self.0(RmsNorm::new(rows, cols, 1e-5, dtype))).to_vec()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let rows = GPU_ROWS.into_iter().chain([(300, 40)]);
        rows.map(|(rows, cols)| self.0(RmsNorm::new(rows, cols, 1e-5, dtype))).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, cols] = draw.sizes(1 << 16);
        // Squares of very small numbers vanish in f32, where only eps keeps the mean from zero.
        let eps = if draw.values == Values::Subnormal { 1e-5 } else { draw.rng.pick(&[1e-5, 1e-6, 1.0, 0.0]) };
        let mut op = RmsNorm::new(rows, cols, eps, draw.dtype);
        (op.x_row, op.y_row) = (draw.stride(cols), draw.stride(cols));
        // Only a backward tells the difference.
        op.frozen = matches!(self.0(op), Op::RmsNormBackward(_)) && draw.rng.chance(30);
        self.0(op)
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = rows(op);
        match operand {
            "weight" | "dweight" => vec![(op.cols, 1)],
            "x" | "dx" => vec![(op.rows, op.x_row), (op.cols, 1)],
            _ => vec![(op.rows, op.y_row), (op.cols, 1)],
        }
    }

    fn ordinary(&self, _op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        if operand.name == "weight" { uniform(1.0, 0.5, count, rng) } else { uniform(0.0, 1.0, count, rng) }
    }

    fn huge(&self, dtype: DType) -> f64 {
        // Its square is summed in f32.
        if dtype == DType::F16 { 6e4 } else { 1e8 }
    }

    fn terms(&self, op: &Op, inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        match op {
            Op::RmsNormBackward(op) => Terms::Magnitudes(backward_terms(op, inputs)),
            _ => Terms::DoNotCancel,
        }
    }
}

fn rows(op: &Op) -> &RmsNorm {
    match op {
        Op::RmsNorm(op) | Op::RmsNormBackward(op) => op,
        _ => unreachable!("{op} is no RMSNorm"),
    }
}

/// The largest r · weight · dy, and the largest root of the sum of (dy · x · r)²: where a row has one column, the two
/// terms of dx differ by eps alone.
fn backward_terms(op: &RmsNorm, inputs: &[Vec<f64>]) -> Vec<f64> {
    let (mut dx, mut dweight) = (0.0f64, vec![0.0f64; op.cols]);
    for row in 0..op.rows {
        let (x, dy) = (&inputs[0][row * op.x_row..], &inputs[2][row * op.y_row..]);
        let mean = (0..op.cols).map(|j| x[j] * x[j]).sum::<f64>() / op.cols as f64;
        let r = 1.0 / (mean + f64::from(op.eps.get())).sqrt();
        for (j, dweight) in dweight.iter_mut().enumerate() {
            let term = (r * inputs[1][j] * dy[j]).abs();
            dx = dx.max(if term.is_finite() { term } else { 0.0 });
            *dweight += (dy[j] * x[j] * r).powi(2);
        }
    }
    let mut terms = vec![dx, finite_largest(&dweight).sqrt()];
    terms.truncate(if op.frozen { 1 } else { 2 });
    terms
}
