//! Quantised weights: dequantised, or multiplied with x. Of plain blocks here, of packed ones in `packed.rs`.
//!
//! One row of x is multiplied with blocks as they are decoded, in registers: a decode step reads W once and nothing else
//! to speak of. More rows are worth decoding a few rows of W into the innermost cache, where all of x passes by them.

mod packed;

use super::{Call, Floats, Program, split, threads_that_pay};
use crate::kernels::{AddArgs, DequantizeArgs, DotArgs, Kernels, NarrowArgs, QuantDotArgs, WidenArgs};
use candlewick_core::op::Format;
use candlewick_core::{DType, Dequantize, QuantLinear};

/// One thread's seconds per number of W, roughly: it decides about threads only.
const SECONDS_PER_NUMBER: f64 = 0.08e-9;
/// One thread's seconds per multiplication, roughly.
const SECONDS_PER_PRODUCT: f64 = 0.02e-9;
/// Rows of W that are decoded at once.
const DECODED: usize = 8;
/// Rows of W whose products are gathered before they are written to y.
const GATHERED: usize = 32;

/// The program of a product, by how W lies.
pub(super) fn linear(op: QuantLinear, kernels: &'static Kernels, threads: usize) -> Box<dyn Program> {
    match op.w_format {
        Format::Plain => Box::new(Linear::new(op, kernels, threads)),
        Format::Packed => Box::new(packed::Packed::new(op, kernels, threads)),
    }
}

pub(super) struct Plain {
    op: Dequantize,
    kernels: &'static Kernels,
    threads: usize,
}

struct Linear {
    op: QuantLinear,
    kernels: &'static Kernels,
    threads: usize,
}

impl Plain {
    pub(super) fn new(op: Dequantize, kernels: &'static Kernels, threads: usize) -> Self {
        let seconds = op.rows as f64 * op.cols as f64 * SECONDS_PER_NUMBER;
        Plain { op, kernels, threads: threads_that_pay(seconds, threads) }
    }
}

impl Linear {
    fn new(op: QuantLinear, kernels: &'static Kernels, threads: usize) -> Self {
        let numbers = op.in_features as f64 * op.out_features as f64;
        let seconds = numbers * (SECONDS_PER_NUMBER + SECONDS_PER_PRODUCT * op.rows as f64);
        Linear {
            op,
            kernels,
            threads: threads_that_pay(seconds, threads.min(op.out_features.div_ceil(DECODED).max(1))),
        }
    }

    /// x in f32, where it is not, or where its rows are apart.
    fn widened(&self) -> usize {
        if self.op.dtype == DType::F32 { 0 } else { self.op.rows * self.op.in_features }
    }

    /// Each thread's decoded rows of W, where there are several rows of x, and the products with them.
    fn scratch(&self) -> usize {
        let decoded = if self.op.rows > 1 { DECODED * self.op.in_features } else { 0 };
        // The last ones are what y held.
        decoded + GATHERED * (self.op.rows + usize::from(self.op.accumulate))
    }
}

impl Program for Plain {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        0
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let Dequantize { rows, cols, format, dtype } = self.op;
        let (w, y) = (call.input(0), call.output(0));
        // Rows follow each other without a gap, in both.
        let count = rows * (cols / format.block());
        let tasks = if self.threads == 1 { 1 } else { count.min(4 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, _| {
            let (first, count) = split(count, tasks, task);
            let (blocks, y) = (w.at(first, format.bytes()), y.at(first * format.block(), dtype.bytes()));
            // SAFETY: the blocks and their numbers lie within the operands.
            unsafe { (self.kernels.dequantize)(&DequantizeArgs { count, format, blocks, dtype, y }) }
        });
    }
}

impl Program for Linear {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        self.widened() + self.threads * self.scratch()
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let (op, kernels) = (self.op, self.kernels);
        if op.rows == 0 || op.out_features == 0 {
            return;
        }
        let (x, w, y) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        let (workspace, scratch) = (Floats(call.workspace), Floats(call.workspace.wrapping_add(self.widened())));
        let wide = if op.dtype == DType::F32 {
            Row { first: Floats(x.0.cast::<f32>().cast_mut()), row: op.x_row }
        } else {
            for row in 0..op.rows {
                let (src, dst) = (x.at(row * op.x_row, bytes), workspace.at(row * op.in_features));
                // SAFETY: the row lies within x, and the workspace has room for it.
                unsafe { (kernels.widen)(&WidenArgs { n: op.in_features, src, src_dtype: op.dtype, dst }) };
            }
            Row { first: workspace, row: op.in_features }
        };
        // Whole cache lines of y, and more tasks than threads.
        let groups = op.out_features.div_ceil(GATHERED);
        let tasks = if self.threads == 1 { 1 } else { groups.min(8 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, thread| {
            let own = scratch.at(thread * self.scratch());
            let products = own.wrapping_add(if op.rows > 1 { DECODED * op.in_features } else { 0 });
            let (first, count) = split(groups, tasks, task);
            for group in first..first + count {
                let first = group * GATHERED;
                let n = GATHERED.min(op.out_features - first);
                // SAFETY: the rows of W from `first` on are there; `own` is this thread's, as large as `scratch` says.
                unsafe {
                    if op.rows == 1 {
                        (kernels.quant_dot)(&QuantDotArgs {
                            rows: n,
                            count: op.in_features / op.format.block(),
                            format: op.format,
                            x: wide.first.0,
                            w: w.at(first, op.format.row_bytes(op.in_features)),
                            y: products,
                        });
                    } else {
                        self.several(wide, w.at(first, op.format.row_bytes(op.in_features)), n, own, products);
                    }
                    for row in 0..op.rows {
                        let (src, dst) = (products.add(row * GATHERED), y.at(row * op.y_row + first, bytes));
                        if op.accumulate {
                            let before = own.add(self.scratch() - GATHERED);
                            (kernels.widen)(&WidenArgs { n, src: dst, src_dtype: op.dtype, dst: before });
                            (kernels.add)(&AddArgs { n, scale: 1.0, src: before, dst: src });
                        }
                        (kernels.narrow)(&NarrowArgs { n, scale: 1.0, src, dst, dst_dtype: op.dtype });
                    }
                }
            }
        });
    }
}

/// Rows of f32.
#[derive(Clone, Copy)]
struct Row {
    first: Floats,
    row: usize,
}

impl Linear {
    /// The products of all rows of x with `n` rows of W, decoded a few at a time.
    ///
    /// # Safety
    /// x and `n` rows of blocks at `w` are valid, `decoded` and `products` are this thread's own.
    unsafe fn several(&self, x: Row, w: *const u8, n: usize, decoded: *mut f32, products: *mut f32) {
        let QuantLinear { rows, in_features: k, format, .. } = self.op;
        for first in (0..n).step_by(DECODED) {
            let rank = DECODED.min(n - first);
            // SAFETY: the caller's contract.
            unsafe {
                (self.kernels.dequantize)(&DequantizeArgs {
                    count: rank * (k / format.block()),
                    format,
                    blocks: w.add(first * format.row_bytes(k)),
                    dtype: DType::F32,
                    y: decoded.cast(),
                });
                (self.kernels.dot)(&DotArgs {
                    rows,
                    rank,
                    k,
                    alpha: 1.0,
                    x: x.first.0.cast_const().cast(),
                    x_row: x.row,
                    x_dtype: DType::F32,
                    a: decoded.cast_const().cast(),
                    a_row: k,
                    a_dtype: DType::F32,
                    h: products.add(first),
                    h_row: GATHERED,
                });
            }
        }
    }
}
