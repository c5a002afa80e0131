//! A measurement of ours, not an example to begin with.
//!
//! Blocks of a language model as one plan, as recorded and as rewritten: what the rewrites gain.
//!
//! `cargo run --release --example plan_block`, or `-- cuda 64 q8_0 bf16` for another device, rows, format of the weights
//! (`plain`, or a quantised one) and dtype.

use candlewick::op::{Attention, Quant, Rope};
use candlewick::plan::{Recorder, Tensor};
use candlewick::{DType, Device, Plan, Result};
use half::{bf16, f16};
use std::time::Instant;

/// SmolLM2-135M's.
const WIDTH: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD: usize = 64;
const HIDDEN: usize = 1536;
const LAYERS: usize = 4;
const KEYS: usize = 256;

/// What has to be given numbers, and how many: of the dtype, or bytes of blocks.
struct Weights {
    plain: Vec<(Tensor, usize)>,
    blocks: Vec<(Tensor, usize)>,
    spans: Tensor,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let device = Device::open(&arguments.next().unwrap_or_else(|| "cpu".into()))?;
    let rows: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let format = arguments.next().and_then(|name| Quant::ALL.into_iter().find(|format| format.name() == name));
    let dtype = arguments.next().and_then(|name| DType::ALL.into_iter().find(|dtype| dtype.name() == name));
    let dtype = dtype.unwrap_or(DType::F32);

    let mut plans = Vec::new();
    for rewrites in [false, true] {
        let (mut plan, (weights, y)) = Plan::record(&device, |p| {
            if !rewrites {
                p.without_rewrites();
            }
            blocks(p, rows, format, dtype)
        })?;
        // x and the KV cache stay zero: the time does not depend on numbers.
        plan.write(weights.spans, &[0u32, rows as u32, 0, KEYS as u32])?;
        weights.plain.iter().try_for_each(|&(tensor, count)| load(&mut plan, tensor, dtype, count))?;
        weights.blocks.iter().try_for_each(|&(tensor, bytes)| load_blocks(&mut plan, tensor, format, bytes))?;
        plan.run()?;
        plans.push((plan, y));
    }
    // In turns, so that both meet the same noise.
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..200 {
        for ((plan, _), times) in plans.iter_mut().zip(&mut times) {
            let start = Instant::now();
            plan.run()?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let [recorded, rewritten] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        [times[0], times[times.len() / 2]].map(|time| time / LAYERS as f64)
    });
    let weights = format.map_or("plain", Quant::name);
    println!("{LAYERS} blocks, {rows} rows, {dtype}, weights {weights}, on {}", device.info().name);
    println!("a block as recorded:  {:.1} us at best, {:.1} median", recorded[0], recorded[1]);
    println!("a block as rewritten: {:.1} us at best, {:.1} median", rewritten[0], rewritten[1]);
    println!(
        "{} operations, {} fewer: {}",
        plans[1].0.operations(),
        plans[1].0.rewrites().saved(),
        plans[1].0.rewrites()
    );
    Ok(())
}

fn blocks(p: &mut Recorder, rows: usize, format: Option<Quant>, dtype: DType) -> Result<(Weights, Tensor)> {
    let x = p.input("x", rows, WIDTH, dtype);
    let (positions, slots) = (p.input("positions", 1, rows, DType::U32), p.input("slots", 1, rows, DType::U32));
    let spans = p.input("spans", 1, 4, DType::U32);
    let mut weights = Weights { plain: Vec::new(), blocks: Vec::new(), spans };
    let frequencies = p.filled(0.1, 1, HEAD / 2, DType::F32);
    let zeros = p.filled(0.0, 1, WIDTH, dtype);
    let mut x = p.add_row(x, zeros)?;
    for _ in 0..LAYERS {
        let normed = norm(p, x, dtype)?;
        let [q, k, v] = [HEADS, KV_HEADS, KV_HEADS].map(|heads| heads * HEAD);
        let q = linear(p, &mut weights, normed, q, format)?;
        let k = linear(p, &mut weights, normed, k, format)?;
        let v = linear(p, &mut weights, normed, v, format)?;
        let q = p.rope(q, positions, frequencies, Rope::new(rows, HEADS, HEAD, dtype))?;
        let k = p.rope(k, positions, frequencies, Rope::new(rows, KV_HEADS, HEAD, dtype))?;
        let (keys, values) =
            (p.state("keys", KEYS, KV_HEADS * HEAD, dtype)?, p.state("values", KEYS, KV_HEADS * HEAD, dtype)?);
        p.copy_rows(k, slots, keys)?;
        p.copy_rows(v, slots, values)?;
        let op = Attention::new(rows, KEYS, HEADS, KV_HEADS, HEAD, dtype);
        let y = p.attention(q, keys, values, spans, op)?;
        let y = linear(p, &mut weights, y, WIDTH, format)?;
        x = p.add(x, y)?;
        let normed = norm(p, x, dtype)?;
        let gate = linear(p, &mut weights, normed, HIDDEN, format)?;
        let up = linear(p, &mut weights, normed, HIDDEN, format)?;
        let hidden = p.silu_mul(gate, up)?;
        let y = linear(p, &mut weights, hidden, WIDTH, format)?;
        x = p.add(x, y)?;
    }
    Ok((weights, p.output(x)?))
}

fn norm(p: &mut Recorder, x: Tensor, dtype: DType) -> Result<Tensor> {
    let weight = p.filled(1.0, 1, WIDTH, dtype);
    p.rms_norm(x, weight, 1e-5)
}

fn linear(p: &mut Recorder, weights: &mut Weights, x: Tensor, outs: usize, format: Option<Quant>) -> Result<Tensor> {
    let (_, ins) = p.shape(x);
    let w = match format {
        Some(format) => p.quantised("w", outs, ins, format)?,
        None => p.constant("w", outs, ins, p.dtype(x)),
    };
    let (rows, cols) = p.shape(w);
    if format.is_some() {
        weights.blocks.push((w, rows * cols))
    } else {
        weights.plain.push((w, rows * cols))
    }
    p.linear(x, w, None)
}

fn load(plan: &mut Plan, tensor: Tensor, dtype: DType, count: usize) -> Result<()> {
    let numbers = (0..count).map(|i| (i * 7919 % 1009) as f32 / 10_000.0 - 0.05);
    match dtype {
        DType::F16 => plan.load(tensor, &numbers.map(f16::from_f32).collect::<Vec<_>>()),
        DType::BF16 => plan.load(tensor, &numbers.map(bf16::from_f32).collect::<Vec<_>>()),
        _ => plan.load(tensor, &numbers.collect::<Vec<_>>()),
    }
}

/// Any bits; scales in them are small numbers.
fn load_blocks(plan: &mut Plan, tensor: Tensor, format: Option<Quant>, bytes: usize) -> Result<()> {
    let Some(format) = format else { return Ok(()) };
    let mut numbers: Vec<u8> = (0..bytes).map(|i| (i * 7919 % 251) as u8).collect();
    for block in numbers.chunks_exact_mut(format.bytes()) {
        // The upper byte of each f16 that a block has, wherever it lies.
        [1, 3, format.bytes() - 1].iter().for_each(|&at| block[at] = 0x10);
    }
    plan.load(tensor, &numbers)
}
