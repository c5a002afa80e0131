//! `kernels/lora_rows.h`: LoRA deltas of rows that each name their adapter.

use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params, size, span};
use crate::rows;
use crate::source::File;
use candlewick_core::LoraRows;

params! {
    struct LoraRowsParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        in_features: u32,
        out_features: u32,
        rank: u32,
        adapters: u32,
        window: u32,
    }
}

/// Successive rows among which those of one adapter find each other.
const WINDOW: u32 = 256;
/// Elements of a row that a team takes at a time.
const STEP: usize = 256;
/// Teams of a group, at most.
const TEAMS: usize = 8;
/// Columns of y of a group.
const COLUMNS: usize = 256;
/// Of the rank, of a group.
const RANKS: usize = 4;

/// A group for each row and part of the rank, then for each row and part of y: those that begin no piece end at once.
pub(crate) fn forward(op: &LoraRows, alignment: Alignment) -> Option<Program> {
    let LoraRows { rows, in_features, out_features, rank, adapters, x_row, y_row, dtype } = *op;
    let mut program = Program::new("pieces", dtype);
    if adapters == 0 || rank == 0 || out_features == 0 {
        return Some(program);
    }
    let bytes = dtype.bytes() as u64;
    let x = Memory::whole(Place::Input(0), bytes * span(rows, x_row, in_features));
    let a = Memory::whole(Place::Input(1), bytes * (adapters * rank) as u64 * in_features as u64);
    let b = Memory::whole(Place::Input(2), bytes * (adapters * out_features) as u64 * rank as u64);
    let scales = Memory::whole(Place::Input(3), 4 * adapters as u64);
    let slots = Memory::whole(Place::Input(4), 4 * rows as u64);
    let y = Memory::whole(Place::Output(0), bytes * span(rows, y_row, out_features));
    let params = LoraRowsParams {
        x_row: x_row as u64,
        y_row: y_row as u64,
        rows: size(rows)?,
        in_features: size(in_features)?,
        out_features: size(out_features)?,
        rank: size(rank)?,
        adapters: u32::try_from(adapters).ok()?,
        window: WINDOW,
    };
    let h = program.reserve(4 * rows as u64 * rank as u64);
    let kernel = |names, wide| Kernel { file: File::LoraRows, names, dtype, wide };

    let wide = rows::wide(alignment, rows, in_features, &[x_row]);
    let down = kernel(names!("lora_rows_down"), wide);
    let groups = rows as u64 * rank.div_ceil(RANKS) as u64;
    let threads = 32 * in_features.div_ceil(STEP).clamp(1, TEAMS) as u32;
    program.launch(down, &params, [x.read(), a.read(), scales.read(), slots.read(), h.write()], groups, threads)?;

    let up = kernel(names!("lora_rows_up"), alignment == Alignment::Sixteen && rank.is_multiple_of(8));
    let groups = rows as u64 * out_features.div_ceil(COLUMNS) as u64;
    program.launch(up, &params, [h.read(), b.read(), slots.read(), y.update(true)], groups, COLUMNS as u32)?;
    Some(program)
}
