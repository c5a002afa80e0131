//! A plan: a LoRA layer, RMSNorm and softmax, recorded once and submitted whole.
//!
//! `cargo run --release -p candlewick --example plan`, or `-- cuda` for another device.

use candlewick::{DType, Device, Plan, Result};

const ROWS: usize = 32;
const WIDTH: usize = 64;
const RANK: usize = 8;

fn main() -> Result<()> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or_else(|| "cpu".into()))?;

    // Shapes only: nothing is computed while a plan is recorded.
    let (mut plan, (x, w, a, b, y)) = Plan::record(&device, |p| {
        let x = p.input("x", ROWS, WIDTH, DType::F32);
        // Frozen: brought into the order that the kernels read, once.
        let w = p.constant("w", WIDTH, WIDTH, DType::F32);
        let (a, b) = (p.state("a", RANK, WIDTH, DType::F32)?, p.state("b", WIDTH, RANK, DType::F32)?);
        let layer = p.lora_linear(x, w, None, a, b, 2.0)?;
        let weight = p.filled(1.0, 1, WIDTH, DType::F32);
        let normed = p.rms_norm(layer, weight, 1e-6)?;
        let y = p.softmax(normed, 1.0)?;
        Ok((x, w, a, b, p.output(y)?))
    })?;
    println!("{}", plan.describe());

    // Numbers: constants once, states when they change, inputs before every run.
    plan.load(w, &numbers(WIDTH * WIDTH, 1))?;
    plan.write(a, &numbers(RANK * WIDTH, 2))?;
    plan.write(b, &numbers(WIDTH * RANK, 3))?;
    let mut probabilities = vec![0f32; ROWS * WIDTH];
    for run in 0..3 {
        plan.write(x, &numbers(ROWS * WIDTH, 4 + run))?;
        // One submission: a CUDA graph, one Metal command buffer, resolved calls on the CPU.
        plan.run()?;
        plan.read(y, &mut probabilities)?;
        println!("run {run}: {:?} ..", &probabilities[..4]);
        let sum: f32 = probabilities[..WIDTH].iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "a row of probabilities sums to one: {sum}");
    }
    Ok(())
}

/// Small numbers of both signs, others for each seed.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i + seed) * 7919 % 1009) as f32 / 5_000.0 - 0.1).collect()
}
