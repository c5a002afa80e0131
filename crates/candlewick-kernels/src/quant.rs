//! `kernels/quant.h`: the numbers of GGUF's blocks, and products with them.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use candlewick_core::op::Quant;
use candlewick_core::{Dequantize, Embedding, QuantLinear};

params! {
    #[derive(Default)]
    struct QuantParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        outs: u32,
        pieces: u32,
        share: u32,
        accumulate: u32,
        unused: u32,
    }
}

/// Numbers that a thread decodes at once.
const PIECE: usize = 16;
/// Teams of a group.
const TEAMS: u32 = 8;

/// The names of a kernel for each format.
macro_rules! by_format {
    ($format:expr, $name:literal) => {
        match $format {
            Quant::Q4_0 => names!($name, "_q4_0"),
            Quant::Q4_1 => names!($name, "_q4_1"),
            Quant::Q8_0 => names!($name, "_q8_0"),
            Quant::Q4K => names!($name, "_q4_k"),
            Quant::Q6K => names!($name, "_q6_k"),
        }
    };
}

/// Rows of blocks start at multiples of 16 bytes, and so do runs of eight numbers of plain rows.
fn wide(alignment: Alignment, format: Quant, cols: usize, rows: usize, x_row: usize) -> bool {
    // Two bytes are what blocks of 32 need; those of Q4_K are read 16 bytes at a time, and are multiples of that.
    let blocks = format.bytes().is_multiple_of(2);
    alignment == Alignment::Sixteen && blocks && cols.is_multiple_of(8) && (rows <= 1 || x_row.is_multiple_of(8))
}

/// A thread decodes sixteen numbers.
pub(crate) fn dequantize(op: &Dequantize, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("pieces", op.dtype);
    let blocks = Memory::whole(Place::Input(0), (op.rows * op.format.row_bytes(op.cols)) as u64);
    let y = Memory::whole(Place::Output(0), (op.rows * op.cols * op.dtype.bytes()) as u64);
    let pieces = op.cols / PIECE;
    let params = QuantParams { rows: size(op.rows)?, pieces: size(pieces)?, share: 1, ..QuantParams::default() };
    let names = by_format!(op.format, "dequantize");
    let wide = wide(alignment, op.format, op.cols, 1, 0);
    let kernel = Kernel { file: File::Quant, names, dtype: op.dtype, wide };
    let threads = pieces.next_multiple_of(32).clamp(32, 256);
    let groups = op.rows as u64 * pieces.div_ceil(threads) as u64;
    program.launch(kernel, &params, [blocks.read(), y.write()], groups, threads as u32)?;
    Some(program)
}

/// The rows of a table of blocks that ids name: a thread decodes sixteen numbers.
pub(crate) fn embedding(op: &Embedding, format: Quant, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("pieces", op.dtype);
    let ids = Memory::whole(Place::Input(0), 4 * op.tokens as u64);
    let table = Memory::whole(Place::Input(1), (op.vocab * format.row_bytes(op.width)) as u64);
    let y = Memory::whole(Place::Output(0), (op.tokens * op.width * op.dtype.bytes()) as u64);
    let (rows, outs) = (size(op.tokens)?, u32::try_from(op.vocab).ok()?);
    let pieces = op.width / PIECE;
    let params = QuantParams { rows, outs, pieces: size(pieces)?, share: 1, ..QuantParams::default() };
    let names = by_format!(format, "quant_embedding");
    let wide = wide(alignment, format, op.width, 1, 0);
    let kernel = Kernel { file: File::Quant, names, dtype: op.dtype, wide };
    let threads = pieces.next_multiple_of(32).clamp(32, 256);
    let groups = op.tokens as u64 * pieces.div_ceil(threads) as u64;
    program.launch(kernel, &params, [ids.read(), table.read(), y.write()], groups, threads as u32)?;
    Some(program)
}

/// A team has four rows of W and up to eight of x. More rows of x read W again, from the cache at best: for many rows
/// [`dequantize`] and a product are faster.
pub(crate) fn linear(op: &QuantLinear, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("rows", op.dtype);
    let bytes = op.dtype.bytes() as u64;
    let x = Memory::whole(Place::Input(0), bytes * span(op.rows, op.x_row, op.in_features));
    let w = Memory::whole(Place::Input(1), (op.out_features * op.format.row_bytes(op.in_features)) as u64);
    let y = Memory::whole(Place::Output(0), bytes * span(op.rows, op.y_row, op.out_features));
    let (rows, outs, pieces) = (size(op.rows)?, size(op.out_features)?, size(op.in_features / PIECE)?);
    let block = match rows {
        0..=1 => 1,
        2..=4 => 4,
        _ => 8,
    };
    // Teams divide a row of W until every core has groups to choose from, as long as each has a step to take.
    let tiles = outs.div_ceil(4) * rows.div_ceil(block);
    let mut share = 1;
    while share < TEAMS && tiles / (TEAMS / share) < 4 * limits.cores && pieces > 32 * share {
        share *= 2;
    }
    let (x_row, y_row, accumulate) = (op.x_row as u64, op.y_row as u64, op.accumulate.into());
    let params = QuantParams { x_row, y_row, rows, outs, pieces, share, accumulate, unused: 0 };
    let names = match block {
        1 => by_format!(op.format, "quant_linear_1"),
        4 => by_format!(op.format, "quant_linear_4"),
        _ => by_format!(op.format, "quant_linear_8"),
    };
    let wide = wide(alignment, op.format, op.in_features, op.rows, op.x_row);
    let kernel = Kernel { file: File::Quant, names, dtype: op.dtype, wide };
    let groups = u64::from(outs.div_ceil(TEAMS / share * 4)) * u64::from(rows.div_ceil(block));
    program.launch(kernel, &params, [x.read(), w.read(), y.update(op.accumulate)], groups, 32 * TEAMS)?;
    Some(program)
}
