//! Which engine runs an operation: measurements where there are any, the backend's own order where there are none.

use crate::backend::Engine;
use crate::op::OpClass;
use crate::{DType, Op};
use std::collections::HashMap;

/// The sizes of an operation, each as the power of two at or above it: shapes of one bucket share an engine.
///
/// m, n, k, batch for a product; rows, in, out, rank for LoRA; queries, keys, heads, head for attention; rows, columns for
/// most others. What else changes the work at equal sizes, such as the format of blocks, is a fourth number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket([u8; 4]);

impl Bucket {
    /// The bucket of an operation.
    pub fn of(op: &Op) -> Self {
        let sizes = match op {
            Op::MatMul(op) => [op.m, op.n, op.k, op.batch.count()],
            Op::Softmax(op) | Op::SoftmaxBackward(op) => [op.rows, op.cols, 1, 1],
            Op::RmsNorm(op) | Op::RmsNormBackward(op) => [op.rows, op.cols, 1, 1],
            Op::LoraLinear(op) | Op::LoraLinearBackward(op) => [op.rows, op.in_features, op.out_features, op.rank],
            Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => [op.rows, op.in_features, op.out_features, op.rank],
            Op::Embedding(op) | Op::EmbeddingBackward(op) => [op.tokens, op.width, op.vocab, 1],
            Op::Rope(op) | Op::RopeBackward(op) => [op.rows, op.heads, op.head, 1 << op.pairs as usize],
            Op::Attention(op) | Op::AttentionBackward(op) => [op.queries, op.keys, op.heads, op.head],
            Op::SiluMul(op) | Op::SiluMulBackward(op) => [op.rows, op.cols, 1, 1],
            Op::Add(op) => [op.rows, op.cols, 1, 1],
            Op::Cast(op) => [op.elements, 1, 1, 1 << op.from as usize],
            Op::CrossEntropyStats(op) => [op.rows, op.cols, 1, 1],
            Op::CrossEntropyLoss(op) => [op.rows, 1, 1, 1],
            Op::CrossEntropyGrad(op) => [op.rows, op.cols, 1, 1],
            Op::SumSquares(op) => [op.elements, 1, 1, 1],
            Op::AdamW(op) => [op.elements, 1, 1, 1],
            Op::CopyRows(op) => [op.rows, op.width, 1, 1],
            Op::Dequantize(op) => [op.rows, op.cols, 1, 1 << op.format as usize],
            Op::QuantLinear(op) => {
                let kind = op.format as usize + 8 * op.activations as usize;
                [op.rows, op.in_features, op.out_features, 1 << kind]
            }
        };
        // 0 and 1 have exponent 0; 2 has 1; 3 and 4 have 2; ..
        Bucket(sizes.map(|size| (usize::BITS - size.saturating_sub(1).leading_zeros()) as u8))
    }
}

/// Why an engine was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// It was the fastest of those measured in this bucket on this device, in microseconds per operation.
    Measured {
        /// Its median.
        microseconds: f32,
    },
    /// Nothing was measured: the backend's own order.
    Default,
}

/// An engine, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The engine.
    pub engine: Engine,
    /// Why.
    pub reason: Reason,
}

/// What was measured on one device.
#[derive(Clone, Debug, Default)]
pub struct DispatchTable {
    measured: HashMap<(OpClass, Bucket, DType), Vec<(Engine, f32)>>,
}

impl DispatchTable {
    /// A table without measurements: every decision is the backend's default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `engine` took `microseconds` for `op`; a later figure replaces an earlier one.
    pub fn record(&mut self, op: &Op, engine: Engine, microseconds: f32) {
        let row = self.measured.entry((op.class(), Bucket::of(op), op.dtype())).or_default();
        row.retain(|(known, _)| *known != engine);
        row.push((engine, microseconds));
        row.sort_by(|a, b| a.1.total_cmp(&b.1));
    }

    /// The engine for `op` among `candidates`, which come in the backend's own order of preference.
    pub fn choose(&self, op: &Op, candidates: &[Engine]) -> Option<Decision> {
        let row = self.measured.get(&(op.class(), Bucket::of(op), op.dtype()));
        let measured = row.into_iter().flatten().find(|(engine, _)| candidates.contains(engine));
        match measured {
            Some(&(engine, microseconds)) => Some(Decision { engine, reason: Reason::Measured { microseconds } }),
            None => candidates.first().map(|&engine| Decision { engine, reason: Reason::Default }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MatMul;

    const FAST: Engine = Engine::new("cpu", "fast");
    const SLOW: Engine = Engine::new("cpu", "slow");

    #[test]
    fn measurements_overrule_the_default_within_their_bucket_only() {
        let op = Op::from(MatMul::new(64, 64, 64, DType::F32));
        let near = Op::from(MatMul::new(50, 33, 64, DType::F32));
        let far = Op::from(MatMul::new(65, 64, 64, DType::F32));
        let mut table = DispatchTable::new();
        assert_eq!(table.choose(&op, &[SLOW, FAST]).unwrap().reason, Reason::Default);
        table.record(&op, SLOW, 5.0);
        table.record(&op, FAST, 2.0);
        assert_eq!(
            table.choose(&op, &[SLOW, FAST]).unwrap(),
            Decision { engine: FAST, reason: Reason::Measured { microseconds: 2.0 } }
        );
        assert_eq!(table.choose(&near, &[SLOW, FAST]).unwrap().engine, FAST);
        assert_eq!(table.choose(&far, &[SLOW, FAST]).unwrap().engine, SLOW);
        table.record(&op, FAST, 9.0);
        assert_eq!(table.choose(&op, &[SLOW, FAST]).unwrap().engine, SLOW, "a later figure replaces an earlier one");
        assert_eq!(table.choose(&op, &[FAST]).unwrap().engine, FAST, "only candidates are chosen");
        assert_eq!(table.choose(&op, &[]), None);
    }
}
