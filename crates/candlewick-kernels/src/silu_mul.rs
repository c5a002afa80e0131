//! `kernels/silu_mul.h`: y = silu(gate) up, and its backward.

use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use crate::{elements, rows};
use candlewick_core::SiluMul;

params! {
    struct SiluMulParams {
        gate_row: u64,
        up_row: u64,
        y_row: u64,
        rows: u32,
        cols: u32,
        lanes: u32,
        unused: u32,
    }
}

/// A thread makes eight elements.
pub(crate) fn forward(op: &SiluMul, alignment: Alignment) -> Option<Program> {
    let [gate, up, y] = [
        whole(op, Place::Input(0), op.gate_row),
        whole(op, Place::Input(1), op.up_row),
        whole(op, Place::Output(0), op.y_row),
    ];
    by(op, alignment, names!("silu_mul"), [gate.read(), up.read(), y.write()])
}

/// A thread makes eight elements of both gradients.
pub(crate) fn backward(op: &SiluMul, alignment: Alignment) -> Option<Program> {
    let [gate, up, dy] = [
        whole(op, Place::Input(0), op.gate_row),
        whole(op, Place::Input(1), op.up_row),
        whole(op, Place::Input(2), op.y_row),
    ];
    let (dgate, dup) = (whole(op, Place::Output(0), op.gate_row), whole(op, Place::Output(1), op.up_row));
    let bindings = [gate.read(), up.read(), dy.read(), dgate.write(), dup.write()];
    by(op, alignment, names!("silu_mul_backward"), bindings)
}

fn whole(op: &SiluMul, place: Place, row: usize) -> Memory {
    Memory::whole(place, op.dtype.bytes() as u64 * span(op.rows, row, op.cols))
}

fn by<const N: usize>(
    op: &SiluMul,
    alignment: Alignment,
    names: &'static [&'static str; 6],
    bindings: [crate::Binding; N],
) -> Option<Program> {
    let mut program = Program::new("elements", op.dtype);
    let strides = [op.gate_row, op.up_row, op.y_row];
    let (rows, cols) = elements::joined(op.rows, op.cols, &strides);
    let grid = elements::rows(rows, cols)?;
    let params = SiluMulParams {
        gate_row: op.gate_row as u64,
        up_row: op.up_row as u64,
        y_row: op.y_row as u64,
        rows: size(rows)?,
        cols: size(cols)?,
        lanes: grid.lanes,
        unused: 0,
    };
    let kernel =
        Kernel { file: File::SiluMul, names, dtype: op.dtype, wide: rows::wide(alignment, rows, cols, &strides) };
    program.launch(kernel, &params, bindings, grid.groups, grid.threads)?;
    Some(program)
}
