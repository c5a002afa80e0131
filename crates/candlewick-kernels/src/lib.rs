//! GPU kernels, written once for Metal and CUDA, and the geometry of their launches.
//!
//! | looking for | it is in |
//! |---|---|
//! | what a kernel computes, and how | `kernels/<family>.h`, one file per family |
//! | the words that kernels are written in | `kernels/prelude/`: `metal.h`, `cuda.h`, and what both share |
//! | which kernels run for an operation, on how many threads | `src/<family>.rs` |
//! | what a backend gets | [`Program`] |
//!
//! ```
//! use candlewick_core::{DType, Softmax};
//! use candlewick_kernels::{Alignment, GpuLimits, Target, program, source};
//!
//! let op = Softmax::new(128, 4096, DType::BF16).into();
//! let program = program(&op, &GpuLimits::nvidia(132), Alignment::Sixteen).expect("sizes below 2^31");
//! for dispatch in &program.dispatches {
//!     println!("{} on {} groups of {} threads", dispatch.entry.name, dispatch.groups, dispatch.threads);
//!     let text = source(Target::Cuda, dispatch.entry.file, &[dispatch.entry.dtype]);
//!     assert!(text.contains("softmax"));
//! }
//! ```
//!
//! Kernels that are not bound by matrix instructions are here, and a program of them covers every operation. A backend
//! adds kernels of its own where its GPU's matrix instructions pay.
//!
//! # Why the geometry lives here
//! How many threads share a row, which kernel fits which strides, how a sum is cut: that is half of a kernel, and it
//! is the same on both GPUs. So this crate turns an [`Op`] into a [`Program`], plain data; a backend only translates
//! it: entries to pipelines once, bindings and bytes to an encoder every time. It knows no GPU library.
//!
//! # How a backend uses it
//! [`program`] at prepare; [`source`] for each entry's file and dtype, compiled once and kept. At encode, for each
//! dispatch: a barrier where [`Dispatch::after`] is not zero, the bindings by slot, the parameters behind them, the
//! launch. Buffers may start anywhere, so a backend prepares a program for [`Alignment::Sixteen`] and one for
//! [`Alignment::Element`], and takes the one that the addresses of a call allow.
//!
//! # Number formats
//! f16 is the GPUs' own. bf16 on Metal is 16 bits with own conversions, because MSL's `bfloat` needs macOS 14; on CUDA
//! it is an instruction. All sums are f32. Metal must compile without fast math: NaN and infinities pass through as
//! the contract says.

mod adamw;
mod add;
mod attention;
mod attention_backward;
mod cast;
mod columns;
mod copy;
mod copy_rows;
mod cross_entropy;
mod dots;
mod dropout;
mod elements;
mod embedding;
#[cfg(test)]
mod layout;
mod linear;
mod lora;
mod lora_rows;
mod matmul;
mod product;
mod program;
mod quant;
mod rms_norm;
mod rope;
mod rows;
mod sequence;
mod silu_mul;
mod softmax;
mod source;

pub use program::{
    Access, Alignment, Binding, Dispatch, Entry, GpuLimits, MAX_BINDINGS, MAX_DISPATCHES, MAX_PARAM_BYTES, Memory,
    Params, Place, Program,
};
pub use sequence::{Sequence, sequence};
pub use source::{ANGLES, File, Target, source};

use candlewick_core::Op;
use candlewick_core::backend::Packing;

/// How `op` is best run, as far as can be guessed. `None` for a descriptor that contradicts itself, for sizes of 2^31
/// and more, and for grids that no GPU takes.
pub fn program(op: &Op, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    programs(op, limits, alignment).into_iter().next()
}

/// Every way to run `op`, the best guess first: what a dispatcher lists and measures. Each has another
/// [`Program::variant`].
pub fn programs(op: &Op, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    if op.operands().is_err() {
        return Vec::new();
    }
    match op {
        Op::MatMul(op) => matmul::forward(op, limits, alignment),
        Op::Softmax(op) => softmax::forward(op, limits, alignment),
        Op::SoftmaxBackward(op) => softmax::backward(op, limits, alignment),
        Op::RmsNorm(op) => rms_norm::forward(op, limits, alignment),
        Op::RmsNormBackward(op) => rms_norm::backward(op, limits, alignment),
        Op::LoraLinear(op) => lora::linear(op, limits, alignment),
        Op::LoraLinearBackward(op) => lora::linear_backward(op, limits, alignment),
        Op::LoraDelta(op) => lora::delta(op, limits, alignment),
        Op::LoraDeltaBackward(op) => lora::delta_backward(op, limits, alignment),
        Op::LoraRows(op) => lora_rows::forward(op, alignment).into_iter().collect(),
        Op::Embedding(op) => embedding::forward(op, alignment).into_iter().collect(),
        Op::EmbeddingBackward(op) => embedding::backward(op, alignment).into_iter().collect(),
        Op::Rope(op) => rope::forward(op, limits, alignment).into_iter().collect(),
        Op::RopeBackward(op) => rope::backward(op, limits, alignment).into_iter().collect(),
        Op::SiluMul(op) => silu_mul::forward(op, alignment).into_iter().collect(),
        Op::SiluMulBackward(op) => silu_mul::backward(op, alignment).into_iter().collect(),
        Op::Add(op) => add::forward(op, alignment).into_iter().collect(),
        Op::Cast(op) => cast::forward(op, alignment).into_iter().collect(),
        Op::Dropout(op) => dropout::forward(op, alignment).into_iter().collect(),
        Op::CopyRows(op) => copy_rows::forward(op, alignment).into_iter().collect(),
        Op::CrossEntropyStats(op) => cross_entropy::stats_of(op, limits, alignment).into_iter().collect(),
        Op::CrossEntropyLoss(op) => cross_entropy::loss(op, limits).into_iter().collect(),
        Op::CrossEntropyGrad(op) => cross_entropy::grad(op, alignment).into_iter().collect(),
        Op::SumSquares(op) => adamw::sum_squares(op, limits, alignment).into_iter().collect(),
        Op::AdamW(op) => adamw::step(op, alignment).into_iter().collect(),
        Op::Dequantize(op) => quant::dequantize(op, alignment).into_iter().collect(),
        Op::QuantLinear(op) => quant::linear(op, limits, alignment).into_iter().collect(),
        Op::Attention(op) => attention::forward(op, limits, alignment),
        Op::AttentionBackward(op) => attention_backward::backward(op, alignment).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// One way to run `op`, by its name.
pub fn variant(op: &Op, limits: &GpuLimits, alignment: Alignment, name: &str) -> Option<Program> {
    programs(op, limits, alignment).into_iter().find(|program| program.variant == name)
}

/// How the packed operand of `op` lies for these programs, if it has one.
pub fn packing(op: &Op) -> Option<Packing> {
    copy::packing(op)
}

/// Packs the frozen operand of `op`: input 0 is the plain operand, output 0 the packed one.
pub fn pack(op: &Op) -> Option<Program> {
    copy::pack(op)
}
