//! `kernels/copy_rows.h`: rows of a cache = rows of x.

use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use crate::{elements, rows};
use candlewick_core::CopyRows;

params! {
    struct CopyRowsParams {
        x_row: u64,
        rows: u32,
        width: u32,
        capacity: u32,
        lanes: u32,
    }
}

/// A thread copies eight elements.
pub(crate) fn forward(op: &CopyRows, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("elements", op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, op.x_row, op.width));
    let slots = Memory::whole(Place::Input(1), 4 * op.rows as u64);
    let cache = Memory::whole(Place::Output(0), bytes * op.capacity as u64 * op.width as u64);
    let grid = elements::rows(op.rows, op.width)?;
    let params = CopyRowsParams {
        x_row: op.x_row as u64,
        rows: size(op.rows)?,
        width: size(op.width)?,
        capacity: u32::try_from(op.capacity).ok()?,
        lanes: grid.lanes,
    };
    let wide = rows::wide(alignment, op.rows, op.width, &[op.x_row]);
    let kernel = Kernel { file: File::CopyRows, names: names!("copy_to_slots"), dtype: op.dtype, wide };
    let groups = if op.capacity == 0 { 0 } else { grid.groups };
    program.launch(kernel, &params, [x.read(), slots.read(), cache.write()], groups, grid.threads)?;
    Some(program)
}
