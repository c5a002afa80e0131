//! Cross-entropy over chunks: a task is a range of rows, and the loss is one thread's.

use super::embedding::index;
use super::{Call, Program, split, threads_that_pay};
use crate::kernels::{CrossEntropyGradArgs, CrossEntropyStatsArgs, Kernels};
use candlewick_core::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, DType};
use half::{bf16, f16};

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.3e-9;

pub(super) struct Stats {
    op: CrossEntropyStats,
    kernels: &'static Kernels,
    threads: usize,
}

pub(super) struct Loss(pub CrossEntropyLoss);

pub(super) struct Grad {
    op: CrossEntropyGrad,
    kernels: &'static Kernels,
    threads: usize,
}

/// Threads for `rows` of `cols`.
fn threads(rows: usize, cols: usize, threads: usize) -> usize {
    threads_that_pay(rows as f64 * cols as f64 * SECONDS_PER_ELEMENT, threads.min(rows.max(1)))
}

impl Stats {
    pub(super) fn new(op: CrossEntropyStats, kernels: &'static Kernels, at_most: usize) -> Self {
        Stats { op, kernels, threads: threads(op.rows, op.cols, at_most) }
    }
}

impl Grad {
    pub(super) fn new(op: CrossEntropyGrad, kernels: &'static Kernels, at_most: usize) -> Self {
        Grad { op, kernels, threads: threads(op.rows, op.cols, at_most) }
    }
}

impl Program for Stats {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.op;
        let (logits, labels, stats) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        let tasks = if self.threads == 1 { 1 } else { op.rows.min(4 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, _| {
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                let stats = stats.at(3 * row, 4).cast::<f32>();
                let at = |column: usize| logits.at(row * op.logits_row + column, bytes);
                // SAFETY: three numbers and a label for each row, `cols` logits in it.
                unsafe {
                    if op.begin {
                        stats.cast::<[f32; 3]>().write([f32::NEG_INFINITY, 0.0, 0.0]);
                    }
                    let args = CrossEntropyStatsArgs { n: op.cols, dtype: op.dtype, logits: at(0), stats };
                    (self.kernels.cross_entropy_stats)(&args);
                    let column = index(labels, row).checked_sub(op.first);
                    if let Some(column) = column.filter(|&column| column < op.cols) {
                        stats.add(2).write(number(op.dtype, at(column)));
                    }
                }
            }
        });
    }
}

/// # Safety
/// There is a number of that format at `p`.
unsafe fn number(dtype: DType, p: *const u8) -> f32 {
    // SAFETY: the caller's contract.
    unsafe {
        match dtype {
            DType::F32 => p.cast::<f32>().read(),
            DType::F16 => p.cast::<f16>().read().to_f32(),
            DType::BF16 => p.cast::<bf16>().read().to_f32(),
            DType::U32 | DType::U8 => unreachable!("descriptors of operations refuse to compute in integers"),
        }
    }
}

impl Program for Loss {
    fn threads(&self) -> usize {
        1
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let op = self.0;
        let (stats, labels, loss) = (call.input(0), call.input(1), call.output(0));
        let (mut sum, mut count) = (0.0f64, 0usize);
        for row in 0..op.rows {
            // SAFETY: three numbers and a label for each row.
            let (label, [max, total, logit]) =
                unsafe { (index(labels, row), stats.at(3 * row, 4).cast::<[f32; 3]>().read()) };
            if label < op.vocab {
                sum += f64::from(total.ln()) + (f64::from(max) - f64::from(logit));
                count += 1;
            }
        }
        let mean = if count == 0 { 0.0 } else { sum / count as f64 };
        // SAFETY: the loss is two numbers.
        unsafe { loss.at(0, 4).cast::<[f32; 2]>().write([mean as f32, count as f32]) };
    }
}

impl Program for Grad {
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
        let (logits, labels, stats) = (call.input(0), call.input(1), call.input(2));
        let (loss, dloss, dlogits) = (call.input(3), call.input(4), call.output(0));
        // SAFETY: the loss is two numbers, its gradient one.
        let factor = unsafe { dloss.at(0, 4).cast::<f32>().read() / loss.at(1, 4).cast::<f32>().read() };
        let bytes = op.dtype.bytes();
        let tasks = if self.threads == 1 { 1 } else { op.rows.min(4 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, _| {
            let (first, rows) = split(op.rows, tasks, task);
            for row in first..first + rows {
                let to = dlogits.at(row * op.logits_row, bytes);
                // SAFETY: three numbers and a label for each row, `cols` elements in both.
                unsafe {
                    let label = index(labels, row);
                    if label >= op.vocab {
                        to.write_bytes(0, op.cols * bytes);
                        continue;
                    }
                    let [max, sum, _] = stats.at(3 * row, 4).cast::<[f32; 3]>().read();
                    (self.kernels.cross_entropy_grad)(&CrossEntropyGradArgs {
                        n: op.cols,
                        dtype: op.dtype,
                        max,
                        sum,
                        factor,
                        label: label.wrapping_sub(op.first),
                        logits: logits.at(row * op.logits_row, bytes),
                        dlogits: to,
                    });
                }
            }
        });
    }
}
