//! The matrix product: a task is a range of one C.

use super::product::{self, Cut, Operands, Order, Product, Shape};
use super::{Call, Floats, Program, Read, split};
use crate::Input;
use crate::kernels::{Kernels, PackArgs};
use crate::pool::Pool;
use candlewick_core::backend::Packing;
use candlewick_core::op::{Format, PackedFactor};
use candlewick_core::{DType, MatMul};

pub(super) struct Forward {
    op: MatMul,
    kernels: &'static Kernels,
    threads: usize,
    product: Product,
    /// Batch dimensions with a C of their own, and those whose products are summed.
    outer: Vec<usize>,
    summed: Vec<usize>,
}

impl Forward {
    pub(super) fn new(op: MatMul, kernels: &'static Kernels, threads: usize) -> Self {
        let (summed, outer): (Vec<usize>, Vec<usize>) =
            (0..3).filter(|&dim| op.batch.dims[dim] != 1).partition(|&dim| op.batch.c[dim] == 0);
        let shape = Shape {
            rows: op.m,
            cols: op.n,
            k: op.k,
            a: if op.trans_a { Order::Columns { column: op.lda } } else { Order::Rows { row: op.lda } },
            b: match op.b_format {
                Format::Packed => Order::Packed,
                Format::Plain if op.trans_b => Order::Columns { column: op.ldb },
                Format::Plain => Order::Rows { row: op.ldb },
            },
            extension: None,
            bias: false,
            c_row: op.ldc,
            dtype: op.dtype,
            alpha: op.alpha.get(),
            beta: op.beta.get(),
            summed: product_of(&op, &summed),
        };
        let batches = product_of(&op, &outer);
        // The work of the whole batch decides how many threads; a batch of many products cuts each into few tasks.
        let whole = Shape { rows: op.m.saturating_mul(op.batch.count()), ..shape };
        let threads = Product::threads(&whole, threads);
        let product = Product::new(shape, Cut::Columns, kernels, threads.div_ceil(batches.max(1)));
        Forward { op, kernels, threads, product, outer, summed }
    }

    /// The product `index` over the dimensions `dims`, as an index over all three.
    fn batch_index(&self, dims: &[usize], index: usize) -> usize {
        let mut rest = index;
        let mut digits = [0; 3];
        for &dim in dims.iter().rev() {
            digits[dim] = rest % self.op.batch.dims[dim];
            rest /= self.op.batch.dims[dim];
        }
        (digits[0] * self.op.batch.dims[1] + digits[1]) * self.op.batch.dims[2] + digits[2]
    }
}

fn product_of(op: &MatMul, dims: &[usize]) -> usize {
    dims.iter().map(|&dim| op.batch.dims[dim]).product()
}

impl Program for Forward {
    fn threads(&self) -> usize {
        self.threads
    }

    fn workspace(&self) -> usize {
        self.threads * self.product.scratch()
    }

    fn packing(&self) -> Option<Packing> {
        (self.op.b_format == Format::Packed)
            .then(|| packing(self.op.k, self.op.n, self.op.trans_b, self.op.dtype, self.kernels))
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let (a, b, c) = (call.input(0), call.input(1), call.output(0));
        let bytes = self.op.dtype.bytes();
        let (scratch, per_thread) = (Floats(call.workspace), self.product.scratch());
        let per_product = self.product.tasks();
        let tasks = product_of(&self.op, &self.outer) * per_product;
        let summed = product_of(&self.op, &self.summed);
        call.pool.run(tasks, self.threads, &|task, thread| {
            let outer = self.batch_index(&self.outer, task / per_product);
            let products = (0..summed).map(|index| {
                let (a0, b0, c0) = self.op.batch.offsets(outer + self.batch_index(&self.summed, index));
                Operands {
                    a: Read(a.at(a0, bytes)),
                    b: Read(b.at(b0, bytes)),
                    h: std::ptr::null(),
                    e: Read(std::ptr::null()),
                    bias: std::ptr::null(),
                    c: super::Write(c.at(c0, bytes)),
                }
            });
            // SAFETY: the offsets lie within the spans that the signature checked; the scratch is this thread's own.
            unsafe { self.product.run(task % per_product, products, scratch.at(thread * per_thread)) };
        });
    }

    unsafe fn pack(&self, factor: &PackedFactor, plain: Input<'_>, packed: *mut u8, pool: &Pool) {
        // SAFETY: the caller's promise.
        unsafe { pack(factor, self.op.dtype, self.kernels, plain, packed, pool) };
    }
}

/// How a [k, n] factor lies when these kernels have packed it: in its own dtype, which halves what 16 bits cost to read.
pub(super) fn packing(k: usize, n: usize, transposed: bool, dtype: DType, kernels: &Kernels) -> Packing {
    let interleave = if product::pairs(dtype, kernels) { 2 } else { 1 };
    Packing { k, n, panel: kernels.panel, interleave, transposed, dtype, quant: None }
}

/// Packs a factor, its panels split among all threads.
///
/// # Safety
/// `plain` holds the factor, and `packed` has room for its panels.
pub(super) unsafe fn pack(
    factor: &PackedFactor,
    dtype: DType,
    kernels: &Kernels,
    plain: Input<'_>,
    packed: *mut u8,
    pool: &Pool,
) {
    let (source, target) = (Read(plain.pointer()), super::Write(packed));
    let (bytes, panel) = (dtype.bytes(), kernels.panel);
    let panels = factor.n.div_ceil(panel);
    let tasks = panels.min(4 * pool.threads());
    let in_pairs = product::pairs(dtype, kernels);
    let stored_k = if in_pairs { factor.k.next_multiple_of(2) } else { factor.k };
    pool.run(tasks, pool.threads(), &|task, _| {
        let (first, count) = split(panels, tasks, task);
        let col = first * panel;
        let args = PackArgs {
            k: factor.k,
            cols: (count * panel).min(factor.n - col),
            src: source.at(if factor.transposed { col * factor.row } else { col }, bytes),
            src_dtype: dtype,
            src_row: factor.row,
            transposed: factor.transposed,
            dst: target.at(col * stored_k, bytes),
            dst_dtype: dtype,
        };
        // SAFETY: the columns lie within the factor, and their panels are this task's own.
        unsafe { if in_pairs { (kernels.pack_pairs)(&args) } else { (kernels.pack)(&args) } };
    });
}
