//! The shapes that are measured: a grid of sizes for each operation, and those of `bench`.

use super::tensors;
use crate::bench::cases;
use candlewick::op::{Add, Attention, Cast, OpClass, Rope, SiluMul};
use candlewick::{Bucket, DType, Device, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use std::collections::HashSet;

/// No shape of more work: a second engine would not be chosen for its last percent there.
const MOST_FLOPS: f64 = 3e10;
/// The same on a CPU, per call.
const MOST_FLOPS_ON_CPU: f64 = 2.2e9;

/// Operations of `classes`, smallest first, one for each bucket; only such that have several engines here, or that Candle
/// has too.
pub(super) fn grid(device: &Device, classes: &[OpClass], dtypes: &[DType], quick: bool) -> Vec<Op> {
    let most = if matches!(device, Device::Cpu(_)) { MOST_FLOPS_ON_CPU } else { MOST_FLOPS };
    let of_bench = cases::select(&[], &[], dtypes, false, false).unwrap_or_default();
    let of_bench = of_bench.iter().flat_map(|case| {
        let (forward, backward) = case.ops();
        forward.into_iter().chain(backward)
    });
    let mut ops: Vec<Op> = of_bench.chain(dtypes.iter().flat_map(|&dtype| sizes(dtype, quick))).collect();
    let mut known = HashSet::new();
    ops.retain(|op| {
        classes.contains(&op.class())
            && op.flops() <= most
            && (candidates(device, op).len() > 1 || tensors::compete_for(op))
            && known.insert((op.class(), Bucket::of(op), op.dtype()))
    });
    ops.sort_by(|a, b| {
        (a.class(), a.dtype().name()).cmp(&(b.class(), b.dtype().name())).then(work(a).total_cmp(&work(b)))
    });
    ops
}

/// Engines that may win: not the f64 reference, and nothing that is there to be compared with.
pub(super) fn candidates(device: &Device, op: &Op) -> Vec<candlewick::Engine> {
    let mut engines = device.engines(*op);
    engines.retain(|engine| engine.name() != "reference");
    engines
}

/// What grows with an operation's time, whatever it is.
pub(super) fn work(op: &Op) -> f64 {
    op.flops() + op.bytes()
}

fn sizes(dtype: DType, quick: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    let rows: &[usize] = if quick { &[1, 32, 512] } else { &[1, 4, 16, 64, 256, 1024] };
    let widths: &[usize] = if quick { &[64, 1024] } else { &[64, 256, 1024, 4096] };
    for &m in rows {
        for &n in widths {
            for &k in widths {
                ops.push(MatMul::new(m, n, k, dtype).into());
            }
        }
        // Square weights, as most are; what else there is lies near.
        for &width in &widths[usize::from(quick)..] {
            for rank in if quick { vec![0, 8] } else { vec![0, 8, 64] } {
                let linear = LoraLinear::new(m, width, width, rank, 1.0, dtype).packed();
                let delta = LoraDelta::new(m, width, width, rank, 1.0, dtype);
                ops.push(linear.into());
                // Without a rank a layer is a product: its backward is one too, and there is no delta.
                if rank > 0 {
                    ops.extend([Op::LoraLinearBackward(linear), delta.into(), Op::LoraDeltaBackward(delta)]);
                }
            }
        }
        for &cols in widths {
            let (softmax, norm) = (Softmax::new(m, cols, dtype), RmsNorm::new(m, cols, 1e-6, dtype));
            ops.extend([softmax.into(), Op::SoftmaxBackward(softmax)]);
            ops.extend([norm.into(), Op::RmsNormBackward(norm)]);
            let silu = SiluMul::new(m, cols, dtype);
            ops.extend([silu.into(), Op::SiluMulBackward(silu), Add::new(m, cols, dtype).into()]);
            if dtype != DType::F32 {
                ops.push(Cast::new(m * cols, dtype, DType::F32).into());
            }
        }
        let attention = Attention::new(m, m.max(64), 8, 4, 64, dtype);
        let rope = Rope::new(m, 8, 64, dtype);
        ops.extend([attention.into(), Op::AttentionBackward(attention), rope.into(), Op::RopeBackward(rope)]);
    }
    ops
}
