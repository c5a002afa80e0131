//! `kernels/delta.cu`: the LoRA delta, in one launch.

use super::tile::{DELTAS, DeltaTile};
use super::{access, input, output};
use crate::chip::Chip;
use crate::program::{Launch, Program, Source};
use candlewick_core::LoraDelta;
use candlewick_core::op::Operands;

params! {
    /// As in the kernel.
    struct DeltaParams {
        a_row: u64,
        c_row: u64,
        m: u32,
        n: u32,
        k: u32,
        rank: u32,
        steps: u32,
        beta: f32,
        factor: f32,
        unused: u32,
    }
}

/// y = scale (x Aᵀ) Bᵀ, or y +=.
pub(super) fn program(op: &LoraDelta, operands: &Operands, chip: &Chip) -> Option<Program> {
    let size = |size: usize| u32::try_from(size).ok().filter(|&size| size < 1 << 30);
    let (m, n, k, rank) = (size(op.rows)?, size(op.out_features)?, size(op.in_features)?, size(op.rank)?);
    let aligned = op.in_features.is_multiple_of(8) && op.x_row.is_multiple_of(8);
    let fits = |tile: &&DeltaTile| (1..=tile.rank).contains(&rank) && tile.runs_on(chip);
    let tile = DELTAS.iter().find(fits).filter(|_| aligned)?;
    let params = DeltaParams {
        a_row: op.x_row as u64,
        c_row: op.y_row as u64,
        m,
        n,
        k,
        rank,
        steps: k.div_ceil(tile.depth).div_ceil(tile.cluster),
        beta: if op.accumulate { 1.0 } else { 0.0 },
        factor: op.scale.get(),
        unused: 0,
    };
    let y = output(operands, 0, access(op.accumulate));
    let launch = Launch {
        source: Source::Own(tile.instance(op.dtype)),
        entry: tile.name,
        params: bytemuck::bytes_of(&params).to_vec(),
        maps: Default::default(),
        bindings: [input(operands, 0), input(operands, 1), input(operands, 2), y].into_iter().collect(),
        grid: [m.div_ceil(tile.rows) * tile.cluster, 1, 1],
        threads: tile.threads(),
        shared_bytes: tile.shared_bytes(),
        cluster: tile.cluster,
        balanced: false,
    };
    Some(Program { variant: tile.name, launches: vec![launch], workspace_bytes: 0, counts: false, alignment: 16 })
}
