//! `kernels/rope.h`: rotary position embedding, and its backward.

use crate::elements;
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
        lanes: u32,
        direction: f32,
    }
}

/// A thread turns eight pairs, in several heads of a row.
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
    // An angle serves as many heads as leave every core some threads.
    let mut block = op.heads.clamp(1, 8);
    let threads = |block: usize| op.rows * op.heads.div_ceil(block) * pairs.div_ceil(8);
    while block > 1 && threads(block) < 512 * limits.cores as usize {
        block = block.div_ceil(2);
    }
    let blocks = op.heads.div_ceil(block);
    let grid = elements::rows(op.rows * blocks, if width == 0 { 0 } else { pairs })?;
    // An angle is long work: where heads are few, a lane has one pair of a row, not eight. (At 1024 rows of nine heads that
    // takes 1.7 times as long on an H100.)
    let spread = op.rows * op.heads <= 256 && grid.groups > 0 && pairs <= 32;
    let grid = if spread { elements::spread(op.rows * blocks, pairs)? } else { grid };
    let params = RopeParams {
        x_row: x_row as u64,
        y_row: y_row as u64,
        rows: size(op.rows)?,
        heads: size(op.heads)?,
        head: size(op.head)?,
        rotary: size(op.rotary)?,
        interleaved: (op.pairs == Pairs::Interleaved).into(),
        block: size(block)?,
        lanes: grid.lanes,
        direction,
    };
    // Sixteen bytes hold whole pairs, or the first halves of whole pairs.
    let whole = (op.rotary / 2).is_multiple_of(8) && op.head.is_multiple_of(8);
    let apart = op.rows <= 1 || (x_row.is_multiple_of(8) && y_row.is_multiple_of(8));
    let wide = alignment == Alignment::Sixteen && whole && apart && !spread;
    let kernel = Kernel { file: File::Rope, names: names!("rope"), dtype: op.dtype, wide };
    let bindings = [x.read(), positions.read(), frequencies.read(), y.write()];
    program.launch(kernel, &params, bindings, grid.groups, grid.threads)?;
    Some(program)
}
