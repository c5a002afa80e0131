//! `kernels/attention.cu` and `kernels/attention_backward.cu`: attention by tiles of 64 queries.

use super::tile::{SUMS, instance, kernel, max, pitch, runs_on};
use super::{input, output};
use crate::chip::Chip;
use crate::program::{Instance, Launch, Program, Source};
use candlewick_core::op::Operands;
use candlewick_core::{Attention, DType, Op};
use candlewick_kernels::{Access, Alignment, Binding, Memory};

params! {
    /// As in the kernels.
    struct AttentionParams {
        q_row: u64,
        k_row: u64,
        v_row: u64,
        y_row: u64,
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

/// Queries of a block, as the kernels' `ROWS`; keys of a block that makes their gradients.
const ROWS: usize = 64;
const KEYS: usize = 32;
/// The most queries whose tiles the mask of a block has bits for.
const MOST_QUERIES: usize = 64 * 32 * ROWS;

/// What the kernel of dk and dv calls `STEPS`.
const fn steps(head: u32) -> u32 {
    if head <= 64 { 2 } else { 1 }
}

/// One of the kernels, for heads of at most so many elements.
#[derive(Clone, Copy)]
pub(super) enum Pass {
    Forward(u32),
    Dq(u32),
    Dkv(u32),
}

impl Pass {
    #[cfg(test)]
    pub(super) const ALL: [Pass; 6] =
        [Pass::Forward(64), Pass::Forward(128), Pass::Dq(64), Pass::Dq(128), Pass::Dkv(64), Pass::Dkv(128)];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Pass::Forward(..=64) => "attention_64",
            Pass::Forward(_) => "attention_128",
            Pass::Dq(..=64) => "attention_dq_64",
            Pass::Dq(_) => "attention_dq_128",
            Pass::Dkv(..=64) => "attention_dkv_64",
            Pass::Dkv(_) => "attention_dkv_128",
        }
    }

    pub(super) const fn threads(self) -> u32 {
        match self {
            Pass::Forward(_) | Pass::Dq(_) => 256,
            Pass::Dkv(head) => 256 * steps(head),
        }
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    pub(super) const fn shared_bytes(self) -> u32 {
        let rows = ROWS as u32;
        match self {
            Pass::Forward(head) => 9 * rows * pitch(head) + 12 * rows,
            Pass::Dq(head) => 10 * rows * pitch(head) + 8 * rows,
            Pass::Dkv(head) => {
                let operands = (2 * KEYS as u32 + 4 * steps(head) * rows) * pitch(head);
                max(operands, 16 * steps(head) * (head / 8) * SUMS) + 256
            }
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
        let (files, tile) = match self {
            Pass::Forward(head) => (FORWARD, head.to_string()),
            Pass::Dq(head) => (BACKWARD, format!("Dq, {head}")),
            Pass::Dkv(head) => (BACKWARD, format!("Dkv, {head}")),
        };
        instance(self.name(), files, dtype, self.shared_bytes(), tile)
    }

    fn launch(self, dtype: DType, params: &AttentionParams, bindings: &[Binding], blocks: usize) -> Option<Launch> {
        Some(Launch {
            source: Source::Own(self.instance(dtype)),
            entry: self.name(),
            params: bytemuck::bytes_of(params).to_vec(),
            bindings: bindings.iter().copied().collect(),
            grid: [u32::try_from(blocks).ok().filter(|&blocks| blocks < 1 << 31)?, 1, 1],
            threads: self.threads(),
            shared_bytes: self.shared_bytes(),
            cluster: 1,
        })
    }
}

/// What the kernels are given, and the width of their heads, where they run it.
fn params(op: &Attention) -> Option<(AttentionParams, u32)> {
    let size = |size: usize| u32::try_from(size).ok().filter(|&size| size < 1 << 30);
    let row = |rows: usize, row: usize| (rows <= 1 || row.is_multiple_of(8)).then_some(row as u64);
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

/// y and lse, in one launch.
pub(super) fn forward(op: &Attention, operands: &Operands, chip: &Chip) -> Option<Program> {
    let (params, head) = params(op)?;
    if !runs_on(chip, 1, Pass::Forward(head).shared_bytes()) {
        return None;
    }
    let [q, k, v, spans] = [0, 1, 2, 3].map(|index| input(operands, index));
    let [y, lse] = [0, 1].map(|index| output(operands, index, Access::Write));
    let blocks = op.queries.div_ceil(ROWS) * op.heads;
    let launch = Pass::Forward(head).launch(op.dtype, &params, &[q, k, v, spans, y, lse], blocks)?;
    Some(Program { variant: launch.entry, launches: vec![launch], workspace_bytes: 0, alignment: 16 })
}

/// What each row needs, by the shared kernel; then dq, and dk with dv.
pub(super) fn backward(op: &Attention, operands: &Operands, chip: &Chip) -> Option<Program> {
    let (params, head) = params(op).filter(|_| op.dtype == DType::BF16 && op.queries <= MOST_QUERIES)?;
    if [Pass::Dq(head), Pass::Dkv(head)].iter().any(|pass| !runs_on(chip, 1, pass.shared_bytes())) {
        return None;
    }
    let shared = candlewick_kernels::program(&Op::AttentionBackward(*op), &chip.limits(), Alignment::Sixteen)?;
    let workspace_bytes = shared.workspace_bytes;
    let rows = Program::from(shared).launches.into_iter().next()?;
    // The last two are what it leaves.
    let [.., stats, ranges] = *rows.bindings.as_slice() else { return None };
    let [stats, ranges] = [stats, ranges].map(|binding| Binding { access: Access::Read, ..binding });
    let [q, k, v, dy] = [0, 1, 2, 6].map(|index| input(operands, index));
    let [dq, dk, dv] = [0, 1, 2].map(|index| output(operands, index, Access::Write));
    let none = Binding { memory: Memory { bytes: 0, ..dq.memory }, access: Access::Read };
    let of = |pass: Pass, a, b, blocks| pass.launch(op.dtype, &params, &[q, k, v, dy, stats, ranges, a, b], blocks);
    let by_rows = of(Pass::Dq(head), dq, none, op.queries.div_ceil(ROWS) * op.heads)?;
    let by_keys = of(Pass::Dkv(head), dk, dv, op.keys.div_ceil(KEYS) * op.kv_heads)?;
    Some(Program { variant: "tiles", launches: vec![rows, by_rows, by_keys], workspace_bytes, alignment: 16 })
}
