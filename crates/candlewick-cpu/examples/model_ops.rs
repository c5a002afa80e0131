//! A measurement of ours, not an example to begin with.
//!
//! Times the operations of a small model's decode and prefill steps: `cargo run --release --example model_ops`.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{Add, Attention, DType, Op, Quant, QuantLinear, Rope, SiluMul};
use candlewick_cpu::{Buffer, Device, Input, Output};
use std::time::Instant;

fn main() {
    let mut ops: Vec<Op> = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        ops.push(Attention::new(1, 512, 9, 3, 64, dtype).into());
        ops.push(Attention::new(512, 512, 9, 3, 64, dtype).into());
        ops.push(Op::AttentionBackward(Attention::new(512, 512, 9, 3, 64, dtype)));
        for format in Quant::ALL {
            // 576 is not a multiple of 256.
            let k = 576usize.next_multiple_of(format.block());
            ops.push(QuantLinear::new(1, k, 1536, format, dtype).into());
        }
        ops.push(QuantLinear::new(1, 4096, 14336, Quant::Q4_1, dtype).into());
        ops.push(QuantLinear::new(64, 576, 1536, Quant::Q4_1, dtype).into());
        ops.push(Rope::new(1, 9, 64, dtype).into());
        ops.push(Rope::new(512, 9, 64, dtype).into());
        ops.push(SiluMul::new(512, 1536, dtype).into());
        ops.push(Add::new(512, 576, dtype).into());
    }
    for op in ops {
        for threads in [1, usize::MAX] {
            time(&op, threads);
        }
    }
}

/// The best of many calls, on the engine that is chosen.
fn time(op: &Op, threads: usize) {
    let device = Device::with_threads(threads);
    let mut stream = device.stream().expect("a stream");
    let kernel = stream.prepare(op, None).expect("a kernel");
    let operands = op.operands().expect("operands");
    let make = |operand: &candlewick_core::op::Operand| -> Buffer {
        let mut buffer = device.alloc(operand.dtype, operand.span).expect("memory");
        if let Some(numbers) = buffer.as_mut_slice::<f32>() {
            numbers.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 17) as f32 * 0.05 - 0.4);
        }
        if operand.name == "spans" {
            buffer.as_mut_slice::<u32>().expect("spans").copy_from_slice(&[0, u32::MAX, 0, u32::MAX]);
        }
        buffer
    };
    let inputs: Vec<Buffer> = operands.inputs.iter().map(make).collect();
    let mut outputs: Vec<Buffer> = operands.outputs.iter().map(make).collect();
    let inputs: Vec<Input<'_>> = inputs.iter().map(Input::from).collect();
    let mut outputs: Vec<Output<'_>> = outputs.iter_mut().map(Output::from).collect();
    let (mut best, start) = (f64::INFINITY, Instant::now());
    while start.elapsed().as_secs_f64() < 0.15 {
        let call = Instant::now();
        stream.encode(&kernel, &inputs, &mut outputs).expect("it runs");
        best = best.min(call.elapsed().as_secs_f64());
    }
    println!(
        "{:48} {} {:2} threads {:10.2} us {:8.1} GFLOP/s {:8.1} GB/s",
        op.to_string(),
        kernel.engine(),
        kernel.threads(),
        best * 1e6,
        op.flops() / best * 1e-9,
        op.bytes() / best * 1e-9
    );
}
