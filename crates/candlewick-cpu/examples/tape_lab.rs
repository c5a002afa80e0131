//! A measurement of ours, not an example to begin with.
//!
//! What a replay adds to its operations, and when a second thread pays in it:
//! `cargo run --release -p candlewick-cpu --example tape_lab -- boundary`, `-- decode` or `-- pays`.
//!
//! Times are the best of many replays, so that a busy machine shows in few of them.

use candlewick_core::backend::{Argument as _, Device as _, Stream as _};
use candlewick_core::op::Operand;
use candlewick_core::tape::{Place, Step};
use candlewick_core::{Add, DType, LoraLinear, MatMul, Op, Quant, QuantLinear, RmsNorm, Rope, SiluMul};
use candlewick_cpu::pool::{Pool, Workers};
use candlewick_cpu::{Buffer, Device, Input, Kernel, Memory, Output, Stream, Tape};
use std::hint::black_box;
use std::time::Instant;

const F32: DType = DType::F32;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("boundary") => boundary(),
        Some("decode") => decode(),
        Some("pays") => pays(),
        _ => println!("boundary, decode or pays?"),
    }
}

/// One token of a small model's layers, without its attention: as one tape, and the sum of its operations' own times.
fn decode() {
    let linear = |ins, outs| Op::from(QuantLinear::new(1, ins, outs, Quant::Q4_1, F32));
    let (norm, add) = (Op::from(RmsNorm::new(1, 576, 1e-5, F32)), Op::from(Add::new(1, 576, F32)));
    let rope = |heads| Op::from(Rope::new(1, heads, 64, F32));
    // What stands together needs nothing but what stands before it.
    let layer = [
        vec![norm],
        vec![linear(576, 576), linear(576, 192), linear(576, 192)],
        vec![rope(9), rope(3)],
        vec![linear(576, 576)],
        vec![add],
        vec![norm],
        vec![linear(576, 1536), linear(576, 1536)],
        vec![SiluMul::new(1, 1536, F32).into()],
        vec![linear(1536, 576)],
        vec![add],
    ];
    for threads in [1, usize::MAX] {
        let [token, median] = Made::new(&layer, 30, threads).replayed().map(|seconds| seconds * 1e6);
        let alone: f64 = layer.iter().flatten().map(|op| 30.0 * 1e6 * encoded(op, threads)).sum();
        let threads = Device::with_threads(threads).threads();
        println!(
            "30 layers on {threads} threads: {token:.1} us, median {median:.1}; the operations' own times {alone:.1} us"
        );
    }
}

/// Seconds of an operation by itself, in a hot loop.
fn encoded(op: &Op, threads: usize) -> f64 {
    let device = Device::with_threads(threads);
    let mut stream = device.stream().expect("a stream");
    let kernel = stream.prepare(op, None).expect("a kernel");
    let operands = op.operands().expect("operands");
    let inputs: Vec<Buffer> = operands.inputs.iter().map(buffer).collect();
    let mut outputs: Vec<Buffer> = operands.outputs.iter().map(buffer).collect();
    let inputs: Vec<Input<'_>> = inputs.iter().map(Input::from).collect();
    let mut outputs: Vec<Output<'_>> = outputs.iter_mut().map(Output::from).collect();
    let [least, _] = seconds(|| {
        (0..100).for_each(|_| stream.encode(&kernel, &inputs, &mut outputs).expect("it runs"));
    });
    least / 100.0
}

/// Nanoseconds per operation or job, with nothing to do in it.
fn boundary() {
    let pool = Pool::global();
    for threads in [1, 2] {
        let jobs = || (0..1000).for_each(|_| pool.run(threads, threads, &|task, _| _ = black_box(task)));
        let [least, median] = seconds(jobs).map(|seconds| seconds * 1e6);
        println!("a job without content on {threads} threads   {least:7.1} ns, median {median:7.1}");
    }
    // Each thread's part long enough that the other is there.
    let part = |nanoseconds: u64| {
        let start = Instant::now();
        while start.elapsed().as_nanos() < u128::from(nanoseconds) {}
    };
    let alone = seconds(|| (0..100).for_each(|_| part(2000)))[0];
    for held in [false, true] {
        let hold = held.then(|| pool.hold(2));
        let workers: &dyn Workers = match &hold {
            Some(held) => held,
            None => pool,
        };
        let [least, median] = seconds(|| (0..100).for_each(|_| workers.run(2, 2, &|_, _| part(2000))));
        let [least, median] = [least, median].map(|seconds| (seconds - alone) * 1e7);
        println!("a job of 2 x 2 us, held {held:5}: beyond 2 us   {least:7.1} ns, median {median:7.1}");
    }
    // The smallest operation there is, once by `encode` and once in a tape.
    let op = Op::from(Add::new(1, 1, F32));
    let mut made = Made::new(&[vec![op]], 1000, 1);
    let [tape, median] = made.replayed().map(|seconds| seconds * 1e6);
    println!("add 1x1 in a tape                   {tape:7.1} ns, median {median:7.1}");
    let mut device = Device::with_threads(1).stream().expect("a stream");
    let kernel = device.prepare(&op, None).expect("a kernel");
    let (a, b, mut y) = ([1f32], [2f32], [0f32]);
    let [encode, median] = seconds(|| {
        for _ in 0..1000 {
            device.encode(&kernel, &[a[..].into(), b[..].into()], &mut [y[..].as_mut().into()]).expect("it runs");
        }
    });
    println!("add 1x1 by encode                   {:7.1} ns, median {:7.1}", encode * 1e6, median * 1e6);
}

/// One thread and two, in a tape of one operation after the other.
fn pays() {
    let mut ops: Vec<Op> = Vec::new();
    for (ins, outs) in
        [(64, 64), (128, 128), (192, 192), (256, 256), (512, 512), (576, 192), (576, 576), (576, 1536), (1536, 576)]
    {
        ops.push(QuantLinear::new(1, ins, outs, Quant::Q4_1, F32).into());
        ops.push(LoraLinear::new(1, ins, outs, 8, 1.0, F32).packed().into());
        ops.push(LoraLinear::new(32, ins, outs, 8, 1.0, F32).packed().into());
    }
    for n in [32, 48, 64, 96, 128] {
        ops.push(MatMul::new(n, n, n, F32).into());
    }
    for rows in [1, 8, 16, 32, 64] {
        ops.push(RmsNorm::new(rows, 576, 1e-5, F32).into());
        ops.push(Add::new(rows, 576, F32).into());
    }
    println!("\n{:48} {:>10} {:>12} {:>8}", "operation, in a tape", "1 thread", "all threads", "threads");
    for op in ops {
        let times = [1, usize::MAX].map(|threads| {
            let mut made = Made::new(&[vec![op]], 100, threads);
            (made.replayed()[0] * 1e4, made.threads)
        });
        let [(one, _), (all, threads)] = times;
        println!("{:48} {one:7.2} us {all:9.2} us {threads:8}", op.to_string());
    }
}

/// Operations recorded in stages, the list `times` times: each reads first what a stage before it wrote.
struct Made {
    stream: Stream,
    tape: Tape,
    threads: usize,
}

impl Made {
    fn new(stages: &[Vec<Op>], times: usize, threads: usize) -> Self {
        let mut stream = Device::with_threads(threads).stream().expect("a stream");
        // Stages write the one and read the other in turns.
        let mut memories: Vec<Memory> = (0..2).map(|_| stream.memory(1 << 20).expect("memory")).collect();
        let (mut steps, mut threads, mut written) = (Vec::new(), 1, (0, 0));
        for (stage, op) in stages.iter().enumerate().flat_map(|(stage, ops)| ops.iter().map(move |op| (stage, op))) {
            let kernel = stream.prepare(op, None).expect("a kernel");
            threads = kernel.threads().max(threads);
            let operands = op.operands().expect("operands");
            let packed = op.packed_factor().map(|factor| factor.input);
            let inputs = (operands.inputs.iter().enumerate())
                .map(|(at, operand)| match packed == Some(at) {
                    _ if at == 0 => flow(stage % 2, 0, operand),
                    true => pack(&mut stream, &kernel, operand, &mut memories),
                    false => place(&mut stream, operand, &mut memories),
                })
                .collect();
            let mut output = |operand: &Operand| {
                // A stage's outputs stand one after the other.
                let offset = if written.0 == stage { written.1 } else { 0 };
                let place = flow((stage + 1) % 2, offset, operand);
                written = (stage, place.bytes().end.next_multiple_of(64));
                place
            };
            let outputs = operands.outputs.iter().map(&mut output).collect();
            steps.push(Step::new(kernel, inputs, outputs));
        }
        let steps: Vec<Step<Kernel>> = (0..times).flat_map(|_| steps.iter().cloned()).collect();
        let tape = stream.record(&memories, steps).expect("a tape");
        Made { stream, tape, threads }
    }

    /// Least and median seconds of a replay.
    fn replayed(&mut self) -> [f64; 2] {
        seconds(|| self.stream.replay(&mut self.tape).expect("it runs"))
    }
}

/// In one of the two memories between stages.
fn flow(memory: usize, offset: usize, operand: &Operand) -> Place {
    Place { memory, offset, elements: operand.span, dtype: operand.dtype, packing: None }
}

fn place(stream: &mut Stream, operand: &Operand, memories: &mut Vec<Memory>) -> Place {
    let Operand { span: elements, dtype, .. } = *operand;
    memories.push(stream.memory((elements * dtype.bytes()).max(64)).expect("memory"));
    Place { memory: memories.len() - 1, offset: 0, elements, dtype, packing: None }
}

fn pack(stream: &mut Stream, kernel: &Kernel, operand: &Operand, memories: &mut Vec<Memory>) -> Place {
    let plain = buffer(operand);
    let packed = stream.pack(kernel, (&plain).into()).expect("it packs");
    let (elements, dtype, packing) = (packed.elements(), packed.dtype(), packed.packing());
    memories.push(stream.adopt(packed));
    Place { memory: memories.len() - 1, offset: 0, elements, dtype, packing }
}

fn buffer(operand: &Operand) -> Buffer {
    Device::new().alloc(operand.dtype, operand.span).expect("memory")
}

/// Least and median seconds of a call.
fn seconds(mut call: impl FnMut()) -> [f64; 2] {
    let (mut times, begin) = (Vec::new(), Instant::now());
    while begin.elapsed().as_secs_f64() < 0.2 || times.len() < 5 {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2]]
}
