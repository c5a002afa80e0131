//! A measurement of ours, not an example to begin with.
//!
//! What it costs that the rows of a batch have adapters of their own: one layer with all rows of one adapter, and with
//! rows of several, each as a plan of many layers.
//!
//! `cargo run --release --example lora_rows`, or `-- cuda 64 4096 16 16 bf16` for another device, rows, width, rank,
//! adapters and dtype.

use candlewick::plan::Tensor;
use candlewick::{DType, Device, Element, Plan, Result};
use half::{bf16, f16};
use std::time::Instant;

/// Layers of a plan, of adapters of their own: the same adapters would stay in a cache from layer to layer.
const LAYERS: usize = 32;

#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    width: usize,
    rank: usize,
    adapters: usize,
    dtype: DType,
}

/// What a layer does.
#[derive(Clone, Copy, PartialEq)]
enum Layer {
    Base,
    Delta,
    Both,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let device = Device::open(&arguments.next().unwrap_or_else(|| "cpu".into()))?;
    let mut size = |default| arguments.next().and_then(|size| size.parse().ok()).unwrap_or(default);
    let (rows, width, rank, adapters) = (size(64), size(4096), size(16), size(16));
    let dtype = arguments.next().and_then(|name| DType::ALL.into_iter().find(|dtype| dtype.name() == name));
    let sizes = Sizes { rows, width, rank, adapters, dtype: dtype.unwrap_or(DType::F32) };

    println!("{rows}x{width}x{width} r{rank} {} on {}, us a layer", sizes.dtype, device.info().name);
    let base = time(&device, Layer::Base, Sizes { adapters: 1, ..sizes })?;
    println!("{:24} {base:9.2}", "without adapters");
    for (layer, what) in [(Layer::Both, "layer and delta"), (Layer::Delta, "delta alone")] {
        let one = time(&device, layer, Sizes { adapters: 1, ..sizes })?;
        let several = time(&device, layer, sizes)?;
        println!("{what:24} {one:9.2} with one adapter, {several:9.2} with {adapters}: {:.2} times", several / one);
    }
    Ok(())
}

/// The median time of a layer, in microseconds.
fn time(device: &Device, layer: Layer, sizes: Sizes) -> Result<f64> {
    let Sizes { rows, width, rank, adapters, dtype } = sizes;
    let (mut plan, (inputs, scales, slots, w)) = Plan::record(device, |p| {
        let x = p.input("x", rows, width, dtype);
        let w = p.constant("w", width, width, dtype);
        let (scales, slots) = (p.input("scales", 1, adapters, DType::F32), p.input("slots", 1, rows, DType::U32));
        let mut inputs = vec![(x, rows * width)];
        // Rows of a temporary, which the deltas are added to.
        let mut y = p.add(x, x)?;
        for _ in 0..LAYERS {
            let before = y;
            if layer != Layer::Delta {
                y = p.linear(before, w, None)?;
            }
            if layer != Layer::Base {
                let from = if layer == Layer::Delta { x } else { before };
                let a = p.input("a", adapters * rank, width, dtype);
                let b = p.input("b", adapters * width, rank, dtype);
                inputs.extend([(a, adapters * rank * width), (b, adapters * width * rank)]);
                p.lora_rows(from, [a, b, scales], slots, y)?;
            }
        }
        p.output(y)?;
        Ok((inputs, scales, slots, w))
    })?;
    // Small weights, so that nothing overflows.
    for (tensor, count) in inputs {
        fill(&mut plan, tensor, dtype, count, 0.05)?;
    }
    if layer != Layer::Delta {
        fill(&mut plan, w, dtype, width * width, 0.02)?;
    }
    plan.write(scales, &vec![0.5f32; adapters])?;
    // Neighbours differ: rows of a batch come in the order in which they were asked for.
    plan.write(slots, &(0..rows).map(|row| (row % adapters) as u32).collect::<Vec<_>>())?;
    let mut times = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        plan.run()?;
        times.push(start.elapsed().as_secs_f64() * 1e6 / LAYERS as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Numbers of a magnitude, into an input or a constant.
fn fill(plan: &mut Plan, tensor: Tensor, dtype: DType, count: usize, scale: f32) -> Result<()> {
    fn put<T: Element>(plan: &mut Plan, tensor: Tensor, count: usize, scale: f64) -> Result<()> {
        let number = |i: usize| T::from_f64(((i * 7919 % 1009) as f64 / 504.5 - 1.0) * scale);
        let numbers: Vec<T> = (0..count).map(number).collect();
        plan.write(tensor, &numbers).or_else(|_| plan.load(tensor, &numbers))
    }
    match dtype {
        DType::F16 => put::<f16>(plan, tensor, count, scale.into()),
        DType::BF16 => put::<bf16>(plan, tensor, count, scale.into()),
        _ => put::<f32>(plan, tensor, count, scale.into()),
    }
}
