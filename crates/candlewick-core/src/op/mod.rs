//! The operations, as plain data: hashable, printable, with their operands, FLOPs and least bytes moved.
//!
//! | operation | computes | file |
//! |---|---|---|
//! | [`MatMul`] | C = alpha op(A) op(B) + beta C | `matmul.rs` |
//! | [`Softmax`] and its backward | y = softmax(scale x), by rows | `softmax.rs` |
//! | [`RmsNorm`] and its backward | y = x / sqrt(mean(x²) + eps) · weight, by rows | `rms_norm.rs` |
//! | [`LoraLinear`] and its backward | y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ | `lora.rs` |
//! | [`LoraDelta`] and its backward | y = scale (x Aᵀ) Bᵀ, or added to y | `lora.rs` |
//!
//! A descriptor holds everything that does not change from call to call: sizes, strides, dtype, scalars. Buffers and
//! offsets into them are arguments of `encode`. Strides are in elements.

mod lora;
mod matmul;
mod rms_norm;
mod softmax;

pub use lora::{LoraDelta, LoraLinear};
pub use matmul::{Batch, Gradient, MatMul, MatMulOperand};
pub use rms_norm::RmsNorm;
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
        }
    }

    /// The dtype of every operand.
    pub const fn dtype(&self) -> DType {
        match self {
            Op::MatMul(op) => op.dtype,
            Op::Softmax(op) | Op::SoftmaxBackward(op) => op.dtype,
            Op::RmsNorm(op) | Op::RmsNormBackward(op) => op.dtype,
            Op::LoraLinear(op) | Op::LoraLinearBackward(op) => op.dtype,
            Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => op.dtype,
        }
    }

    /// The operands, after a check that the descriptor contradicts itself nowhere.
    ///
    /// # Errors
    /// [`Error::Descriptor`], [`Error::Shape`], [`Error::Strides`] or [`Error::TooLarge`].
    pub fn operands(&self) -> Result<Operands> {
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
        }
    }

    /// The least bytes that any implementation moves: every input read once, every output written once
    /// (and read once where the descriptor accumulates). Zero for a descriptor that `operands` refuses.
    pub fn bytes(&self) -> f64 {
        let Ok(operands) = self.operands() else { return 0.0 };
        let bytes = |operand: &Operand| {
            let elements = operand.shape.sizes().iter().map(|&size| size as f64).product::<f64>();
            elements.min(operand.span as f64) * operand.dtype.bytes() as f64
        };
        let read: f64 = operands.inputs.iter().map(bytes).sum();
        let written: f64 = operands.outputs.iter().map(bytes).sum();
        read + written * if self.accumulates() { 2.0 } else { 1.0 }
    }

    /// Whether the output is read before it is written.
    pub fn accumulates(&self) -> bool {
        match self {
            Op::MatMul(op) => op.beta.get() != 0.0,
            Op::LoraDelta(op) => op.accumulate,
            _ => false,
        }
    }

    /// The largest error, relative to the largest magnitude of the output, that a correct engine with f32 accumulation
    /// makes on inputs of mean zero: two roundings to the dtype, and four standard deviations of the accumulation's
    /// random walk (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019).
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
        };
        let walk = (terms as f64).sqrt().max(4.0);
        2.0 * self.dtype().unit_roundoff() + 4.0 * walk * DType::F32.unit_roundoff()
    }
}

impl OpClass {
    /// Every class, in the order that tables print them.
    pub const ALL: [OpClass; 9] = [
        OpClass::MatMul,
        OpClass::Softmax,
        OpClass::SoftmaxBackward,
        OpClass::RmsNorm,
        OpClass::RmsNormBackward,
        OpClass::LoraLinear,
        OpClass::LoraLinearBackward,
        OpClass::LoraDelta,
        OpClass::LoraDeltaBackward,
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
