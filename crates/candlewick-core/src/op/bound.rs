//! How far a correct engine may be from the reference.

use super::{Embedding, Op};
use crate::DType;

impl Op {
    /// The largest error, relative to the largest magnitude of the output, that a correct engine with f32 accumulation
    /// makes on inputs of mean zero: two roundings to the dtype, and four standard deviations of the accumulation's
    /// random walk (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019).
    ///
    /// Of attention the scores' own errors are in it: an exponent that is off by e makes a factor of 1 + e, and a score of
    /// magnitude up to 4 with `head` terms is off by 4 sqrt(head) round-offs. Outputs that are F32 whatever the dtype (lse,
    /// and AdamW's master and moments beside param) have the bound of the dtype.
    ///
    /// [`super::Activations::Int8`] adds what rounding x costs: see [`super::QuantLinear`].
    pub fn error_bound(&self) -> f64 {
        let terms = match self {
            Op::MatMul(op) => op.k.saturating_mul(op.summed_batches()),
            Op::Softmax(op) | Op::SoftmaxBackward(op) => op.cols,
            Op::RmsNorm(op) => op.cols,
            Op::RmsNormBackward(op) => op.cols.max(op.rows),
            Op::LoraLinear(op) => op.in_features.saturating_add(op.rank),
            Op::LoraLinearBackward(op) => op.in_features.max(op.rows).max(op.out_features).saturating_add(op.rank),
            Op::LoraDelta(op) => op.in_features.saturating_add(op.rank),
            Op::LoraDeltaBackward(op) => op.in_features.max(op.rows).max(op.out_features).saturating_add(op.rank),
            Op::LoraRows(op) => op.in_features.saturating_add(op.rank),
            // Copies.
            Op::Embedding(Embedding { quant: None, .. }) | Op::CopyRows(_) => return 0.0,
            Op::EmbeddingBackward(op) => op.tokens,
            Op::Attention(op) => op.keys.saturating_add(op.head.saturating_mul(16)),
            Op::AttentionBackward(op) => op.keys.max(op.queries).saturating_add(op.head.saturating_mul(16)),
            Op::CrossEntropyStats(op) => op.cols,
            Op::CrossEntropyLoss(op) => op.rows,
            Op::CrossEntropyGrad(op) => op.cols,
            Op::SumSquares(op) => op.elements,
            Op::QuantLinear(op) => op.in_features,
            // A few operations on each element.
            Op::Rope(_) | Op::RopeBackward(_) | Op::SiluMul(_) | Op::SiluMulBackward(_) | Op::Add(_) => 1,
            Op::Cast(_) | Op::Dropout(_) | Op::AdamW(_) | Op::Dequantize(_) | Op::Embedding(_) => 1,
        };
        let walk = (terms as f64).sqrt().max(4.0);
        let rounded = match self {
            Op::CrossEntropyStats(_) | Op::SumSquares(_) => DType::F32,
            _ => self.dtype(),
        };
        // Of a product whose x may be rounded: four standard deviations of what that does, in quadrature.
        let of_x = if let Op::QuantLinear(op) = self { op.rounding() } else { 0.0 };
        2.0 * rounded.unit_roundoff() + 4.0 * (walk * DType::F32.unit_roundoff()).hypot(of_x)
    }
}
