//! Measures the rates that nothing on the device exceeds: what a time is compared with.

use crate::{ACCELERATE, Device};
use candlewick_core::backend::{Device as _, Limits, Stream as _};
use candlewick_core::{DType, MatMul, Op, Result, RmsNorm};
use std::time::Instant;

/// Each measurement takes so long at the most, in seconds.
const PATIENCE: f64 = 0.05;

/// Products for arithmetic, norms for memory, an empty wait for the rest. Rows are added until a run takes long enough to
/// be a rate.
pub(crate) fn limits(device: &Device) -> Result<Limits> {
    let mut flops = DType::ALL.map(|dtype| (dtype, 0.0));
    for (dtype, rate) in &mut flops {
        for side in [128usize, 256, 512, 1024, 2048] {
            let op = Op::from(MatMul::new(side, side, side, *dtype));
            let seconds = seconds(device, &op)?;
            *rate = f64::max(*rate, op.flops() / seconds);
            if seconds > PATIENCE {
                break;
            }
        }
    }
    let mut bandwidth = Vec::new();
    for rows in [16usize, 256, 4096, 32768] {
        let op = Op::from(RmsNorm::new(rows, 4096, 1e-5, DType::F32));
        let seconds = seconds(device, &op)?;
        bandwidth.push((op.bytes(), op.bytes() / seconds));
        if seconds > PATIENCE {
            break;
        }
    }
    let wake = seconds(device, &Op::from(RmsNorm::new(1, 32, 1e-5, DType::F32)))?;
    Ok(Limits { threads: 1, flops, bandwidth, wake })
}

/// The least seconds of one operation, waited for, of a few.
fn seconds(device: &Device, op: &Op) -> Result<f64> {
    let mut stream = device.stream()?;
    // The GPU's own, where the CPU would come first.
    let engine = device.engines(op).into_iter().find(|&engine| engine != ACCELERATE);
    let kernel = stream.prepare(op, engine)?;
    let operands = op.operands()?;
    let alloc = |operand: &candlewick_core::op::Operand| device.alloc(operand.dtype, operand.span);
    let inputs = operands.inputs.iter().map(alloc).collect::<Result<Vec<_>>>()?;
    let mut outputs = operands.outputs.iter().map(alloc).collect::<Result<Vec<_>>>()?;
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let inputs: Vec<_> = inputs.iter().map(Into::into).collect();
        let mut outputs: Vec<_> = outputs.iter_mut().map(Into::into).collect();
        let start = Instant::now();
        stream.encode(&kernel, &inputs, &mut outputs)?;
        stream.wait()?;
        least = least.min(start.elapsed().as_secs_f64());
        if least > PATIENCE {
            break;
        }
    }
    Ok(least)
}
