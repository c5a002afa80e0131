//! RMSNorm and its backward: a task is a range of rows.

use super::{Call, Floats, Program, split, threads_that_pay};
use crate::kernels::{AddArgs, Kernels, NarrowArgs, RmsNormArgs, RmsNormBackwardArgs};
use candlewick_core::RmsNorm;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.15e-9;

pub(super) struct Forward {
    op: RmsNorm,
    kernels: &'static Kernels,
    threads: usize,
}

pub(super) struct Backward {
    op: RmsNorm,
    kernels: &'static Kernels,
    threads: usize,
}

impl Forward {
    pub(super) fn new(op: RmsNorm, kernels: &'static Kernels, threads: usize) -> Self {
        let seconds = op.rows as f64 * op.cols as f64 * SECONDS_PER_ELEMENT;
        Forward { op, kernels, threads: threads_that_pay(seconds, threads) }
    }
}

impl Backward {
    pub(super) fn new(op: RmsNorm, kernels: &'static Kernels, threads: usize) -> Self {
        let seconds = 2.0 * op.rows as f64 * op.cols as f64 * SECONDS_PER_ELEMENT;
        Backward { op, kernels, threads: threads_that_pay(seconds, threads.min(op.rows.max(1))) }
    }
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        if op.rows == 0 || op.cols == 0 {
            return;
        }
        let (x, weight, y) = (call.input(0), call.input(1), call.output(0));
        // More tasks than threads where rows are many, so that a thread that was held up does not hold up the others.
        let tasks = if self.threads == 1 { 1 } else { op.rows.min(4 * self.threads) };
        let bytes = op.dtype.bytes();
        call.pool.run(tasks, self.threads, &|task, _| {
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                let args = RmsNormArgs {
                    n: op.cols,
                    eps: op.eps.get(),
                    dtype: op.dtype,
                    x: x.at(row * op.x_row, bytes),
                    w: weight.at(0, bytes),
                    y: y.at(row * op.y_row, bytes),
                };
                // SAFETY: the row lies within x and y, and the weight has a row's length.
                unsafe { (self.kernels.rms_norm)(&args) }
            }
        });
    }
}

impl Program for Backward {
    fn threads(&self) -> usize {
        self.threads
    }

    /// dweight in f32, once per task.
    fn workspace(&self) -> usize {
        self.threads * self.op.cols
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let (op, kernels) = (self.op, self.kernels);
        if op.cols == 0 {
            return;
        }
        let (x, weight, dy) = (call.input(0), call.input(1), call.input(2));
        let dx = call.output(0);
        let (bytes, sums) = (op.dtype.bytes(), Floats(call.workspace));
        // As many tasks as threads: each has a sum of its own, and adding them up in order gives the same bits each time.
        let tasks = self.threads;
        call.pool.run(tasks, self.threads, &|task, _| {
            let sum = sums.at(task * op.cols);
            // SAFETY: the workspace has `cols` f32 for this task, and all zero bits are 0.0.
            unsafe { sum.write_bytes(0, op.cols) };
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                let args = RmsNormBackwardArgs {
                    n: op.cols,
                    eps: op.eps.get(),
                    dtype: op.dtype,
                    x: x.at(row * op.x_row, bytes),
                    w: weight.at(0, bytes),
                    dy: dy.at(row * op.y_row, bytes),
                    dx: dx.at(row * op.x_row, bytes),
                    dw: sum,
                };
                // SAFETY: the row lies within x, dy and dx, and the sum is this task's own.
                unsafe { (kernels.rms_norm_backward)(&args) }
            }
        });
        if op.frozen {
            return;
        }
        let dweight = call.output(1);
        for task in 1..tasks {
            let add = AddArgs { n: op.cols, scale: 1.0, src: sums.at(task * op.cols), dst: sums.0 };
            // SAFETY: two different sums of `cols` f32.
            unsafe { (kernels.add)(&add) };
        }
        let narrow = NarrowArgs { n: op.cols, scale: 1.0, src: sums.0, dst: dweight.0, dst_dtype: op.dtype };
        // SAFETY: the first sum and dweight have `cols` elements.
        unsafe { (kernels.narrow)(&narrow) };
    }
}
