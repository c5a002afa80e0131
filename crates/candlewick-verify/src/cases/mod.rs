//! What is special to each operation: one file per operation, one arm in [`of`].

mod adamw;
mod add;
pub(crate) mod attention;
mod cast;
mod copy_rows;
mod cross_entropy;
mod draw;
mod dropout;
mod embedding;
mod lora;
mod lora_rows;
mod matmul;
pub(crate) mod quant;
mod rms_norm;
mod rope;
mod rows;
mod silu_mul;
mod softmax;

pub(crate) use draw::{Draw, uniform};

use crate::case::Values;
use crate::rng::Rng;
use candlewick::op::{OpClass, Operand};
use candlewick::{DType, Op};

/// The operation of a class.
///
/// # Panics
/// For a class without a file here.
pub(crate) fn of(class: OpClass) -> &'static dyn Operation {
    match class {
        OpClass::MatMul => &matmul::Product,
        OpClass::Softmax => &softmax::Rows(Op::Softmax),
        OpClass::SoftmaxBackward => &softmax::Rows(Op::SoftmaxBackward),
        OpClass::RmsNorm => &rms_norm::Rows(Op::RmsNorm),
        OpClass::RmsNormBackward => &rms_norm::Rows(Op::RmsNormBackward),
        OpClass::LoraLinear => &lora::Layer(Op::LoraLinear),
        OpClass::LoraLinearBackward => &lora::Layer(Op::LoraLinearBackward),
        OpClass::LoraDelta => &lora::Delta(Op::LoraDelta),
        OpClass::LoraDeltaBackward => &lora::Delta(Op::LoraDeltaBackward),
        OpClass::LoraRows => &lora_rows::Adapters,
        OpClass::Embedding => &embedding::Rows(Op::Embedding),
        OpClass::EmbeddingBackward => &embedding::Rows(Op::EmbeddingBackward),
        OpClass::Rope => &rope::Turn(Op::Rope),
        OpClass::RopeBackward => &rope::Turn(Op::RopeBackward),
        OpClass::Attention => &attention::Heads(Op::Attention),
        OpClass::AttentionBackward => &attention::Heads(Op::AttentionBackward),
        OpClass::SiluMul => &silu_mul::Gated(Op::SiluMul),
        OpClass::SiluMulBackward => &silu_mul::Gated(Op::SiluMulBackward),
        OpClass::Add => &add::Sum,
        OpClass::Cast => &cast::Rounding,
        OpClass::Dropout => &dropout::Masked,
        OpClass::CrossEntropyStats => &cross_entropy::Stats,
        OpClass::CrossEntropyLoss => &cross_entropy::Loss,
        OpClass::CrossEntropyGrad => &cross_entropy::Grad,
        OpClass::SumSquares => &adamw::Squares,
        OpClass::AdamW => &adamw::Step,
        OpClass::CopyRows => &copy_rows::Slots,
        OpClass::Dequantize => &quant::Numbers,
        OpClass::QuantLinear => &quant::Linear,
        _ => panic!("nothing verifies {class}: it needs a file in candlewick-verify/src/cases"),
    }
}

/// What verification needs to know of an operation and its descriptor does not say. Every `op` that a method is given is
/// one that `fixed`, `gpu_edges` or `random` of the same operation made.
pub(crate) trait Operation: Sync {
    /// What [`Op::dtype`] may be.
    fn dtypes(&self) -> &'static [DType] {
        &DType::ALL
    }

    /// Shapes that a sweep seldom meets: large enough for every thread and for several blocks, long and thin, empty.
    fn fixed(&self, dtype: DType) -> Vec<Op>;

    /// Shapes at and beside the edges of the GPU kernels: where another kernel, team or share begins.
    fn gpu_edges(&self, dtype: DType) -> Vec<Op>;

    /// Any shape, layout and scalars.
    fn random(&self, draw: &mut Draw) -> Op;

    /// `(size, stride)` of an operand's dimensions, outermost first, written from the documentation.
    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)>;

    /// `count` ordinary values of an input, or of an output that is kept. Of integers the odd ones are among them.
    fn ordinary(&self, _op: &Op, _operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        uniform(0.0, 1.0, count, rng)
    }

    /// Whether an input or a kept output may hold such values: no integer does, nor what has a meaning of its own.
    fn takes(&self, _op: &Op, operand: &Operand, _values: Values) -> bool {
        operand.dtype.is_float()
    }

    /// Replaces inputs that follow from other inputs, such as what a forward pass leaves for the backward one; and by NaN
    /// what nothing may read. The inputs are as the reference reads them.
    fn derive(&self, _op: &Op, _inputs: &mut [Vec<f64>]) {}

    /// Replaces what a mask hides of an input, which nothing may read, by NaN.
    fn hide(&self, _op: &Op, _values: &mut [f64]) {}

    /// The factor of [`crate::Values::Huge`]: as large as intermediate results in f32 can bear.
    fn huge(&self, dtype: DType) -> f64 {
        if dtype == DType::F16 { 6e4 } else { 1e30 }
    }

    /// What fills the rows of [`crate::Values::Degenerate`].
    fn degenerate(&self, _op: &Op) -> f64 {
        0.0
    }

    /// How many elements of an output in turn have magnitudes that have nothing to do with each other.
    fn columns(&self, _op: &Op, _output: &str) -> usize {
        1
    }

    /// Whether every element is the right answer rounded to nearest even, and nothing else will do.
    fn exact(&self) -> bool {
        false
    }

    /// How large the terms are whose sum an output is, from the tensors before a run as the reference reads them.
    fn terms(&self, _op: &Op, _inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        Terms::DoNotCancel
    }
}

/// The magnitude that rounding errors are relative to where an output's terms may cancel: the sum of a single 1x1 product
/// may come out near zero by chance.
pub(crate) enum Terms {
    /// The output is as large as its terms.
    DoNotCancel,
    /// Sums of products with random signs, which add up as their squares do: the root of this operation's result on
    /// squared tensors.
    Squares(Op),
    /// This magnitude, one for each output.
    Magnitudes(Vec<f64>),
}

/// The largest finite magnitude.
pub(crate) fn finite_largest<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().filter(|x| x.is_finite()).fold(0.0, |largest, x| largest.max(x.abs()))
}
