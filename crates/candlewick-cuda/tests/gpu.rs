//! On a real GPU; where there is none every test says so. `candlewick verify --device cuda` tries far more shapes.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Element, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax, reference};
use candlewick_cuda::{Buffer, Device, Input, Options, Output, Stream};
use half::{bf16, f16};

/// The GPU, or nothing and a line that says so.
fn gpu(options: Options) -> Option<Device> {
    match Device::with_options(0, options) {
        Ok(device) => Some(device),
        Err(error) => {
            println!("not run: no NVIDIA GPU ({error})");
            None
        }
    }
}

fn ops(dtype: DType) -> Vec<Op> {
    let (softmax, norm) = (Softmax::new(33, 515, dtype), RmsNorm::new(33, 512, 1e-5, dtype));
    let lora = |rows| LoraLinear::new(rows, 256, 384, 8, 2.0, dtype);
    let delta = LoraDelta::new(96, 256, 384, 8, 2.0, dtype);
    vec![
        MatMul::new(64, 64, 64, dtype).into(),
        MatMul::new(65, 33, 129, dtype).trans_b().scaled(0.5, 2.0).into(),
        MatMul::new(40, 24, 56, dtype).trans_a().batched(3).into(),
        MatMul::new(1, 512, 256, dtype).trans_b().into(),
        MatMul::new(256, 256, 256, dtype).into(),
        softmax.into(),
        Op::SoftmaxBackward(softmax),
        norm.into(),
        Op::RmsNormBackward(norm),
        lora(1).into(),
        lora(32).with_bias().into(),
        lora(128).with_bias().into(),
        Op::LoraLinearBackward(lora(96)),
        delta.into(),
        delta.accumulate().into(),
        Op::LoraDeltaBackward(delta),
    ]
}

/// Numbers around zero, the same for the same seed.
fn numbers<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let number = |i: u64| (i * 2 + seed * 77 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..count as u64).map(|i| T::from_f64(number(i) as f64 / (1u64 << 23) as f64 - 1.0)).collect()
}

fn as_f64<T: Element>(numbers: &[T]) -> Vec<f64> {
    numbers.iter().map(|x| x.to_f64()).collect()
}

/// What stands before and behind every output, and must stay.
const GUARD: usize = 64;

fn check<T: Element + PartialEq>(device: &Device, stream: &mut Stream, op: &Op, shift: usize) {
    let operands = op.operands().unwrap();
    let inputs: Vec<Vec<T>> =
        operands.inputs.iter().enumerate().map(|(i, operand)| numbers(operand.span, i as u64)).collect();
    let before: Vec<Vec<T>> = operands.outputs.iter().map(|operand| numbers(operand.span, 99)).collect();
    let read: Vec<Vec<f64>> = inputs.iter().map(|input| as_f64(input)).collect();
    let mut expected: Vec<Vec<f64>> = before.iter().map(|output| as_f64(output)).collect();
    let read: Vec<&[f64]> = read.iter().map(Vec::as_slice).collect();
    let mut written: Vec<&mut [f64]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(op, &read, &mut written).unwrap();

    let start = GUARD + shift;
    let guard = T::from_f64(42.0);
    let on_gpu: Vec<Buffer> = inputs.iter().map(|input| place(device, stream, input, start)).collect();
    for engine in device.engines(op) {
        let mut outputs: Vec<Buffer> = before.iter().map(|output| place(device, stream, output, start)).collect();
        let kernel = stream.prepare(op, Some(engine)).unwrap_or_else(|error| panic!("{op} on {engine}: {error}"));
        let views: Vec<Input<'_>> =
            on_gpu.iter().zip(&inputs).map(|(buffer, input)| buffer.slice(start..start + input.len())).collect();
        let mut written: Vec<Output<'_>> = outputs
            .iter_mut()
            .zip(&before)
            .map(|(buffer, output)| buffer.slice_mut(start..start + output.len()))
            .collect();
        stream.encode(&kernel, &views, &mut written).unwrap();
        for ((buffer, expected), i) in outputs.iter().zip(&expected).zip(0..) {
            let mut found = vec![T::default(); expected.len() + start + GUARD];
            stream.read(buffer, &mut found).unwrap();
            let (head, rest) = found.split_at(start);
            let (found, tail) = rest.split_at(expected.len());
            assert!(head.iter().chain(tail).all(|&x| x == guard), "{op} on {engine} wrote beside output {i}");
            let largest = expected.iter().fold(0f64, |max, x| max.max(x.abs()));
            let worst = found.iter().zip(expected).map(|(x, y)| (x.to_f64() - y).abs()).fold(0f64, f64::max);
            let bound = op.error_bound() * largest;
            assert!(worst <= bound, "{op} on {engine}, output {i}: {worst:e} > {bound:e}");
        }
    }
}

/// Numbers on the GPU, between guards.
fn place<T: Element>(device: &Device, stream: &mut Stream, numbers: &[T], start: usize) -> Buffer {
    let mut whole = vec![T::from_f64(42.0); numbers.len() + start + GUARD];
    whole[start..start + numbers.len()].copy_from_slice(numbers);
    let mut buffer = device.alloc(T::DTYPE, whole.len()).unwrap();
    stream.write(&mut buffer, &whole).unwrap();
    buffer
}

fn check_all(options: Options) {
    let Some(device) = gpu(options) else { return };
    let mut stream = device.stream().unwrap();
    // At multiples of 16 bytes, and not.
    for shift in [0, 1] {
        for op in ops(DType::F32) {
            check::<f32>(&device, &mut stream, &op, shift);
        }
        for op in ops(DType::F16) {
            check::<f16>(&device, &mut stream, &op, shift);
        }
        for op in ops(DType::BF16) {
            check::<bf16>(&device, &mut stream, &op, shift);
        }
    }
}

#[test]
fn every_operation_agrees_with_its_reference_on_every_engine() {
    check_all(Options::default());
}

#[test]
fn and_with_dependent_launches() {
    check_all(Options { dependent_launch: true, ..Options::default() });
}

/// What comes again with the same tensors is a graph, and makes the same numbers: on an idle stream, and behind pending copies.
#[test]
fn operations_that_come_again_make_the_same_numbers() {
    let Some(device) = gpu(Options::default()) else { return };
    let mut stream = device.stream().unwrap();
    for op in ops(DType::BF16).into_iter().chain(ops(DType::F32)) {
        match op.dtype() {
            DType::F32 => again::<f32>(&device, &mut stream, &op),
            _ => again::<bf16>(&device, &mut stream, &op),
        }
    }
}

fn again<T: Element + PartialEq>(device: &Device, stream: &mut Stream, op: &Op) {
    let operands = op.operands().unwrap();
    let sized = operands.inputs.iter().zip(0..);
    let inputs: Vec<Buffer> = sized.map(|(x, i)| place(device, stream, &numbers::<T>(x.span, i), 0)).collect();
    let before: Vec<Vec<T>> = operands.outputs.iter().map(|output| numbers(output.span, 99)).collect();
    for engine in device.engines(op) {
        let kernel = stream.prepare(op, Some(engine)).unwrap();
        let mut outputs: Vec<Buffer> = before.iter().map(|y| place(device, stream, y, 0)).collect();
        let mut results = Vec::new();
        for waits in [true, true, true, false, false, false, true, true] {
            for (buffer, numbers) in outputs.iter_mut().zip(&before) {
                let mut whole = vec![T::from_f64(42.0); numbers.len() + GUARD];
                whole[..numbers.len()].copy_from_slice(numbers);
                stream.write(buffer, &whole).unwrap();
            }
            if waits {
                stream.wait().unwrap();
            }
            let views: Vec<Input<'_>> =
                inputs.iter().zip(&operands.inputs).map(|(x, operand)| x.slice(0..operand.span)).collect();
            let mut written: Vec<Output<'_>> =
                outputs.iter_mut().zip(&before).map(|(y, numbers)| y.slice_mut(0..numbers.len())).collect();
            stream.encode(&kernel, &views, &mut written).unwrap();
            let mut found = Vec::new();
            for (buffer, numbers) in outputs.iter().zip(&before) {
                let mut whole = vec![T::default(); numbers.len() + GUARD];
                stream.read(buffer, &mut whole).unwrap();
                found.push(whole);
            }
            results.push(found);
        }
        assert!(results.iter().all(|result| *result == results[0]), "{op} on {engine}");
        let changed = results[0].iter().zip(&before).all(|(found, before)| found[..before.len()] != before[..]);
        assert!(changed, "{op} on {engine} wrote nothing");
    }
}

/// The LoRA layer's instances for many rows, where nothing is a multiple of a tile, and where lines are padded.
#[test]
fn lora_layers_of_all_sizes_agree_with_their_reference() {
    let Some(device) = gpu(Options { dependent_launch: true, ..Options::default() }) else { return };
    let mut stream = device.stream().unwrap();
    let sizes = [
        (33, 512, 520, 8),
        (100, 264, 1000, 5),
        (130, 520, 301, 16),
        (300, 72, 1000, 32),
        (600, 200, 136, 64),
        (70, 8, 24, 1),
    ];
    for (rows, ins, outs, rank) in sizes {
        for dtype in [DType::F16, DType::BF16] {
            let plain = LoraLinear::new(rows, ins, outs, rank, 2.0, dtype);
            let padded = LoraLinear { x_row: ins + 8, y_row: outs.next_multiple_of(8) + 8, ..plain };
            for op in [plain.into(), Op::from(padded), padded.with_bias().into(), padded.accumulate().into()] {
                match dtype {
                    DType::F16 => check::<f16>(&device, &mut stream, &op, 0),
                    _ => check::<bf16>(&device, &mut stream, &op, 0),
                }
            }
        }
    }
}

/// Products of every tile on Hopper, whose last rows, columns and slices are not whole; the same list is in `src/mma/tests.rs`.
const RAGGED: [(usize, usize, usize); 14] = [
    (10, 40, 520),
    (10, 136, 520),
    (10, 4000, 520),
    (10, 4000, 1032),
    (33, 1544, 264),
    (100, 776, 264),
    (100, 1544, 136),
    (150, 4000, 72),
    (300, 392, 520),
    (300, 4000, 72),
    (500, 4000, 72),
    (500, 4000, 136),
    (1000, 4000, 72),
    (1000, 2040, 2056),
];

#[test]
fn products_of_every_tile_agree_with_their_reference() {
    let Some(device) = gpu(Options { dependent_launch: true, ..Options::default() }) else { return };
    let mut stream = device.stream().unwrap();
    for (m, n, k) in RAGGED {
        let turned = MatMul { lda: k + 8, ldb: n + 16, ldc: n + 8, ..MatMul::new(m, n, k, DType::BF16) };
        check::<bf16>(&device, &mut stream, &turned.into(), 0);
        let straight = MatMul::new(m, n, k, DType::F16).trans_b();
        check::<f16>(&device, &mut stream, &straight.into(), 0);
    }
}

/// Layers whose blocks work in pairs, where the last rows and columns are not whole tiles.
const PAIRS: [(usize, usize, usize, usize); 3] = [(500, 520, 2040, 16), (2000, 200, 2040, 13), (500, 1544, 4000, 16)];

#[test]
fn lora_layers_by_pairs_of_blocks_agree_with_their_reference() {
    let Some(device) = gpu(Options { dependent_launch: true, ..Options::default() }) else { return };
    let mut stream = device.stream().unwrap();
    for (rows, ins, outs, rank) in PAIRS {
        let plain = LoraLinear::new(rows, ins, outs, rank, 2.0, DType::F16);
        check::<f16>(&device, &mut stream, &plain.into(), 0);
        let padded = LoraLinear { x_row: ins + 8, y_row: outs + 8, dtype: DType::BF16, ..plain };
        check::<bf16>(&device, &mut stream, &padded.into(), 0);
    }
}

/// What a launch counts is zero again behind it: one by one, side by side, and in a graph.
#[test]
fn layers_by_pairs_of_blocks_run_again_and_again() {
    for dependent_launch in [false, true] {
        let Some(device) = gpu(Options { dependent_launch, ..Options::default() }) else { return };
        let mut stream = device.stream().unwrap();
        for (rows, ins, outs, rank) in PAIRS {
            let op = Op::from(LoraLinear::new(rows, ins, outs, rank, 2.0, DType::BF16));
            let layer = stream.prepare(&op, None).unwrap();
            let operands = op.operands().unwrap();
            let sized = operands.inputs.iter().zip(0..);
            let inputs: Vec<Buffer> =
                sized.map(|(input, i)| place(&device, &mut stream, &numbers::<bf16>(input.span, i), 0)).collect();
            let mut y = device.alloc(DType::BF16, rows * outs).unwrap();
            let run = |stream: &mut Stream, y: &mut Buffer, times: usize| {
                let spans = operands.inputs.iter().map(|input| input.span);
                let inputs: Vec<Input<'_>> =
                    inputs.iter().zip(spans).map(|(buffer, span)| buffer.slice(0..span)).collect();
                (0..times).try_for_each(|_| stream.encode(&layer, &inputs, &mut [(&mut *y).into()]))
            };
            let found = |stream: &mut Stream, y: &mut Buffer| {
                let mut numbers = vec![bf16::ZERO; rows * outs];
                stream.read(y, &mut numbers).unwrap();
                stream.write(y, &vec![bf16::ZERO; rows * outs]).unwrap();
                numbers
            };
            let mut results = Vec::new();
            for times in [1, 1, 20] {
                run(&mut stream, &mut y, times).unwrap();
                results.push(found(&mut stream, &mut y));
            }
            let graph = stream.capture(|stream| run(stream, &mut y, 20)).unwrap();
            for _ in 0..2 {
                graph.launch(&mut stream).unwrap();
                results.push(found(&mut stream, &mut y));
            }
            assert!(results[0].iter().any(|x| x.to_f32() != 0.0));
            assert!(results.iter().all(|result| *result == results[0]), "{rows}x{ins}x{outs}r{rank}");
        }
    }
}

/// A chain of products, each of what the one before it left: what a graph makes is what the stream makes.
#[test]
fn a_graph_gives_the_same_numbers() {
    for dependent_launch in [false, true] {
        let Some(device) = gpu(Options { dependent_launch, ..Options::default() }) else { return };
        let mut stream = device.stream().unwrap();
        let side = 128;
        let op = Op::from(MatMul::new(side, side, side, DType::F32).scaled(0.1, 0.0));
        let norm = Op::from(RmsNorm::new(side, side, 1e-5, DType::F32));
        let (product, norm) = (stream.prepare(&op, None).unwrap(), stream.prepare(&norm, None).unwrap());
        let alloc = || device.alloc(DType::F32, side * side).unwrap();
        let (mut w, mut x, mut y, mut weight) = (alloc(), alloc(), alloc(), device.alloc(DType::F32, side).unwrap());
        stream.write(&mut w, &numbers::<f32>(side * side, 1)).unwrap();
        stream.write(&mut weight, &numbers::<f32>(side, 2)).unwrap();
        let start = numbers::<f32>(side * side, 3);
        let mut chain = |stream: &mut Stream, x: &mut Buffer| {
            for _ in 0..20 {
                stream.encode(&product, &[(&*x).into(), (&w).into()], &mut [(&mut y).into()])?;
                stream.encode(&norm, &[(&y).into(), (&weight).into()], &mut [(&mut *x).into()])?;
            }
            Ok(())
        };
        let mut results = Vec::new();
        stream.write(&mut x, &start).unwrap();
        chain(&mut stream, &mut x).unwrap();
        let graph = {
            let mut result = vec![0f32; side * side];
            stream.read(&x, &mut result).unwrap();
            results.push(result);
            stream.capture(|stream| chain(stream, &mut x)).unwrap()
        };
        assert_eq!(graph.operations(), 40);
        for _ in 0..3 {
            stream.write(&mut x, &start).unwrap();
            graph.launch(&mut stream).unwrap();
            let mut result = vec![0f32; side * side];
            stream.read(&x, &mut result).unwrap();
            results.push(result);
        }
        assert!(results.iter().all(|result| *result == results[0]), "dependent launches: {dependent_launch}");
        assert!(results[0].iter().all(|x| x.is_finite()) && results[0].iter().any(|&x| x != 0.0));
    }
}

#[test]
fn out_of_memory_is_survived() {
    let Some(device) = gpu(Options::default()) else { return };
    let mut stream = device.stream().unwrap();
    let error = device.alloc(DType::F32, 1 << 45).unwrap_err();
    assert!(matches!(error, candlewick_core::Error::OutOfMemory { .. }), "{error}");
    check::<f32>(&device, &mut stream, &ops(DType::F32)[0], 0);
}

#[test]
fn limits_are_what_a_gpu_has() {
    let Some(device) = gpu(Options::default()) else { return };
    let limits = device.measure_limits(1).unwrap();
    println!("{limits:?}");
    assert!(limits.flops.iter().all(|(_, rate)| *rate > 1e11));
    assert!(limits.bandwidth.iter().all(|(_, rate)| *rate > 1e9) && limits.wake < 1e-3);
}
