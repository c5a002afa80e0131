//! y = a + b: a task is a part of the elements.

use super::parts::Parts;
use super::{Call, Program};
use crate::kernels::{Kernels, SumArgs};
use candlewick_core::Add;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.15e-9;

pub(super) struct Forward {
    op: Add,
    kernels: &'static Kernels,
    parts: Parts,
}

impl Forward {
    pub(super) fn new(op: Add, kernels: &'static Kernels, threads: usize) -> Self {
        let contiguous = [op.a_row, op.b_row, op.y_row] == [op.cols; 3];
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
        let (a, b, y) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        self.parts.run(call.pool, &|row, column, n| {
            let args = SumArgs {
                n,
                dtype: op.dtype,
                a: a.at(row * op.a_row + column, bytes),
                b: b.at(row * op.b_row + column, bytes),
                y: y.at(row * op.y_row + column, bytes),
            };
            // SAFETY: the part lies within a row of each.
            unsafe { (self.kernels.sum)(&args) }
        });
    }
}
