//! The gradients, from recomputed scores: first dq, where a task is a block of queries, then dk and dv, where it is a
//! block of keys. Each task writes what no other writes, so sums have the same order on any number of threads.

use super::super::{Call, Floats, Program, Read, Write, threads_that_pay};
use super::{KEYS, NONE, QUERIES, RATE, Sequences};
use crate::kernels::{DotArgs, Kernels, NarrowArgs, RowSumsArgs, SoftmaxSlopesArgs};
use candlewick_core::op::Span;
use candlewick_core::{Attention, Op};

pub(in super::super) struct Backward {
    op: Attention,
    kernels: &'static Kernels,
    threads: usize,
}

/// The operands, and dy · y of each query and head.
#[derive(Clone, Copy)]
struct Tensors {
    q: Read,
    k: Read,
    v: Read,
    y: Read,
    lse: Read,
    dy: Read,
    dq: Write,
    dk: Write,
    dv: Write,
    rows: Floats,
}

/// What a thread needs for itself.
#[derive(Clone, Copy)]
struct Scratch {
    /// [QUERIES, KEYS]: scores, then probabilities.
    scores: Floats,
    /// [QUERIES, KEYS]: dy · v, then the gradients of q · k.
    slopes: Floats,
    /// [KEYS, head]: dk; or [QUERIES, head]: dq.
    first: Floats,
    /// [KEYS, head]: dv.
    second: Floats,
}

/// Successive queries of a sequence, one of their heads, and some keys of the sequence.
#[derive(Clone, Copy)]
struct Tile {
    query: usize,
    queries: usize,
    head: usize,
    span: Span,
    /// Counted from the span's first.
    key: usize,
    keys: usize,
}

impl Backward {
    pub(in super::super) fn new(op: Attention, kernels: &'static Kernels, threads: usize) -> Self {
        let threads = threads_that_pay(Op::AttentionBackward(op).flops() / RATE, threads);
        Backward { op, kernels, threads }
    }

    fn scratch(&self) -> usize {
        2 * QUERIES * KEYS + 2 * KEYS * self.op.head
    }
}

impl Program for Backward {
    fn threads(&self) -> usize {
        self.threads
    }

    /// Each query's sequence, dy · y of each query and head, and each thread's own.
    fn workspace(&self) -> usize {
        self.op.queries * (1 + self.op.heads) + self.threads * self.scratch()
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        let workspace = Floats(call.workspace);
        let rows = Floats(workspace.at(op.queries));
        let own = Floats(rows.at(op.queries * op.heads));
        let spans = call.input(3);
        let t = Tensors {
            q: call.input(0),
            k: call.input(1),
            v: call.input(2),
            y: call.input(4),
            lse: call.input(5),
            dy: call.input(6),
            dq: call.output(0),
            dk: call.output(1),
            dv: call.output(2),
            rows,
        };
        // SAFETY: the spans are an operand, and the workspace begins with a word for each query.
        let sequences = unsafe { Sequences::new(op, spans, workspace) };
        let scratch = |thread: usize| {
            let scores = own.at(thread * self.scratch());
            let slopes = scores.wrapping_add(QUERIES * KEYS);
            let first = slopes.wrapping_add(QUERIES * KEYS);
            let second = Floats(first.wrapping_add(KEYS * op.head));
            Scratch { scores: Floats(scores), slopes: Floats(slopes), first: Floats(first), second }
        };
        call.pool.run(op.queries.div_ceil(QUERIES) * op.heads, self.threads, &|task, thread| {
            // SAFETY: the operands, and this thread's scratch.
            unsafe { self.queries(&t, &sequences, task / op.heads * QUERIES, task % op.heads, scratch(thread)) }
        });
        call.pool.run(op.keys.div_ceil(KEYS) * op.kv_heads, self.threads, &|task, thread| {
            // SAFETY: as above, and every query's row was written.
            unsafe { self.keys(&t, &sequences, task / op.kv_heads * KEYS, task % op.kv_heads, scratch(thread)) }
        });
    }
}

impl Backward {
    /// dq of a block of queries, and their dy · y.
    ///
    /// # Safety
    /// The tensors are the operation's, the scratch is this thread's own.
    unsafe fn queries(&self, t: &Tensors, sequences: &Sequences, first: usize, head: usize, scratch: Scratch) {
        let (op, kernels) = (&self.op, self.kernels);
        let bytes = op.dtype.bytes();
        let end = op.queries.min(first + QUERIES);
        let mut query = first;
        while query < end {
            let (run, span) = sequences.run(query..end);
            let (count, at) = (run.len(), run.start);
            // SAFETY: the caller's contract.
            unsafe {
                scratch.first.0.write_bytes(0, count * op.head);
                for r in 0..count {
                    self.dot(
                        (1, 1),
                        1.0,
                        (t.dy, (at + r) * op.y_row + head * op.head, 0),
                        (t.y, (at + r) * op.y_row + head * op.head, 0),
                        t.rows.at((at + r) * op.heads + head),
                    );
                }
                let span = span.unwrap_or(Span { query: at, queries: count, key: 0, keys: 0 });
                let most = op.visible(&span, at + count - 1 - span.query);
                for key in (0..most).step_by(KEYS) {
                    let tile = Tile { query: at, queries: count, head, span, key, keys: KEYS.min(most - key) };
                    self.slopes(t, &tile, scratch);
                    // Rows that see the whole tile at once; a key that a row does not see may be NaN.
                    let whole = (0..count).find(|&r| tile.seen(op, r) == tile.keys).unwrap_or(count);
                    let sums = |r: usize, rows: usize, steps: usize| {
                        (kernels.row_sums)(&RowSumsArgs {
                            rows,
                            cols: op.head,
                            steps,
                            weights: scratch.slopes.at(r * KEYS),
                            weights_row: KEYS,
                            weights_step: 1,
                            x: t.k.at((span.key + key) * op.k_row + head / op.group() * op.head, bytes),
                            x_row: op.k_row,
                            dtype: op.dtype,
                            sums: scratch.first.at(r * op.head),
                            sums_row: op.head,
                        });
                    };
                    (0..whole).for_each(|r| sums(r, 1, tile.seen(op, r)));
                    sums(whole, count - whole, tile.keys);
                }
                for r in 0..count {
                    let dst = t.dq.at((at + r) * op.q_row + head * op.head, bytes);
                    self.narrow(scratch.first.at(r * op.head), dst);
                }
            }
            query = run.end;
        }
    }

    /// dk and dv of a block of keys and one of their heads.
    ///
    /// # Safety
    /// The tensors are the operation's, the scratch is this thread's own.
    unsafe fn keys(&self, t: &Tensors, sequences: &Sequences, first: usize, kv: usize, scratch: Scratch) {
        let op = &self.op;
        let end = op.keys.min(first + KEYS);
        // SAFETY: the caller's contract.
        unsafe {
            scratch.first.0.write_bytes(0, (end - first) * op.head);
            scratch.second.0.write_bytes(0, (end - first) * op.head);
            for nth in 0..op.sequences {
                let span = sequences.span(nth);
                let (from, to) = (first.max(span.key), end.min(span.key + span.keys));
                if from >= to {
                    continue;
                }
                let key = from - span.key;
                let mut query = span.query;
                while query < span.query + span.queries {
                    // Queries that see nothing here, or that another sequence has, are left out.
                    let block = (query + QUERIES).min(span.query + span.queries);
                    let (run, _) = sequences.run(query..block);
                    query = run.end;
                    if sequences.owner(run.start) != nth as u32 || sequences.owner(run.start) == NONE {
                        continue;
                    }
                    let blind = run.clone().take_while(|at| op.visible(&span, at - span.query) <= key).count();
                    let (at, queries) = (run.start + blind, run.len() - blind);
                    for head in kv * op.group()..(kv + 1) * op.group() {
                        let tile = Tile { query: at, queries, head, span, key, keys: to - from };
                        if queries > 0 {
                            self.slopes(t, &tile, scratch);
                            self.add_keys(t, &tile, from - first, scratch);
                        }
                    }
                }
            }
            let bytes = op.dtype.bytes();
            for key in first..end {
                self.narrow(scratch.first.at((key - first) * op.head), t.dk.at(key * op.k_row + kv * op.head, bytes));
                self.narrow(scratch.second.at((key - first) * op.head), t.dv.at(key * op.v_row + kv * op.head, bytes));
            }
        }
    }

    /// Adds a tile's part to dk and dv, whose row `row` is the tile's first key.
    ///
    /// # Safety
    /// That of [`Backward::keys`], after [`Backward::slopes`] of the tile.
    unsafe fn add_keys(&self, t: &Tensors, tile: &Tile, row: usize, scratch: Scratch) {
        let op = &self.op;
        let bytes = op.dtype.bytes();
        let sums = |weights: *const f32, x: *const u8, x_row: usize, sums: Floats, rows: usize, steps: usize| {
            let args = RowSumsArgs {
                rows,
                cols: op.head,
                steps,
                weights,
                weights_row: 1,
                weights_step: KEYS,
                x,
                x_row,
                dtype: op.dtype,
                sums: sums.at(row * op.head),
                sums_row: op.head,
            };
            // SAFETY: the caller's contract.
            unsafe { (self.kernels.row_sums)(&args) }
        };
        let add = |r: usize, keys: usize, queries: usize| {
            let (q, dy) = ((tile.query + r) * op.q_row, (tile.query + r) * op.y_row);
            let (q, dy) = (t.q.at(q + tile.head * op.head, bytes), t.dy.at(dy + tile.head * op.head, bytes));
            sums(scratch.slopes.at(r * KEYS), q, op.q_row, scratch.first, keys, queries);
            sums(scratch.scores.at(r * KEYS), dy, op.y_row, scratch.second, keys, queries);
        };
        // Query by query as long as they do not see all keys of the tile: what they do not see gets nothing, not NaN · 0.
        let whole = (0..tile.queries).find(|&r| tile.seen(op, r) == tile.keys).unwrap_or(tile.queries);
        (0..whole).for_each(|r| add(r, tile.seen(op, r), 1));
        add(whole, tile.keys, tile.queries - whole);
    }

    /// The probabilities and slopes of a tile.
    ///
    /// # Safety
    /// The tile is inside the operation's tensors, the scratch is this thread's own.
    unsafe fn slopes(&self, t: &Tensors, tile: &Tile, scratch: Scratch) {
        let op = &self.op;
        let (head, kv) = (tile.head * op.head, tile.head / op.group() * op.head);
        let key = tile.span.key + tile.key;
        let shape = (tile.queries, tile.keys);
        // SAFETY: the caller's contract.
        unsafe {
            let q = (t.q, tile.query * op.q_row + head, op.q_row);
            self.dot(shape, op.scale.get(), q, (t.k, key * op.k_row + kv, op.k_row), scratch.scores.0);
            let dy = (t.dy, tile.query * op.y_row + head, op.y_row);
            self.dot(shape, 1.0, dy, (t.v, key * op.v_row + kv, op.v_row), scratch.slopes.0);
            for r in 0..tile.queries {
                let at = (tile.query + r) * op.heads + tile.head;
                (self.kernels.softmax_slopes)(&SoftmaxSlopesArgs {
                    n: tile.seen(op, r),
                    lse: t.lse.at(at, 4).cast::<f32>().read(),
                    row: t.rows.at(at).read(),
                    scale: op.scale.get(),
                    scores: scratch.scores.at(r * KEYS),
                    slopes: scratch.slopes.at(r * KEYS),
                });
            }
        }
    }

    /// h(i, j) = alpha x(i) · a(j) of heads, KEYS apart: operands are (memory, first element, row).
    ///
    /// # Safety
    /// They are the operation's.
    unsafe fn dot(
        &self,
        (rows, rank): (usize, usize),
        alpha: f32,
        x: (Read, usize, usize),
        a: (Read, usize, usize),
        h: *mut f32,
    ) {
        let (dtype, bytes) = (self.op.dtype, self.op.dtype.bytes());
        let args = DotArgs {
            rows,
            rank,
            k: self.op.head,
            alpha,
            x: x.0.at(x.1, bytes),
            x_row: x.2,
            x_dtype: dtype,
            a: a.0.at(a.1, bytes),
            a_row: a.2,
            a_dtype: dtype,
            h,
            h_row: KEYS,
        };
        // SAFETY: the caller's contract.
        unsafe { (self.kernels.dot)(&args) }
    }

    /// # Safety
    /// A head's elements are valid at both.
    unsafe fn narrow(&self, src: *const f32, dst: *mut u8) {
        let args = NarrowArgs { n: self.op.head, scale: 1.0, src, dst, dst_dtype: self.op.dtype };
        // SAFETY: the caller's contract.
        unsafe { (self.kernels.narrow)(&args) }
    }
}

impl Tile {
    /// Leading keys of the tile that row `r` sees.
    fn seen(&self, op: &Attention, r: usize) -> usize {
        op.visible(&self.span, self.query + r - self.span.query).saturating_sub(self.key).min(self.keys)
    }
}
