//! `kernels/dropout.h`: y = x with some elements zero.

use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use crate::{elements, rows};
use candlewick_core::{DType, Dropout};

params! {
    struct DropoutParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        cols: u32,
        lanes: u32,
        stream: u32,
        threshold: u32,
        factor: f32,
    }
}

/// A thread has eight elements: two blocks of random words where they lie side by side.
pub(crate) fn forward(op: &Dropout, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("elements", op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let strides = [op.x_row, op.y_row];
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, op.x_row, op.cols));
    let seed = Memory::whole(Place::Input(1), 2 * DType::U32.bytes() as u64);
    let y = Memory::whole(Place::Output(0), bytes * span(op.rows, op.y_row, op.cols));
    let (rows, cols) = elements::joined(op.rows, op.cols, &strides);
    let grid = elements::rows(rows, cols)?;
    let params = DropoutParams {
        x_row: op.x_row as u64,
        y_row: op.y_row as u64,
        rows: size(rows)?,
        cols: size(cols)?,
        lanes: grid.lanes,
        stream: op.stream,
        threshold: op.threshold(),
        factor: op.factor(),
    };
    let wide = rows::wide(alignment, rows, cols, &strides);
    let kernel = Kernel { file: File::Dropout, names: names!("dropout"), dtype: op.dtype, wide };
    program.launch(kernel, &params, [x.read(), seed.read(), y.write()], grid.groups, grid.threads)?;
    Some(program)
}
