//! Operations without their sizes.

use super::Op;
use std::fmt;

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
    LoraRows,
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
    Dropout,
    CrossEntropyStats,
    CrossEntropyLoss,
    CrossEntropyGrad,
    SumSquares,
    AdamW,
    CopyRows,
    Dequantize,
    QuantLinear,
}

impl Op {
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
            Op::LoraRows(_) => OpClass::LoraRows,
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
            Op::Dropout(_) => OpClass::Dropout,
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
}

impl OpClass {
    /// Every class, in the order that tables print them.
    pub const ALL: [OpClass; 29] = [
        OpClass::MatMul,
        OpClass::Softmax,
        OpClass::SoftmaxBackward,
        OpClass::RmsNorm,
        OpClass::RmsNormBackward,
        OpClass::LoraLinear,
        OpClass::LoraLinearBackward,
        OpClass::LoraDelta,
        OpClass::LoraDeltaBackward,
        OpClass::LoraRows,
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
        OpClass::Dropout,
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
            OpClass::LoraRows => "lora_rows",
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
            OpClass::Dropout => "dropout",
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
