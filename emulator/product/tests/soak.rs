//! Eight threads on one device: random operations, the same results as one thread, memory flat.
//!
//! Five seconds, or as many as `CANDLEWICK_SOAK` says.

use candlewick_core::backend::{Device as _, Engine, Stream as _};
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use candlewick_metal::{ACCELERATE, Buffer, Device};
use metal_emulator as _;
use product_on_the_emulator::numbers;
use std::time::{Duration, Instant};

/// An operation, its engine, inputs that all threads read, and what comes out.
struct Task {
    op: Op,
    engine: Engine,
    inputs: Vec<Buffer>,
    expected: Vec<Vec<f32>>,
}

fn ops() -> Vec<Op> {
    let f32 = DType::F32;
    let layer = LoraLinear::new(20, 33, 40, 4, 2.0, f32);
    vec![
        MatMul::new(20, 24, 28, f32).into(),
        MatMul::new(3, 40, 17, f32).trans_b().into(),
        MatMul::new(8, 8, 8, f32).batched(3).into(),
        Softmax::new(5, 60, f32).into(),
        Op::SoftmaxBackward(Softmax::new(4, 33, f32)),
        RmsNorm::new(6, 64, 1e-5, f32).into(),
        Op::RmsNormBackward(RmsNorm::new(6, 40, 1e-5, f32)),
        layer.into(),
        Op::LoraLinearBackward(layer),
        LoraDelta::new(9, 16, 20, 3, 0.5, f32).into(),
    ]
}

fn tasks(device: &Device) -> Vec<Task> {
    let mut stream = device.stream().unwrap();
    let mut tasks = Vec::new();
    for op in ops() {
        for engine in device.engines(&op) {
            let operands = op.operands().unwrap();
            let inputs = operands.inputs.iter().enumerate();
            let inputs = inputs.map(|(i, operand)| numbers(device, &mut stream, operand, i + 5).unwrap()).collect();
            let mut task = Task { op, engine, inputs, expected: Vec::new() };
            task.expected = run(device, &mut stream, &task);
            tasks.push(task);
        }
    }
    tasks
}

fn run(device: &Device, stream: &mut candlewick_metal::Stream, task: &Task) -> Vec<Vec<f32>> {
    let kernel = stream.prepare(&task.op, Some(task.engine)).unwrap();
    if task.engine == ACCELERATE {
        // It runs elsewhere behind pending work, and rounds otherwise there.
        stream.wait().unwrap();
    }
    let operands = task.op.operands().unwrap();
    let mut outputs: Vec<Buffer> =
        operands.outputs.iter().map(|operand| device.alloc(operand.dtype, operand.span).unwrap()).collect();
    let inputs: Vec<_> = task.inputs.iter().map(Into::into).collect();
    let mut written: Vec<_> = outputs.iter_mut().map(Into::into).collect();
    stream.encode(&kernel, &inputs, &mut written).unwrap();
    let read = |(buffer, operand): (&Buffer, &candlewick_core::op::Operand)| {
        let mut values = vec![0f32; operand.span];
        stream.read(buffer, &mut values).unwrap();
        values
    };
    outputs.iter().zip(&operands.outputs).map(read).collect()
}

/// Objects alive in the process.
fn objects() -> u64 {
    metal_emulator::alive().iter().map(|(_, count)| count).sum()
}

fn round(device: &Device, tasks: &[Task], seconds: f64) -> usize {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let work = |thread: u64| {
        let mut stream = device.stream().unwrap();
        let mut state = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut count = 0;
        while Instant::now() < until {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = (state >> 33) as usize;
            let task = &tasks[random % tasks.len()];
            if random.is_multiple_of(7) {
                // Work whose memory and kernel go while it is pending.
                let other = &tasks[random / 7 % tasks.len()];
                let kernel = stream.prepare(&other.op, Some(other.engine)).unwrap();
                let operands = other.op.operands().unwrap();
                let mut outputs: Vec<Buffer> =
                    operands.outputs.iter().map(|operand| device.alloc(operand.dtype, operand.span).unwrap()).collect();
                let inputs: Vec<_> = other.inputs.iter().map(Into::into).collect();
                let mut written: Vec<_> = outputs.iter_mut().map(Into::into).collect();
                stream.encode(&kernel, &inputs, &mut written).unwrap();
            }
            if random.is_multiple_of(101) {
                stream = device.stream().unwrap();
            }
            assert_eq!(run(device, &mut stream, task), task.expected, "{} on {}", task.op, task.engine);
            count += 1;
        }
        count
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn eight_threads_and_memory_stays_flat() {
    let seconds = std::env::var("CANDLEWICK_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(5.0);
    let device = Device::open().unwrap();
    let tasks = tasks(&device);
    round(&device, &tasks, 1.0);
    let (objects_before, bytes_before) = (objects(), device.allocated_bytes());
    let count = round(&device, &tasks, seconds);
    let (objects_after, bytes_after) = (objects(), device.allocated_bytes());
    println!(
        "{} tasks, {count} operations of eight threads in {seconds} s; objects {objects_before} -> {objects_after}, \
         bytes {bytes_before} -> {bytes_after}",
        tasks.len()
    );
    assert!(count > 100);
    assert!(bytes_after <= bytes_before, "{bytes_before} -> {bytes_after}");
    assert!(objects_after <= objects_before + 16, "{objects_before} -> {objects_after}");
}
