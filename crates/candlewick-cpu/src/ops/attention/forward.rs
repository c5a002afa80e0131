//! A task is a block of queries with all heads that share a head of keys, or a part of the keys where queries are few.

use super::super::{Call, Floats, Program, Read, Write, threads_that_pay};
use super::tiles::{Factor, Rows, Tiles, Weights, stairs};
use super::{KEYS, QUERIES, RATE, Sequences, in_turns};
use crate::kernels::{Kernels, NarrowArgs, OnlineSoftmaxArgs, RowSumsArgs};
use candlewick_core::op::Span;
use candlewick_core::{Attention, DType, Op};

pub(in super::super) struct Forward {
    op: Attention,
    kernels: &'static Kernels,
    threads: usize,
    /// Parts of the keys, each with a softmax of its own; they are merged in the end.
    splits: usize,
}

/// Queries with the heads that share a head of keys: successive queries, or one.
#[derive(Clone, Copy)]
struct Block {
    query: usize,
    queries: usize,
    kv: usize,
    span: Span,
}

/// The operands.
#[derive(Clone, Copy)]
struct Tensors {
    q: Read,
    k: Read,
    v: Read,
    y: Write,
    lse: Write,
    partial: Floats,
}

/// What a thread needs for itself. Rows are queries, head by head.
#[derive(Clone, Copy)]
struct Scratch {
    /// [rows, 2]: the largest score and the sum of exponentials.
    state: Floats,
    /// [rows, head]
    sums: Floats,
    /// Of one head, or of the heads of one query: [rows, KEYS].
    scores: Floats,
    k: Floats,
    v: Floats,
    own: Floats,
}

/// Rows that are worth packing a tile for.
const PACKED_ROWS: usize = 12;
/// Stands for the sum of a query that sees no key.
const BLIND: f32 = -1.0;

impl Forward {
    pub(in super::super) fn new(op: Attention, kernels: &'static Kernels, threads: usize) -> Self {
        let threads = threads_that_pay(Op::Attention(op).flops() / RATE, threads);
        let tasks = (op.queries.div_ceil(block(&op)) * op.kv_heads).max(1);
        // As many parts as make the tasks a multiple of the threads, where there are few: not so many that one is short.
        let even = threads / gcd(threads, tasks);
        let most = (op.keys / op.sequences.max(1)).div_ceil(KEYS).max(1);
        let splits = if tasks >= 4 * threads { 1 } else { even.min(most) };
        Forward { op, kernels, threads, splits }
    }

    fn rows(&self) -> usize {
        QUERIES.min(self.op.queries) * self.op.group()
    }

    fn tiles(&self) -> Tiles {
        Tiles { kernels: self.kernels, dtype: self.op.dtype, head: self.op.head }
    }

    fn scratch_parts(&self) -> [usize; 6] {
        let (rows, tiles) = (self.rows(), self.tiles());
        let scores = QUERIES.max(self.op.group()) * KEYS;
        [2 * rows, rows * self.op.head, scores, tiles.panels(), tiles.panels(), tiles.own()]
    }

    fn scratch(&self) -> usize {
        self.scratch_parts().iter().sum()
    }

    /// State and sums of every query, head and part.
    fn partial(&self) -> usize {
        if self.splits == 1 { 0 } else { self.op.queries * self.op.heads * self.splits * (2 + self.op.head) }
    }
}

/// Queries of a task. Where each sequence has few, as in decoding, they share no keys.
fn block(op: &Attention) -> usize {
    if op.queries < 16 * op.sequences.max(1) { QUERIES / 4 } else { QUERIES }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.threads
    }

    /// Each query's sequence, what the parts found, and each thread's own.
    fn workspace(&self) -> usize {
        self.op.queries + self.partial() + self.threads * self.scratch()
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        if op.queries == 0 || op.heads == 0 {
            return;
        }
        let workspace = Floats(call.workspace);
        let partial = Floats(workspace.at(op.queries));
        let own = Floats(partial.at(self.partial()));
        let (q, k, v, spans) = (call.input(0), call.input(1), call.input(2), call.input(3));
        let tensors = Tensors { q, k, v, y: call.output(0), lse: call.output(1), partial };
        // SAFETY: the spans are an operand, and the workspace begins with a word for each query.
        let sequences = unsafe { Sequences::new(op, spans, workspace) };
        let scratch = |thread: usize| {
            let mut next = own.at(thread * self.scratch());
            let [state, sums, scores, k, v, own] = self.scratch_parts().map(|part| {
                let at = next;
                next = next.wrapping_add(part);
                Floats(at)
            });
            Scratch { state, sums, scores, k, v, own }
        };
        let size = block(&op);
        let blocks = op.queries.div_ceil(size);
        let tasks = blocks * op.kv_heads * self.splits;
        call.pool.run(tasks, self.threads, &|task, thread| {
            let (split, kv, nth) =
                (task % self.splits, task / self.splits % op.kv_heads, task / self.splits / op.kv_heads);
            let block = in_turns(nth, blocks);
            let end = op.queries.min((block + 1) * size);
            let mut query = block * size;
            while query < end {
                let (run, span) = sequences.run(query..end);
                // In no sequence is as good as in one without keys.
                let span = span.unwrap_or(Span { query: run.start, queries: run.len(), key: 0, keys: 0 });
                let block = Block { query: run.start, queries: run.len(), kv, span };
                // SAFETY: the operands and this thread's scratch.
                unsafe { self.attend(&tensors, &block, split, scratch(thread)) };
                query = run.end;
            }
        });
        if self.splits > 1 {
            // Where it is little, waking threads costs more.
            let outputs = op.queries * op.heads;
            let threads = if outputs * op.head * self.splits < 1 << 15 { 1 } else { self.threads };
            call.pool.run(outputs, threads, &|output, thread| {
                // SAFETY: every part of every query and head was written.
                unsafe { self.merge(&tensors, output / op.heads, output % op.heads, scratch(thread)) };
            });
        }
    }
}

impl Block {
    /// Leading keys of the span that the block's query `i` sees.
    fn seen(&self, op: &Attention, i: usize) -> usize {
        op.visible(&self.span, self.query - self.span.query + i)
    }
}

impl Forward {
    /// A part of the keys, for a block.
    ///
    /// # Safety
    /// The tensors are the operation's, the block is in them, and the scratch is this thread's own.
    unsafe fn attend(&self, t: &Tensors, block: &Block, split: usize, scratch: Scratch) {
        let (op, tiles) = (&self.op, self.tiles());
        let (bytes, rows) = (op.dtype.bytes(), block.queries * op.group());
        let first_head = block.kv * op.group();
        // SAFETY: the caller's contract: keys that a row sees are inside the tensors.
        unsafe {
            scratch.sums.0.write_bytes(0, rows * op.head);
            for row in 0..rows {
                scratch.state.at(2 * row).cast::<[f32; 2]>().write([f32::NEG_INFINITY, 0.0]);
            }
            let most = block.seen(op, block.queries - 1);
            let part = most.div_ceil(self.splits).next_multiple_of(16);
            let (start, end) = ((split * part).min(most), ((split + 1) * part).min(most));
            for tile in (start..end).step_by(KEYS) {
                let count = KEYS.min(end - tile);
                let rows_of = |x: Read, row: usize| {
                    let at = x.at((block.span.key + tile) * row + block.kv * op.head, bytes);
                    Rows { at, row, count }
                };
                let (k, v) = (rows_of(t.k, op.k_row), rows_of(t.v, op.v_row));
                let q = t.q.at(block.query * op.q_row + first_head * op.head, bytes);
                if block.queries == 1 {
                    // All heads of a query see the same.
                    let heads = Rows { at: q, row: op.head, count: op.group() };
                    let [k, v] = [k, v].map(Factor::plain);
                    self.fold(heads, 0, [k, v], count, |_| count, scratch);
                    continue;
                }
                let seen = |i: usize| block.seen(op, i).saturating_sub(tile).min(count);
                let (k, v) = if rows >= PACKED_ROWS {
                    let whole = seen(0) == count;
                    (tiles.pack_for_scores(k, scratch.k.0), tiles.pack_for_sums(v, whole, scratch.v.0))
                } else {
                    (Factor::plain(k), Factor::plain(v))
                };
                for nth in 0..op.group() {
                    let at = q.wrapping_add(nth * op.head * bytes);
                    let queries = Rows { at, row: op.q_row, count: block.queries };
                    self.fold(queries, nth * block.queries, [k, v], count, seen, scratch);
                }
            }
            for row in 0..rows {
                let (query, head) = (block.query + row % block.queries, first_head + row / block.queries);
                let [max, sum] = scratch.state.at(2 * row).cast::<[f32; 2]>().read();
                let sum = if block.seen(op, row % block.queries) == 0 { BLIND } else { sum };
                if self.splits == 1 {
                    self.finish(t, query, head, [max, sum], scratch.sums.at(row * op.head));
                } else {
                    let to = t.partial.at(((query * op.heads + head) * self.splits + split) * (2 + op.head));
                    to.cast::<[f32; 2]>().write_unaligned([max, sum]);
                    to.add(2).copy_from_nonoverlapping(scratch.sums.at(row * op.head), op.head);
                }
            }
        }
    }

    /// Folds a tile of `keys` keys, as its k and v, into rows of q, of which the first is the scratch's row `first`.
    ///
    /// # Safety
    /// That of [`Forward::attend`].
    unsafe fn fold(
        &self,
        q: Rows,
        first: usize,
        [k, v]: [Factor; 2],
        keys: usize,
        seen: impl Fn(usize) -> usize + Copy,
        scratch: Scratch,
    ) {
        let (head, tiles) = (self.op.head, self.tiles());
        for step in stairs(q.count, keys, seen) {
            let start = step.rows.start;
            let rows = q.some(step.rows.clone(), self.op.dtype.bytes());
            let scores = |r: usize| scratch.scores.at(r * KEYS);
            let sums = |r: usize| scratch.sums.at((first + r) * head);
            // SAFETY: the caller's contract.
            unsafe {
                tiles.scores(rows, k, step.most, scores(start), scratch.own.0);
                for r in step.rows.clone() {
                    (self.kernels.online_softmax)(&OnlineSoftmaxArgs {
                        n: seen(r),
                        scale: self.op.scale.get(),
                        scores: scores(r),
                        state: scratch.state.at(2 * (first + r)),
                        cols: head,
                        sums: sums(r),
                    });
                }
                let weights = |r: usize, key: usize, rows| Weights { at: scores(r).add(key), rows, by_steps: false };
                let all = weights(start, 0, rows.count);
                tiles.add(all, v, 0..step.common, sums(start), scratch.own.0);
                for r in step.rows.filter(|&r| seen(r) > step.common) {
                    let rest = weights(r, step.common, 1);
                    tiles.add(rest, v, step.common..seen(r), sums(r), scratch.own.0);
                }
            }
        }
    }

    /// Divides and writes.
    ///
    /// # Safety
    /// The query and head are the operation's; `sums` has `head` elements.
    unsafe fn finish(&self, t: &Tensors, query: usize, head: usize, [max, sum]: [f32; 2], sums: *const f32) {
        let op = &self.op;
        let (scale, lse) = if sum == BLIND {
            (0.0, f32::NEG_INFINITY)
        } else if max == f32::NEG_INFINITY {
            // Keys, and all scores -inf: 0 / 0.
            (f32::NAN, f32::NAN)
        } else {
            (1.0 / sum, max + sum.ln())
        };
        let dst = t.y.at(query * op.y_row + head * op.head, op.dtype.bytes());
        // SAFETY: the caller's contract.
        unsafe {
            (self.kernels.narrow)(&NarrowArgs { n: op.head, scale, src: sums, dst, dst_dtype: op.dtype });
            t.lse.at(query * op.heads + head, 4).cast::<f32>().write(lse);
        }
    }

    /// Adds up the parts of one query and head.
    ///
    /// # Safety
    /// They were all written, and the scratch is this thread's own.
    unsafe fn merge(&self, t: &Tensors, query: usize, head: usize, scratch: Scratch) {
        let (op, splits, row) = (&self.op, self.splits, 2 + self.op.head);
        let parts = t.partial.at((query * op.heads + head) * splits * row);
        // SAFETY: the caller's contract; there are fewer parts than scores.
        unsafe {
            let part = |nth: usize| parts.add(nth * row).cast::<[f32; 2]>().read_unaligned();
            scratch.sums.0.write_bytes(0, op.head);
            if part(0)[1] == BLIND {
                return self.finish(t, query, head, part(0), scratch.sums.0);
            }
            let max = (0..splits).map(|nth| part(nth)[0]).fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            for nth in 0..splits {
                let [of_part, sum] = part(nth);
                let factor = if sum == 0.0 { 0.0 } else { (of_part - max).exp() };
                scratch.scores.at(nth).write(factor);
                total += factor * sum;
            }
            (self.kernels.row_sums)(&RowSumsArgs {
                rows: 1,
                cols: op.head,
                steps: splits,
                weights: scratch.scores.0,
                weights_row: 0,
                weights_step: 1,
                x: parts.add(2).cast(),
                x_row: row,
                dtype: DType::F32,
                sums: scratch.sums.0,
                sums_row: op.head,
            });
            self.finish(t, query, head, [max, total], scratch.sums.0);
        }
    }
}
