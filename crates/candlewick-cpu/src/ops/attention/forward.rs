//! A task is a block of queries with all heads that share a head of keys, or a part of the keys where queries are few.

use super::super::{Call, Floats, Program, Read, Write, threads_that_pay};
use super::{KEYS, QUERIES, RATE, Sequences};
use crate::kernels::{DotArgs, Kernels, NarrowArgs, OnlineSoftmaxArgs, RowSumsArgs};
use candlewick_core::op::Span;
use candlewick_core::{Attention, DType, Op};

pub(in super::super) struct Forward {
    op: Attention,
    kernels: &'static Kernels,
    threads: usize,
    /// Parts of the keys, each with a softmax of its own; they are merged in the end.
    splits: usize,
}

/// Rows of q with the same head of keys: the heads of one query, or one head of successive queries.
#[derive(Clone, Copy)]
struct Rows {
    count: usize,
    query: usize,
    head: usize,
    /// What one row is further than the row before it: queries, heads.
    step: (usize, usize),
    /// The first query's place in its sequence.
    place: usize,
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

/// What a thread needs for itself.
#[derive(Clone, Copy)]
struct Scratch {
    /// [rows, 2]: the largest score and the sum of exponentials.
    state: Floats,
    /// [rows, head]
    sums: Floats,
    /// [rows, KEYS]
    scores: Floats,
}

/// Stands for the sum of a query that sees no key.
const BLIND: f32 = -1.0;

impl Forward {
    pub(in super::super) fn new(op: Attention, kernels: &'static Kernels, threads: usize) -> Self {
        let threads = threads_that_pay(Op::Attention(op).flops() / RATE, threads);
        let tasks = (op.queries.div_ceil(QUERIES) * op.kv_heads).max(1);
        // As many parts as make the tasks a multiple of the threads, where there are few: not so many that one is short.
        let even = threads / gcd(threads, tasks);
        let most = (op.keys / op.sequences.max(1)).div_ceil(KEYS).max(1);
        let splits = if tasks >= 4 * threads { 1 } else { even.min(most) };
        Forward { op, kernels, threads, splits }
    }

    fn rows(&self) -> usize {
        QUERIES.max(self.op.group())
    }

    fn scratch(&self) -> usize {
        self.rows() * (2 + self.op.head + KEYS)
    }

    /// State and sums of every query, head and part.
    fn partial(&self) -> usize {
        if self.splits == 1 { 0 } else { self.op.queries * self.op.heads * self.splits * (2 + self.op.head) }
    }
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
            let first = own.at(thread * self.scratch());
            let sums = first.wrapping_add(2 * self.rows());
            let scores = sums.wrapping_add(self.rows() * op.head);
            Scratch { state: Floats(first), sums: Floats(sums), scores: Floats(scores) }
        };
        let tasks = op.queries.div_ceil(QUERIES) * op.kv_heads * self.splits;
        call.pool.run(tasks, self.threads, &|task, thread| {
            let (split, kv, block) =
                (task % self.splits, task / self.splits % op.kv_heads, task / self.splits / op.kv_heads);
            let end = op.queries.min((block + 1) * QUERIES);
            let mut query = block * QUERIES;
            while query < end {
                let (run, span) = sequences.run(query..end);
                // In no sequence is as good as in one without keys.
                let span = span.unwrap_or(Span { query: run.start, queries: run.len(), key: 0, keys: 0 });
                let (place, head) = (run.start - span.query, kv * op.group());
                let rows = Rows { count: 1, query: run.start, head, step: (0, 1), place, span };
                if run.len() == 1 {
                    let heads = Rows { count: op.group(), ..rows };
                    // SAFETY: the operands and this thread's scratch.
                    unsafe { self.attend(&tensors, &heads, split, scratch(thread)) };
                } else {
                    for head in head..head + op.group() {
                        let queries = Rows { count: run.len(), head, step: (1, 0), ..rows };
                        // SAFETY: as above.
                        unsafe { self.attend(&tensors, &queries, split, scratch(thread)) };
                    }
                }
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

impl Rows {
    /// Leading keys of the span that row `r` sees.
    fn seen(&self, op: &Attention, r: usize) -> usize {
        op.visible(&self.span, self.place + r * self.step.0)
    }
}

impl Forward {
    /// A part of the keys, for rows of queries.
    ///
    /// # Safety
    /// The tensors are the operation's, the rows are in them, and the scratch is this thread's own.
    unsafe fn attend(&self, t: &Tensors, rows: &Rows, split: usize, scratch: Scratch) {
        let (op, kernels) = (&self.op, self.kernels);
        let bytes = op.dtype.bytes();
        let kv = rows.head / op.group() * op.head;
        let q_row = rows.step.0 * op.q_row + rows.step.1 * op.head;
        let q = rows.query * op.q_row + rows.head * op.head;
        // SAFETY: the caller's contract: keys that a row sees are inside the tensors.
        unsafe {
            scratch.sums.0.write_bytes(0, rows.count * op.head);
            for r in 0..rows.count {
                scratch.state.at(2 * r).cast::<[f32; 2]>().write([f32::NEG_INFINITY, 0.0]);
            }
            let most = rows.seen(op, rows.count - 1);
            let part = most.div_ceil(self.splits).next_multiple_of(16);
            let (start, end) = ((split * part).min(most), ((split + 1) * part).min(most));
            for tile in (start..end).step_by(KEYS) {
                let keys = KEYS.min(end - tile);
                let visible = |r: usize| rows.seen(op, r).saturating_sub(tile).min(keys);
                // Later rows see more. The first see nothing of this tile, the next a part of it.
                let first = (0..rows.count).find(|&r| visible(r) > 0).unwrap_or(rows.count);
                let whole = (first..rows.count).find(|&r| visible(r) == keys).unwrap_or(rows.count);
                let key = rows.span.key + tile;
                (kernels.dot)(&DotArgs {
                    rows: rows.count - first,
                    rank: keys,
                    k: op.head,
                    alpha: op.scale.get(),
                    x: t.q.at(q + first * q_row, bytes),
                    x_row: q_row,
                    x_dtype: op.dtype,
                    a: t.k.at(key * op.k_row + kv, bytes),
                    a_row: op.k_row,
                    a_dtype: op.dtype,
                    h: scratch.scores.at(first * KEYS),
                    h_row: KEYS,
                });
                let sums = |r: usize, rows: usize, steps: usize| {
                    (kernels.row_sums)(&RowSumsArgs {
                        rows,
                        cols: op.head,
                        steps,
                        weights: scratch.scores.at(r * KEYS),
                        weights_row: KEYS,
                        weights_step: 1,
                        x: t.v.at(key * op.v_row + kv, bytes),
                        x_row: op.v_row,
                        dtype: op.dtype,
                        sums: scratch.sums.at(r * op.head),
                        sums_row: op.head,
                    });
                };
                for r in first..rows.count {
                    (kernels.online_softmax)(&OnlineSoftmaxArgs {
                        n: visible(r),
                        scores: scratch.scores.at(r * KEYS),
                        state: scratch.state.at(2 * r),
                        cols: op.head,
                        sums: scratch.sums.at(r * op.head),
                    });
                    // A row of v that this row does not see may be NaN, which a weight of zero does not hide.
                    if r < whole {
                        sums(r, 1, visible(r));
                    }
                }
                sums(whole, rows.count - whole, keys);
            }
            for r in 0..rows.count {
                let (query, head) = (rows.query + r * rows.step.0, rows.head + r * rows.step.1);
                let [max, sum] = scratch.state.at(2 * r).cast::<[f32; 2]>().read();
                let sum = if rows.seen(op, r) == 0 { BLIND } else { sum };
                if self.splits == 1 {
                    self.finish(t, query, head, [max, sum], scratch.sums.at(r * op.head));
                } else {
                    let to = t.partial.at(((query * op.heads + head) * self.splits + split) * (2 + op.head));
                    to.cast::<[f32; 2]>().write_unaligned([max, sum]);
                    to.add(2).copy_from_nonoverlapping(scratch.sums.at(r * op.head), op.head);
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
