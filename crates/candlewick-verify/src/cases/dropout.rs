//! Elements that become zero by chance: which ones is part of the right answer.

use super::{Draw, Operation, uniform};
use crate::rng::Rng;
use candlewick::op::{Dropout, Operand};
use candlewick::{DType, Op};

/// Rows with a rate.
pub(crate) struct Masked;

/// Rows, columns, rate, stream.
fn of(sizes: &[(usize, usize, f32, u32)], dtype: DType) -> Vec<Op> {
    sizes.iter().map(|&(rows, cols, rate, stream)| Dropout::new(rows, cols, rate, stream, dtype).into()).collect()
}

impl Operation for Masked {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
            (128, 512, 0.1, 0),
            (33, 257, 0.5, 1),
            (1, 70_001, 0.05, 7),
            (1000, 1, 0.9, u32::MAX),
            (5, 64, 0.0, 3),
            (7, 65, 0.999_999_94, 2),
            (1, 1, 0.5, 0),
            (0, 9, 0.5, 0),
            (9, 0, 0.5, 0),
        ];
        of(&sizes, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let sizes =
            [(3, 8, 0.5, 1), (5, 2056, 0.3, 2), (2, 255, 0.1, 3), (1, 2049, 0.7, 4), (40, 12, 0.2, 5), (1, 3, 0.6, 6)];
        of(&sizes, dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, cols] = draw.sizes(1 << 15);
        let rate = draw.rng.pick(&[0.0, 0.05, 0.1, 0.5, 0.9, 1e-6]);
        let op = Dropout::new(rows, cols, rate, draw.rng.pick(&[0, 1, 2, 1000, u32::MAX]), draw.dtype);
        Dropout { x_row: draw.stride(cols), y_row: draw.stride(cols), ..op }.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::Dropout(op) = op else { unreachable!("{op} drops nothing") };
        match operand {
            "x" => vec![(op.rows, op.x_row), (op.cols, 1)],
            "y" => vec![(op.rows, op.y_row), (op.cols, 1)],
            _ => vec![(2, 1)],
        }
    }

    fn ordinary(&self, _op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        if operand.name != "seed" {
            return uniform(0.0, 1.0, count, rng);
        }
        (0..count).map(|_| rng.pick(&[0, 1, 42, 1 << 20, u32::MAX]).into()).collect()
    }
}
