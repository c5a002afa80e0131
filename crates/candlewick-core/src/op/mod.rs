//! The operations, as plain data: hashable, printable, with their operands, FLOPs and least bytes moved.
//!
//! | operation | computes | file |
//! |---|---|---|
//! | [`MatMul`] | C = alpha op(A) op(B) + beta C | `matmul.rs` |
//! | [`Softmax`] and its backward | y = softmax(scale x), by rows | `softmax.rs` |
//! | [`RmsNorm`] and its backward | y = x / sqrt(mean(x²) + eps) · weight, by rows | `rms_norm.rs` |
//! | [`LoraLinear`] and its backward | y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ, or added to y | `lora.rs` |
//! | [`LoraDelta`] and its backward | y = scale (x Aᵀ) Bᵀ, or added to y | `lora.rs` |
//! | [`LoraRows`] | y += (scale x Aᵀ) Bᵀ, each row with an adapter of its own | `lora_rows.rs` |
//! | [`Embedding`] and its backward | rows of a table | `embedding.rs` |
//! | [`Rope`] and its backward | rotary position embedding | `rope.rs` |
//! | [`Attention`] and its backward | y = softmax(scale q kᵀ) v, by sequences and heads | `attention.rs` |
//! | [`SiluMul`] and its backward | y = silu(gate) · up | `silu_mul.rs` |
//! | [`Add`] | y = a + b | `add.rs` |
//! | [`Cast`] | y = x in another dtype | `cast.rs` |
//! | [`Dropout`], its own backward | y = x with some elements zero | `dropout.rs` |
//! | [`CrossEntropyStats`], [`CrossEntropyLoss`], [`CrossEntropyGrad`] | the loss over chunks of a vocabulary | `cross_entropy.rs` |
//! | [`SumSquares`], [`AdamW`] | the optimizer's step | `adamw.rs` |
//! | [`CopyRows`] | rows of a cache = rows of x | `copy_rows.rs` |
//! | [`Dequantize`], [`QuantLinear`] | GGUF's quantised weights, y = x Wᵀ with them, or added to y | `quant.rs` |
//!
//! What they share: `class.rs` (an operation without its sizes), `operand.rs` (its tensors), `bound.rs` (how far a correct
//! engine may be from the reference), `print.rs`.
//!
//! A descriptor holds everything that does not change from call to call: sizes, strides, dtype, scalars. Buffers and
//! offsets into them are arguments of `encode`. Strides are in elements.

mod adamw;
mod add;
mod attention;
mod bound;
mod cast;
mod class;
mod copy_rows;
mod cross_entropy;
mod dropout;
mod embedding;
mod lora;
mod lora_rows;
mod matmul;
mod operand;
mod print;
mod quant;
mod rms_norm;
mod rope;
mod silu_mul;
mod softmax;

pub use adamw::{AdamW, SumSquares};
pub use add::Add;
pub use attention::{Attention, Span};
pub use cast::Cast;
pub use class::OpClass;
pub use copy_rows::CopyRows;
pub use cross_entropy::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use lora::{LoraDelta, LoraLinear};
pub use lora_rows::LoraRows;
pub use matmul::{Batch, Gradient, MatMul, MatMulOperand};
pub use operand::{Format, Operand, Operands, PackedFactor};
pub use quant::{Activations, Dequantize, Quant, QuantLinear};
pub use rms_norm::RmsNorm;
pub use rope::{Pairs, Rope};
pub use silu_mul::SiluMul;
pub use softmax::{Mask, Softmax};

use crate::{DType, Error, Result};
use operand::{check_row_stride, matrix, operand, require, vector};

/// One operation. A backward has the descriptor of its forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// C = alpha op(A) op(B) + beta C. Its backward is two products: [`MatMul::grad_a`], [`MatMul::grad_b`].
    MatMul(MatMul),
    /// y = softmax(scale x).
    Softmax(Softmax),
    /// dx from y and dy.
    SoftmaxBackward(Softmax),
    /// y = x / sqrt(mean(x²) + eps) · weight.
    RmsNorm(RmsNorm),
    /// dx and dweight from x, weight and dy.
    RmsNormBackward(RmsNorm),
    /// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ, or added to y.
    LoraLinear(LoraLinear),
    /// dx, da, db from x, w, a, b, dy; never dw.
    LoraLinearBackward(LoraLinear),
    /// y = scale (x Aᵀ) Bᵀ, or added to y.
    LoraDelta(LoraDelta),
    /// dx, da, db from x, a, b, dy.
    LoraDeltaBackward(LoraDelta),
    /// y += (scale x Aᵀ) Bᵀ, with an adapter for each row.
    LoraRows(LoraRows),
    /// y = the rows of a table that ids name.
    Embedding(Embedding),
    /// dtable from ids and dy.
    EmbeddingBackward(Embedding),
    /// y = x with pairs of elements turned by the position.
    Rope(Rope),
    /// dx from dy, positions and frequencies.
    RopeBackward(Rope),
    /// y = softmax(scale q kᵀ) v, and lse.
    Attention(Attention),
    /// dq, dk, dv from q, k, v, spans, y, lse and dy.
    AttentionBackward(Attention),
    /// y = silu(gate) · up.
    SiluMul(SiluMul),
    /// dgate and dup from gate, up and dy.
    SiluMulBackward(SiluMul),
    /// y = a + b.
    Add(Add),
    /// y = x in another dtype.
    Cast(Cast),
    /// y = x with some elements zero and the others larger. Its backward is the same on dy.
    Dropout(Dropout),
    /// The largest logit, the sum of exponentials and the label's logit of each row, updated by a chunk.
    CrossEntropyStats(CrossEntropyStats),
    /// The mean loss, from stats and labels.
    CrossEntropyLoss(CrossEntropyLoss),
    /// The gradient of a chunk of logits.
    CrossEntropyGrad(CrossEntropyGrad),
    /// The sum of x², or added to it.
    SumSquares(SumSquares),
    /// One step of the optimizer.
    AdamW(AdamW),
    /// Rows of a cache = rows of x.
    CopyRows(CopyRows),
    /// y = the numbers of quantised blocks.
    Dequantize(Dequantize),
    /// y = x Wᵀ with quantised W, or added to y.
    QuantLinear(QuantLinear),
}

impl Op {
    /// The operation's name, as messages and tables print it.
    pub const fn name(&self) -> &'static str {
        self.class().name()
    }

    /// The dtype of every operand, but for those that the operation's documentation gives another: what a dispatch
    /// table tells engines apart by. Of a cast it is y's, of a loss F32.
    pub const fn dtype(&self) -> DType {
        match self {
            Op::MatMul(op) => op.dtype,
            Op::Softmax(op) | Op::SoftmaxBackward(op) => op.dtype,
            Op::RmsNorm(op) | Op::RmsNormBackward(op) => op.dtype,
            Op::LoraLinear(op) | Op::LoraLinearBackward(op) => op.dtype,
            Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => op.dtype,
            Op::LoraRows(op) => op.dtype,
            Op::Embedding(op) | Op::EmbeddingBackward(op) => op.dtype,
            Op::Rope(op) | Op::RopeBackward(op) => op.dtype,
            Op::Attention(op) | Op::AttentionBackward(op) => op.dtype,
            Op::SiluMul(op) | Op::SiluMulBackward(op) => op.dtype,
            Op::Add(op) => op.dtype,
            Op::Cast(op) => op.to,
            Op::Dropout(op) => op.dtype,
            Op::CrossEntropyStats(op) => op.dtype,
            Op::CrossEntropyLoss(_) => DType::F32,
            Op::CrossEntropyGrad(op) => op.dtype,
            Op::SumSquares(op) => op.dtype,
            Op::AdamW(op) => op.dtype,
            Op::CopyRows(op) => op.dtype,
            Op::Dequantize(op) => op.dtype,
            Op::QuantLinear(op) => op.dtype,
        }
    }

    /// The operands, after a check that the descriptor contradicts itself nowhere.
    ///
    /// # Errors
    /// [`Error::Descriptor`], [`Error::Shape`], [`Error::Strides`], [`Error::TooLarge`] or [`Error::UnsupportedDType`].
    pub fn operands(&self) -> Result<Operands> {
        if !self.dtype().is_float() {
            let found = self.dtype().to_string();
            return Err(Error::UnsupportedDType { op: self.name(), operand: "the descriptor's dtype", found });
        }
        match self {
            Op::MatMul(op) => op.operands(),
            Op::Softmax(op) => op.operands(),
            Op::SoftmaxBackward(op) => op.backward_operands(),
            Op::RmsNorm(op) => op.operands(),
            Op::RmsNormBackward(op) => op.backward_operands(),
            Op::LoraLinear(op) => op.operands(),
            Op::LoraLinearBackward(op) => op.backward_operands(),
            Op::LoraDelta(op) => op.operands(),
            Op::LoraDeltaBackward(op) => op.backward_operands(),
            Op::LoraRows(op) => op.operands(),
            Op::Embedding(op) => op.operands(),
            Op::EmbeddingBackward(op) => op.backward_operands(),
            Op::Rope(op) => op.operands(),
            Op::RopeBackward(op) => op.backward_operands(),
            Op::Attention(op) => op.operands(),
            Op::AttentionBackward(op) => op.backward_operands(),
            Op::SiluMul(op) => op.operands(),
            Op::SiluMulBackward(op) => op.backward_operands(),
            Op::Add(op) => op.operands(),
            Op::Cast(op) => op.operands(),
            Op::Dropout(op) => op.operands(),
            Op::CrossEntropyStats(op) => op.operands(),
            Op::CrossEntropyLoss(op) => op.operands(),
            Op::CrossEntropyGrad(op) => op.operands(),
            Op::SumSquares(op) => op.operands(),
            Op::AdamW(op) => op.operands(),
            Op::CopyRows(op) => op.operands(),
            Op::Dequantize(op) => op.operands(),
            Op::QuantLinear(op) => op.operands(),
        }
    }

    /// Floating-point operations, a multiply-add counted as two, an exponential or a square root as one.
    pub fn flops(&self) -> f64 {
        match self {
            Op::MatMul(op) => op.flops(),
            Op::Softmax(op) => 5.0 * op.elements(),
            Op::SoftmaxBackward(op) => 5.0 * op.elements(),
            Op::RmsNorm(op) => 4.0 * op.elements(),
            Op::RmsNormBackward(op) => 10.0 * op.elements(),
            Op::LoraLinear(op) => op.flops(),
            Op::LoraLinearBackward(op) => op.backward_flops(),
            Op::LoraDelta(op) => op.flops(),
            Op::LoraDeltaBackward(op) => op.backward_flops(),
            Op::LoraRows(op) => op.flops(),
            Op::Embedding(_) | Op::CopyRows(_) | Op::Cast(_) => 0.0,
            Op::EmbeddingBackward(op) => op.elements(),
            Op::Rope(op) | Op::RopeBackward(op) => op.flops(),
            Op::Attention(op) => op.flops(),
            Op::AttentionBackward(op) => op.backward_flops(),
            Op::SiluMul(op) => 4.0 * op.elements(),
            Op::SiluMulBackward(op) => 9.0 * op.elements(),
            Op::Add(op) => op.rows as f64 * op.cols as f64,
            Op::Dropout(op) => op.elements(),
            Op::CrossEntropyStats(op) => 4.0 * op.rows as f64 * op.cols as f64,
            Op::CrossEntropyLoss(op) => 4.0 * op.rows as f64,
            Op::CrossEntropyGrad(op) => 3.0 * op.rows as f64 * op.cols as f64,
            Op::SumSquares(op) => 2.0 * op.elements as f64,
            Op::AdamW(op) => 15.0 * op.elements as f64,
            Op::Dequantize(op) => 2.0 * op.rows as f64 * op.cols as f64,
            Op::QuantLinear(op) => 2.0 * op.rows as f64 * op.in_features as f64 * op.out_features as f64,
        }
    }

    /// The least bytes that any implementation moves: every input read once, every output written once
    /// (and read once where the descriptor accumulates). Zero for a descriptor that `operands` refuses.
    pub fn bytes(&self) -> f64 {
        let Ok(operands) = self.operands() else { return 0.0 };
        // These read or write a part of an operand only.
        match self {
            Op::LoraRows(op) => return op.bytes(),
            Op::Embedding(op) => return op.bytes(),
            Op::CopyRows(op) => return op.bytes(),
            Op::AdamW(op) => return op.bytes(),
            _ => {}
        }
        let bytes = |operand: &Operand| {
            let elements = operand.shape.sizes().iter().map(|&size| size as f64).product::<f64>();
            elements.min(operand.span as f64) * operand.dtype.bytes() as f64
        };
        let read: f64 = operands.inputs.iter().map(bytes).sum();
        let written: f64 = operands.outputs.iter().map(bytes).sum();
        read + written * if self.accumulates() { 2.0 } else { 1.0 }
    }

    /// Whether an output is read before it is written, or keeps elements that are not written.
    pub fn accumulates(&self) -> bool {
        self.keeps_output(0)
    }

    /// Whether output `index` is read before it is written, or keeps elements that are not written.
    pub fn keeps_output(&self, index: usize) -> bool {
        match self {
            Op::MatMul(op) => op.beta.get() != 0.0,
            Op::LoraLinear(op) => op.accumulate,
            Op::LoraDelta(op) => op.accumulate,
            Op::QuantLinear(op) => op.accumulate,
            Op::CrossEntropyStats(op) => !op.begin,
            Op::SumSquares(op) => op.accumulate,
            // Master, m and v; param is only written.
            Op::AdamW(_) => index < 3,
            Op::LoraRows(_) | Op::CopyRows(_) => true,
            _ => false,
        }
    }

    /// Which inputs an output may lie on, as (input, output), where their layouts are equal: every element is read before
    /// the element in its place is written.
    pub const fn in_place(&self) -> &'static [(usize, usize)] {
        match self {
            Op::Add(_) | Op::SiluMul(_) => &[(0, 0), (1, 0)],
            Op::SiluMulBackward(_) => &[(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)],
            Op::Softmax(_) | Op::RmsNorm(_) | Op::Rope(_) | Op::RopeBackward(_) => &[(0, 0)],
            Op::Dropout(_) | Op::CrossEntropyGrad(_) => &[(0, 0)],
            _ => &[],
        }
    }
}

macro_rules! into_op {
    ($($descriptor:ident),*) => {$(
        impl From<$descriptor> for Op {
            fn from(op: $descriptor) -> Op {
                Op::$descriptor(op)
            }
        }
    )*};
}
into_op!(MatMul, Softmax, RmsNorm, LoraLinear, LoraDelta, LoraRows);
into_op!(Embedding, Rope, Attention, SiluMul, Add, Cast, Dropout);
into_op!(CrossEntropyStats, CrossEntropyLoss, CrossEntropyGrad, SumSquares, AdamW);
into_op!(CopyRows, Dequantize, QuantLinear);
