//! What is special to each operation: one file per operation, one arm in [`of`].

mod draw;
mod lora;
mod matmul;
mod rms_norm;
mod rows;
mod softmax;

pub(crate) use draw::{Draw, uniform};

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
        _ => panic!("nothing verifies {class}: it needs a file in candlewick-verify/src/cases"),
    }
}

/// What verification needs to know of an operation and its descriptor does not say. Every `op` that a method is given is
/// one that `fixed`, `gpu_edges` or `random` of the same operation made.
pub(crate) trait Operation: Sync {
    /// Shapes that a sweep seldom meets: large enough for every thread and for several blocks, long and thin, empty.
    fn fixed(&self, dtype: DType) -> Vec<Op>;

    /// Shapes at and beside the edges of the GPU kernels: where another kernel, team or share begins.
    fn gpu_edges(&self, dtype: DType) -> Vec<Op>;

    /// Any shape, layout and scalars.
    fn random(&self, draw: &mut Draw) -> Op;

    /// `(size, stride)` of an operand's dimensions, outermost first, written from the documentation.
    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)>;

    /// `count` ordinary values of an input.
    fn ordinary(&self, _op: &Op, _operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        uniform(0.0, 1.0, count, rng)
    }

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

    /// How large the terms are whose sum an output is, from the tensors as the reference sees them.
    fn terms(&self, _op: &Op, _inputs: &[Vec<f64>]) -> Terms {
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
