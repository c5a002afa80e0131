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
    // Small weights, so that a thousand layers neither vanish nor overflow.
    for (tensor, elements) in weights.into_iter().zip([WIDTH * WIDTH, RANK * WIDTH, WIDTH * RANK]) {
        put(&mut plan, tensor, dtype, elements, 0.05, false)?;
    }
    put(&mut plan, x, dtype, rows * WIDTH, 1.0, true)?;
    plan.run()?;

    let mut layer = Layer::new(&device, LoraLinear::new(rows, WIDTH, WIDTH, RANK, 2.0, dtype).packed())?;
    let (mut submits, mut runs, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that a machine that changes its speed changes both.
    for _ in 0..100 {
        let start = Instant::now();
        let run = plan.submit()?;
        submits.push(start.elapsed().as_secs_f64() * 1e6);
        run.wait()?;
        runs.push(start.elapsed().as_secs_f64() * 1e6);
        alone.push(layer.seconds(layers)? * 1e6);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (submit, run, alone) = (median(&mut submits), median(&mut runs), median(&mut alone));
    println!("{layers} layers of {rows}x{WIDTH}x{WIDTH} r{RANK} {dtype} on {}", device.info().name);
    println!("run {run:.1} us, {:.3} us a layer; submitting took the host {submit:.2} us", run / layers as f64);
    println!("{layers} times the layer by itself {alone:.1} us: the run takes {:.3} of that", run / alone);
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
        inputs[1] = stream.pack(&kernel, (&inputs[1]).into())?;
        let y = device.alloc(op.dtype, op.rows * WIDTH)?;
        Ok(Layer { stream, kernel, inputs, y })
    }

    /// Of `times` calls and a wait.
    fn seconds(&mut self, times: usize) -> Result<f64> {
        let Layer { stream, kernel, inputs, y } = self;
        let inputs = [(&inputs[0]).into(), (&inputs[1]).into(), (&inputs[2]).into(), (&inputs[3]).into()];
        let start = Instant::now();
        for _ in 0..times {
            stream.encode(kernel, &inputs, &mut [(&mut *y).into()])?;
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
    let number = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * scale;
    macro_rules! put {
        ($t:ty, $from:expr) => {{
            let numbers: Vec<$t> = (0..count).map(|i| $from(number(i))).collect();
            if is_input { plan.write(tensor, &numbers) } else { plan.load(tensor, &numbers) }
        }};
    }
    match dtype {
        DType::F16 => put!(f16, f16::from_f32),
        DType::BF16 => put!(bf16, bf16::from_f32),
        _ => put!(f32, f32::from),
    }
}
