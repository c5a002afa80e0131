//! The gradients, from recomputed scores: first dq, where a task is a block of queries, then dk and dv, where it is a
//! block of keys. Each task writes what no other writes, so sums have the same order on any number of threads.

use super::super::{Call, Floats, Program, Read, Write, threads_that_pay};
use super::tiles::{Factor, Rows, Step, Tiles, Weights, stairs};
use super::{KEYS, NONE, QUERIES, RATE, Sequences, in_turns};
use crate::kernels::{DotArgs, Kernels, NarrowArgs, SoftmaxSlopesArgs};
use candlewick_core::op::Span;
use candlewick_core::{Attention, Op};
use std::ops::Range;

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
    /// Of a tile of keys, for scores and slopes.
    k: Floats,
    v: Floats,
    /// Of a tile of keys or of queries, for sums.
    first: Floats,
    second: Floats,
    own: Floats,
    /// dk and dv, each [KEYS, head]; or dq of the heads that share a head of keys, each [QUERIES, head].
    sums: Floats,
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

/// The keys and values of a tile.
type Factors = [Factor; 2];

impl Backward {
    pub(in super::super) fn new(op: Attention, kernels: &'static Kernels, threads: usize) -> Self {
        let threads = threads_that_pay(Op::AttentionBackward(op).flops() / RATE, threads);
        Backward { op, kernels, threads }
    }

    fn tiles(&self) -> Tiles {
        Tiles { kernels: self.kernels, dtype: self.op.dtype, head: self.op.head }
    }

    fn scratch_parts(&self) -> [usize; 8] {
        let (tile, panels) = (QUERIES * KEYS, self.tiles().panels());
        let sums = (2 * KEYS).max(self.op.group() * QUERIES) * self.op.head;
        [tile, tile, panels, panels, panels, panels, self.tiles().own(), sums]
    }

    fn scratch(&self) -> usize {
        self.scratch_parts().iter().sum()
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
            let mut next = own.at(thread * self.scratch());
            let [scores, slopes, k, v, first, second, own, sums] = self.scratch_parts().map(|part| {
                let at = next;
                next = next.wrapping_add(part);
                Floats(at)
            });
            Scratch { scores, slopes, k, v, first, second, own, sums }
        };
        let blocks = op.queries.div_ceil(QUERIES);
        call.pool.run(blocks * op.kv_heads, self.threads, &|task, thread| {
            let (first, kv) = (in_turns(task / op.kv_heads, blocks) * QUERIES, task % op.kv_heads);
            // SAFETY: the operands, and this thread's scratch.
            unsafe { self.queries(&t, &sequences, first, kv, scratch(thread)) }
        });
        let blocks = op.keys.div_ceil(KEYS);
        call.pool.run(blocks * op.kv_heads, self.threads, &|task, thread| {
            let (first, kv) = (in_turns(task / op.kv_heads, blocks) * KEYS, task % op.kv_heads);
            // SAFETY: as above, and every query's row was written.
            unsafe { self.keys(&t, &sequences, first, kv, scratch(thread)) }
        });
    }
}

impl Backward {
    /// dq of a block of queries and the heads that share a head of keys, and their dy · y.
    ///
    /// # Safety
    /// The tensors are the operation's, the scratch is this thread's own.
    unsafe fn queries(&self, t: &Tensors, sequences: &Sequences, first: usize, kv: usize, scratch: Scratch) {
        let (op, tiles) = (&self.op, self.tiles());
        let end = op.queries.min(first + QUERIES);
        let heads = kv * op.group()..(kv + 1) * op.group();
        let sums = |head: usize, r: usize| scratch.sums.at(((head - heads.start) * QUERIES + r) * op.head);
        let mut query = first;
        while query < end {
            let (run, span) = sequences.run(query..end);
            let (count, at) = (run.len(), run.start);
            let span = span.unwrap_or(Span { query: at, queries: count, key: 0, keys: 0 });
            let most = op.visible(&span, at + count - 1 - span.query);
            // SAFETY: the caller's contract.
            unsafe {
                for head in heads.clone() {
                    sums(head, 0).write_bytes(0, count * op.head);
                    (at..at + count).for_each(|query| self.dy_y(t, query, head));
                }
                for key in (0..most).step_by(KEYS) {
                    let keys = KEYS.min(most - key);
                    let tile = Tile { query: at, queries: count, head: heads.start, span, key, keys };
                    let factors = self.pack(t, &tile, kv, scratch);
                    let k = tiles.pack_for_sums(factors[0].rows, false, scratch.first.0);
                    for head in heads.clone() {
                        let tile = Tile { head, ..tile };
                        let seen = |r: usize| tile.seen(op, r);
                        for step in stairs(count, keys, seen) {
                            self.slopes(t, &tile, &step, factors, scratch);
                            let (rows, start) = (step.rows.len(), step.rows.start);
                            let add = |r: usize, rows: usize, keys: Range<usize>| {
                                let at = scratch.slopes.at(r * KEYS + keys.start);
                                let weights = Weights { at, rows, by_steps: false };
                                tiles.add(weights, k, keys, sums(head, r), scratch.own.0);
                            };
                            add(start, rows, 0..step.common);
                            step.rows.filter(|&r| seen(r) > step.common).for_each(|r| add(r, 1, step.common..seen(r)));
                        }
                    }
                }
                for (head, r) in heads.clone().flat_map(|head| (0..count).map(move |r| (head, r))) {
                    self.narrow(sums(head, r), t.dq.at((at + r) * op.q_row + head * op.head, op.dtype.bytes()));
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
            scratch.sums.0.write_bytes(0, 2 * KEYS * op.head);
            for nth in 0..op.sequences {
                let span = sequences.span(nth);
                let (from, to) = (first.max(span.key), end.min(span.key + span.keys));
                if from >= to {
                    continue;
                }
                let head = kv * op.group();
                let tile = Tile { query: span.query, queries: 0, head, span, key: from - span.key, keys: to - from };
                let factors = self.pack(t, &tile, kv, scratch);
                let mut query = span.query;
                while query < span.query + span.queries {
                    // Queries that see nothing here, or that another sequence has, are left out.
                    let block = (query + QUERIES).min(span.query + span.queries);
                    let (run, _) = sequences.run(query..block);
                    query = run.end;
                    if sequences.owner(run.start) != nth as u32 || sequences.owner(run.start) == NONE {
                        continue;
                    }
                    let blind = run.clone().take_while(|at| op.visible(&span, at - span.query) <= tile.key).count();
                    let (at, queries) = (run.start + blind, run.len() - blind);
                    for head in head..head + if queries > 0 { op.group() } else { 0 } {
                        self.add_keys(t, &Tile { query: at, queries, head, ..tile }, factors, from - first, scratch);
                    }
                }
            }
            let bytes = op.dtype.bytes();
            for key in first..end {
                let (dk, dv) = (key - first, KEYS + key - first);
                self.narrow(scratch.sums.at(dk * op.head), t.dk.at(key * op.k_row + kv * op.head, bytes));
                self.narrow(scratch.sums.at(dv * op.head), t.dv.at(key * op.v_row + kv * op.head, bytes));
            }
        }
    }

    /// Adds a tile's part to dk and dv, whose row `row` is the tile's first key.
    ///
    /// # Safety
    /// That of [`Backward::keys`].
    unsafe fn add_keys(&self, t: &Tensors, tile: &Tile, factors: Factors, row: usize, scratch: Scratch) {
        let (op, tiles) = (&self.op, self.tiles());
        let (dk, dv) = (row, KEYS + row);
        let seen = |r: usize| tile.seen(op, r);
        // SAFETY: the caller's contract.
        unsafe {
            // Slopes of a query cancel each other, so they are not rounded.
            let whole = seen(0) == tile.keys;
            let q = tiles.pack_for_sums(self.rows_of(t.q, op.q_row, tile), false, scratch.first.0);
            let dy = tiles.pack_for_sums(self.rows_of(t.dy, op.y_row, tile), whole, scratch.second.0);
            for step in stairs(tile.queries, tile.keys, seen) {
                self.slopes(t, tile, &step, factors, scratch);
                let add = |x: Factor, weights: Floats, sums: usize, key: usize, keys: usize, queries: Range<usize>| {
                    let at = weights.at(queries.start * KEYS + key);
                    let weights = Weights { at, rows: keys, by_steps: true };
                    tiles.add(weights, x, queries, scratch.sums.at((sums + key) * op.head), scratch.own.0);
                };
                add(q, scratch.slopes, dk, 0, step.common, step.rows.clone());
                add(dy, scratch.scores, dv, 0, step.common, step.rows.clone());
                for r in step.rows.filter(|&r| seen(r) > step.common) {
                    add(q, scratch.slopes, dk, step.common, seen(r) - step.common, r..r + 1);
                    add(dy, scratch.scores, dv, step.common, seen(r) - step.common, r..r + 1);
                }
            }
        }
    }

    /// A tile's rows of q or dy.
    fn rows_of(&self, x: Read, row: usize, tile: &Tile) -> Rows {
        let at = x.at(tile.query * row + tile.head * self.op.head, self.op.dtype.bytes());
        Rows { at, row, count: tile.queries }
    }

    /// The keys and values of a tile and one of their heads, for scores and slopes.
    ///
    /// # Safety
    /// The tile is inside the operation's tensors, the scratch is this thread's own.
    unsafe fn pack(&self, t: &Tensors, tile: &Tile, kv: usize, scratch: Scratch) -> Factors {
        let op = &self.op;
        let (key, first) = (tile.span.key + tile.key, kv * op.head);
        let rows = |x: Read, row: usize| Rows { at: x.at(key * row + first, op.dtype.bytes()), row, count: tile.keys };
        // SAFETY: the caller's contract.
        unsafe {
            let k = self.tiles().pack_for_scores(rows(t.k, op.k_row), scratch.k.0);
            [k, self.tiles().pack_for_scores(rows(t.v, op.v_row), scratch.v.0)]
        }
    }

    /// The probabilities and slopes of some of a tile's rows.
    ///
    /// # Safety
    /// That of [`Backward::pack`], which made the factors.
    unsafe fn slopes(&self, t: &Tensors, tile: &Tile, step: &Step, [k, v]: Factors, scratch: Scratch) {
        let (op, tiles) = (&self.op, self.tiles());
        let rows_of = |x: Read, row: usize| self.rows_of(x, row, tile).some(step.rows.clone(), op.dtype.bytes());
        let (scores, slopes) = (|r: usize| scratch.scores.at(r * KEYS), |r: usize| scratch.slopes.at(r * KEYS));
        // SAFETY: the caller's contract.
        unsafe {
            let (first, own) = (step.rows.start, scratch.own.0);
            tiles.scores(rows_of(t.q, op.q_row), k, step.most, scores(first), own);
            tiles.scores(rows_of(t.dy, op.y_row), v, step.most, slopes(first), own);
            for r in step.rows.clone() {
                let at = (tile.query + r) * op.heads + tile.head;
                (self.kernels.softmax_slopes)(&SoftmaxSlopesArgs {
                    n: tile.seen(op, r),
                    lse: t.lse.at(at, 4).cast::<f32>().read(),
                    row: t.rows.at(at).read(),
                    scale: op.scale.get(),
                    scores: scores(r),
                    slopes: slopes(r),
                });
            }
        }
    }

    /// Writes dy · y of a query and head.
    ///
    /// # Safety
    /// They are the operation's.
    unsafe fn dy_y(&self, t: &Tensors, query: usize, head: usize) {
        let op = &self.op;
        let at = query * op.y_row + head * op.head;
        let args = DotArgs {
            rows: 1,
            rank: 1,
            k: op.head,
            alpha: 1.0,
            x: t.dy.at(at, op.dtype.bytes()),
            x_row: 0,
            x_dtype: op.dtype,
            a: t.y.at(at, op.dtype.bytes()),
            a_row: 0,
            a_dtype: op.dtype,
            h: t.rows.at(query * op.heads + head),
            h_row: 0,
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
