//! Rotary position embedding and its backward: a task is a range of rows.

use super::embedding::index;
use super::{Call, Floats, Program, split, threads_that_pay};
use crate::kernels::{Kernels, RopeArgs, RopeTableArgs};
use candlewick_core::Rope;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.2e-9;

pub(super) struct Turn {
    op: Rope,
    kernels: &'static Kernels,
    threads: usize,
    /// 1 forward, -1 backward.
    direction: f32,
    /// Elements between the rows that are read, and those that are written.
    rows: [usize; 2],
}

impl Turn {
    pub(super) fn forward(op: Rope, kernels: &'static Kernels, threads: usize) -> Self {
        let elements = op.rows as f64 * op.heads as f64 * op.head as f64;
        let threads = threads_that_pay(elements * SECONDS_PER_ELEMENT, threads.min(op.rows.max(1)));
        Turn { op, kernels, threads, direction: 1.0, rows: [op.x_row, op.y_row] }
    }

    pub(super) fn backward(op: Rope, kernels: &'static Kernels, threads: usize) -> Self {
        Turn { direction: -1.0, rows: [op.y_row, op.x_row], ..Turn::forward(op, kernels, threads) }
    }
}

impl Program for Turn {
    fn threads(&self) -> usize {
        self.threads
    }

    /// A row's cosines and sines, which all heads share, and room for a head, for each thread.
    fn workspace(&self) -> usize {
        self.threads * 2 * self.op.rotary
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let (op, kernels) = (self.op, self.kernels);
        if op.heads == 0 || op.head == 0 {
            return;
        }
        let (x, positions, frequencies, y) = (call.input(0), call.input(1), call.input(2), call.output(0));
        let (bytes, pairs, scratch) = (op.dtype.bytes(), op.rotary / 2, Floats(call.workspace));
        let [x_row, y_row] = self.rows;
        let tasks = if self.threads == 1 { 1 } else { op.rows.min(4 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, thread| {
            let cos = scratch.at(thread * 2 * op.rotary);
            let (sin, head) = (cos.wrapping_add(pairs), cos.wrapping_add(op.rotary));
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                // SAFETY: each row has a position; the tables and the scratch are this thread's own; the row lies
                // within x and y.
                unsafe {
                    (kernels.rope_table)(&RopeTableArgs {
                        n: pairs,
                        position: index(positions, row) as u32,
                        direction: self.direction,
                        frequencies: frequencies.at(0, 4).cast(),
                        cos,
                        sin,
                    });
                    (kernels.rope)(&RopeArgs {
                        heads: op.heads,
                        head: op.head,
                        rotary: op.rotary,
                        pairs: op.pairs,
                        dtype: op.dtype,
                        x: x.at(row * x_row, bytes),
                        cos,
                        sin,
                        y: y.at(row * y_row, bytes),
                        scratch: head,
                    });
                }
            }
        });
    }
}
