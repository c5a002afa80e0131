//! Dropout: a task is a part of the elements.

use super::embedding::index;
use super::parts::Parts;
use super::{Call, Program};
use crate::kernels::{DropoutArgs, Kernels};
use candlewick_core::Dropout;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.6e-9;

pub(super) struct Forward {
    op: Dropout,
    kernels: &'static Kernels,
    parts: Parts,
}

impl Forward {
    pub(super) fn new(op: Dropout, kernels: &'static Kernels, threads: usize) -> Self {
        let contiguous = [op.x_row, op.y_row] == [op.cols; 2];
        Forward { op, kernels, parts: Parts::new(op.rows, op.cols, contiguous, SECONDS_PER_ELEMENT, threads) }
    }
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.parts.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        let (x, seed, y) = (call.input(0), call.input(1), call.output(0));
        // SAFETY: the seed has two words.
        let seed = unsafe { [index(seed, 0) as u32, index(seed, 1) as u32] };
        let bytes = op.dtype.bytes();
        self.parts.run(call.pool, &|row, column, n| {
            let first = (row * op.cols + column) as u64;
            let (x, y) = (x.at(row * op.x_row + column, bytes), y.at(row * op.y_row + column, bytes));
            // SAFETY: the part lies within a row of each.
            unsafe { (self.kernels.dropout)(&DropoutArgs { n, op, seed, first, x, y }) }
        });
    }
}
