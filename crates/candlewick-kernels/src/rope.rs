//! `kernels/rope.h`: rotary position embedding, and its backward.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::Rope;
use candlewick_core::op::Pairs;

params! {
    struct RopeParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        heads: u32,
        head: u32,
        rotary: u32,
        interleaved: u32,
        block: u32,
        blocks: u32,
        chunks: u32,
        lanes_log2: u32,
        direction: f32,
    }
}

/// Threads of a group: each has an angle.
const THREADS: usize = 256;

/// A group turns rows by a block of heads.
pub(crate) fn forward(op: &Rope, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    turned(op, limits, alignment, (op.x_row, op.y_row), 1.0)
}

/// The other way round.
pub(crate) fn backward(op: &Rope, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    turned(op, limits, alignment, (op.y_row, op.x_row), -1.0)
}

fn turned(
    op: &Rope,
    limits: &GpuLimits,
    alignment: Alignment,
    (x_row, y_row): (usize, usize),
    direction: f32,
) -> Option<Program> {
    let mut program = Program::new("pairs", op.dtype);
    let (bytes, width) = (op.dtype.bytes() as u64, op.heads * op.head);
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, x_row, width));
    let positions = Memory::whole(Place::Input(1), 4 * op.rows as u64);
    let frequencies = Memory::whole(Place::Input(2), 4 * (op.rotary / 2) as u64);
    let y = Memory::whole(Place::Output(0), bytes * span(op.rows, y_row, width));
    let pairs = (op.rotary / 2).max(1);
    let lanes = pairs.next_power_of_two().min(THREADS);
    // An angle serves as many heads as can be turned at once, unless that leaves cores without a group.
    let groups = |block: usize| {
        let rows = op.rows.div_ceil(THREADS / lanes) as u64;
        rows.checked_mul(op.heads.div_ceil(block) as u64)?.checked_mul(pairs.div_ceil(lanes) as u64)
    };
    let mut block = op.heads.div_ceil(op.heads.div_ceil(8).max(1)).max(1);
    while block > 1 && groups(block)? < u64::from(limits.cores) / 2 {
        block = block.div_ceil(2);
    }
    let groups = if width == 0 { 0 } else { groups(block)? };
    let params = RopeParams {
        x_row: x_row as u64,
        y_row: y_row as u64,
        rows: size(op.rows)?,
        heads: size(op.heads)?,
        head: size(op.head)?,
        rotary: size(op.rotary)?,
        interleaved: (op.pairs == Pairs::Interleaved).into(),
        block: size(block)?,
        blocks: size(op.heads.div_ceil(block))?,
        chunks: size(pairs.div_ceil(lanes))?,
        lanes_log2: lanes.ilog2(),
        direction,
    };
    // Sixteen bytes hold whole pairs, or the first halves of whole pairs.
    let whole = op.rotary > 0 && (op.rotary / 2).is_multiple_of(8) && op.head.is_multiple_of(8);
    let apart = op.rows <= 1 || (x_row.is_multiple_of(8) && y_row.is_multiple_of(8));
    let wide = alignment == Alignment::Sixteen && whole && apart;
    let kernel = Kernel { file: File::Rope, names: names!("rope"), dtype: op.dtype, wide };
    let bindings = [x.read(), positions.read(), frequencies.read(), y.write()];
    program.launch(kernel, &params, bindings, groups, THREADS as u32)?;
    Some(program)
}
