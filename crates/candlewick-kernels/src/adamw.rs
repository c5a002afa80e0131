//! `kernels/adamw.h`: the optimizer's step, and the square sum of the gradients.

use crate::elements;
use crate::program::{Alignment, GpuLimits, Kernel, Memory, Place, Program, names, params};
use crate::source::File;
use candlewick_core::{AdamW, Scalar, SumSquares};

params! {
    struct SumSquaresParams {
        elements: u64,
        groups: u32,
        accumulate: u32,
    }
}
params! {
    struct AdamWParams {
        elements: u64,
        beta1: f32,
        beta2: f32,
        log_beta1: f32,
        log_beta2: f32,
        eps: f32,
        weight_decay: f32,
        max_norm: f32,
        unused: u32,
    }
}

/// One group for few elements, else as many as keep the GPU busy and one that adds up what they found.
pub(crate) fn sum_squares(op: &SumSquares, limits: &GpuLimits, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("sums", op.dtype);
    let x = Memory::whole(Place::Input(0), (op.elements * op.dtype.bytes()) as u64);
    let sum = Memory::whole(Place::Output(0), 4);
    // A group has 16 KiB at least.
    let groups = op.elements.div_ceil(8192).clamp(1, 4 * limits.cores as usize) as u32;
    let params = SumSquaresParams { elements: op.elements as u64, groups, accumulate: op.accumulate.into() };
    let wide = elements::vector_wide(alignment, op.elements);
    let kernel = |names, wide| Kernel { file: File::AdamW, names, dtype: op.dtype, wide };
    let first = kernel(names!("sum_squares"), wide);
    let threads = if groups > 1 { 256 } else { op.elements.div_ceil(8).next_multiple_of(32).clamp(32, 256) as u32 };
    if groups == 1 {
        let bindings = [x.read(), sum.update(op.accumulate), sum.unused().write()];
        program.launch(first, &params, bindings, 1, threads)?;
        return Some(program);
    }
    let partial = program.reserve(4 * u64::from(groups));
    program.launch(first, &params, [x.read(), sum.unused().write(), partial.write()], groups.into(), threads)?;
    let total = kernel(names!("sum_squares_total"), false);
    program.launch(total, &params, [partial.read(), sum.update(op.accumulate)], 1, 256)?;
    Some(program)
}

/// A thread steps eight elements.
pub(crate) fn step(op: &AdamW, alignment: Alignment) -> Option<Program> {
    let mut program = Program::new("elements", op.dtype);
    let (elements, bytes) = (op.elements as u64, op.dtype.bytes() as u64);
    // In f64, so that beta^step is right for beta near one.
    let log = |beta: Scalar| f64::from(beta.get()).ln() as f32;
    let params = AdamWParams {
        elements,
        beta1: op.beta1.get(),
        beta2: op.beta2.get(),
        log_beta1: log(op.beta1),
        log_beta2: log(op.beta2),
        eps: op.eps.get(),
        weight_decay: op.weight_decay.get(),
        max_norm: op.max_norm.get(),
        unused: 0,
    };
    let wide = elements::vector_wide(alignment, op.elements);
    let kernel = Kernel { file: File::AdamW, names: names!("adamw"), dtype: op.dtype, wide };
    let grid = elements::vector(op.elements);
    let state = |index: u8| Memory::whole(Place::Output(index), 4 * elements).update(true);
    let bindings = [
        Memory::whole(Place::Input(0), bytes * elements).read(),
        Memory::whole(Place::Input(1), 4).read(),
        Memory::whole(Place::Input(2), 8).read(),
        state(0),
        state(1),
        state(2),
        Memory::whole(Place::Output(3), bytes * elements).write(),
    ];
    program.launch(kernel, &params, bindings, grid.groups, grid.threads)?;
    Some(program)
}
