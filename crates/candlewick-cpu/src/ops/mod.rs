//! How each operation is cut into tasks and run on kernels: one file per operation.
//!
//! `product.rs` holds what the matrix product and LoRA share: C = alpha A B + h E + beta C + bias, by tiles of C.

mod adamw;
mod add;
mod attention;
mod cast;
mod copy_rows;
mod cross_entropy;
mod dropout;
mod embedding;
mod lora;
mod lora_rows;
mod matmul;
mod parts;
mod product;
mod quant;
pub(crate) mod reference;
mod rms_norm;
mod rope;
mod silu_mul;
mod softmax;

use crate::kernels::Kernels;
use crate::pool::{Pool, Workers};
use crate::threads::threads_that_pay;
use crate::{Input, Output};
use candlewick_core::backend::Packing;
use candlewick_core::op::{Format, PackedFactor};
use candlewick_core::{Activations, Op};

/// An operation prepared for an instruction set and a number of threads.
pub(crate) trait Program: Send + Sync {
    /// Threads that it runs on.
    fn threads(&self) -> usize;

    /// Workspace that `run` needs, in f32.
    fn workspace(&self) -> usize;

    /// How its packed operand lies, if it has one.
    fn packing(&self) -> Option<Packing> {
        None
    }

    /// Does the work.
    ///
    /// # Safety
    /// The arguments fit the operation's signature, and the workspace is as large as `workspace` says.
    unsafe fn run(&self, call: &mut Call<'_, '_, '_>);

    /// Packs the frozen operand, if there is one.
    ///
    /// # Safety
    /// `plain` holds the whole operand, and `packed` has room for [`packed_elements`] of the packing.
    unsafe fn pack(&self, _factor: &PackedFactor, _plain: Input<'_>, _packed: *mut u8, _pool: &Pool) {}
}

/// The arguments of one call.
pub(crate) struct Call<'a, 'i, 'o> {
    pub inputs: &'a [Input<'i>],
    pub outputs: &'a mut [Output<'o>],
    pub workspace: *mut f32,
    pub pool: &'a dyn Workers,
}

impl Call<'_, '_, '_> {
    fn input(&self, index: usize) -> Read {
        Read(self.inputs[index].pointer())
    }

    fn output(&mut self, index: usize) -> Write {
        Write(self.outputs[index].pointer())
    }
}

/// Memory that tasks read, of some dtype. Reached through methods, so that closures capture it whole, with its `Sync`.
#[derive(Clone, Copy)]
struct Read(*const u8);

/// Memory that tasks write, each its own part.
#[derive(Clone, Copy)]
struct Write(*mut u8);

/// Workspace that tasks share, or each have a part of.
#[derive(Clone, Copy)]
pub(crate) struct Floats(pub(crate) *mut f32);

// SAFETY: the argument or workspace outlives the pool's job; nothing writes what tasks read.
unsafe impl Sync for Read {}
// SAFETY: as above, and each task writes elements that no other task reads or writes.
unsafe impl Sync for Write {}
// SAFETY: as above.
unsafe impl Sync for Floats {}

impl Read {
    /// `elements` further on, of `bytes` each. Only tasks that then read the element need it to exist.
    fn at(self, elements: usize, bytes: usize) -> *const u8 {
        self.0.wrapping_add(elements * bytes)
    }
}

impl Write {
    fn at(self, elements: usize, bytes: usize) -> *mut u8 {
        self.0.wrapping_add(elements * bytes)
    }
}

impl Floats {
    fn at(self, elements: usize) -> *mut f32 {
        self.0.wrapping_add(elements)
    }
}

/// The program of an operation on own kernels.
pub(crate) fn program(op: &Op, kernels: &'static Kernels, threads: usize) -> Box<dyn Program> {
    match *op {
        Op::MatMul(op) => Box::new(matmul::Forward::new(op, kernels, threads)),
        Op::Softmax(op) => Box::new(softmax::Forward::new(op, kernels, threads)),
        Op::SoftmaxBackward(op) => Box::new(softmax::Backward::new(op, kernels, threads)),
        Op::RmsNorm(op) => Box::new(rms_norm::Forward::new(op, kernels, threads)),
        Op::RmsNormBackward(op) => Box::new(rms_norm::Backward::new(op, kernels, threads)),
        Op::LoraLinear(op) => Box::new(lora::Forward::linear(op, kernels, threads)),
        Op::LoraLinearBackward(op) => Box::new(lora::Backward::linear(op, kernels, threads)),
        Op::LoraDelta(op) => Box::new(lora::Forward::delta(op, kernels, threads)),
        Op::LoraDeltaBackward(op) => Box::new(lora::Backward::delta(op, kernels, threads)),
        Op::LoraRows(op) => Box::new(lora_rows::Forward::new(op, kernels, threads)),
        Op::Embedding(op) => Box::new(embedding::Forward::new(op, kernels, threads)),
        Op::EmbeddingBackward(op) => Box::new(embedding::Backward::new(op, kernels, threads)),
        Op::Rope(op) => Box::new(rope::Turn::forward(op, kernels, threads)),
        Op::RopeBackward(op) => Box::new(rope::Turn::backward(op, kernels, threads)),
        Op::Attention(op) => Box::new(attention::Forward::new(op, kernels, threads)),
        Op::AttentionBackward(op) => Box::new(attention::Backward::new(op, kernels, threads)),
        Op::SiluMul(op) => Box::new(silu_mul::Forward::new(op, kernels, threads)),
        Op::SiluMulBackward(op) => Box::new(silu_mul::Backward::new(op, kernels, threads)),
        Op::Add(op) => Box::new(add::Forward::new(op, kernels, threads)),
        Op::Cast(op) => Box::new(cast::Forward::new(op, kernels, threads)),
        Op::Dropout(op) => Box::new(dropout::Forward::new(op, kernels, threads)),
        Op::CrossEntropyStats(op) => Box::new(cross_entropy::Stats::new(op, kernels, threads)),
        Op::CrossEntropyLoss(op) => Box::new(cross_entropy::Loss(op)),
        Op::CrossEntropyGrad(op) => Box::new(cross_entropy::Grad::new(op, kernels, threads)),
        Op::SumSquares(op) => Box::new(adamw::Sum::new(op, kernels, threads)),
        Op::AdamW(op) => Box::new(adamw::Step::new(op, kernels, threads)),
        Op::CopyRows(op) => Box::new(copy_rows::Forward::new(op, threads)),
        Op::Dequantize(op) => Box::new(quant::Plain::new(op, kernels, threads)),
        Op::QuantLinear(op) => quant::linear(op, kernels, threads),
        _ => unreachable!("every operation of this version is listed"),
    }
}

/// Whether an operation is made of matrix products.
pub(crate) fn multiplies(op: &Op) -> bool {
    matches!(
        op,
        Op::MatMul(_)
            | Op::LoraLinear(_)
            | Op::LoraLinearBackward(_)
            | Op::LoraDelta(_)
            | Op::LoraDeltaBackward(_)
            | Op::Attention(_)
            | Op::AttentionBackward(_)
    )
}

/// Whether an operation may be made of products of bytes.
pub(crate) fn multiplies_bytes(op: &Op) -> bool {
    matches!(op, Op::QuantLinear(op) if op.activations == Activations::Int8 && op.w_format == Format::Packed)
}

/// Elements of a packed operand: whole panels.
pub(crate) fn packed_elements(packing: &Packing) -> usize {
    let k = match packing.quant {
        Some(format) => format.row_bytes(packing.k),
        None => packing.k.next_multiple_of(packing.interleave),
    };
    packing.n.div_ceil(packing.panel).saturating_mul(packing.panel).saturating_mul(k)
}

/// One thread's floating-point operations per second in a product, roughly: it decides about threads only.
const PRODUCT_RATE: f64 = 150e9;

/// The `part`th of `parts` nearly equal ranges of `0..len`, as start and length.
pub(crate) fn split(len: usize, parts: usize, part: usize) -> (usize, usize) {
    let (start, end) = (len * part / parts, len * (part + 1) / parts);
    (start, end - start)
}
