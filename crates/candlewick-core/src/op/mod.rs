//! The operations, as plain data: hashable, printable, with their operands, FLOPs and least bytes moved.
//!
//! | operation | computes | file |
//! |---|---|---|
//! | [`MatMul`] | C = alpha op(A) op(B) + beta C | `matmul.rs` |
//! | [`Softmax`] and its backward | y = softmax(scale x), by rows | `softmax.rs` |
//! | [`RmsNorm`] and its backward | y = x / sqrt(mean(x²) + eps) · weight, by rows | `rms_norm.rs` |
//! | [`LoraLinear`] and its backward | y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ | `lora.rs` |
//! | [`LoraDelta`] and its backward | y = scale (x Aᵀ) Bᵀ, or added to y | `lora.rs` |
//! | [`Embedding`] and its backward | rows of a table | `embedding.rs` |
//! | [`Rope`] and its backward | rotary position embedding | `rope.rs` |
//! | [`Attention`] and its backward | y = softmax(scale q kᵀ) v, by sequences and heads | `attention.rs` |
//! | [`SiluMul`] and its backward | y = silu(gate) · up | `silu_mul.rs` |
//! | [`Add`] | y = a + b | `add.rs` |
//! | [`Cast`] | y = x in another dtype | `cast.rs` |
//! | [`CrossEntropyStats`], [`CrossEntropyLoss`], [`CrossEntropyGrad`] | the loss over chunks of a vocabulary | `cross_entropy.rs` |
//! | [`SumSquares`], [`AdamW`] | the optimizer's step | `adamw.rs` |
//! | [`CopyRows`] | rows of a cache = rows of x | `copy_rows.rs` |
//! | [`Dequantize`], [`QuantLinear`] | GGUF's quantised weights, y = x Wᵀ with them | `quant.rs` |
//!
//! A descriptor holds everything that does not change from call to call: sizes, strides, dtype, scalars. Buffers and
//! offsets into them are arguments of `encode`. Strides are in elements.

mod adamw;
mod add;
mod attention;
mod cast;
mod copy_rows;
mod cross_entropy;
mod embedding;
mod lora;
mod matmul;
mod quant;
mod rms_norm;
mod rope;
mod silu_mul;
mod softmax;

pub use adamw::{AdamW, SumSquares};
pub use add::Add;
pub use attention::{Attention, Span};
pub use cast::Cast;
pub use copy_rows::CopyRows;
pub use cross_entropy::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats};
pub use embedding::Embedding;
pub use lora::{LoraDelta, LoraLinear};
pub use matmul::{Batch, Gradient, MatMul, MatMulOperand};
pub use quant::{Dequantize, Quant, QuantLinear};
pub use rms_norm::RmsNorm;
pub use rope::{Pairs, Rope};
pub use silu_mul::SiluMul;
pub use softmax::{Mask, Softmax};

use crate::{DType, Error, Result, Shape};
use std::fmt;

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
    /// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ.
    LoraLinear(LoraLinear),
    /// dx, da, db from x, w, a, b, dy; never dw.
    LoraLinearBackward(LoraLinear),
    /// y = scale (x Aᵀ) Bᵀ, or added to y.
    LoraDelta(LoraDelta),
    /// dx, da, db from x, a, b, dy.
    LoraDeltaBackward(LoraDelta),
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
    /// y = x Wᵀ with quantised W.
    QuantLinear(QuantLinear),
}

/// An operation without its sizes: what a dispatch table has rows for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs)] // The names are those of `Op`.
pub enum OpClass {
    MatMul,
    Softmax,
    SoftmaxBackward,
    RmsNorm,
    RmsNormBackward,
    LoraLinear,
    LoraLinearBackward,
    LoraDelta,
    LoraDeltaBackward,
    Embedding,
    EmbeddingBackward,
    Rope,
    RopeBackward,
    Attention,
    AttentionBackward,
    SiluMul,
    SiluMulBackward,
    Add,
    Cast,
    CrossEntropyStats,
    CrossEntropyLoss,
    CrossEntropyGrad,
    SumSquares,
    AdamW,
    CopyRows,
    Dequantize,
    QuantLinear,
}

/// How an operand's elements lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// As the strides say.
    #[default]
    Plain,
    /// In a backend's own order, made once from a frozen operand by `Stream::pack`.
    Packed,
}

/// One tensor that an operation reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its name in the formula and in messages.
    pub name: &'static str,
    /// Its dtype.
    pub dtype: DType,
    /// Its sizes.
    pub shape: Shape,
    /// Elements from the first to the last that is touched, strides included.
    pub span: usize,
    /// How it lies in memory.
    pub format: Format,
}

/// The tensors of an operation, in the order in which `encode` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operands {
    /// Read, never written.
    pub inputs: Vec<Operand>,
    /// Written; read too where the descriptor accumulates (beta, `accumulate`).
    pub outputs: Vec<Operand>,
}

/// A packed operand, as the right factor [k, n] of the product that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedFactor {
    /// Which input it is.
    pub input: usize,
    /// The length of the sum.
    pub k: usize,
    /// Columns of the product.
    pub n: usize,
    /// Whether the plain operand is stored [n, k].
    pub transposed: bool,
    /// Elements between the stored rows of the plain operand.
    pub row: usize,
}

impl Op {
    /// The operand that `Stream::pack` makes, if the descriptor has one.
    pub fn packed_factor(&self) -> Option<PackedFactor> {
        match self {
            Op::MatMul(op) if op.b_format == Format::Packed => {
                Some(PackedFactor { input: 1, k: op.k, n: op.n, transposed: op.trans_b, row: op.ldb })
            }
            Op::LoraLinear(op) if op.w_format == Format::Packed => Some(PackedFactor {
                input: 1,
                k: op.in_features,
                n: op.out_features,
                transposed: true,
                row: op.in_features,
            }),
            Op::LoraLinearBackward(op) if op.w_format == Format::Packed => Some(PackedFactor {
                input: 1,
                k: op.out_features,
                n: op.in_features,
                transposed: false,
                row: op.in_features,
            }),
            _ => None,
        }
    }

    /// The operation's name, as messages and tables print it.
    pub const fn name(&self) -> &'static str {
        self.class().name()
    }

    /// The operation without its sizes.
    pub const fn class(&self) -> OpClass {
        match self {
            Op::MatMul(_) => OpClass::MatMul,
            Op::Softmax(_) => OpClass::Softmax,
            Op::SoftmaxBackward(_) => OpClass::SoftmaxBackward,
            Op::RmsNorm(_) => OpClass::RmsNorm,
            Op::RmsNormBackward(_) => OpClass::RmsNormBackward,
            Op::LoraLinear(_) => OpClass::LoraLinear,
            Op::LoraLinearBackward(_) => OpClass::LoraLinearBackward,
            Op::LoraDelta(_) => OpClass::LoraDelta,
            Op::LoraDeltaBackward(_) => OpClass::LoraDeltaBackward,
            Op::Embedding(_) => OpClass::Embedding,
            Op::EmbeddingBackward(_) => OpClass::EmbeddingBackward,
            Op::Rope(_) => OpClass::Rope,
            Op::RopeBackward(_) => OpClass::RopeBackward,
            Op::Attention(_) => OpClass::Attention,
            Op::AttentionBackward(_) => OpClass::AttentionBackward,
            Op::SiluMul(_) => OpClass::SiluMul,
            Op::SiluMulBackward(_) => OpClass::SiluMulBackward,
            Op::Add(_) => OpClass::Add,
            Op::Cast(_) => OpClass::Cast,
            Op::CrossEntropyStats(_) => OpClass::CrossEntropyStats,
            Op::CrossEntropyLoss(_) => OpClass::CrossEntropyLoss,
            Op::CrossEntropyGrad(_) => OpClass::CrossEntropyGrad,
            Op::SumSquares(_) => OpClass::SumSquares,
            Op::AdamW(_) => OpClass::AdamW,
            Op::CopyRows(_) => OpClass::CopyRows,
            Op::Dequantize(_) => OpClass::Dequantize,
            Op::QuantLinear(_) => OpClass::QuantLinear,
        }
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
            Op::Embedding(op) | Op::EmbeddingBackward(op) => op.dtype,
            Op::Rope(op) | Op::RopeBackward(op) => op.dtype,
            Op::Attention(op) | Op::AttentionBackward(op) => op.dtype,
            Op::SiluMul(op) | Op::SiluMulBackward(op) => op.dtype,
            Op::Add(op) => op.dtype,
            Op::Cast(op) => op.to,
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
            Op::Embedding(_) | Op::CopyRows(_) | Op::Cast(_) => 0.0,
            Op::EmbeddingBackward(op) => op.elements(),
            Op::Rope(op) | Op::RopeBackward(op) => op.flops(),
            Op::Attention(op) => op.flops(),
            Op::AttentionBackward(op) => op.backward_flops(),
            Op::SiluMul(op) => 4.0 * op.elements(),
            Op::SiluMulBackward(op) => 9.0 * op.elements(),
            Op::Add(op) => op.rows as f64 * op.cols as f64,
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
            Op::LoraDelta(op) => op.accumulate,
            Op::CrossEntropyStats(op) => !op.begin,
            Op::SumSquares(op) => op.accumulate,
            // Master, m and v; param is only written.
            Op::AdamW(_) => index < 3,
            Op::CopyRows(_) => true,
            _ => false,
        }
    }

    /// Which inputs an output may lie on, as (input, output), where their layouts are equal: every element is read before
    /// the element in its place is written.
    pub const fn in_place(&self) -> &'static [(usize, usize)] {
        match self {
            Op::Add(_) | Op::SiluMul(_) => &[(0, 0), (1, 0)],
            Op::SiluMulBackward(_) => &[(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)],
            Op::Softmax(_) | Op::RmsNorm(_) | Op::Rope(_) | Op::RopeBackward(_) | Op::CrossEntropyGrad(_) => &[(0, 0)],
            _ => &[],
        }
    }

    /// The largest error, relative to the largest magnitude of the output, that a correct engine with f32 accumulation
    /// makes on inputs of mean zero: two roundings to the dtype, and four standard deviations of the accumulation's
    /// random walk (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019).
    ///
    /// Of attention the scores' own errors are in it: an exponent that is off by e makes a factor of 1 + e, and a score of
    /// magnitude up to 4 with `head` terms is off by 4 sqrt(head) round-offs. Outputs that are F32 whatever the dtype (lse,
    /// and AdamW's master and moments beside param) have the bound of the dtype.
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
            // Copies.
            Op::Embedding(_) | Op::CopyRows(_) => return 0.0,
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
            Op::Cast(_) | Op::AdamW(_) | Op::Dequantize(_) => 1,
        };
        let walk = (terms as f64).sqrt().max(4.0);
        let rounded = match self {
            Op::CrossEntropyStats(_) | Op::SumSquares(_) => DType::F32,
            _ => self.dtype(),
        };
        2.0 * rounded.unit_roundoff() + 4.0 * walk * DType::F32.unit_roundoff()
    }
}

impl OpClass {
    /// Every class, in the order that tables print them.
    pub const ALL: [OpClass; 27] = [
        OpClass::MatMul,
        OpClass::Softmax,
        OpClass::SoftmaxBackward,
        OpClass::RmsNorm,
        OpClass::RmsNormBackward,
        OpClass::LoraLinear,
        OpClass::LoraLinearBackward,
        OpClass::LoraDelta,
        OpClass::LoraDeltaBackward,
        OpClass::Embedding,
        OpClass::EmbeddingBackward,
        OpClass::Rope,
        OpClass::RopeBackward,
        OpClass::Attention,
        OpClass::AttentionBackward,
        OpClass::SiluMul,
        OpClass::SiluMulBackward,
        OpClass::Add,
        OpClass::Cast,
        OpClass::CrossEntropyStats,
        OpClass::CrossEntropyLoss,
        OpClass::CrossEntropyGrad,
        OpClass::SumSquares,
        OpClass::AdamW,
        OpClass::CopyRows,
        OpClass::Dequantize,
        OpClass::QuantLinear,
    ];

    /// The name that messages and tables print, and that users type.
    pub const fn name(self) -> &'static str {
        match self {
            OpClass::MatMul => "matmul",
            OpClass::Softmax => "softmax",
            OpClass::SoftmaxBackward => "softmax_backward",
            OpClass::RmsNorm => "rms_norm",
            OpClass::RmsNormBackward => "rms_norm_backward",
            OpClass::LoraLinear => "lora_linear",
            OpClass::LoraLinearBackward => "lora_linear_backward",
            OpClass::LoraDelta => "lora_delta",
            OpClass::LoraDeltaBackward => "lora_delta_backward",
            OpClass::Embedding => "embedding",
            OpClass::EmbeddingBackward => "embedding_backward",
            OpClass::Rope => "rope",
            OpClass::RopeBackward => "rope_backward",
            OpClass::Attention => "attention",
            OpClass::AttentionBackward => "attention_backward",
            OpClass::SiluMul => "silu_mul",
            OpClass::SiluMulBackward => "silu_mul_backward",
            OpClass::Add => "add",
            OpClass::Cast => "cast",
            OpClass::CrossEntropyStats => "cross_entropy_stats",
            OpClass::CrossEntropyLoss => "cross_entropy_loss",
            OpClass::CrossEntropyGrad => "cross_entropy_grad",
            OpClass::SumSquares => "sum_squares",
            OpClass::AdamW => "adamw",
            OpClass::CopyRows => "copy_rows",
            OpClass::Dequantize => "dequantize",
            OpClass::QuantLinear => "quant_linear",
        }
    }
}

impl fmt::Display for OpClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `matmul 64x256x64 f32`, `lora_linear 32x512x512 r8 bf16`: what a user types after the command's name.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name(), self.shape(), self.dtype())
    }
}

impl Op {
    /// The sizes as tables print them: `64x64x64` (m x n x k), `32x512x512 r8` (rows x in x out), `128x4096`.
    pub fn shape(&self) -> String {
        match self {
            Op::MatMul(op) => op.shape(),
            Op::Softmax(op) | Op::SoftmaxBackward(op) => format!("{}x{}", op.rows, op.cols),
            Op::RmsNorm(op) | Op::RmsNormBackward(op) => format!("{}x{}", op.rows, op.cols),
            Op::LoraLinear(op) | Op::LoraLinearBackward(op) => op.shape(),
            Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => op.shape(),
            Op::Embedding(op) | Op::EmbeddingBackward(op) => format!("{}x{}x{}", op.tokens, op.vocab, op.width),
            Op::Rope(op) | Op::RopeBackward(op) => {
                format!("{}x{}x{} r{} {:?}", op.rows, op.heads, op.head, op.rotary, op.pairs).to_lowercase()
            }
            Op::Attention(op) | Op::AttentionBackward(op) => op.shape(),
            Op::SiluMul(op) | Op::SiluMulBackward(op) => format!("{}x{}", op.rows, op.cols),
            Op::Add(op) => format!("{}x{}", op.rows, op.cols),
            Op::Cast(op) => format!("{} from {}", op.elements, op.from),
            Op::CrossEntropyStats(op) => format!("{}x{} at {}", op.rows, op.cols, op.first),
            Op::CrossEntropyLoss(op) => op.rows.to_string(),
            Op::CrossEntropyGrad(op) => format!("{}x{} at {}", op.rows, op.cols, op.first),
            Op::SumSquares(op) => op.elements.to_string(),
            Op::AdamW(op) => op.elements.to_string(),
            Op::CopyRows(op) => format!("{}x{} in {}", op.rows, op.width, op.capacity),
            Op::Dequantize(op) => format!("{}x{} {}", op.rows, op.cols, op.format),
            Op::QuantLinear(op) => format!("{}x{}x{} {}", op.rows, op.in_features, op.out_features, op.format),
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
into_op!(MatMul, Softmax, RmsNorm, LoraLinear, LoraDelta);
into_op!(Embedding, Rope, Attention, SiluMul, Add, Cast);
into_op!(CrossEntropyStats, CrossEntropyLoss, CrossEntropyGrad, SumSquares, AdamW);
into_op!(CopyRows, Dequantize, QuantLinear);

/// Elements from the first to the last of a tensor of `(size, stride)` dimensions, checked against the address space.
fn operand(op: &'static str, name: &'static str, dtype: DType, dims: &[(usize, usize)]) -> Result<Operand> {
    let sizes: Vec<usize> = dims.iter().map(|&(size, _)| size).collect();
    let shape = Shape::new(&sizes);
    let span =
        span(dims).filter(|span| span.checked_mul(dtype.bytes()).is_some_and(|bytes| bytes <= isize::MAX as usize));
    match span {
        Some(span) if shape.elements().is_some() => Ok(Operand { name, dtype, shape, span, format: Format::Plain }),
        _ => Err(Error::TooLarge { op, operand: name, shape }),
    }
}

fn span(dims: &[(usize, usize)]) -> Option<usize> {
    if dims.iter().any(|&(size, _)| size == 0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |last, &(size, stride)| last.checked_add((size - 1).checked_mul(stride)?))
}

/// Rows of `cols` elements, `row` elements apart.
fn matrix(op: &'static str, name: &'static str, dtype: DType, rows: usize, row: usize, cols: usize) -> Result<Operand> {
    operand(op, name, dtype, &[(rows, row), (cols, 1)])
}

/// `elements` in a row.
fn vector(op: &'static str, name: &'static str, dtype: DType, elements: usize) -> Result<Operand> {
    operand(op, name, dtype, &[(elements, 1)])
}

/// An error that names the field and its value unless `holds`.
fn require(
    op: &'static str,
    field: &'static str,
    value: impl fmt::Display,
    holds: bool,
    remedy: &'static str,
) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Descriptor { op, field, value: value.to_string(), remedy }) }
}

/// A row stride must hold a whole row, or rows would overlap.
fn check_row_stride(op: &'static str, field: &'static str, stride: usize, cols: usize) -> Result<()> {
    if stride < cols {
        return Err(Error::Descriptor {
            op,
            field,
            value: stride.to_string(),
            remedy: "a row stride is at least the number of columns",
        });
    }
    Ok(())
}
