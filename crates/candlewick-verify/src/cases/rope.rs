//! Rotary position embedding, and its backward.

use super::{Draw, Operation, uniform};
use crate::case::Values;
use crate::rng::Rng;
use candlewick::op::{Operand, Pairs, Rope};
use candlewick::{DType, Op};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Turn(pub(crate) fn(Rope) -> Op);

/// Rows, heads, elements of a head, how many of them turn.
type Sizes = (usize, usize, usize, usize);

impl Turn {
    fn both_pairs(&self, sizes: &[Sizes], dtype: DType) -> Vec<Op> {
        let op = |&(rows, heads, head, rotary): &Sizes, pairs| {
            self.0(Rope { rotary, pairs, ..Rope::new(rows, heads, head, dtype) })
        };
        sizes.iter().flat_map(|sizes| [Pairs::Halves, Pairs::Interleaved].map(|pairs| op(sizes, pairs))).collect()
    }
}

impl Operation for Turn {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
            (1, 9, 64, 64),
            (513, 3, 64, 64),
            (129, 32, 128, 128),
            (17, 5, 80, 20),
            (7, 3, 33, 32),
            (9, 2, 5, 0),
            (1, 1, 2, 2),
            (0, 3, 8, 8),
            (3, 0, 8, 8),
            (3, 2, 0, 0),
        ];
        self.both_pairs(&sizes, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let sizes = [(2, 3, 16, 16), (33, 1, 256, 256), (5, 2, 6, 2), (65, 4, 8, 4), (1, 1, 130, 126), (1, 40, 64, 32)];
        self.both_pairs(&sizes, dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, heads, head] = draw.sizes(1 << 15);
        let mut op = Rope::new(rows, heads, head, draw.dtype);
        op.rotary = if draw.rng.chance(60) { head / 2 * 2 } else { 2 * draw.rng.below(head / 2 + 1) };
        op.pairs = draw.rng.pick(&[Pairs::Halves, Pairs::Interleaved]);
        (op.x_row, op.y_row) = (draw.stride(heads * head), draw.stride(heads * head));
        self.0(op)
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = rope(op);
        match operand {
            "positions" => vec![(op.rows, 1)],
            "frequencies" => vec![(op.rotary / 2, 1)],
            "x" | "dx" => vec![(op.rows, op.x_row), (op.heads * op.head, 1)],
            _ => vec![(op.rows, op.y_row), (op.heads * op.head, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        match operand.name {
            "positions" => {
                let first = rng.pick(&[0, 0, 1, 4095, 131_072, 1 << 24, u32::MAX - 100_000]);
                let scattered = rng.chance(20);
                let position =
                    |row: usize| if scattered { rng.below(1 << 32) as f64 } else { first as f64 + row as f64 };
                (0..count).map(position).collect()
            }
            "frequencies" => {
                let base: f64 = rng.pick(&[1e4, 5e5, 1e6]);
                (0..count).map(|i| base.powf(-2.0 * i as f64 / rope(op).rotary as f64)).collect()
            }
            _ => uniform(0.0, 1.0, count, rng),
        }
    }

    /// Angles are those of a table, at most 2^32.
    fn takes(&self, _op: &Op, operand: &Operand, _values: Values) -> bool {
        matches!(operand.name, "x" | "dy")
    }
}

fn rope(op: &Op) -> &Rope {
    match op {
        Op::Rope(op) | Op::RopeBackward(op) => op,
        _ => unreachable!("{op} turns nothing"),
    }
}
