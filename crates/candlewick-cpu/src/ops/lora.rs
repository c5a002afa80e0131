//! The LoRA layer and its delta, forward and backward.
//!
//! Forward: h = scale x Aᵀ first, which is small, then y as one product whose sum is longer by the rank:
//! [x | h] [W ; B]ᵀ, so the delta costs no pass over y.
//! Backward: Bᵀ and h, then dh = scale dy B, then dx, da and db as tasks of one job.

use super::matmul::{pack, packing};
use super::product::{Cut, Operands, Order, Product, Shape};
use super::{Call, Floats, PRODUCT_RATE, Program, Read, split, threads_that_pay};
use crate::Input;
use crate::kernels::{DotArgs, Kernels, Panels, ProductArgs, Segment, TransposeArgs};
use crate::pool::Pool;
use candlewick_core::backend::Packing;
use candlewick_core::op::{Format, PackedFactor};
use candlewick_core::{DType, LoraDelta, LoraLinear};

/// What the layer and the delta have in common.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    ins: usize,
    outs: usize,
    rank: usize,
    scale: f32,
    x_row: usize,
    y_row: usize,
    dtype: DType,
}

/// The base product of the layer; the delta has none.
#[derive(Clone, Copy)]
struct Base {
    format: Format,
    bias: bool,
}

pub(super) struct Forward {
    sizes: Sizes,
    base: Option<Base>,
    kernels: &'static Kernels,
    threads: usize,
    /// For h.
    down: Rows,
    product: Product,
}

pub(super) struct Backward {
    sizes: Sizes,
    base: Option<Base>,
    kernels: &'static Kernels,
    threads: usize,
    down: Rows,
    dx: Product,
    /// Columns per task of da and of db.
    columns: usize,
}

/// A skinny product [rows, k] x [rank, k]ᵀ, cut by rows, or by the rank where rows are few.
#[derive(Clone, Copy)]
struct Rows {
    threads: usize,
    by_rank: bool,
}

impl Rows {
    fn new(rows: usize, k: usize, rank: usize, threads: usize) -> Self {
        let seconds = 2.0 * rows as f64 * k as f64 * rank as f64 / PRODUCT_RATE;
        let threads = threads_that_pay(seconds, threads);
        Rows { threads, by_rank: rows < 2 * threads }
    }

    /// Part `task` of `dot`, of as many as there are threads.
    ///
    /// # Safety
    /// That of the whole.
    unsafe fn run(self, kernels: &Kernels, task: usize, dot: &DotArgs) {
        let (x_bytes, a_bytes) = (dot.x_dtype.bytes(), dot.a_dtype.bytes());
        // SAFETY: the part lies within the whole.
        unsafe {
            let part = if self.by_rank {
                let (first, rank) = split(dot.rank, self.threads, task);
                DotArgs { rank, a: dot.a.add(first * dot.a_row * a_bytes), h: dot.h.add(first), ..*dot }
            } else {
                let (first, rows) = split(dot.rows, self.threads, task);
                DotArgs { rows, x: dot.x.add(first * dot.x_row * x_bytes), h: dot.h.add(first * dot.h_row), ..*dot }
            };
            (kernels.dot)(&part);
        }
    }
}

/// A dot's pointers may go to other threads: they read what nobody writes, and write parts of their own.
struct Shared<T>(T);
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl Sizes {
    fn of_linear(op: &LoraLinear) -> Self {
        let LoraLinear { rows, in_features: ins, out_features: outs, rank, x_row, y_row, dtype, .. } = *op;
        Sizes { rows, ins, outs, rank, scale: op.scale.get(), x_row, y_row, dtype }
    }

    fn of_delta(op: &LoraDelta) -> Self {
        let LoraDelta { rows, in_features: ins, out_features: outs, rank, x_row, y_row, dtype, .. } = *op;
        Sizes { rows, ins, outs, rank, scale: op.scale.get(), x_row, y_row, dtype }
    }

    /// h = scale x Aᵀ.
    fn down(&self, x: Read, a: Read, h: Floats) -> DotArgs {
        DotArgs {
            rows: self.rows,
            rank: self.rank,
            k: self.ins,
            alpha: self.scale,
            x: x.0,
            x_row: self.x_row,
            x_dtype: self.dtype,
            a: a.0,
            a_row: self.ins,
            a_dtype: self.dtype,
            h: h.0,
            h_row: self.rank,
        }
    }
}

impl Forward {
    pub(super) fn linear(op: LoraLinear, kernels: &'static Kernels, threads: usize) -> Self {
        let base = Base { format: op.w_format, bias: op.bias };
        Self::new(Sizes::of_linear(&op), Some(base), op.accumulate, kernels, threads)
    }

    pub(super) fn delta(op: LoraDelta, kernels: &'static Kernels, threads: usize) -> Self {
        Self::new(Sizes::of_delta(&op), None, op.accumulate, kernels, threads)
    }

    fn new(sizes: Sizes, base: Option<Base>, accumulate: bool, kernels: &'static Kernels, threads: usize) -> Self {
        let shape = Shape {
            rows: sizes.rows,
            cols: sizes.outs,
            k: if base.is_some() { sizes.ins } else { 0 },
            a: Order::Rows { row: sizes.x_row },
            b: match base {
                Some(Base { format: Format::Packed, .. }) => Order::Packed,
                _ => Order::Columns { column: sizes.ins },
            },
            extension: Some((sizes.rank, Order::Columns { column: sizes.rank })),
            bias: base.is_some_and(|base| base.bias),
            c_row: sizes.y_row,
            dtype: sizes.dtype,
            alpha: 1.0,
            beta: if accumulate { 1.0 } else { 0.0 },
            summed: 1,
        };
        let threads = Product::threads(&shape, threads);
        let down = Rows::new(sizes.rows, sizes.ins, sizes.rank, threads);
        let cut = if base.is_some() { Cut::Columns } else { Cut::Rows };
        Forward { sizes, base, kernels, threads, down, product: Product::new(shape, cut, kernels, threads) }
    }
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        self.sizes.rows * self.sizes.rank + self.threads * self.product.scratch()
    }

    fn packing(&self) -> Option<Packing> {
        let base = self.base.filter(|base| base.format == Format::Packed);
        base.map(|_| packing(self.sizes.ins, self.sizes.outs, true, self.sizes.dtype, self.kernels))
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let Sizes { rows, outs, rank, .. } = self.sizes;
        let x = call.input(0);
        let count = call.inputs.len();
        let (a, b) = (call.input(count - 2), call.input(count - 1));
        let w = if self.base.is_some() { call.input(1) } else { Read(std::ptr::null()) };
        let bias = if self.base.is_some_and(|base| base.bias) { call.input(2).0 } else { std::ptr::null() };
        let (y, h) = (call.output(0), Floats(call.workspace));
        if rows == 0 || outs == 0 {
            return;
        }
        let operands = Operands { a: x, b: w, h: h.0, e: b, bias, c: y };
        let (scratch, per_thread) = (Floats(h.at(rows * rank)), self.product.scratch());
        let dot = Shared(self.sizes.down(x, a, h));
        if self.base.is_none() {
            // A task makes the rows of h that it then reads: one job, and h does not move between cores.
            let row_tasks = self.product.row_tasks();
            let per_row_task = self.product.tasks() / row_tasks;
            call.pool.run(row_tasks, self.threads, &|task, thread| {
                let Shared(dot) = &dot;
                // SAFETY: the operands have the sizes of the operation; the scratch is this thread's own.
                unsafe {
                    Rows { threads: row_tasks, by_rank: false }.run(self.kernels, task, dot);
                    for part in task * per_row_task..(task + 1) * per_row_task {
                        self.product.run(part, std::iter::once(operands), scratch.at(thread * per_thread));
                    }
                }
            });
            return;
        }
        let down = self.down;
        call.pool.run(down.threads, down.threads, &|task, _| {
            let Shared(dot) = &dot;
            // SAFETY: x, A and the workspace's h have the sizes of the operation.
            unsafe { down.run(self.kernels, task, dot) };
        });
        call.pool.run(self.product.tasks(), self.threads, &|task, thread| {
            // SAFETY: the operands have the sizes of the operation; the scratch is this thread's own.
            unsafe { self.product.run(task, std::iter::once(operands), scratch.at(thread * per_thread)) };
        });
    }

    unsafe fn pack(&self, factor: &PackedFactor, plain: Input<'_>, packed: *mut u8, pool: &Pool) {
        // SAFETY: the caller's promise.
        unsafe { pack(factor, self.sizes.dtype, self.kernels, plain, packed, pool) };
    }
}

impl Backward {
    pub(super) fn linear(op: LoraLinear, kernels: &'static Kernels, threads: usize) -> Self {
        Self::new(Sizes::of_linear(&op), Some(Base { format: op.w_format, bias: op.bias }), kernels, threads)
    }

    pub(super) fn delta(op: LoraDelta, kernels: &'static Kernels, threads: usize) -> Self {
        Self::new(Sizes::of_delta(&op), None, kernels, threads)
    }

    fn new(sizes: Sizes, base: Option<Base>, kernels: &'static Kernels, threads: usize) -> Self {
        let shape = Shape {
            rows: sizes.rows,
            cols: sizes.ins,
            k: if base.is_some() { sizes.outs } else { 0 },
            a: Order::Rows { row: sizes.y_row },
            b: match base {
                Some(Base { format: Format::Packed, .. }) => Order::Packed,
                _ => Order::Rows { row: sizes.ins },
            },
            extension: Some((sizes.rank, Order::Rows { row: sizes.ins })),
            bias: false,
            c_row: sizes.x_row,
            dtype: sizes.dtype,
            alpha: 1.0,
            beta: 0.0,
            summed: 1,
        };
        // da and db together do as much work again as dx's extension.
        let whole = Shape { k: shape.k + 2 * sizes.rank, ..shape };
        let threads = Product::threads(&whole, threads);
        let down = Rows::new(sizes.rows, sizes.ins.min(sizes.outs), sizes.rank, threads);
        let columns =
            sizes.ins.max(sizes.outs).div_ceil(2 * threads).next_multiple_of(kernels.panel).max(kernels.panel);
        Backward {
            sizes,
            base,
            kernels,
            threads,
            down,
            dx: Product::new(shape, Cut::Columns, kernels, threads),
            columns,
        }
    }

    /// Bᵀ [rank, out], h [rows, rank], dh [rows, rank] in f32, then a part per thread.
    fn shared(&self) -> usize {
        self.sizes.rank * self.sizes.outs + 2 * self.sizes.rows * self.sizes.rank
    }

    fn per_thread(&self) -> usize {
        self.dx.scratch().max(self.sizes.rank * self.columns)
    }

    /// `left`ᵀ x `right` for a range of columns, [rank, cols] from [rows, rank] and [rows, cols].
    fn outer(&self, left: *const f32, right: *const u8, right_row: usize, cols: usize, c: Output) -> ProductCall {
        let Sizes { rows, rank, dtype, .. } = self.sizes;
        let b = Panels { ptr: right, dtype, row: right_row, panel: self.kernels.panel, padded: false };
        ProductCall { segment: Segment { a: left, a_row: 1, a_col: rank, b, k: rows }, rows: rank, cols, c }
    }
}

/// The task that is `index`th in an order that gives each thread its share of every kind, one kind after the other: the
/// pool deals tasks out in ranges, and tasks of different kinds take different times.
fn deal(kinds: [usize; 3], threads: usize, index: usize) -> usize {
    if kinds.iter().any(|count| !count.is_multiple_of(threads)) {
        return index;
    }
    let shares = kinds.map(|count| count / threads);
    let (thread, mut rest) = (index / shares.iter().sum::<usize>(), index % shares.iter().sum::<usize>());
    let mut start = 0;
    for (count, share) in kinds.into_iter().zip(shares) {
        if rest < share {
            return start + thread * share + rest;
        }
        rest -= share;
        start += count;
    }
    unreachable!("the index is below the sum of the shares")
}

/// Where a small product goes.
#[derive(Clone, Copy)]
struct Output {
    pointer: *mut u8,
    row: usize,
    dtype: DType,
}

struct ProductCall {
    segment: Segment,
    rows: usize,
    cols: usize,
    c: Output,
}

impl ProductCall {
    /// # Safety
    /// The pointers have the sizes.
    unsafe fn run(&self, kernels: &Kernels) {
        let args = ProductArgs {
            rows: self.rows,
            cols: self.cols,
            segments: std::slice::from_ref(&self.segment),
            alpha: 1.0,
            beta: 0.0,
            bias: std::ptr::null(),
            c: self.c.pointer,
            c_row: self.c.row,
            c_dtype: self.c.dtype,
        };
        // SAFETY: the caller's promise.
        unsafe { (kernels.product)(&args) };
    }
}

impl Program for Backward {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        self.shared() + self.threads * self.per_thread()
    }

    fn packing(&self) -> Option<Packing> {
        let base = self.base.filter(|base| base.format == Format::Packed);
        base.map(|_| packing(self.sizes.outs, self.sizes.ins, false, self.sizes.dtype, self.kernels))
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let Sizes { rows, ins, outs, rank, scale, x_row, y_row, dtype } = self.sizes;
        let (bytes, kernels) = (dtype.bytes(), self.kernels);
        let count = call.inputs.len();
        let (x, a, b, dy) = (call.input(0), call.input(count - 3), call.input(count - 2), call.input(count - 1));
        let w = if self.base.is_some() { call.input(1) } else { Read(std::ptr::null()) };
        let (dx, da, db) = (call.output(0), call.output(1), call.output(2));
        let bt = Floats(call.workspace);
        let h = Floats(bt.at(rank * outs));
        let dh = Floats(h.at(rows * rank));
        let scratch = Floats(dh.at(rows * rank));

        let down = self.down;
        let dot_h = Shared(self.sizes.down(x, a, h));
        call.pool.run(2 * down.threads, down.threads, &|task, _| {
            let Shared(dot_h) = &dot_h;
            if task < down.threads {
                // SAFETY: x, A and the workspace's h have the sizes of the operation.
                return unsafe { down.run(kernels, task, dot_h) };
            }
            let (first, cols) = split(outs, down.threads, task - down.threads);
            let args = TransposeArgs {
                rows: cols,
                cols: rank,
                scale: 1.0,
                src: b.at(first * rank, bytes),
                src_dtype: dtype,
                src_row: rank,
                dst: bt.at(first).cast(),
                dst_dtype: DType::F32,
                dst_row: outs,
            };
            // SAFETY: B and the workspace's transpose have the sizes of the operation, and tasks differ in columns.
            unsafe { (kernels.transpose)(&args) };
        });

        let dot_dh = Shared(DotArgs {
            rows,
            rank,
            k: outs,
            alpha: scale,
            x: dy.0,
            x_row: y_row,
            x_dtype: dtype,
            a: bt.0.cast(),
            a_row: outs,
            a_dtype: DType::F32,
            h: dh.0,
            h_row: rank,
        });
        call.pool.run(down.threads, down.threads, &|task, _| {
            let Shared(dot_dh) = &dot_dh;
            // SAFETY: dy and the workspace's parts have the sizes of the operation.
            unsafe { down.run(kernels, task, dot_dh) };
        });

        let operands = Operands { a: dy, b: w, h: dh.0, e: a, bias: std::ptr::null(), c: dx };
        let dx_tasks = if rows == 0 || ins == 0 { 0 } else { self.dx.tasks() };
        let (da_tasks, db_tasks) = (ins.div_ceil(self.columns), outs.div_ceil(self.columns));
        let per_thread = self.per_thread();
        let kinds = [dx_tasks, da_tasks, db_tasks];
        call.pool.run(kinds.iter().sum(), self.threads, &|task, thread| {
            let own = scratch.at(thread * per_thread);
            let task = deal(kinds, self.threads, task);
            if task < dx_tasks {
                // SAFETY: the operands have the sizes of the operation; the scratch is this thread's own.
                return unsafe { self.dx.run(task, std::iter::once(operands), own) };
            }
            let task = task - dx_tasks;
            if task < da_tasks {
                let first = task * self.columns;
                let cols = self.columns.min(ins - first);
                let c = Output { pointer: da.at(first, bytes), row: ins, dtype };
                // SAFETY: dh, x and da have the sizes of the operation, and tasks differ in columns.
                return unsafe { self.outer(dh.at(0), x.at(first, bytes), x_row, cols, c).run(kernels) };
            }
            let first = (task - da_tasks) * self.columns;
            let cols = self.columns.min(outs - first);
            let c = Output { pointer: own.cast(), row: cols, dtype: DType::F32 };
            let args = TransposeArgs {
                rows: rank,
                cols,
                scale: 1.0,
                src: own.cast(),
                src_dtype: DType::F32,
                src_row: cols,
                dst: db.at(first * rank, bytes),
                dst_dtype: dtype,
                dst_row: rank,
            };
            // SAFETY: h, dy and db have the sizes of the operation, tasks differ in columns, the scratch is this thread's.
            unsafe {
                self.outer(h.at(0), dy.at(first, bytes), y_row, cols, c).run(kernels);
                (kernels.transpose)(&args);
            }
        });
    }

    unsafe fn pack(&self, factor: &PackedFactor, plain: Input<'_>, packed: *mut u8, pool: &Pool) {
        // SAFETY: the caller's promise.
        unsafe { pack(factor, self.sizes.dtype, self.kernels, plain, packed, pool) };
    }
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn every_task_is_dealt_once_and_every_thread_gets_each_kind() {
        for (kinds, threads) in [([2, 4, 4], 2), ([3, 4, 4], 2), ([0, 4, 8], 4), ([6, 3, 3], 3), ([1, 1, 1], 1)] {
            let count: usize = kinds.iter().sum();
            let mut dealt: Vec<usize> = (0..count).map(|index| deal(kinds, threads, index)).collect();
            dealt.sort_unstable();
            assert!(dealt.into_iter().eq(0..count), "{kinds:?} on {threads}");
        }
        let first_half: Vec<usize> = (0..5).map(|index| deal([2, 4, 4], 2, index)).collect();
        assert_eq!(first_half, [0, 2, 3, 6, 7]);
    }
}
