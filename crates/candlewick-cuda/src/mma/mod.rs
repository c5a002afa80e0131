//! The engine `cuda/mma`: own kernels on tensor cores, in `kernels/*.cu`, for f16 and bf16.
//!
//! | looking for | it is in |
//! |---|---|
//! | the matrix product and the LoRA layer | `product.rs`, `kernels/product.cu` |
//! | both on Hopper | `warp_specialised.rs`, `kernels/warp_specialised.h`, `.._product.cu`, `.._lora_linear.cu` |
//! | tiles by two warpgroups in turns, on Hopper: what the next four build on | `ping_pong.rs`, `kernels/ping_pong.h` |
//! | LoRA layers of one x, with the rotation of what they make | `projections.rs`, `kernels/projections.cu` |
//! | the sum of products, as of an x that several layers read | `product_sum.rs`, `kernels/product_sum.cu` |
//! | SiLU with the product before it, and its backward | `silu_product.rs`, `kernels/silu_product.cu`, `.._backward.cu` |
//! | the LoRA delta | `delta.rs`, `kernels/delta.cu` |
//! | LoRA's backward, but for the layer's product dy W | `lora_backward.rs`, `kernels/lora_hidden.h`, `lora_backward.cu` |
//! | attention and its backward | `attention.rs`, `kernels/attention.cu`, `kernels/attention_backward.cu` |
//! | the same on Hopper | `attention.rs`, `kernels/attention_groups.cu`, `kernels/attention_backward_groups.cu` |
//! | the sizes of tiles, their shared memory, the text to compile | `tile.rs` |
//!
//! The seam: an operation and a chip go in, a [`Program`] comes out, or nothing where these kernels do not run it: f32,
//! rows that do not start at multiples of 16 bytes, sums over a batch, a rank above 64, heads of more than 128 elements,
//! both backwards in f16, the LoRA layer's as a whole, the delta's for other ranks than 8, 16 and 32, softmax and
//! RMSNorm.

/// A parameter structure that equals a kernel's; in tests `FIELDS` holds its fields in the kernel's words.
macro_rules! params {
    ($(#[$attribute:meta])* struct $name:ident { $($field:ident: $type:tt),* $(,)? }) => {
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
        struct $name {
            $($field: $type),*
        }

        #[cfg(test)]
        pub(super) const FIELDS: &[&str] = &[$(params!(@ $field $type)),*];
    };
    (@ $field:ident [f32; $count:literal]) => { concat!("float ", stringify!($field), "[", $count, "]") };
    (@ $field:ident [$type:ident; $count:literal]) => {
        concat!(stringify!($type), " ", stringify!($field), "[", $count, "]")
    };
    (@ $field:ident f32) => { concat!("float ", stringify!($field)) };
    (@ $field:ident $type:tt) => { concat!(stringify!($type), " ", stringify!($field)) };
}

mod attention;
mod delta;
mod lora_backward;
mod ping_pong;
mod product;
mod product_sum;
mod projections;
pub(crate) mod silu_product;
#[cfg(test)]
mod tests;
mod tile;
mod warp_specialised;

use crate::chip::Chip;
use crate::program::Program;
use candlewick_core::op::{Operand, Operands, Pairs};
use candlewick_core::{Attention, DType, LoraLinear, Op, Rope};
use candlewick_kernels::{Access, Alignment, Binding, Memory, Place};
pub(crate) use lora_backward::Kept;
use product::Product;
pub(crate) use product_sum::product_sum;
pub(crate) use projections::{MOST_LAYERS, Projection, projections};

/// How `op` runs on tensor cores of `chip`, for operands that are aligned so.
pub(crate) fn program(op: &Op, chip: &Chip, alignment: Alignment) -> Option<Program> {
    let operands = operands(op).filter(|_| alignment == Alignment::Sixteen)?;
    match op {
        Op::LoraDelta(op) => delta::program(op, &operands, chip),
        Op::LoraDeltaBackward(op) => lora_backward::delta(op, chip),
        Op::Attention(op) => attention::forward(op, &operands, chip),
        Op::AttentionBackward(op) => attention::backward(op, &operands, chip, None),
        _ => {
            let product = product(op, &operands)?;
            let (tile, time) = product.best(chip)?;
            match on_hopper(op, &operands, chip) {
                Some((product, tile, less)) if less < time => Some(product.program(tile)),
                _ => Some(product.program(tile)),
            }
        }
    }
}

/// The most rows whose delta is left to one launch. On an H100, rank 16, added to y: 512 rows of 4096 took 11 us where
/// PyTorch took 13, but 1024 of 576 took 9 where two products of cuBLASLt's took 6, and 4096 of 576 24 and 8.
const MOST_ROWS_OF_DELTA: usize = 512;

/// The backward of a LoRA layer, or of two that read the same x, without the products dx = dy W, to whose sum it adds: for
/// aligned operands. Inputs are x, then A, B and dy of each layer; outputs dx, then da and db of each.
/// Where the workspace has h already (`kept_hidden`), it is not made.
pub(crate) fn behind_products(ops: &[LoraLinear], kept: bool, chip: &Chip) -> Option<Program> {
    lora_backward::behind_products(ops, kept, chip)
}

/// How h lies there, of layers whose forward leaves it to that backward; `ops` in the order of the backward.
pub(crate) fn kept_hidden(ops: &[LoraLinear], chip: &Chip) -> Option<Kept> {
    lora_backward::kept(ops, chip)
}

/// Attention's backward with dq and dk turned back by these, for aligned operands: its inputs, the positions and the
/// frequencies; its outputs. They turn heads of as many elements, of as many rows.
pub(crate) fn attention_turned_back(op: &Attention, ropes: [&Rope; 2], chip: &Chip) -> Option<Program> {
    let operands = operands(&Op::AttentionBackward(*op))?;
    attention::backward(op, &operands, chip, Some(ropes))
}

/// Whether it is the better guess than the other engines, where it runs.
pub(crate) fn prefers(op: &Op, chip: &Chip) -> bool {
    let Some(operands) = operands(op) else { return false };
    match op {
        Op::LoraDelta(delta) => delta.rows <= MOST_ROWS_OF_DELTA && program(op, chip, Alignment::Sixteen).is_some(),
        Op::LoraDeltaBackward(_) => program(op, chip, Alignment::Sixteen).is_some(),
        // Where a sequence has few queries, a tile of them would be mostly empty.
        Op::Attention(op) => op.queries > 4 * op.sequences.max(1),
        Op::AttentionBackward(_) => true,
        _ => {
            let Some(product) = product(op, &operands) else { return false };
            let best = product.best(chip).map(|(_, time)| time);
            let least =
                best.into_iter().chain(on_hopper(op, &operands, chip).map(|(_, _, time)| time)).reduce(f64::min);
            best.is_some() && least.is_some_and(|time| time < product.by_library())
        }
    }
}

fn product(op: &Op, operands: &Operands) -> Option<Product> {
    match op {
        Op::MatMul(op) => Product::matmul(op, operands),
        Op::LoraLinear(op) => Product::lora(op, operands),
        _ => None,
    }
}

/// The same by warps with roles of their own: its best tile, and how long that takes, in us.
fn on_hopper(
    op: &Op,
    operands: &Operands,
    chip: &Chip,
) -> Option<(warp_specialised::Product, &'static warp_specialised::Tile, f64)> {
    let product = match op {
        Op::MatMul(op) => warp_specialised::Product::matmul(op, operands),
        Op::LoraLinear(op) => warp_specialised::Product::lora(op, operands),
        _ => None,
    }?;
    let (tile, time) = product.best(chip)?;
    Some((product, tile, time))
}

/// The operands, where there is something to do in a dtype of the tensor cores.
fn operands(op: &Op) -> Option<Operands> {
    let operands = op.operands().ok()?;
    (op.dtype() != DType::F32 && operands.outputs.iter().all(|output| output.span > 0)).then_some(operands)
}

/// A pointer that the kernel does not follow.
fn nothing(like: Binding) -> Binding {
    Binding { access: Access::Read, memory: Memory { bytes: 0, ..like.memory } }
}

/// Whether all of a head turns, halves against each other: a thread of the kernels has both elements of a pair.
fn turns_halves(rope: &Rope) -> bool {
    rope.pairs == Pairs::Halves && rope.rotary == rope.head
}

fn whole(place: Place, operand: &Operand) -> Memory {
    Memory { place, offset: 0, bytes: (operand.span * operand.dtype.bytes()) as u64 }
}

fn input(operands: &Operands, index: usize) -> Binding {
    Binding { access: Access::Read, memory: whole(Place::Input(index as u8), &operands.inputs[index]) }
}

fn output(operands: &Operands, index: usize, access: Access) -> Binding {
    Binding { access, memory: whole(Place::Output(index as u8), &operands.outputs[index]) }
}

fn access(accumulates: bool) -> Access {
    if accumulates { Access::ReadWrite } else { Access::Write }
}
