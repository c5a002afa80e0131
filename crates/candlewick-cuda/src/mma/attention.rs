//! Attention by tiles of 64 queries: `kernels/attention_groups.cu` and `kernels/attention_backward_groups.cu` by the
//! warpgroup's instruction of sm_90a, and `kernels/attention.cu` and `kernels/attention_backward.cu` elsewhere.

use super::tile::{SUMS, instance, kernel, max, pitch, runs_on};
use super::{input, nothing, output, turns_halves, whole};
use crate::chip::Chip;
use crate::program::{Instance, Launch, Program, Source};
use candlewick_core::op::Operands;
use candlewick_core::{Attention, DType, Op, Rope};
use candlewick_kernels::{Access, Binding, Place};

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
/// The most blocks of a cluster that every chip runs.
const MOST_BLOCKS: usize = 8;

/// The most blocks for each multiprocessor of a backward that ends sooner with two of them at a time than with three. On an
/// H100, us with two and with three: 4 x 256 tokens (288 blocks) 11.4 and 13.9, 4 x 512 (576) 23.1 and 22.8, 1 x 2048 (576)
/// 61.8 and 73.1, 16 x 256 (1152) 33.4 and 28.3, 8 x 512 (1152) 45.1 and 38.0.
const FEW_BLOCKS: usize = 6;

/// One of the kernels, for heads of at most so many elements.
#[derive(Clone, Copy)]
pub(super) enum Pass {
    /// By the instructions that every chip has.
    Forward(u32),
    Backward(u32),
    /// By the warpgroup's.
    ForwardGroups(u32),
    /// And how many blocks a multiprocessor is to have at once.
    BackwardGroups(u32, u32),
}

impl Pass {
    #[cfg(test)]
    pub(super) const ALL: [Pass; 9] = [
        Pass::Forward(64),
        Pass::Forward(128),
        Pass::Backward(64),
        Pass::Backward(128),
        Pass::ForwardGroups(64),
        Pass::ForwardGroups(128),
        Pass::BackwardGroups(64, 2),
        Pass::BackwardGroups(64, 3),
        Pass::BackwardGroups(128, 1),
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Pass::Forward(..=64) => "attention_64_mma",
            Pass::Forward(_) => "attention_128_mma",
            Pass::Backward(..=64) => "attention_backward_64_mma",
            Pass::Backward(_) => "attention_backward_128_mma",
            Pass::ForwardGroups(..=64) => "attention_64",
            Pass::ForwardGroups(_) => "attention_128",
            Pass::BackwardGroups(..=64, ..=2) => "attention_backward_64_few",
            Pass::BackwardGroups(..=64, _) => "attention_backward_64",
            Pass::BackwardGroups(..) => "attention_backward_128",
        }
    }

    pub(super) const fn threads(self) -> u32 {
        match self {
            Pass::Forward(_) | Pass::Backward(_) => 256,
            Pass::ForwardGroups(_) | Pass::BackwardGroups(..) => 128,
        }
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    const fn own_bytes(self) -> u32 {
        let rows = TILE as u32;
        match self {
            Pass::Forward(head) => 9 * rows * pitch(head),
            Pass::Backward(head) => max(10 * rows * pitch(head) + 16 * rows, by_keys_bytes(head)),
            Pass::ForwardGroups(..=64) => 9 * rows * 128,
            Pass::ForwardGroups(_) => 7 * rows * 256,
            Pass::BackwardGroups(head, _) => 8 * rows * 2 * head,
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
        static FORWARD_GROUPS: &[(&str, &str)] = &[
            kernel!("instructions.h"),
            kernel!("slices.h"),
            kernel!("warpgroup.h"),
            kernel!("attention_tiles.h"),
            kernel!("attention_groups.h"),
            kernel!("attention_groups.cu"),
        ];
        static BACKWARD_GROUPS: &[(&str, &str)] = &[
            kernel!("instructions.h"),
            kernel!("slices.h"),
            kernel!("warpgroup.h"),
            kernel!("attention_tiles.h"),
            kernel!("attention_groups.h"),
            candlewick_kernels::ANGLES,
            kernel!("rotation.h"),
            kernel!("attention_groups_dq.h"),
            kernel!("attention_groups_dkv.h"),
            kernel!("attention_backward_groups.cu"),
        ];
        let (files, tile) = match self {
            Pass::Forward(head) => (FORWARD, head.to_string()),
            Pass::Backward(head) => (BACKWARD, head.to_string()),
            Pass::ForwardGroups(head) => (FORWARD_GROUPS, head.to_string()),
            Pass::BackwardGroups(head, blocks) => (BACKWARD_GROUPS, format!("{head}, {blocks}")),
        };
        instance(self.name(), files, dtype, self.own_bytes(), tile)
    }

    /// Whether the chip has what it needs, in clusters of so many blocks.
    fn runs_on(self, chip: &Chip, cluster: u32) -> bool {
        let grouped = matches!(self, Pass::ForwardGroups(_) | Pass::BackwardGroups(..));
        runs_on(chip, cluster, self.shared_bytes(cluster)) && (!grouped || chip.capability == (9, 0))
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
            threads: self.threads(),
            shared_bytes: self.shared_bytes(cluster),
            cluster,
            // The blocks of some queries have far more to do than those of others.
            balanced: cluster > 1,
        };
        Some(Program {
            variant: launch.entry,
            launches: vec![launch],
            workspace_bytes: 0,
            counts: false,
            alignment: 16,
        })
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
    let pass = [Pass::ForwardGroups(head), Pass::Forward(head)].into_iter().find(|pass| pass.runs_on(chip, 1))?;
    let [q, k, v, spans] = [0, 1, 2, 3].map(|index| input(operands, index));
    let [y, lse] = [0, 1].map(|index| output(operands, index, Access::Write));
    let blocks = op.queries.div_ceil(TILE) * op.heads;
    pass.launch(op.dtype, &params, &[q, k, v, spans, y, lse], blocks, 1)
}

/// dq, dk and dv; with ropes, dq and dk turned back by them: then behind the inputs are positions and frequencies.
pub(super) fn backward(op: &Attention, operands: &Operands, chip: &Chip, ropes: Option<[&Rope; 2]>) -> Option<Program> {
    let (params, head) = params(op).filter(|_| op.dtype == DType::BF16 && op.queries <= MOST_QUERIES)?;
    // The heads that share a head of k and v are a cluster's blocks, as evenly as can be; without clusters, one block's.
    let most = Pass::Backward(head).runs_on(chip, MOST_BLOCKS as u32);
    let cluster = if most { op.group().div_ceil(op.group().div_ceil(MOST_BLOCKS)) } else { 1 };
    let by_keys = op.keys.div_ceil(TILE) * op.kv_heads * cluster;
    let by_rows = (op.queries.div_ceil(TILE) * op.heads).next_multiple_of(cluster);
    let blocks = by_keys + by_rows;
    let at_once = match head {
        ..=64 if blocks > FEW_BLOCKS * chip.multiprocessors as usize => 3,
        ..=64 => 2,
        _ => 1,
    };
    let passes = [Pass::BackwardGroups(head, at_once), Pass::Backward(head)];
    let pass = passes.into_iter().find(|pass| pass.runs_on(chip, cluster as u32))?;
    let inputs = [0, 1, 2, 3, 4, 5, 6].map(|index| input(operands, index));
    let outputs = [0, 1, 2].map(|index| output(operands, index, Access::Write));
    let mut bindings: Vec<Binding> = inputs.into_iter().chain(outputs).collect();
    match (pass, ropes) {
        (Pass::BackwardGroups(head, _), Some(ropes)) => {
            if !ropes.into_iter().all(|rope| turns_halves(rope) && rope.head == head as usize) {
                return None;
            }
            let tables = Op::RopeBackward(*ropes[0]).operands().ok()?;
            let table = |i: u8| whole(Place::Input(6 + i), &tables.inputs[usize::from(i)]);
            bindings.extend([1, 2].map(|i| Binding { access: Access::Read, memory: table(i) }));
        }
        (Pass::BackwardGroups(..), None) => bindings.extend([nothing(inputs[0]); 2]),
        (_, Some(_)) => return None,
        _ => {}
    }
    pass.launch(op.dtype, &params, &bindings, blocks, cluster as u32)
}
