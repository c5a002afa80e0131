//! `kernels/embedding.h`: rows of a table, and the gradient of the table.

use crate::program::{Alignment, Kernel, Memory, Place, Program, names, params, size};
use crate::source::File;
use crate::{elements, quant, rows};
use candlewick_core::Embedding;

params! {
    struct EmbeddingParams {
        table: u64,
        tokens: u32,
        vocab: u32,
        width: u32,
        lanes: u32,
    }
}

struct Parts {
    ids: Memory,
    table: Place,
    rows: Place,
}

fn params(op: &Embedding, lanes: u32) -> Option<EmbeddingParams> {
    Some(EmbeddingParams {
        table: op.vocab as u64 * op.width as u64,
        tokens: size(op.tokens)?,
        vocab: u32::try_from(op.vocab).ok()?,
        width: size(op.width)?,
        lanes,
    })
}

impl Parts {
    fn new(op: &Embedding, table: Place, rows: Place) -> Self {
        Parts { ids: Memory::whole(Place::Input(0), 4 * op.tokens as u64), table, rows }
    }

    fn table(&self, op: &Embedding) -> Memory {
        Memory::whole(self.table, (op.vocab * op.width * op.dtype.bytes()) as u64)
    }

    fn rows(&self, op: &Embedding) -> Memory {
        Memory::whole(self.rows, (op.tokens * op.width * op.dtype.bytes()) as u64)
    }
}

fn kernel(op: &Embedding, alignment: Alignment, names: &'static [&'static str; 6]) -> Kernel {
    let wide = rows::wide(alignment, op.tokens, op.width, &[]);
    Kernel { file: File::Embedding, names, dtype: op.dtype, wide }
}

/// A thread copies eight elements.
pub(crate) fn forward(op: &Embedding, alignment: Alignment) -> Option<Program> {
    if let Some(format) = op.quant {
        return quant::embedding(op, format, alignment);
    }
    let mut program = Program::new("elements", op.dtype);
    let parts = Parts::new(op, Place::Input(1), Place::Output(0));
    let grid = elements::rows(op.tokens, op.width)?;
    let bindings = [parts.ids.read(), parts.table(op).read(), parts.rows(op).write()];
    let kernel = kernel(op, alignment, names!("embedding"));
    program.launch(kernel, &params(op, grid.lanes)?, bindings, grid.groups, grid.threads)?;
    Some(program)
}

/// Zeros everywhere, then a group per token and 2048 columns.
pub(crate) fn backward(op: &Embedding, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("scan", op.dtype);
    let parts = Parts::new(op, Place::Output(0), Place::Input(1));
    let params = params(op, 0)?;
    let grid = elements::vector(op.vocab * op.width);
    let clear = kernel(op, alignment, names!("embedding_clear"));
    program.launch(clear, &params, [parts.table(op).write()], grid.groups, grid.threads)?;
    let columns = elements::vector(op.width);
    let groups = if op.vocab == 0 { 0 } else { op.tokens as u64 * columns.groups };
    let bindings = [parts.ids.read(), parts.rows(op).read(), parts.table(op).write()];
    let sum = kernel(op, alignment, names!("embedding_backward"));
    program.launch(sum, &params, bindings, groups, columns.threads)?;
    Some(program)
}
