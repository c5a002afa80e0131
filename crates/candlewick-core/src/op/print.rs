//! How operations are printed.

use super::Op;
use std::fmt;

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
            Op::RmsNormBackward(op) if op.frozen => format!("{}x{} frozen", op.rows, op.cols),
            Op::RmsNorm(op) | Op::RmsNormBackward(op) => format!("{}x{}", op.rows, op.cols),
            Op::LoraLinear(op) | Op::LoraLinearBackward(op) => op.shape(),
            Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => op.shape(),
            Op::LoraRows(op) => {
                format!("{}x{}x{} r{} of {}", op.rows, op.in_features, op.out_features, op.rank, op.adapters)
            }
            Op::Embedding(op) | Op::EmbeddingBackward(op) => op.shape(),
            Op::Rope(op) | Op::RopeBackward(op) => {
                format!("{}x{}x{} r{} {:?}", op.rows, op.heads, op.head, op.rotary, op.pairs).to_lowercase()
            }
            Op::Attention(op) | Op::AttentionBackward(op) => op.shape(),
            Op::SiluMul(op) | Op::SiluMulBackward(op) => format!("{}x{}", op.rows, op.cols),
            Op::Add(op) => format!("{}x{}", op.rows, op.cols),
            Op::Cast(op) => format!("{} from {}", op.elements, op.from),
            Op::Dropout(op) => format!("{}x{} {} stream {}", op.rows, op.cols, op.rate, op.stream),
            Op::CrossEntropyStats(op) => format!("{}x{} at {}", op.rows, op.cols, op.first),
            Op::CrossEntropyLoss(op) => op.rows.to_string(),
            Op::CrossEntropyGrad(op) => format!("{}x{} at {}", op.rows, op.cols, op.first),
            Op::SumSquares(op) => op.elements.to_string(),
            Op::AdamW(op) => op.elements.to_string(),
            Op::CopyRows(op) => format!("{}x{} in {}", op.rows, op.width, op.capacity),
            Op::Dequantize(op) => format!("{}x{} {}", op.rows, op.cols, op.format),
            Op::QuantLinear(op) => op.shape(),
        }
    }
}
