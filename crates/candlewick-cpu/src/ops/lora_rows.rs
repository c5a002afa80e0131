//! LoRA deltas of rows with adapters of their own.
//!
//! Rows are sorted by their adapter and cut into pieces of a few rows of one adapter. A task of the first job makes h of a
//! piece; a task of the second owns columns of y, transposes each adapter's part of B once and adds to all of its rows.
//! How a row is summed depends on nothing but that row and its adapter: its bits are the same in any batch.

use super::embedding::index;
use super::{Call, Floats, PRODUCT_RATE, Program, Read, Write, split, threads_that_pay};
use crate::kernels::{DotArgs, Kernels, NarrowArgs, RowSumsArgs, TransposeArgs, WidenArgs};
use candlewick_core::{DType, LoraRows, Op};

/// Rows of a piece: what passes by while rows of A are in the innermost cache.
const PIECE: usize = 8;
/// Columns of y that a task adds to at once.
const COLUMNS: usize = 128;

pub(super) struct Forward {
    op: LoraRows,
    kernels: &'static Kernels,
    threads: usize,
}

/// The rows with an adapter, in the order of adapters, cut into pieces.
#[derive(Clone, Copy)]
struct Pieces {
    /// Row numbers.
    order: Floats,
    /// Where in `order` each piece begins, and where the last ends.
    starts: Floats,
    count: usize,
    slots: Read,
}

/// The operands.
#[derive(Clone, Copy)]
struct Tensors {
    x: Read,
    a: Read,
    b: Read,
    scales: Read,
    y: Write,
    /// [rows, rank], in the order of `Pieces`.
    h: Floats,
}

impl Forward {
    pub(super) fn new(op: LoraRows, kernels: &'static Kernels, threads: usize) -> Self {
        Forward { op, kernels, threads: threads_that_pay(Op::LoraRows(op).flops() / PRODUCT_RATE, threads) }
    }

    /// Words for the order of the rows, the pieces, and a counter for each adapter.
    fn sorting(&self) -> usize {
        2 * self.op.rows + 1 + self.op.adapters
    }

    /// A thread's rows of x that lie apart; its rows of y and its part of B, transposed.
    fn scratch(&self) -> usize {
        (PIECE * self.op.in_features).max((PIECE + self.op.rank) * COLUMNS)
    }

    /// # Safety
    /// There is a slot for each row, and `words` has room for [`Forward::sorting`].
    unsafe fn sort(&self, slots: Read, words: Floats) -> Pieces {
        let LoraRows { rows, adapters, .. } = self.op;
        let (order, starts) = (words, Floats(words.at(rows)));
        let next = starts.at(rows + 1).cast::<u32>();
        // SAFETY: the caller's contract; sums of the counters are at most `rows`, and no piece is empty.
        unsafe {
            let slot = |row: usize| Some(index(slots, row)).filter(|&slot| slot < adapters);
            next.write_bytes(0, adapters);
            (0..rows).filter_map(slot).for_each(|slot| *next.add(slot) += 1);
            let (mut named, mut pieces) = (0, 0);
            for slot in 0..adapters {
                let (first, count) = (named, next.add(slot).replace(named as u32) as usize);
                named += count;
                for start in (first..named).step_by(PIECE) {
                    starts.at(pieces).cast::<u32>().write(start as u32);
                    pieces += 1;
                }
            }
            starts.at(pieces).cast::<u32>().write(named as u32);
            for (row, slot) in (0..rows).filter_map(|row| Some((row, slot(row)?))) {
                let place = next.add(slot).read();
                order.at(place as usize).cast::<u32>().write(row as u32);
                next.add(slot).write(place + 1);
            }
            Pieces { order, starts, count: pieces, slots }
        }
    }

    /// h of a piece for a range of the rank: scale x Aᵀ.
    ///
    /// # Safety
    /// The tensors have the sizes of the operation, and `scratch` is this thread's own.
    unsafe fn down(&self, t: Tensors, pieces: Pieces, piece: usize, ranks: (usize, usize), scratch: *mut f32) {
        let LoraRows { in_features: k, rank, x_row, dtype, .. } = self.op;
        let (bytes, (first_rank, ranks)) = (dtype.bytes(), ranks);
        // SAFETY: the caller's contract; a piece has at most PIECE rows, and its slot is below `adapters`.
        unsafe {
            let (first, rows) = pieces.range(piece);
            let (slot, top) = (pieces.slot(piece), pieces.row(first));
            let (mut x, mut row) = (t.x.at(top * x_row, bytes), x_row);
            if (1..rows).any(|i| pieces.row(first + i) != top + i) {
                let gathered = scratch.cast::<u8>();
                for i in 0..rows {
                    let from = t.x.at(pieces.row(first + i) * x_row, bytes);
                    std::ptr::copy_nonoverlapping(from, gathered.add(i * k * bytes), k * bytes);
                }
                (x, row) = (gathered, k);
            }
            (self.kernels.dot)(&DotArgs {
                rows,
                rank: ranks,
                k,
                alpha: t.scales.at(slot, 4).cast::<f32>().read(),
                x,
                x_row: row,
                x_dtype: dtype,
                a: t.a.at((slot * rank + first_rank) * k, bytes),
                a_row: k,
                a_dtype: dtype,
                h: t.h.at(first * rank + first_rank),
                h_row: rank,
            });
        }
    }

    /// Adds h Bᵀ to `n` columns of all rows.
    ///
    /// # Safety
    /// That of [`Forward::down`], after it; no other thread has these columns.
    unsafe fn up(&self, t: Tensors, pieces: Pieces, (column, n): (usize, usize), scratch: *mut f32) {
        let LoraRows { out_features, rank, y_row, dtype, .. } = self.op;
        let (bytes, kernels) = (dtype.bytes(), self.kernels);
        let (sums, b) = (Floats(scratch), scratch.wrapping_add(PIECE * COLUMNS));
        let mut transposed = None;
        for piece in 0..pieces.count {
            // SAFETY: the caller's contract.
            unsafe {
                let ((first, rows), slot) = (pieces.range(piece), pieces.slot(piece));
                if transposed != Some(slot) {
                    (kernels.transpose)(&TransposeArgs {
                        rows: n,
                        cols: rank,
                        scale: 1.0,
                        src: t.b.at((slot * out_features + column) * rank, bytes),
                        src_dtype: dtype,
                        src_row: rank,
                        dst: b.cast(),
                        dst_dtype: DType::F32,
                        dst_row: COLUMNS,
                    });
                    transposed = Some(slot);
                }
                let y = |i: usize| t.y.at(pieces.row(first + i) * y_row + column, bytes);
                for i in 0..rows {
                    (kernels.widen)(&WidenArgs { n, src: y(i), src_dtype: dtype, dst: sums.at(i * COLUMNS) });
                }
                (kernels.row_sums)(&RowSumsArgs {
                    rows,
                    cols: n,
                    steps: rank,
                    weights: t.h.at(first * rank),
                    weights_row: rank,
                    weights_step: 1,
                    x: b.cast_const().cast(),
                    x_row: COLUMNS,
                    dtype: DType::F32,
                    sums: sums.0,
                    sums_row: COLUMNS,
                });
                for i in 0..rows {
                    let src = sums.at(i * COLUMNS);
                    (kernels.narrow)(&NarrowArgs { n, scale: 1.0, src, dst: y(i), dst_dtype: dtype });
                }
            }
        }
    }
}

impl Pieces {
    /// The row at a place of the order.
    ///
    /// # Safety
    /// There is such a place; so for all methods.
    unsafe fn row(self, place: usize) -> usize {
        // SAFETY: the caller's contract.
        unsafe { self.order.at(place).cast::<u32>().read() as usize }
    }

    /// A piece's first place, and how many rows it has.
    unsafe fn range(self, piece: usize) -> (usize, usize) {
        // SAFETY: the caller's contract; behind the last piece's start is its end.
        let [start, end] = unsafe { self.starts.at(piece).cast::<[u32; 2]>().read() };
        (start as usize, (end - start) as usize)
    }

    /// The adapter of a piece.
    unsafe fn slot(self, piece: usize) -> usize {
        // SAFETY: the caller's contract.
        unsafe { index(self.slots, self.row(self.range(piece).0)) }
    }
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        self.sorting() + self.op.rows * self.op.rank + self.threads * self.scratch()
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let LoraRows { rows, out_features, rank, adapters, .. } = self.op;
        if rows == 0 || out_features == 0 || rank == 0 || adapters == 0 {
            return;
        }
        let words = Floats(call.workspace);
        let h = Floats(words.at(self.sorting()));
        let scratch = Floats(h.at(rows * rank));
        let (x, a, b, scales) = (call.input(0), call.input(1), call.input(2), call.input(3));
        let tensors = Tensors { x, a, b, scales, y: call.output(0), h };
        // SAFETY: the slots are an operand, and the workspace begins with room for their order.
        let pieces = unsafe { self.sort(call.input(4), words) };
        // Few pieces are cut by the rank.
        let parts = if pieces.count < 2 * self.threads { self.threads.min(rank.div_ceil(PIECE)) } else { 1 };
        call.pool.run(pieces.count * parts, self.threads, &|task, thread| {
            let ranks = split(rank, parts, task % parts);
            // SAFETY: the arguments fit the signature; each task writes its part of h, each thread its own scratch.
            unsafe { self.down(tensors, pieces, task / parts, ranks, scratch.at(thread * self.scratch())) };
        });
        call.pool.run(out_features.div_ceil(COLUMNS), self.threads, &|task, thread| {
            let column = task * COLUMNS;
            let columns = (column, COLUMNS.min(out_features - column));
            // SAFETY: as above, and each task writes its columns of y.
            unsafe { self.up(tensors, pieces, columns, scratch.at(thread * self.scratch())) };
        });
    }
}
