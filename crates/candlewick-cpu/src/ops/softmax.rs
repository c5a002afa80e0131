//! Softmax and its backward: a task is a range of rows.

use super::{Call, Floats, Program, split, threads_that_pay};
use crate::kernels::{Kernels, SoftmaxArgs, SoftmaxBackwardArgs};
use candlewick_core::Softmax;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.3e-9;

pub(super) struct Forward {
    op: Softmax,
    kernels: &'static Kernels,
    threads: usize,
}

pub(super) struct Backward(Forward);

impl Forward {
    pub(super) fn new(op: Softmax, kernels: &'static Kernels, threads: usize) -> Self {
        let seconds = op.rows as f64 * op.cols as f64 * SECONDS_PER_ELEMENT;
        Forward { op, kernels, threads: threads_that_pay(seconds, threads) }
    }

    /// More tasks than threads where rows are many, so that a thread that was held up does not hold up the others.
    fn tasks(&self) -> usize {
        if self.threads == 1 { 1 } else { self.op.rows.min(4 * self.threads) }
    }
}

impl Backward {
    pub(super) fn new(op: Softmax, kernels: &'static Kernels, threads: usize) -> Self {
        Backward(Forward::new(op, kernels, threads))
    }
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.threads
    }

    /// A row in f32 per thread: exponentials of 16-bit rows are kept at full precision until they are divided.
    fn workspace(&self) -> usize {
        self.threads * self.op.cols
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        if op.rows == 0 || op.cols == 0 {
            return;
        }
        let (x, y, scratch) = (call.input(0), call.output(0), Floats(call.workspace));
        let (bytes, tasks) = (op.dtype.bytes(), self.tasks());
        call.pool.run(tasks, self.threads, &|task, thread| {
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                let args = SoftmaxArgs {
                    n: op.cols,
                    valid: op.valid(row),
                    scale: op.scale.get(),
                    dtype: op.dtype,
                    x: x.at(row * op.x_row, bytes),
                    y: y.at(row * op.y_row, bytes),
                    scratch: scratch.at(thread * op.cols),
                };
                // SAFETY: the row lies within x and y, and the scratch is this thread's own.
                unsafe { (self.kernels.softmax)(&args) }
            }
        });
    }
}

impl Program for Backward {
    fn threads(&self) -> usize {
        self.0.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let Forward { op, kernels, threads } = self.0;
        if op.rows == 0 || op.cols == 0 {
            return;
        }
        let (y, dy, dx) = (call.input(0), call.input(1), call.output(0));
        let (bytes, tasks) = (op.dtype.bytes(), self.0.tasks());
        call.pool.run(tasks, threads, &|task, _| {
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                let args = SoftmaxBackwardArgs {
                    n: op.cols,
                    valid: op.valid(row),
                    scale: op.scale.get(),
                    dtype: op.dtype,
                    y: y.at(row * op.y_row, bytes),
                    dy: dy.at(row * op.y_row, bytes),
                    dx: dx.at(row * op.x_row, bytes),
                };
                // SAFETY: the row lies within y, dy and dx.
                unsafe { (kernels.softmax_backward)(&args) }
            }
        });
    }
}
