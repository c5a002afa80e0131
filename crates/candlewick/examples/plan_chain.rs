//! A chain of LoRA layers as one plan: what a layer costs, and what the host pays for a run.
//!
//! `cargo run --release --example plan_chain`, or `-- cuda 1000 bf16` for another device, number of layers and dtype.

use candlewick::{DType, Device, Plan, Result};
use half::{bf16, f16};
use std::time::Instant;

const ROWS: usize = 32;
const WIDTH: usize = 512;
const RANK: usize = 8;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let device = Device::open(&arguments.next().unwrap_or_else(|| "cpu".into()))?;
    let layers: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(100);
    let dtype = arguments.next().and_then(|name| DType::ALL.into_iter().find(|dtype| dtype.name() == name));
    let dtype = dtype.unwrap_or(DType::F32);

    let (mut plan, (x, y, weights)) = Plan::record(&device, |p| {
        let x = p.input("x", ROWS, WIDTH, dtype);
        let w = p.constant("w", WIDTH, WIDTH, dtype);
        let (a, b) = (p.constant("a", RANK, WIDTH, dtype), p.constant("b", WIDTH, RANK, dtype));
        let mut y = x;
        for _ in 0..layers {
            y = p.lora_linear(y, w, None, a, b, 2.0)?;
        }
        Ok((x, p.output(y)?, [w, a, b]))
    })?;
    // Small weights, so that a thousand layers neither vanish nor overflow.
    for (tensor, elements) in weights.into_iter().zip([WIDTH * WIDTH, RANK * WIDTH, WIDTH * RANK]) {
        load(&mut plan, tensor, dtype, elements, 0.05)?;
    }
    load(&mut plan, x, dtype, ROWS * WIDTH, 1.0)?;
    plan.run()?;

    let (mut submits, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let start = Instant::now();
        let run = plan.submit()?;
        submits.push(start.elapsed().as_secs_f64() * 1e6);
        run.wait()?;
        runs.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (submit, run) = (median(&mut submits), median(&mut runs));
    println!("{layers} layers of {ROWS}x{WIDTH}x{WIDTH} r{RANK} {dtype} on {}", device.info().name);
    println!("run {run:.1} us, {:.3} us a layer; submitting took the host {submit:.2} us", run / layers as f64);
    println!("arena {} KiB", plan.arena_bytes() / 1024);
    let _ = y;
    Ok(())
}

fn load(plan: &mut Plan, tensor: candlewick::plan::Tensor, dtype: DType, count: usize, scale: f32) -> Result<()> {
    let number = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * scale;
    macro_rules! put {
        ($t:ty, $from:expr) => {{
            let numbers: Vec<$t> = (0..count).map(|i| $from(number(i))).collect();
            // x is written for every run, weights are loaded once.
            if count == ROWS * WIDTH { plan.write(tensor, &numbers) } else { plan.load(tensor, &numbers) }
        }};
    }
    match dtype {
        DType::F16 => put!(f16, f16::from_f32),
        DType::BF16 => put!(bf16, bf16::from_f32),
        _ => put!(f32, f32::from),
    }
}
