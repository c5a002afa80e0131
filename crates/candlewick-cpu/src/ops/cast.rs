//! y = x in another float format: a task is a part of the elements.

use super::parts::Parts;
use super::{Call, Program};
use crate::kernels::{CastArgs, Kernels};
use candlewick_core::Cast;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.1e-9;

pub(super) struct Forward {
    op: Cast,
    kernels: &'static Kernels,
    parts: Parts,
}

impl Forward {
    pub(super) fn new(op: Cast, kernels: &'static Kernels, threads: usize) -> Self {
        Forward { op, kernels, parts: Parts::new(1, op.elements, true, SECONDS_PER_ELEMENT, threads) }
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
        let Cast { from, to, .. } = self.op;
        let (x, y) = (call.input(0), call.output(0));
        self.parts.run(call.pool, &|_, first, n| {
            let (src, dst) = (x.at(first, from.bytes()), y.at(first, to.bytes()));
            // SAFETY: the part lies within x and y.
            unsafe { (self.kernels.cast)(&CastArgs { n, src, src_dtype: from, dst, dst_dtype: to }) }
        });
    }
}
