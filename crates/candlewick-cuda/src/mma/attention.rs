//! `kernels/attention.cu` and `kernels/attention_backward.cu`: attention by tiles of 64 queries.

use super::tile::{SUMS, instance, kernel, max, pitch, runs_on};
use super::{input, output};
use crate::chip::Chip;
use crate::program::{Instance, Launch, Program, Source};
use candlewick_core::op::Operands;
use candlewick_core::{Attention, DType};
use candlewick_kernels::{Access, Binding};

params! {
    /// As in the kernels.
    struct AttentionParams {
        q_row: u32,
        k_row: u32,
        v_row: u32,
        y_row: u32,
        queries: u32,
        keys: u32,
        sequences: u32,
        heads: u32,
        group: u32,
        head: u32,
        causal: u32,
        scale: f32,
    }
}

/// Queries of a block, and keys of a block that makes their gradients.
const TILE: usize = 64;
/// The most queries whose tiles the mask of a block has bits for.
const MOST_QUERIES: usize = 64 * 32 * TILE;
/// Threads of every block.
const THREADS: u32 = 256;
/// The most blocks of a cluster that every chip runs.
const MOST_BLOCKS: usize = 8;

/// One of the kernels, for heads of at most so many elements.
#[derive(Clone, Copy)]
pub(super) enum Pass {
    Forward(u32),
    Backward(u32),
}

impl Pass {
    #[cfg(test)]
    pub(super) const ALL: [Pass; 4] = [Pass::Forward(64), Pass::Forward(128), Pass::Backward(64), Pass::Backward(128)];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Pass::Forward(..=64) => "attention_64",
            Pass::Forward(_) => "attention_128",
            Pass::Backward(..=64) => "attention_backward_64",
            Pass::Backward(_) => "attention_backward_128",
        }
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    const fn own_bytes(self) -> u32 {
        let rows = TILE as u32;
        match self {
            Pass::Forward(head) => 9 * rows * pitch(head),
            Pass::Backward(head) => max(10 * rows * pitch(head) + 16 * rows, by_keys_bytes(head)),
        }
    }

    /// With what the other blocks of a cluster leave.
    pub(super) const fn shared_bytes(self, cluster: u32) -> u32 {
        match self {
            Pass::Backward(head) if cluster > 1 => {
                max(self.own_bytes(), by_keys_bytes(head) + (head + cluster - 1) * SUMS)
            }
            _ => self.own_bytes(),
        }
    }

    fn instance(self, dtype: DType) -> Instance {
        static FORWARD: &[(&str, &str)] =
            &[kernel!("instructions.h"), kernel!("slices.h"), kernel!("attention_tiles.h"), kernel!("attention.cu")];
        static BACKWARD: &[(&str, &str)] = &[
            kernel!("instructions.h"),
            kernel!("slices.h"),
            kernel!("attention_tiles.h"),
            kernel!("attention_backward.cu"),
        ];
        let (files, head) = match self {
            Pass::Forward(head) => (FORWARD, head),
            Pass::Backward(head) => (BACKWARD, head),
        };
        instance(self.name(), files, dtype, self.own_bytes(), head.to_string())
    }

    fn launch(
        self,
        dtype: DType,
        params: &AttentionParams,
        bindings: &[Binding],
        blocks: usize,
        cluster: u32,
    ) -> Option<Program> {
        let launch = Launch {
            source: Source::Own(self.instance(dtype)),
            entry: self.name(),
            params: bytemuck::bytes_of(params).to_vec(),
            maps: Default::default(),
            bindings: bindings.iter().copied().collect(),
            grid: [u32::try_from(blocks).ok().filter(|&blocks| blocks < 1 << 31)?, 1, 1],
            threads: THREADS,
            shared_bytes: self.shared_bytes(cluster),
            cluster,
        };
        Some(Program { variant: launch.entry, launches: vec![launch], workspace_bytes: 0, alignment: 16 })
    }
}

/// What the kernel of the backward calls `Dkv::SHARED`.
const fn by_keys_bytes(head: u32) -> u32 {
    let rows = TILE as u32;
    6 * rows * pitch(head) + 2 * 16 * rows + 256
}

/// What the kernels are given, and the width of their heads, where they run it.
fn params(op: &Attention) -> Option<(AttentionParams, u32)> {
    let size = |size: usize| u32::try_from(size).ok().filter(|&size| size < 1 << 30);
    let row = |rows: usize, row: usize| size(if rows <= 1 { 0 } else { row }).filter(|row| row.is_multiple_of(8));
    let head = [64, 128].into_iter().find(|&head| op.head <= head as usize)?;
    let fits = op.head.is_multiple_of(8) && op.heads > 0 && op.head > 0 && op.queries > 0;
    let params = AttentionParams {
        q_row: row(op.queries, op.q_row)?,
        k_row: row(op.keys, op.k_row)?,
        v_row: row(op.keys, op.v_row)?,
        y_row: row(op.queries, op.y_row)?,
        queries: size(op.queries)?,
        keys: size(op.keys)?,
        sequences: size(op.sequences)?,
        heads: size(op.heads)?,
        group: size(op.group())?,
        head: size(op.head)?,
        causal: op.causal.into(),
        scale: op.scale.get(),
    };
    fits.then_some((params, head))
}

/// y and lse.
pub(super) fn forward(op: &Attention, operands: &Operands, chip: &Chip) -> Option<Program> {
    let (params, head) = params(op)?;
    if !runs_on(chip, 1, Pass::Forward(head).shared_bytes(1)) {
        return None;
    }
    let [q, k, v, spans] = [0, 1, 2, 3].map(|index| input(operands, index));
    let [y, lse] = [0, 1].map(|index| output(operands, index, Access::Write));
    let blocks = op.queries.div_ceil(TILE) * op.heads;
    Pass::Forward(head).launch(op.dtype, &params, &[q, k, v, spans, y, lse], blocks, 1)
}

/// dq, dk and dv.
pub(super) fn backward(op: &Attention, operands: &Operands, chip: &Chip) -> Option<Program> {
    let (params, head) = params(op).filter(|_| op.dtype == DType::BF16 && op.queries <= MOST_QUERIES)?;
    let pass = Pass::Backward(head);
    // The heads that share a head of k and v are a cluster's blocks, as evenly as can be; without clusters, one block's.
    let clusters = op.group().div_ceil(op.group().div_ceil(MOST_BLOCKS));
    let cluster = if runs_on(chip, 2, pass.shared_bytes(MOST_BLOCKS as u32)) { clusters } else { 1 };
    if !runs_on(chip, 1, pass.shared_bytes(1)) {
        return None;
    }
    let inputs = [0, 1, 2, 3, 4, 5, 6].map(|index| input(operands, index));
    let outputs = [0, 1, 2].map(|index| output(operands, index, Access::Write));
    let bindings: Vec<Binding> = inputs.into_iter().chain(outputs).collect();
    let by_keys = op.keys.div_ceil(TILE) * op.kv_heads * cluster;
    let by_rows = (op.queries.div_ceil(TILE) * op.heads).next_multiple_of(cluster);
    pass.launch(op.dtype, &params, &bindings, by_keys + by_rows, cluster as u32)
}
