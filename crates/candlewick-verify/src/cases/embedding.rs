//! Rows of a table that ids name, and the sums that are their backward.

use super::{Draw, Operation, Terms, quant, uniform};
use crate::rng::Rng;
use candlewick::op::{Embedding, Operand, Quant};
use candlewick::{DType, Op};

/// Forward or backward, by what a descriptor becomes.
pub(crate) struct Rows(pub(crate) fn(Embedding) -> Op);

impl Rows {
    /// The same with a table of blocks of each format, where there is such an operation.
    fn quantised(&self, sizes: &[(usize, usize, usize)], dtype: DType) -> Vec<Op> {
        let op = |&(tokens, vocab, blocks): &(usize, usize, usize), format: Quant| {
            self.0(Embedding::new(tokens, vocab, blocks * format.block(), dtype).quantised(format))
        };
        let ops = sizes.iter().flat_map(|sizes| Quant::ALL.map(|format| op(sizes, format)));
        ops.filter(|op| matches!(op, Op::Embedding(_))).collect()
    }
}

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
        let mut ops = sizes.map(|(tokens, vocab, width)| self.0(Embedding::new(tokens, vocab, width, dtype))).to_vec();
        ops.extend(self.quantised(&[(1, 300, 3), (65, 7, 9), (300, 2, 1), (0, 7, 2), (7, 0, 2), (7, 9, 0)], dtype));
        ops
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let sizes = [(1, 9, 8), (33, 5, 256), (2, 300, 257), (257, 2, 7), (64, 64, 64), (3, 5, 1030), (0, 3, 8)];
        let mut ops = sizes.map(|(tokens, vocab, width)| self.0(Embedding::new(tokens, vocab, width, dtype))).to_vec();
        ops.extend(self.quantised(&[(2, 3, 1), (3, 5, 9), (33, 2, 5), (2, 0, 1)], dtype));
        ops
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [tokens, width] = draw.sizes(1 << 14);
        let vocab = draw.rng.pick(&[0, 1, 2, 7, 31, 100, 257]);
        let plain = self.0(Embedding::new(tokens, vocab, width, draw.dtype));
        let quantised = self.quantised(&[(tokens.min(33), vocab, width.div_ceil(256))], draw.dtype);
        if quantised.is_empty() || draw.rng.chance(70) { plain } else { draw.rng.pick(&quantised) }
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let (Op::Embedding(op) | Op::EmbeddingBackward(op)) = op else { unreachable!("{op} is no embedding") };
        match operand {
            "ids" => vec![(op.tokens, 1)],
            "table" | "dtable" => {
                let row = op.quant.map_or(op.width, |format| format.row_bytes(op.width));
                vec![(op.vocab, row), (row, 1)]
            }
            _ => vec![(op.tokens, op.width), (op.width, 1)],
        }
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        let (Op::Embedding(op) | Op::EmbeddingBackward(op)) = op else { unreachable!("{op} is no embedding") };
        if operand.name != "ids" {
            return match op.quant {
                Some(format) => quant::blocks(format, count, 0, &[], rng),
                None => uniform(0.0, 1.0, count, rng),
            };
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
