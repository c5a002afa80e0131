//! `kernels/rope.h`: rotary position embedding, and its backward.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::Rope;
use candlewick_core::op::Pairs;

params! {
    struct RopeParams {
        x_row: u64,
        y_row: u64,
        other_x_row: u64,
        other_y_row: u64,
        rows: u32,
        heads: u32,
        other_heads: u32,
        head: u32,
        rotary: u32,
        interleaved: u32,
        block: u32,
        blocks: u32,
        other_blocks: u32,
        chunks: u32,
        lanes_log2: u32,
        direction: f32,
    }
}

/// Threads of a group: each has an angle.
const THREADS: usize = 256;

/// Which way pairs turn: from x to y, or from dy to dx and back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Forward,
    Backward,
}

/// A group turns rows by a block of heads.
pub(crate) fn forward(op: &Rope, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    turned(op, None, limits, alignment, Way::Forward)
}

/// The other way round.
pub(crate) fn backward(op: &Rope, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    turned(op, None, limits, alignment, Way::Backward)
}

/// Two tensors by the same tables: inputs are the first, positions, frequencies, the second; outputs the first, the second.
pub(crate) fn both(one: &Rope, other: &Rope, limits: &GpuLimits, way: Way) -> Option<Program> {
    let alike = |rope: &Rope| (rope.rows, rope.head, rope.rotary, rope.pairs, rope.dtype);
    let turns = other.heads > 0 && one.heads > 0 && alike(one) == alike(other);
    if turns { turned(one, Some(other), limits, Alignment::Sixteen, way) } else { None }
}

fn turned(op: &Rope, other: Option<&Rope>, limits: &GpuLimits, alignment: Alignment, way: Way) -> Option<Program> {
    let (strides, direction) = match way {
        Way::Forward => ((|rope| (rope.x_row, rope.y_row)) as fn(&Rope) -> (usize, usize), 1.0),
        Way::Backward => ((|rope| (rope.y_row, rope.x_row)) as fn(&Rope) -> (usize, usize), -1.0),
    };
    let mut program = Program::new("pairs", op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let lies = |place: Place, rope: &Rope, row: usize| {
        Memory::whole(place, bytes * span(rope.rows, row, rope.heads * rope.head))
    };
    let ((x_row, y_row), other_rows) = (strides(op), other.map_or((0, 0), strides));
    let (x, y) = (lies(Place::Input(0), op, x_row), lies(Place::Output(0), op, y_row));
    let (other_x, other_y) = match other {
        Some(other) => (lies(Place::Input(3), other, other_rows.0), lies(Place::Output(1), other, other_rows.1)),
        None => (x.unused(), y.unused()),
    };
    let positions = Memory::whole(Place::Input(1), 4 * op.rows as u64);
    let frequencies = Memory::whole(Place::Input(2), 4 * (op.rotary / 2) as u64);
    let pairs = (op.rotary / 2).max(1);
    let lanes = pairs.next_power_of_two().min(THREADS);
    let other_heads = other.map_or(0, |other| other.heads);
    // An angle serves as many heads as can be turned at once, unless that leaves cores without a group.
    let blocks = |block: usize| [op.heads.div_ceil(block), other_heads.div_ceil(block)];
    let groups = |block: usize| {
        let rows = op.rows.div_ceil(THREADS / lanes) as u64;
        rows.checked_mul(blocks(block).iter().sum::<usize>() as u64)?.checked_mul(pairs.div_ceil(lanes) as u64)
    };
    let mut block = op.heads.div_ceil(op.heads.div_ceil(8).max(1)).max(1);
    while block > 1 && groups(block)? < u64::from(limits.cores) / 2 {
        block = block.div_ceil(2);
    }
    let groups = if op.heads * op.head == 0 { 0 } else { groups(block)? };
    let params = RopeParams {
        x_row: x_row as u64,
        y_row: y_row as u64,
        other_x_row: other_rows.0 as u64,
        other_y_row: other_rows.1 as u64,
        rows: size(op.rows)?,
        heads: size(op.heads)?,
        other_heads: size(other_heads)?,
        head: size(op.head)?,
        rotary: size(op.rotary)?,
        interleaved: (op.pairs == Pairs::Interleaved).into(),
        block: size(block)?,
        blocks: size(blocks(block)[0])?,
        other_blocks: size(blocks(block)[1])?,
        chunks: size(pairs.div_ceil(lanes))?,
        lanes_log2: lanes.ilog2(),
        direction,
    };
    // Sixteen bytes hold whole pairs, or the first halves of whole pairs.
    let whole = op.rotary > 0 && (op.rotary / 2).is_multiple_of(8) && op.head.is_multiple_of(8);
    let rows = [x_row, y_row, other_rows.0, other_rows.1];
    let apart = op.rows <= 1 || rows.iter().all(|row| row.is_multiple_of(8));
    let wide = alignment == Alignment::Sixteen && whole && apart;
    let kernel = Kernel { file: File::Rope, names: names!("rope"), dtype: op.dtype, wide };
    let bindings = [x.read(), positions.read(), frequencies.read(), other_x.read(), y.write(), other_y.write()];
    program.launch(kernel, &params, bindings, groups, THREADS as u32)?;
    Some(program)
}
