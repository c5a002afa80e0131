//! Rows of elements that do not depend on each other, cut into parts of whole cache lines.

use super::threads_that_pay;
use crate::pool::Workers;

/// Elements of a part at least, and what its length is a multiple of.
const GRAIN: usize = 1024;

/// How `rows` of `cols` elements are cut.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    rows: usize,
    cols: usize,
    tasks: usize,
    pub threads: usize,
}

impl Parts {
    /// `contiguous`: the rows follow each other in every operand, and count as one. `seconds`: what an element takes.
    pub(super) fn new(rows: usize, cols: usize, contiguous: bool, seconds: f64, threads: usize) -> Self {
        let elements = rows.saturating_mul(cols);
        let threads = threads_that_pay(elements as f64 * seconds, threads);
        let (rows, cols) = if contiguous { (1, elements) } else { (rows, cols) };
        // More tasks than threads, so that a thread that was held up does not hold up the others.
        let tasks = if threads == 1 { 1 } else { elements.div_ceil(GRAIN).min(4 * threads) };
        Parts { rows, cols, tasks, threads }
    }

    /// Calls `body(row, column, n)` for pieces of rows, on the pool.
    pub(super) fn run(&self, pool: &dyn Workers, body: &(dyn Fn(usize, usize, usize) + Sync)) {
        let elements = self.rows * self.cols;
        if elements == 0 {
            return;
        }
        let part = elements.div_ceil(self.tasks).next_multiple_of(GRAIN);
        pool.run(self.tasks, self.threads, &|task, _| {
            let (mut at, end) = ((task * part).min(elements), ((task + 1) * part).min(elements));
            while at < end {
                let (row, column) = (at / self.cols, at % self.cols);
                let n = (self.cols - column).min(end - at);
                body(row, column, n);
                at += n;
            }
        });
    }
}
