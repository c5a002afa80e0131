//! y = silu(gate) · up and its gradients: a task is a part of the elements.

use super::parts::Parts;
use super::{Call, Program};
use crate::kernels::{Kernels, SiluMulArgs, SiluMulBackwardArgs};
use candlewick_core::SiluMul;

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.4e-9;

pub(super) struct Forward {
    op: SiluMul,
    kernels: &'static Kernels,
    parts: Parts,
}

pub(super) struct Backward(Forward);

impl Forward {
    pub(super) fn new(op: SiluMul, kernels: &'static Kernels, threads: usize) -> Self {
        let contiguous = [op.gate_row, op.up_row, op.y_row] == [op.cols; 3];
        Forward { op, kernels, parts: Parts::new(op.rows, op.cols, contiguous, SECONDS_PER_ELEMENT, threads) }
    }
}

impl Backward {
    pub(super) fn new(op: SiluMul, kernels: &'static Kernels, threads: usize) -> Self {
        Backward(Forward::new(op, kernels, threads))
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
        let (gate, up, y) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        self.parts.run(call.pool, &|row, column, n| {
            let args = SiluMulArgs {
                n,
                dtype: op.dtype,
                gate: gate.at(row * op.gate_row + column, bytes),
                up: up.at(row * op.up_row + column, bytes),
                y: y.at(row * op.y_row + column, bytes),
            };
            // SAFETY: the part lies within a row of each.
            unsafe { (self.kernels.silu_mul)(&args) }
        });
    }
}

impl Program for Backward {
    fn threads(&self) -> usize {
        self.0.parts.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let Forward { op, kernels, parts } = &self.0;
        let (gate, up, dy) = (call.input(0), call.input(1), call.input(2));
        let (dgate, dup) = (call.output(0), call.output(1));
        let bytes = op.dtype.bytes();
        parts.run(call.pool, &|row, column, n| {
            let args = SiluMulBackwardArgs {
                n,
                dtype: op.dtype,
                gate: gate.at(row * op.gate_row + column, bytes),
                up: up.at(row * op.up_row + column, bytes),
                dy: dy.at(row * op.y_row + column, bytes),
                dgate: dgate.at(row * op.gate_row + column, bytes),
                dup: dup.at(row * op.up_row + column, bytes),
            };
            // SAFETY: the part lies within a row of each.
            unsafe { (kernels.silu_mul_backward)(&args) }
        });
    }
}
