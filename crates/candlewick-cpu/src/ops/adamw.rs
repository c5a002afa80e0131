//! The optimizer: parts of the parameters, each summed or updated by one task.

use super::parts::Parts;
use super::{Call, Floats, Program, threads_that_pay};
use crate::kernels::{AdamWArgs, Kernels, SumSquaresArgs};
use candlewick_core::{AdamW, SumSquares};

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_SQUARE: f64 = 0.1e-9;
/// The same of a step, which moves 28 bytes.
const SECONDS_PER_STEP: f64 = 1e-9;
/// Elements whose squares are summed in f32. Fixed, so that the sum does not depend on the number of threads.
const PART: usize = 16384;

pub(super) struct Sum {
    op: SumSquares,
    kernels: &'static Kernels,
    threads: usize,
}

pub(super) struct Step {
    op: AdamW,
    kernels: &'static Kernels,
    parts: Parts,
}

impl Sum {
    pub(super) fn new(op: SumSquares, kernels: &'static Kernels, threads: usize) -> Self {
        let threads = threads_that_pay(op.elements as f64 * SECONDS_PER_SQUARE, threads);
        Sum { op, kernels, threads }
    }
}

impl Step {
    pub(super) fn new(op: AdamW, kernels: &'static Kernels, threads: usize) -> Self {
        Step { op, kernels, parts: Parts::new(1, op.elements, true, SECONDS_PER_STEP, threads) }
    }
}

impl Program for Sum {
    fn threads(&self) -> usize {
        self.threads
    }

    /// A sum for each part.
    fn workspace(&self) -> usize {
        self.op.elements.div_ceil(PART)
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        let (x, total, sums) = (call.input(0), call.output(0).at(0, 4).cast::<f32>(), Floats(call.workspace));
        let parts = op.elements.div_ceil(PART);
        call.pool.run(parts, self.threads, &|part, _| {
            let n = PART.min(op.elements - part * PART);
            let (x, sum) = (x.at(part * PART, op.dtype.bytes()), sums.at(part));
            // SAFETY: the part lies within x, and has a number of the workspace to itself.
            unsafe { (self.kernels.sum_squares)(&SumSquaresArgs { n, dtype: op.dtype, x, sum }) }
        });
        // SAFETY: every part's sum was written, and the total is one number.
        unsafe {
            let before = if op.accumulate { f64::from(total.read()) } else { 0.0 };
            let sum = (0..parts).fold(before, |sum, part| sum + f64::from(sums.at(part).read()));
            total.write(sum as f32);
        }
    }
}

impl Program for Step {
    fn threads(&self) -> usize {
        self.parts.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        let (grad, sum, schedule) = (call.input(0), call.input(1), call.input(2));
        let (master, m, v, param) = (call.output(0), call.output(1), call.output(2), call.output(3));
        // SAFETY: one number, and two.
        let (sum, [rate, step]) = unsafe { (sum.0.cast::<f32>().read(), schedule.0.cast::<[f32; 2]>().read()) };
        let (sum, rate, step) = (f64::from(sum), f64::from(rate), f64::from(step));
        let (beta1, beta2) = (f64::from(op.beta1.get()), f64::from(op.beta2.get()));
        let share = f64::from(op.max_norm.get()) / (sum.sqrt() + 1e-6);
        // Not `min`, which would lose a NaN.
        let clip = if op.max_norm.get() == 0.0 || share > 1.0 { 1.0 } else { share };
        let bytes = op.dtype.bytes();
        self.parts.run(call.pool, &|_, first, n| {
            let args = AdamWArgs {
                n,
                dtype: op.dtype,
                clip: clip as f32,
                beta1: beta1 as f32,
                blend: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                gain: (1.0 - beta2) as f32,
                keep: (1.0 - rate * f64::from(op.weight_decay.get())) as f32,
                rate: (rate / (1.0 - beta1.powf(step))) as f32,
                root: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
                eps: op.eps.get(),
                grad: grad.at(first, bytes),
                master: master.at(first, 4).cast(),
                m: m.at(first, 4).cast(),
                v: v.at(first, 4).cast(),
                param: param.at(first, bytes),
            };
            // SAFETY: the part lies within every operand.
            unsafe { (self.kernels.adamw)(&args) }
        });
    }
}
