//! `kernels/cross_entropy.h`: the loss over chunks of a vocabulary, and the gradient of the logits.

use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params, size, span};
use crate::source::File;
use crate::{elements, rows};
use candlewick_core::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType};

params! {
    struct CrossEntropyParams {
        logits_row: u64,
        rows: u32,
        cols: u32,
        first: u32,
        vocab: u32,
        begin: u32,
        lanes: u32,
    }
}

const NOTHING: CrossEntropyParams =
    CrossEntropyParams { logits_row: 0, rows: 0, cols: 0, first: 0, vocab: 0, begin: 0, lanes: 0 };

fn labels(rows: usize) -> Memory {
    Memory::whole(Place::Input(1), 4 * rows as u64)
}

fn stats(place: Place, rows: usize) -> Memory {
    Memory::whole(place, 12 * rows as u64)
}

/// A group per row.
pub(crate) fn stats_of(op: &CrossEntropyStats, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("looped", op.dtype);
    let logits = Memory::whole(Place::Input(0), op.dtype.bytes() as u64 * span(op.rows, op.logits_row, op.cols));
    let params = CrossEntropyParams {
        logits_row: op.logits_row as u64,
        rows: size(op.rows)?,
        cols: size(op.cols)?,
        first: u32::try_from(op.first).ok()?,
        begin: op.begin.into(),
        ..NOTHING
    };
    let wide = rows::wide(alignment, op.rows, op.cols, &[op.logits_row]);
    let kernel = Kernel { file: File::CrossEntropy, names: names!("cross_entropy_stats"), dtype: op.dtype, wide };
    let most = limits.threads_per_group as usize;
    let threads = op.cols.div_ceil(8).next_multiple_of(32).clamp(32, most) as u32;
    let bindings = [logits.read(), labels(op.rows).read(), stats(Place::Output(0), op.rows).update(!op.begin)];
    program.launch(kernel, &params, bindings, op.rows as u64, threads)?;
    Some(program)
}

/// The stats, the loss and the gradient of logits that are the whole vocabulary's, and which the gradient may lie on. Inputs
/// are the logits, the labels and dloss; outputs dlogits, the stats and the loss.
pub(crate) fn both(of: &CrossEntropyLoss, op: &CrossEntropyGrad, limits: &GpuLimits) -> Option<Program> {
    // A group has a row: where there are fewer than cores, the operations one by one use more of them.
    if op.rows < limits.cores as usize || (op.first, op.cols) != (0, of.vocab) || op.vocab != of.vocab {
        return None;
    }
    let mut program = Program::new("one_way", op.dtype);
    let bytes = op.dtype.bytes() as u64 * span(op.rows, op.logits_row, op.cols);
    let (logits, dlogits) = (Memory::whole(Place::Input(0), bytes), Memory::whole(Place::Output(0), bytes));
    let (labels, stats) = (labels(op.rows), stats(Place::Output(1), op.rows));
    let (dloss, loss) = (Memory::whole(Place::Input(2), 4), Memory::whole(Place::Output(2), 8));
    let params = CrossEntropyParams {
        logits_row: op.logits_row as u64,
        rows: size(op.rows)?,
        cols: size(op.cols)?,
        vocab: u32::try_from(op.vocab).ok()?,
        ..NOTHING
    };
    let most = limits.threads_per_group as usize;
    let one_group = op.rows.next_multiple_of(32).clamp(32, most) as u32;
    let plain = |names| Kernel { file: File::CrossEntropy, names, dtype: op.dtype, wide: false };
    let counted = [labels.read(), loss.write()];
    program.launch(plain(names!("cross_entropy_count")), &params, counted, 1, one_group)?;
    let wide = rows::wide(Alignment::Sixteen, op.rows, op.cols, &[op.logits_row]);
    let kernel = Kernel { wide, ..plain(names!("cross_entropy_both")) };
    // Half of what a group may have: while one computes on a core, another reads or writes.
    let threads = op.cols.div_ceil(8).next_multiple_of(32).clamp(32, most / 2) as u32;
    let bindings = [logits.read(), labels.read(), loss.read(), dloss.read(), dlogits.write(), stats.write()];
    program.launch(kernel, &params, bindings, op.rows as u64, threads)?;
    let bindings = [stats.read(), labels.read(), loss.write()];
    program.launch(plain(names!("cross_entropy_loss")), &params, bindings, 1, one_group)?;
    Some(program)
}

/// One group for all rows.
pub(crate) fn loss(op: &CrossEntropyLoss, limits: &GpuLimits) -> Option<Program> {
    let mut program = Program::new("group", DType::F32);
    let vocab = u32::try_from(op.vocab).ok()?;
    let rows = size(op.rows)?;
    let params = CrossEntropyParams { rows, vocab, ..NOTHING };
    let names = names!("cross_entropy_loss");
    let kernel = Kernel { file: File::CrossEntropy, names, dtype: DType::F32, wide: false };
    let threads = op.rows.next_multiple_of(32).clamp(32, limits.threads_per_group as usize) as u32;
    let loss = Memory::whole(Place::Output(0), 8);
    let bindings = [stats(Place::Input(0), op.rows).read(), labels(op.rows).read(), loss.write()];
    program.launch(kernel, &params, bindings, 1, threads)?;
    Some(program)
}

/// A thread makes eight elements.
pub(crate) fn grad(op: &CrossEntropyGrad, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("elements", op.dtype);
    let bytes = op.dtype.bytes() as u64 * span(op.rows, op.logits_row, op.cols);
    let (logits, dlogits) = (Memory::whole(Place::Input(0), bytes), Memory::whole(Place::Output(0), bytes));
    let grid = elements::rows(op.rows, op.cols)?;
    let params = CrossEntropyParams {
        logits_row: op.logits_row as u64,
        rows: size(op.rows)?,
        cols: size(op.cols)?,
        first: u32::try_from(op.first).ok()?,
        vocab: u32::try_from(op.vocab).ok()?,
        lanes: grid.lanes,
        ..NOTHING
    };
    let wide = rows::wide(alignment, op.rows, op.cols, &[op.logits_row]);
    let kernel = Kernel { file: File::CrossEntropy, names: names!("cross_entropy_grad"), dtype: op.dtype, wide };
    let bindings = [
        logits.read(),
        labels(op.rows).read(),
        stats(Place::Input(2), op.rows).read(),
        Memory::whole(Place::Input(3), 8).read(),
        Memory::whole(Place::Input(4), 4).read(),
        dlogits.write(),
    ];
    program.launch(kernel, &params, bindings, grid.groups, grid.threads)?;
    Some(program)
}
