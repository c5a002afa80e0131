//! `kernels/add.h`: y = a + b.

use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use crate::{elements, rows};
use candlewick_core::Add;

params! {
    struct AddParams {
        a_row: u64,
        b_row: u64,
        y_row: u64,
        rows: u32,
        cols: u32,
        lanes: u32,
        unused: u32,
    }
}

/// A thread adds eight elements.
pub(crate) fn forward(op: &Add, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("elements", op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let strides = [op.a_row, op.b_row, op.y_row];
    let [a, b, y] = [(Place::Input(0), op.a_row), (Place::Input(1), op.b_row), (Place::Output(0), op.y_row)]
        .map(|(place, row)| Memory::whole(place, bytes * span(op.rows, row, op.cols)));
    let (rows, cols) = elements::joined(op.rows, op.cols, &strides);
    let grid = elements::rows(rows, cols)?;
    let params = AddParams {
        a_row: op.a_row as u64,
        b_row: op.b_row as u64,
        y_row: op.y_row as u64,
        rows: size(rows)?,
        cols: size(cols)?,
        lanes: grid.lanes,
        unused: 0,
    };
    let wide = rows::wide(alignment, rows, cols, &strides);
    let kernel = Kernel { file: File::Add, names: names!("add"), dtype: op.dtype, wide };
    program.launch(kernel, &params, [a.read(), b.read(), y.write()], grid.groups, grid.threads)?;
    Some(program)
}
