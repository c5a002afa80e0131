//! Rows written to slots of a cache: a task is a range of rows.

use super::embedding::index;
use super::{Call, Program, split, threads_that_pay};
use candlewick_core::CopyRows;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.1e-9;

pub(super) struct Forward {
    op: CopyRows,
    threads: usize,
}

impl Forward {
    pub(super) fn new(op: CopyRows, threads: usize) -> Self {
        let seconds = op.rows as f64 * op.width as f64 * SECONDS_PER_ELEMENT;
        Forward { op, threads: threads_that_pay(seconds, threads.min(op.rows.max(1))) }
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
        if op.width == 0 {
            return;
        }
        let (x, slots, cache) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        let tasks = if self.threads == 1 { 1 } else { op.rows.min(4 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, _| {
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                // SAFETY: there is a slot for each row, and a row of the cache for each slot below `capacity`.
                unsafe {
                    let slot = index(slots, row);
                    if slot < op.capacity {
                        let from = x.at(row * op.x_row, bytes);
                        std::ptr::copy_nonoverlapping(from, cache.at(slot * op.width, bytes), op.width * bytes);
                    }
                }
            }
        });
    }
}
