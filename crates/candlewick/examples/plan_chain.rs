//! A measurement of ours, not an example to begin with.
//!
//! A chain of LoRA layers as one plan: what a layer costs, what the host pays for a run, and what the layer costs by
//! itself, so that the difference is the plan's.
//!
//! `cargo run --release --example plan_chain`, or `-- cuda 1000 bf16 32` for another device, number of layers, dtype and
//! number of rows; `-- cpu:1` is the CPU with one thread.

use candlewick::{Buffer, DType, Device, LoraLinear, Plan, Result};
use half::{bf16, f16};
use std::time::Instant;

const WIDTH: usize = 512;
const RANK: usize = 8;
/// Of the weights: uniform numbers up to it give a layer that keeps the size of x, sqrt(3 / 512) but for what LoRA adds.
const SCALE: f32 = 0.0742;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let device = match arguments.next().unwrap_or_else(|| "cpu".into()) {
        name if name.starts_with("cpu:") => Device::cpu_with_threads(name[4..].parse().unwrap_or(1)),
        name => Device::open(&name)?,
    };
    let layers: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(100);
    let dtype = arguments.next().and_then(|name| DType::ALL.into_iter().find(|dtype| dtype.name() == name));
    let dtype = dtype.unwrap_or(DType::F32);
    let rows: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(32);

    let (mut plan, (x, weights)) = Plan::record(&device, |p| {
        let x = p.input("x", rows, WIDTH, dtype);
        let w = p.constant("w", WIDTH, WIDTH, dtype);
        let (a, b) = (p.constant("a", RANK, WIDTH, dtype), p.constant("b", WIDTH, RANK, dtype));
        let mut y = x;
        for _ in 0..layers {
            y = p.lora_linear(y, w, None, a, b, 2.0)?;
        }
        p.output(y)?;
        Ok((x, [w, a, b]))
    })?;
    // So large that a thousand layers neither vanish nor overflow: numbers near zero are slow to compute with.
    for (tensor, elements) in weights.into_iter().zip([WIDTH * WIDTH, RANK * WIDTH, WIDTH * RANK]) {
        put(&mut plan, tensor, dtype, elements, SCALE, false)?;
    }
    put(&mut plan, x, dtype, rows * WIDTH, 1.0, true)?;
    plan.run()?;

    let mut layer = Layer::new(&device, LoraLinear::new(rows, WIDTH, WIDTH, RANK, 2.0, dtype).packed())?;
    let (mut submits, mut runs, mut alone, mut chained) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // In turns, so that a machine that changes its speed changes both.
    for _ in 0..100 {
        let start = Instant::now();
        let run = plan.submit()?;
        submits.push(start.elapsed().as_secs_f64() * 1e6);
        run.wait()?;
        runs.push(start.elapsed().as_secs_f64() * 1e6);
        alone.push(layer.seconds(layers, false)? * 1e6);
        chained.push(layer.seconds(layers, true)? * 1e6);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (submit, run) = (median(&mut submits), median(&mut runs));
    let (alone, chained) = (median(&mut alone), median(&mut chained));
    println!("{layers} layers of {rows}x{WIDTH}x{WIDTH} r{RANK} {dtype} on {}", device.info().name);
    println!("run {run:.1} us, {:.3} us a layer; submitting took the host {submit:.2} us", run / layers as f64);
    println!("{layers} times the layer by itself {alone:.1} us: the run takes {:.3} of that", run / alone);
    println!("where each reads what the one before wrote {chained:.1} us: the run takes {:.3} of that", run / chained);
    println!("arena {} KiB", plan.arena_bytes() / 1024);
    Ok(())
}

/// One layer, encoded again and again.
struct Layer {
    stream: candlewick::Stream,
    kernel: candlewick::Kernel,
    inputs: Vec<Buffer>,
    y: Buffer,
}

impl Layer {
    fn new(device: &Device, op: LoraLinear) -> Result<Self> {
        let mut stream = device.stream()?;
        let kernel = stream.prepare(op)?;
        let elements = [op.rows * WIDTH, WIDTH * WIDTH, RANK * WIDTH, WIDTH * RANK];
        let mut inputs =
            elements.map(|elements| device.alloc(op.dtype, elements)).into_iter().collect::<Result<Vec<_>>>()?;
        for (input, scale) in inputs.iter_mut().zip([1.0, SCALE, SCALE, SCALE]) {
            match op.dtype {
                DType::F16 => fill(&mut stream, input, scale, f16::from_f32)?,
                DType::BF16 => fill(&mut stream, input, scale, bf16::from_f32)?,
                _ => fill(&mut stream, input, scale, f32::from)?,
            }
        }
        inputs[1] = stream.pack(&kernel, (&inputs[1]).into())?;
        let y = device.alloc(op.dtype, op.rows * WIDTH)?;
        Ok(Layer { stream, kernel, inputs, y })
    }

    /// Of `times` calls and a wait. Chained, each reads what the one before wrote: on a CPU from other cores, then.
    fn seconds(&mut self, times: usize, chained: bool) -> Result<f64> {
        let Layer { stream, kernel, inputs, y } = self;
        let start = Instant::now();
        for _ in 0..times {
            let read = [(&inputs[0]).into(), (&inputs[1]).into(), (&inputs[2]).into(), (&inputs[3]).into()];
            stream.encode(kernel, &read, &mut [(&mut *y).into()])?;
            if chained {
                std::mem::swap(&mut inputs[0], y);
            }
        }
        stream.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Numbers between -`scale` and `scale`. An input is written for every run, weights are loaded once.
fn put(
    plan: &mut Plan,
    tensor: candlewick::plan::Tensor,
    dtype: DType,
    count: usize,
    scale: f32,
    is_input: bool,
) -> Result<()> {
    macro_rules! put {
        ($t:ty, $from:expr) => {{
            let numbers: Vec<$t> = uniform(count, scale).map($from).collect();
            if is_input { plan.write(tensor, &numbers) } else { plan.load(tensor, &numbers) }
        }};
    }
    match dtype {
        DType::F16 => put!(f16, f16::from_f32),
        DType::BF16 => put!(bf16, bf16::from_f32),
        _ => put!(f32, f32::from),
    }
}

fn fill<T: candlewick::Element>(
    stream: &mut candlewick::Stream,
    buffer: &mut Buffer,
    scale: f32,
    from: impl Fn(f32) -> T,
) -> Result<()> {
    let numbers: Vec<T> = uniform(buffer.elements(), scale).map(from).collect();
    stream.write(buffer, &numbers)
}

/// A linear congruential generator with Knuth's constants.
fn uniform(count: usize, scale: f32) -> impl Iterator<Item = f32> {
    let next = |state: &u64| Some(state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407));
    let states = std::iter::successors(Some(count as u64), next).skip(1).take(count);
    states.map(move |state| ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * scale)
}
