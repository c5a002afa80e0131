//! Rows of a table that ids name, and the sums that are their backward.

use super::{Draw, Operation, Terms, uniform};
use crate::rng::Rng;
use candlewick::op::{Embedding, Operand};
use candlewick::{DType, Op};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Rows(pub(crate) fn(Embedding) -> Op);

impl Operation for Rows {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
            (1, 1000, 576),
            (300, 70, 129),
            (513, 3, 64),
            (1, 1, 1),
            (1000, 1, 33),
            (0, 7, 9),
            (7, 0, 9),
            (7, 9, 0),
            (65, 4097, 1),
            (17, 30_000, 8),
        ];
        sizes.map(|(tokens, vocab, width)| self.0(Embedding::new(tokens, vocab, width, dtype))).to_vec()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let sizes = [(1, 9, 8), (33, 5, 256), (2, 300, 257), (257, 2, 7), (64, 64, 64), (3, 5, 1030), (0, 3, 8)];
        sizes.map(|(tokens, vocab, width)| self.0(Embedding::new(tokens, vocab, width, dtype))).to_vec()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [tokens, width] = draw.sizes(1 << 14);
        let vocab = draw.rng.pick(&[0, 1, 2, 7, 31, 100, 257]);
        self.0(Embedding::new(tokens, vocab, width, draw.dtype))
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let (Op::Embedding(op) | Op::EmbeddingBackward(op)) = op else { unreachable!("{op} is no embedding") };
        match operand {
            "ids" => vec![(op.tokens, 1)],
            "table" | "dtable" => vec![(op.vocab, op.width), (op.width, 1)],
            _ => vec![(op.tokens, op.width), (op.width, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        let (Op::Embedding(op) | Op::EmbeddingBackward(op)) = op else { unreachable!("{op} is no embedding") };
        if operand.name != "ids" {
            return uniform(0.0, 1.0, count, rng);
        }
        // All of one id meet in one row of dtable.
        let few = if rng.chance(20) { 1 } else { op.vocab };
        let beyond = rng.pick(&[0, 0, 10]);
        let id = |rng: &mut Rng| match few {
            0 => rng.pick(&[0, 1, u32::MAX]).into(),
            _ if rng.chance(beyond) => rng.pick(&[op.vocab as u32, op.vocab as u32 + 1, 1 << 31, u32::MAX]).into(),
            few => rng.below(few) as f64,
        };
        (0..count).map(|_| id(rng)).collect()
    }

    fn terms(&self, op: &Op, _inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        // On squared dy: ids stay what they are.
        if matches!(op, Op::EmbeddingBackward(_)) { Terms::Squares(*op) } else { Terms::DoNotCancel }
    }
}
