//! `kernels/copy.h`: how a frozen operand is packed. These kernels read it as it lies, without gaps between its rows.

use crate::program::{Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::backend::Packing;
use candlewick_core::op::PackedFactor;
use candlewick_core::{DType, Op};

params! {
    struct CopyParams {
        from_row: u64,
        rows: u32,
        cols: u32,
    }
}

/// How the packed operand of `op` lies: one panel of all columns, or, stored transposed, panels of one.
pub(crate) fn packing(op: &Op) -> Option<Packing> {
    let PackedFactor { k, n, transposed, quant, .. } = op.packed_factor()?;
    let dtype = if quant.is_some() { DType::U8 } else { op.dtype() };
    Some(Packing { k, n, panel: if transposed { 1 } else { n }, interleave: 1, transposed, dtype, quant })
}

/// Packs: from input 0, the plain operand, to output 0, [k, n] or [n, k] elements without gaps.
pub(crate) fn pack(op: &Op) -> Option<Program> {
    let PackedFactor { k, n, transposed, row, quant, .. } = op.packed_factor()?;
    // Rows of blocks are copied byte by byte: they may begin at any.
    let (k, bytes, names): (_, _, &[&str; 6]) = match quant {
        Some(format) => (format.row_bytes(k), 1, &["copy_rows_u8"; 6]),
        None => (k, op.dtype().bytes() as u64, names!("copy_rows")),
    };
    let (rows, cols) = if transposed { (n, k) } else { (k, n) };
    let mut program = Program::new("pack", op.dtype());
    let from = Memory::whole(Place::Input(0), bytes * span(rows, row, cols));
    let to = Memory::whole(Place::Output(0), bytes * rows as u64 * cols as u64);
    let params = CopyParams { from_row: row as u64, rows: size(rows)?, cols: size(cols)? };
    let kernel = Kernel { file: File::Copy, names, dtype: op.dtype(), wide: false };
    let groups = rows as u64 * cols.div_ceil(1024) as u64;
    program.launch(kernel, &params, [from.read(), to.write()], groups, 256)?;
    Some(program)
}
