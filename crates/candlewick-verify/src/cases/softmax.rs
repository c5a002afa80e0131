//! y = softmax(scale x), by rows, and its backward.

use super::rows::{GPU_ROWS, ROWS};
use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::rng::Rng;
use candlewick::op::Operand;
use candlewick::{DType, Op, Softmax};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Rows(pub(crate) fn(Softmax) -> Op);

impl Operation for Rows {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let plain = ROWS.map(|(rows, cols)| Softmax::new(rows, cols, dtype));
        let causal = [(192, 64, 64), (258, 300, 129)];
        let causal = causal.map(|(rows, cols, queries)| Softmax::new(rows, cols, dtype).causal(queries));
        plain.into_iter().chain(causal).map(self.0).collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let plain = GPU_ROWS.map(|(rows, cols)| Softmax::new(rows, cols, dtype));
        let causal = [(64, 64, 64), (58, 300, 29), (4, 8200, 2), (6, 520, 3), (2, 17_000, 2)];
        let causal = causal.map(|(rows, cols, queries)| Softmax::new(rows, cols, dtype).causal(queries));
        plain.into_iter().chain(causal).map(self.0).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let scale = draw.rng.pick(&[1.0, 1.0, 0.125, -1.0, 8.0, 0.0]);
        let [mut rows, mut cols] = draw.sizes(1 << 16);
        let causal = draw.rng.chance(40);
        let queries = 1 + draw.rng.below(40);
        if causal {
            rows = queries * draw.rng.below(5);
            cols = queries + draw.rng.pick(&[0, 0, 1, 7, 33]);
        }
        let mut op = Softmax::new(rows, cols, draw.dtype).scaled(scale);
        if causal {
            op = op.causal(queries);
        }
        (op.x_row, op.y_row) = (draw.stride(cols), draw.stride(cols));
        self.0(op)
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = rows(op);
        vec![(op.rows, if matches!(operand, "x" | "dx") { op.x_row } else { op.y_row }), (op.cols, 1)]
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        match (op, operand.name) {
            (Op::Softmax(_), _) => {
                let (width, centre) = (rng.pick(&[1.0, 10.0]), rng.pick(&[0.0, 0.0, 50.0]));
                uniform(centre, width, count, rng)
            }
            // Rows that add up to one, as softmax makes them.
            (_, "y") => {
                let cols = rows(op).cols.max(1) as f64;
                (0..count).map(|_| (1.0 + rng.unit()) / cols).collect()
            }
            _ => uniform(0.0, 1.0, count, rng),
        }
    }

    fn hide(&self, op: &Op, values: &mut [f64]) {
        let op = rows(op);
        for (row, values) in values.chunks_mut(op.cols.max(1)).enumerate() {
            values[op.valid(row)..].fill(f64::NAN);
        }
    }

    fn degenerate(&self, op: &Op) -> f64 {
        if matches!(op, Op::Softmax(_)) { f64::NEG_INFINITY } else { 0.0 }
    }

    fn terms(&self, op: &Op, inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        match op {
            // dx = scale y (dy - sum(y dy)): both terms are at most this.
            Op::SoftmaxBackward(op) => {
                let (y, dy) = (finite_largest(&inputs[0]), finite_largest(&inputs[1]));
                Terms::Magnitudes(vec![f64::from(op.scale.get()).abs() * y * dy])
            }
            _ => Terms::DoNotCancel,
        }
    }
}

fn rows(op: &Op) -> &Softmax {
    match op {
        Op::Softmax(op) | Op::SoftmaxBackward(op) => op,
        _ => unreachable!("{op} is no softmax"),
    }
}
