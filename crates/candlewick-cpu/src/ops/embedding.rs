//! Rows of a table: a task is a range of tokens; of the backward, a range of the table's rows.

use super::{Call, Floats, Program, Read, split, threads_that_pay};
use crate::kernels::{AddArgs, DequantizeArgs, Kernels, NarrowArgs, WidenArgs};
use candlewick_core::{DType, Embedding};
use half::{bf16, f16};

/// One thread's seconds per element, roughly: it decides about threads only.
const SECONDS_PER_ELEMENT: f64 = 0.1e-9;

pub(super) struct Forward {
    op: Embedding,
    kernels: &'static Kernels,
    threads: usize,
}

/// The tokens of each row of the table are chained in their order, so that each row is summed by one thread and the sums
/// do not depend on how many there are.
pub(super) struct Backward {
    op: Embedding,
    kernels: &'static Kernels,
    threads: usize,
}

/// The end of a chain.
const NONE: u32 = u32::MAX;

impl Forward {
    pub(super) fn new(op: Embedding, kernels: &'static Kernels, threads: usize) -> Self {
        let seconds = op.tokens as f64 * op.width as f64 * SECONDS_PER_ELEMENT;
        Forward { op, kernels, threads: threads_that_pay(seconds, threads.min(op.tokens.max(1))) }
    }
}

impl Backward {
    pub(super) fn new(op: Embedding, kernels: &'static Kernels, threads: usize) -> Self {
        let seconds = (op.vocab as f64 + 3.0 * op.tokens as f64) * op.width as f64 * SECONDS_PER_ELEMENT;
        Backward { op, kernels, threads: threads_that_pay(seconds, threads.min(op.vocab.max(1))) }
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
        if op.tokens == 0 || op.width == 0 {
            return;
        }
        let (ids, table, y) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        let tasks = if self.threads == 1 { 1 } else { op.tokens.min(4 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, _| {
            let (first, tokens) = split(op.tokens, tasks, task);
            for token in first..first + tokens {
                // SAFETY: there is an id for each token, a row of the table for an id below `vocab`, and one of y.
                unsafe {
                    let to = y.at(token * op.width, bytes);
                    let id = index(ids, token);
                    if id >= op.vocab {
                        fill_nan(op.dtype, to, op.width);
                    } else if let Some(format) = op.quant {
                        (self.kernels.dequantize)(&DequantizeArgs {
                            count: op.width / format.block(),
                            format,
                            blocks: table.at(id, format.row_bytes(op.width)),
                            dtype: op.dtype,
                            y: to,
                        });
                    } else {
                        std::ptr::copy_nonoverlapping(table.at(id * op.width, bytes), to, op.width * bytes);
                    }
                }
            }
        });
    }
}

impl Program for Backward {
    fn threads(&self) -> usize {
        self.threads
    }

    /// A chain's first token for each row of the table, each token's next, and two rows in f32 for each thread.
    fn workspace(&self) -> usize {
        self.op.vocab + self.op.tokens + 2 * self.threads * self.op.width
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        let (op, kernels) = (self.op, self.kernels);
        if op.vocab == 0 || op.width == 0 {
            return;
        }
        let (ids, dy, dtable) = (call.input(0), call.input(1), call.output(0));
        let bytes = op.dtype.bytes();
        let chains = Floats(call.workspace);
        let (next, sums) = (chains.at(op.vocab), Floats(chains.at(op.vocab + op.tokens)));
        // SAFETY: the workspace has a word for each row of the table and for each token, and no task runs yet.
        unsafe {
            let (heads, next) = (chains.0.cast::<u32>(), next.cast::<u32>());
            for row in 0..op.vocab {
                heads.add(row).write(NONE);
            }
            for token in (0..op.tokens).rev() {
                let id = index(ids, token);
                if id < op.vocab {
                    next.add(token).write(heads.add(id).read());
                    heads.add(id).write(token as u32);
                }
            }
        }
        let tasks = if self.threads == 1 { 1 } else { op.vocab.min(16 * self.threads) };
        call.pool.run(tasks, self.threads, &|task, thread| {
            let sum = sums.at(2 * thread * op.width);
            let term = sum.wrapping_add(op.width);
            let (first, rows) = split(op.vocab, tasks, task);
            for row in first..first + rows {
                let to = dtable.at(row * op.width, bytes);
                // SAFETY: chains hold tokens, of which each has a row in dy; the sums are this thread's own.
                unsafe {
                    let chain = |at: usize| chains.at(at).cast::<u32>().read();
                    let mut token = chain(row);
                    if token == NONE {
                        to.write_bytes(0, op.width * bytes);
                        continue;
                    }
                    let widen = |token: u32, dst| {
                        let src = dy.at(token as usize * op.width, bytes);
                        (kernels.widen)(&WidenArgs { n: op.width, src, src_dtype: op.dtype, dst });
                    };
                    widen(token, sum);
                    token = chain(op.vocab + token as usize);
                    while token != NONE {
                        widen(token, term);
                        (kernels.add)(&AddArgs { n: op.width, scale: 1.0, src: term, dst: sum });
                        token = chain(op.vocab + token as usize);
                    }
                    let narrow = NarrowArgs { n: op.width, scale: 1.0, src: sum, dst: to, dst_dtype: op.dtype };
                    (kernels.narrow)(&narrow);
                }
            }
        });
    }
}

/// Number `at` of a U32 tensor.
///
/// # Safety
/// It is there.
pub(super) unsafe fn index(numbers: Read, at: usize) -> usize {
    // SAFETY: the caller's contract; slices of u32 are aligned.
    unsafe { numbers.at(at, 4).cast::<u32>().read() as usize }
}

/// # Safety
/// `n` elements can be written.
unsafe fn fill_nan(dtype: DType, to: *mut u8, n: usize) {
    for i in 0..n {
        // SAFETY: the caller's contract.
        unsafe {
            match dtype {
                DType::F32 => to.cast::<f32>().add(i).write(f32::NAN),
                DType::F16 => to.cast::<f16>().add(i).write(f16::NAN),
                DType::BF16 => to.cast::<bf16>().add(i).write(bf16::NAN),
                DType::U32 | DType::U8 => unreachable!("descriptors of operations refuse to compute in integers"),
            }
        }
    }
}
