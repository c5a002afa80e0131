//! Measures the rates that nothing on the device exceeds: what a time is compared with.

use crate::{Device, Stream};
use candlewick_core::backend::{Device as _, Limits, Stream as _};
use candlewick_core::{DType, MatMul, Op, Result};
use std::time::Instant;

/// A measurement takes so long at the least, in seconds: the launch and the wait are then small beside it.
const LONG: f64 = 0.005;

/// Products for arithmetic, copies for memory, an empty operation for the rest.
pub(crate) fn limits(device: &Device) -> Result<Limits> {
    let mut flops = DType::ALL.map(|dtype| (dtype, 0.0));
    for (dtype, rate) in &mut flops {
        for side in [2048usize, 4096, 8192] {
            let op = Op::from(MatMul::new(side, side, side, *dtype));
            let seconds = product(device, &op)?;
            *rate = f64::max(*rate, op.flops() / seconds);
            // Larger ones would take long and show nothing new.
            if seconds > LONG {
                break;
            }
        }
    }
    let mut bandwidth = Vec::new();
    let cache = device.shared().chip.l2_bytes as usize;
    // What fits the level-two cache twice over, and what does not.
    for bytes in [1 << 20, cache / 4, 4 * cache, 1 << 30] {
        if bytes == 0 || bytes > device.shared().chip.memory_bytes / 4 {
            continue;
        }
        // A copy reads and writes.
        let moved = 2.0 * bytes as f64;
        bandwidth.push((moved, moved / copy(device, bytes)?));
    }
    bandwidth.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut stream = device.stream()?;
    let wake = (0..20)
        .map(|_| copies(device, &mut stream, 256, 1))
        .try_fold(f64::INFINITY, |least, next| next.map(|seconds: f64| least.min(seconds)))?;
    device.trim();
    Ok(Limits { threads: 1, flops, bandwidth, wake })
}

/// The least seconds of one of many products in a row.
fn product(device: &Device, op: &Op) -> Result<f64> {
    let mut stream = device.stream()?;
    let kernel = stream.prepare(op, None)?;
    let operands = op.operands()?;
    let alloc = |operand: &candlewick_core::op::Operand| device.alloc(operand.dtype, operand.span);
    let inputs = operands.inputs.iter().map(alloc).collect::<Result<Vec<_>>>()?;
    let mut outputs = operands.outputs.iter().map(alloc).collect::<Result<Vec<_>>>()?;
    least(|times| {
        let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
        let mut outputs: Vec<_> = outputs.iter_mut().map(Into::into).collect();
        let start = Instant::now();
        for _ in 0..times {
            stream.encode(&kernel, &inputs, &mut outputs)?;
        }
        stream.wait()?;
        Ok(start.elapsed().as_secs_f64())
    })
}

fn copy(device: &Device, bytes: usize) -> Result<f64> {
    let mut stream = device.stream()?;
    least(|times| copies(device, &mut stream, bytes, times))
}

/// Seconds of so many copies in a row, waited for.
fn copies(device: &Device, stream: &mut Stream, bytes: usize, times: usize) -> Result<f64> {
    let [from, to] = [device.shared().memory(bytes)?, device.shared().memory(bytes)?];
    let start = Instant::now();
    for _ in 0..times {
        stream.copy(from.address(), to.address(), bytes)?;
    }
    stream.wait()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of one run, from so many in a row that they take long; the best of three.
fn least(mut run: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
    run(1)?;
    let once = run(1)?.max(1e-7);
    let times = (LONG / once).ceil().clamp(1.0, 1000.0) as usize;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        least = least.min(run(times)? / times as f64);
    }
    Ok(least)
}
