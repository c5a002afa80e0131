//! Random shapes, strides and dtypes of every operation, on the engine that the dispatcher chooses, against the f64
//! reference. `candlewick verify` tries every engine and far more layouts; this runs with `cargo test` and shrinks.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::op::Operand;
use candlewick_core::{DType, Element, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax, reference};
use candlewick_cpu::{Device, Input, Output};
use half::{bf16, f16};
use proptest::prelude::*;

fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![0..20usize, 30..36usize, 60..70usize, Just(129)];
    let scalar = || prop::sample::select(vec![1.0f32, 0.0, -0.5, 2.0]);
    let dtype = prop::sample::select(DType::ALL.to_vec());
    let sizes = (size(), size(), size(), 0..20usize);
    let gaps = (0..3usize, 0..9usize, 0..9usize);
    (0..9usize, dtype, sizes, gaps, any::<[bool; 4]>(), (scalar(), scalar())).prop_map(
        |(class, dtype, (m, n, k, rank), (batch, gap, other_gap), flags, (alpha, beta))| {
            let norm = RmsNorm { x_row: n + gap, y_row: n + other_gap, ..RmsNorm::new(m, n, 1e-2, dtype) };
            let softmax = Softmax { x_row: n + gap, y_row: n + other_gap, ..Softmax::new(m, n, dtype).scaled(alpha) };
            let softmax = if flags[0] && m > 0 && n >= m { softmax.causal(m) } else { softmax };
            let linear = LoraLinear::new(m, k, n, rank, alpha, dtype);
            let linear = LoraLinear { x_row: k + gap, y_row: n + other_gap, bias: flags[0], ..linear };
            let linear = if flags[1] { linear.packed() } else { linear };
            let delta = LoraDelta::new(m, k, n, rank, alpha, dtype);
            let delta = LoraDelta { x_row: k + gap, y_row: n + other_gap, accumulate: flags[0], ..delta };
            match class {
                0 => softmax.into(),
                1 => Op::SoftmaxBackward(softmax),
                2 => norm.into(),
                3 => Op::RmsNormBackward(norm),
                4 => linear.into(),
                5 => Op::LoraLinearBackward(linear),
                6 => delta.into(),
                7 => Op::LoraDeltaBackward(delta),
                _ => {
                    let op = MatMul::new(m, n, k, dtype).scaled(alpha, beta);
                    let op = if flags[0] { op.trans_a() } else { op };
                    let op = if flags[1] { op.trans_b() } else { op };
                    let op = MatMul { lda: op.lda + gap, ldb: op.ldb + other_gap, ldc: op.ldc + gap, ..op };
                    let op = if batch == 0 && flags[2] { op.packed_b() } else { op.batched(1 + batch) };
                    op.into()
                }
            }
        },
    )
}

/// Numbers between 0.5 and 1, so that no sum cancels by chance.
fn numbers<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let number = |i: u64| (seed ^ (i + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..count as u64).map(|i| T::from_f64(0.5 + number(i) as f64 / (1u64 << 25) as f64)).collect()
}

fn as_f64<T: Element>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|x| x.to_f64()).collect()
}

fn check<T: Element>(op: Op, device: &Device) -> Result<(), TestCaseError> {
    let operands = op.operands().map_err(|error| TestCaseError::fail(format!("{op:?}: {error}")))?;
    let input = |(i, operand): (usize, &Operand)| numbers::<T>(operand.span, i as u64 + 7);
    let inputs: Vec<Vec<T>> = operands.inputs.iter().enumerate().map(input).collect();
    let mut outputs: Vec<Vec<T>> = operands.outputs.iter().map(|operand| numbers(operand.span, 99)).collect();

    let read: Vec<Vec<f64>> = inputs.iter().map(|input| as_f64(input)).collect();
    let mut expected: Vec<Vec<f64>> = outputs.iter().map(|output| as_f64(output)).collect();
    let read: Vec<&[f64]> = read.iter().map(Vec::as_slice).collect();
    let mut written: Vec<&mut [f64]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(&op, &read, &mut written).unwrap();

    let mut stream = device.stream().unwrap();
    let kernel = stream.prepare(&op, None).unwrap();
    let factor = op.packed_factor();
    let packed = factor.map(|factor| stream.pack(&kernel, inputs[factor.input][..].into()).unwrap());
    let mut read: Vec<Input<'_>> = inputs.iter().map(|input| input[..].into()).collect();
    if let (Some(factor), Some(packed)) = (factor, &packed) {
        read[factor.input] = packed.into();
    }
    let mut written: Vec<Output<'_>> = outputs.iter_mut().map(|output| output[..].as_mut().into()).collect();
    stream.encode(&kernel, &read, &mut written).unwrap();
    stream.wait().unwrap();

    for (output, (found, expected)) in outputs.iter().zip(&expected).enumerate() {
        let largest = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
        // Terms of opposite signs may cancel; with these inputs they are a quarter at least, but for a softmax.
        let terms = if matches!(op, Op::Softmax(_)) { 0.0 } else { 0.25 };
        let bound = 4.0 * op.error_bound() * largest.max(terms).max(1e-4);
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let error = (found.to_f64() - expected).abs();
            prop_assert!(
                error <= bound,
                "output {output}[{i}] is {found:?}, not {expected}: {op:?} on {}",
                kernel.engine()
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_agrees_with_its_reference(op in op(), one_thread in any::<bool>()) {
        let device = if one_thread { Device::with_threads(1) } else { Device::new() };
        match op.dtype() {
            DType::F32 => check::<f32>(op, &device)?,
            DType::F16 => check::<f16>(op, &device)?,
            DType::BF16 => check::<bf16>(op, &device)?,
            DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
        }
    }
}
