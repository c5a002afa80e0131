//! The LoRA delta of rows that each name their adapter.

use super::{Draw, Operation, Terms, uniform};
use crate::rng::Rng;
use candlewick::op::{LoraRows, Operand};
use candlewick::{DType, Op};

/// Rows, in, out, rank, adapters.
type Sizes = (usize, usize, usize, usize, usize);

/// Rows that name adapters, or none.
pub(crate) struct Adapters;

fn rows_of(sizes: &[Sizes], dtype: DType) -> Vec<Op> {
    sizes.iter().map(|&(rows, i, o, rank, adapters)| LoraRows::new(rows, i, o, rank, adapters, dtype).into()).collect()
}

impl Operation for Adapters {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
            (64, 300, 257, 16, 16),
            (1, 1024, 700, 16, 3),
            (257, 129, 65, 5, 2),
            (33, 65, 129, 64, 7),
            (9, 17, 33, 1, 9),
            (600, 16, 40, 8, 1),
            (20, 64, 130, 8, 500),
            (0, 16, 17, 4, 2),
            (7, 0, 9, 2, 3),
            (7, 9, 0, 2, 3),
            (7, 9, 5, 0, 3),
            (7, 9, 5, 2, 0),
            (1, 1, 1, 1, 1),
        ];
        rows_of(&sizes, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
            (1, 512, 96, 8, 2),
            (5, 264, 130, 16, 1),
            (33, 80, 257, 7, 3),
            (258, 40, 16, 4, 2),
            (70, 2056, 64, 64, 5),
            (9, 2050, 40, 65, 2),
            (12, 256, 256, 72, 4),
        ];
        rows_of(&sizes, dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, in_features, out_features] = draw.sizes(1 << 15);
        let rank = draw.rng.pick(&[0, 1, 2, 3, 4, 5, 8, 12, 16, 17, 32, 33, 64, 65]);
        let adapters = draw.rng.pick(&[0, 1, 1, 2, 3, 8, 16, 40]);
        let op = LoraRows::new(rows, in_features, out_features, rank, adapters, draw.dtype);
        LoraRows { x_row: draw.stride(in_features), y_row: draw.stride(out_features), ..op }.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = rows(op);
        match operand {
            "x" => vec![(op.rows, op.x_row), (op.in_features, 1)],
            "y" => vec![(op.rows, op.y_row), (op.out_features, 1)],
            "a" => vec![(op.adapters * op.rank, op.in_features), (op.in_features, 1)],
            "b" => vec![(op.adapters * op.out_features, op.rank), (op.rank, 1)],
            "scales" => vec![(op.adapters, 1)],
            _ => vec![(op.rows, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        if operand.name != "slots" {
            return uniform(0.0, 1.0, count, rng);
        }
        let adapters = rows(op).adapters;
        // Rows of one adapter, runs of rows, any; and some or all rows without one.
        let (run, without) = (rng.pick(&[1, 1, 3, usize::MAX]), rng.pick(&[0, 0, 20, 100]));
        let beyond = |rng: &mut Rng| rng.pick(&[adapters as u32, adapters as u32 + 1, 1 << 31, u32::MAX]).into();
        let mut slot = 0;
        let mut next = |i: usize| {
            if i.is_multiple_of(run) {
                slot = rng.below(adapters.max(1));
            }
            if adapters == 0 || rng.chance(without) { beyond(rng) } else { slot as f64 }
        };
        (0..count).map(&mut next).collect()
    }

    fn terms(&self, op: &Op, _inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        Terms::Squares(*op)
    }
}

fn rows(op: &Op) -> &LoraRows {
    match op {
        Op::LoraRows(op) => op,
        _ => unreachable!("{op} has no adapters of rows"),
    }
}
