//! Every version of macOS from 13 on, and a GPU with tensor operations: which engines there are, and that each is right.
//!
//! What a system does not have is hidden there: a message to it panics.

use candlewick_core::backend::{Device as _, Engine, Stream as _};
use candlewick_core::op::Batch;
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax, reference};
use candlewick_metal::{ACCELERATE, Device, MPS, MPS_NDARRAY, MSL, Options, SIMDGROUP, Stream, TENSOR};
use half::{bf16, f16};
use metal_emulator::{Drop, Rule, Settings, region, watch};
use product_on_the_emulator::Prepared;

fn system(macos: (u32, u32), family: u32) -> Settings {
    Settings { macos, family, ..Settings::seeded(u64::from(macos.0)) }
}

/// Every tensor with a Metal buffer of its own, so that the emulator sees where it ends.
fn open() -> (Device, Stream) {
    let device = Device::with_options(Options { block_bytes: 0, ..Options::default() }).unwrap();
    let stream = device.stream().unwrap();
    (device, stream)
}

fn numbers(stream: &mut Stream, buffer: &candlewick_metal::Buffer, op: &Op, elements: usize) -> Vec<f64> {
    match op.dtype() {
        DType::F32 => {
            let mut values = vec![0f32; elements];
            stream.read(buffer, &mut values).unwrap();
            values.into_iter().map(f64::from).collect()
        }
        DType::F16 => {
            let mut values = vec![f16::ZERO; elements];
            stream.read(buffer, &mut values).unwrap();
            values.into_iter().map(f64::from).collect()
        }
        DType::BF16 => {
            let mut values = vec![bf16::ZERO; elements];
            stream.read(buffer, &mut values).unwrap();
            values.into_iter().map(f64::from).collect()
        }
        DType::U32 | DType::U8 => unreachable!("operations compute with floats"),
    }
}

/// Runs `op` on an engine twice, with nothing pending and after itself, and compares with the reference.
fn check(device: &Device, stream: &mut Stream, op: &Op, engine: Engine) {
    let mut prepared = Prepared::new(device, stream, op, Some(engine)).unwrap();
    assert_eq!(prepared.kernel.engine(), engine);
    stream.wait().unwrap();
    let operands = op.operands().unwrap();
    let read = |stream: &mut Stream, buffer: &_, span| numbers(stream, buffer, op, span);
    let inputs: Vec<Vec<f64>> = operands
        .inputs
        .iter()
        .zip(&prepared.inputs)
        .map(|(operand, buffer)| read(stream, buffer, operand.span))
        .collect();
    let mut all: Vec<Vec<f64>> = operands.outputs.iter().map(|output| vec![0f64; output.span]).collect();
    let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let refer = |all: &mut [Vec<f64>]| {
        let mut outputs: Vec<&mut [f64]> = all.iter_mut().map(Vec::as_mut_slice).collect();
        reference::run(op, &inputs, &mut outputs).unwrap();
    };
    for pending in [false, true] {
        prepared.encode(stream).unwrap();
        refer(&mut all);
        if pending {
            prepared.encode(stream).unwrap();
            prepared.encode(stream).unwrap();
            refer(&mut all);
            refer(&mut all);
        }
        for (buffer, expected) in prepared.outputs.iter().zip(&all) {
            let found = read(stream, buffer, expected.len());
            let magnitude = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            let error = found.iter().zip(expected).fold(0.0f64, |most, (x, y)| most.max((x - y).abs())) / magnitude;
            assert!(error <= 4.0 * op.error_bound(), "{op} on {engine}, pending {pending}: error {error:.1e}");
        }
        stream.wait().unwrap();
    }
}

fn small_ops() -> Vec<Op> {
    let product = MatMul::new(20, 24, 16, DType::F32);
    vec![
        product.into(),
        product.batched(3).scaled(0.5, 2.0).into(),
        MatMul { batch: Batch { dims: [1, 2, 3], a: [0, 960, 320], b: [0, 0, 384], c: [0, 480, 0] }, ..product }.into(),
        MatMul::new(40, 48, 16, DType::F16).into(),
        MatMul::new(40, 48, 16, DType::BF16).trans_b().into(),
        Softmax::new(8, 40, DType::F32).into(),
        RmsNorm::new(8, 40, 1e-5, DType::F16).into(),
        LoraLinear::new(20, 24, 32, 4, 2.0, DType::F32).into(),
        LoraDelta::new(3, 24, 32, 4, 2.0, DType::F32).accumulate().into(),
    ]
}

/// What a system offers for a product of f32 and one of f16, the first first.
fn offered(device: &Device) -> [Vec<Engine>; 2] {
    [MatMul::new(512, 512, 512, DType::F32), MatMul::new(64, 64, 64, DType::F16)].map(|op| device.engines(&op.into()))
}

#[test]
fn every_system_runs_what_it_offers() {
    let old = [SIMDGROUP, MSL, MPS];
    let new = [SIMDGROUP, MSL, MPS_NDARRAY, MPS];
    let newest = [TENSOR, SIMDGROUP, MSL, MPS_NDARRAY, MPS];
    // The system, the GPU's family, and the engines for a product of f32 and of f16.
    type Case<'a> = ((u32, u32), u32, &'a [Engine], &'a [Engine]);
    let cases: [Case<'_>; 6] = [
        ((13, 0), 7, &old, &old),
        ((14, 0), 7, &old, &old),
        ((15, 0), 10, &new, &new),
        ((26, 1), 10, &new, &new),
        ((26, 2), 9, &new, &new),
        ((26, 2), 10, &new, &newest),
    ];
    for (macos, family, f32s, f16s) in cases {
        let watch = watch(system(macos, family));
        let (device, mut stream) = open();
        assert_eq!(offered(&device), [f32s, f16s], "macOS {macos:?}, Apple{family}");
        let all = device.info().engines;
        assert_eq!(all.contains(&MPS_NDARRAY), macos.0 >= 15);
        assert_eq!(all.contains(&TENSOR), f16s.contains(&TENSOR));
        for op in small_ops() {
            for engine in device.engines(&op) {
                check(&device, &mut stream, &op, engine);
            }
        }
        drop(stream);
        watch.assert_clean();
    }
}

/// Edges in every direction, every transpose, padded rows, batches with broadcast and both factors.
#[test]
fn tensor_operations_are_right_at_every_edge() {
    for seed in 0..2 {
        let watch = watch(Settings { seed, ..system((26, 2), 10) });
        let (device, mut stream) = open();
        for dtype in [DType::F16, DType::BF16] {
            let sizes = [(64, 32, 16), (65, 33, 17), (7, 70, 40), (130, 5, 3), (1, 1, 1)];
            for (case, (m, n, k)) in sizes.into_iter().enumerate() {
                for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                    let mut op = MatMul::new(m, n, k, dtype);
                    let (a_cols, b_cols) = (if trans_a { m } else { k }, if trans_b { k } else { n });
                    let row = |cols: usize| cols.next_multiple_of(8) + 8;
                    (op.trans_a, op.trans_b, op.lda, op.ldb, op.ldc) =
                        (trans_a, trans_b, row(a_cols), row(b_cols), n + 3);
                    if case == 1 {
                        let a_rows = if trans_a { k } else { m };
                        op.batch = Batch { dims: [1, 2, 2], a: [0, a_rows * op.lda, 0], b: [0; 3], c: [0; 3] };
                        (op.batch.c[1], op.batch.c[2]) = (2 * m * op.ldc, m * op.ldc);
                        op = op.scaled(-0.5, 0.25);
                    }
                    let op = Op::from(op);
                    assert!(device.engines(&op).contains(&TENSOR), "{op:?}");
                    check(&device, &mut stream, &op, TENSOR);
                }
            }
        }
        // It costs what the other own kernels cost.
        let op = Op::from(MatMul::new(64, 64, 64, DType::F16));
        let mut prepared = Prepared::new(&device, &mut stream, &op, Some(TENSOR)).unwrap();
        let mut other = Prepared::new(&device, &mut stream, &op, Some(SIMDGROUP)).unwrap();
        stream.wait().unwrap();
        prepared.encode(&mut stream).unwrap();
        other.encode(&mut stream).unwrap();
        // Its output is written again: one message more, for the barrier.
        let (counts, ()) = region(|| prepared.encode(&mut stream).unwrap());
        assert_eq!((counts.runtime.messages, counts.gpu.barriers, counts.runtime.objects_made), (4, 1, 0), "{counts}");
        // A tensor that begins between multiples of 16 bytes goes to simdgroup matrices.
        let op = Op::from(MatMul::new(16, 16, 16, DType::F16));
        let kernel = stream.prepare(&op, Some(TENSOR)).unwrap();
        let mut x = device.alloc(DType::F16, 600).unwrap();
        stream.write(&mut x, &[f16::ONE; 600]).unwrap();
        let mut y = device.alloc(DType::F16, 256).unwrap();
        stream.encode(&kernel, &[x.slice(1..257), x.slice(300..556)], &mut [(&mut y).into()]).unwrap();
        let mut found = [f16::ZERO; 256];
        stream.read(&y, &mut found).unwrap();
        assert_eq!(found, [f16::from_f32(16.0); 256]);
        // Rows that do not begin at such multiples are not offered.
        assert!(!device.engines(&MatMul::new(64, 64, 65, DType::F16).into()).contains(&TENSOR));
        drop(stream);
        watch.assert_clean();
    }
}

#[test]
fn without_its_kernels_the_next_engine_serves_and_the_reason_is_kept() {
    let watch = watch(Settings { refused_word: Some("metal_tensor"), ..system((26, 2), 10) });
    let (device, mut stream) = open();
    let op = Op::from(MatMul::new(64, 64, 64, DType::F16));
    assert_eq!(device.engines(&op)[0], TENSOR);
    // By name it is an error; chosen, it is not.
    let error = stream.prepare(&op, Some(TENSOR)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("tensor.metal"), "{error}");
    assert_eq!(device.tensor_failure(), None);
    let mut prepared = Prepared::new(&device, &mut stream, &op, None).unwrap();
    assert_eq!(prepared.kernel.engine(), SIMDGROUP);
    prepared.encode(&mut stream).unwrap();
    stream.wait().unwrap();
    assert!(device.tensor_failure().is_some_and(|why| why.contains("metal_tensor is refused")));
    assert!(!device.engines(&op).contains(&TENSOR) && !device.info().engines.contains(&TENSOR));
    drop(stream);
    watch.assert_clean();
}

/// Tiny products run at once where nothing is pending, else on the GPU; which of both depends on the calls alone.
#[test]
fn accelerate_never_waits_and_never_overtakes() {
    for seed in 0..5 {
        let watch = watch(Settings::seeded(seed));
        let (device, mut stream) = open();
        let op = Op::from(MatMul::new(16, 16, 16, DType::F32));
        assert_eq!(device.engines(&op)[0], ACCELERATE);
        assert_ne!(device.engines(&MatMul::new(256, 256, 256, DType::F32).into())[0], ACCELERATE);
        let mut first = Prepared::new(&device, &mut stream, &op, None).unwrap();
        let mut second = Prepared::new(&device, &mut stream, &op, None).unwrap();
        stream.wait().unwrap();
        let steps = |stream: &mut Stream, first: &mut Prepared, second: &mut Prepared| {
            first.encode(stream).unwrap();
            std::mem::swap(&mut second.inputs[0], &mut first.outputs[0]);
            second.encode(stream).unwrap();
            std::mem::swap(&mut second.inputs[0], &mut first.outputs[0]);
        };
        let (counts, ()) = region(|| steps(&mut stream, &mut first, &mut second));
        let quiet = (counts.gpu.cpu_products, counts.gpu.dispatches, counts.gpu.waits, counts.runtime.messages);
        assert_eq!(quiet, (2, 0, 0, 0), "{counts}");
        let mut on_cpu = vec![0f32; 256];
        stream.read(&second.outputs[0], &mut on_cpu).unwrap();

        // Behind other work they go to the GPU, also once that work is committed, and until something waits.
        let softmax = Op::from(Softmax::new(4, 32, DType::F32));
        let mut other = Prepared::new(&device, &mut stream, &softmax, Some(MSL)).unwrap();
        other.encode(&mut stream).unwrap();
        let (counts, ()) = region(|| steps(&mut stream, &mut first, &mut second));
        assert_eq!((counts.gpu.cpu_products, counts.gpu.dispatches, counts.gpu.waits), (0, 2, 0), "{counts}");
        stream.flush().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let (counts, ()) = region(|| steps(&mut stream, &mut first, &mut second));
        assert_eq!((counts.gpu.cpu_products, counts.gpu.waits), (0, 0), "{counts}");
        let mut on_gpu = vec![0f32; 256];
        stream.read(&second.outputs[0], &mut on_gpu).unwrap();
        let close = on_cpu.iter().zip(&on_gpu).all(|(x, y)| (x - y).abs() < 1e-4);
        assert!(close && on_cpu.iter().any(|x| *x != 0.0), "{on_cpu:?} {on_gpu:?}");
        let (counts, ()) = region(|| steps(&mut stream, &mut first, &mut second));
        assert_eq!((counts.gpu.cpu_products, stream.counters().on_cpu), (2, 4), "{counts}");
        drop(stream);
        watch.assert_clean();
    }
}

/// A sum of many terms over few tiles of C is split between groups, which a second kernel adds up.
#[test]
fn long_sums_on_simdgroup_matrices_are_split() {
    for seed in 0..3 {
        let watch = watch(Settings::seeded(seed));
        let (device, mut stream) = open();
        for dtype in DType::ALL {
            let product = MatMul::new(20, 34, 700, dtype);
            let strided = MatMul { ldc: 37, ..product.trans_a().trans_b().scaled(0.5, 0.25) };
            let ops: [Op; 4] = [
                product.into(),
                strided.into(),
                product.batched(2).into(),
                LoraLinear::new(5, 600, 40, 0, 2.0, dtype).with_bias().into(),
            ];
            for op in ops {
                let kernel = stream.prepare(&op, Some(SIMDGROUP)).unwrap();
                assert_eq!(kernel.dispatches(), 2, "{op:?}");
                check(&device, &mut stream, &op, SIMDGROUP);
            }
        }
        // A LoRA layer stays below ten messages.
        let layer = Op::from(LoraLinear::new(5, 600, 40, 4, 2.0, DType::F32));
        assert_eq!(stream.prepare(&layer, Some(SIMDGROUP)).unwrap().dispatches(), 2);
        // The gradients of A and B are sums over the rows.
        let op = Op::LoraLinearBackward(LoraLinear::new(600, 24, 40, 4, 2.0, DType::F32));
        assert!(stream.prepare(&op, Some(SIMDGROUP)).unwrap().dispatches() > 5);
        check(&device, &mut stream, &op, SIMDGROUP);
        drop(stream);
        watch.assert_clean();
    }
}

#[test]
fn the_barrier_before_the_sums_is_needed() {
    for seed in 0..2 {
        let watch = watch(Settings { drop: Drop::Barrier(0), ..Settings::seeded(seed) });
        let (device, mut stream) = open();
        let op = Op::from(MatMul::new(20, 34, 700, DType::F32));
        let mut prepared = Prepared::new(&device, &mut stream, &op, Some(SIMDGROUP)).unwrap();
        let (counts, ()) = region(|| prepared.encode(&mut stream).unwrap());
        assert_eq!((counts.gpu.dispatches, counts.gpu.barriers), (2, 1), "{counts}");
        // The command buffer that a report belongs to fails only where nobody watches.
        stream.wait().unwrap();
        watch.assert_found(Rule::MissingBarrier);
    }
}

/// What it measures here is no time of a Mac's: only that it comes to an end, and that every rate is one.
#[test]
fn the_limits_can_be_measured() {
    let watch = watch(Settings::default());
    let limits = Device::open().unwrap().measure_limits(1).unwrap();
    let rates = limits.flops.iter().map(|(_, rate)| *rate).chain(limits.bandwidth.iter().map(|(_, rate)| *rate));
    assert!(rates.chain([limits.wake]).all(|rate| rate.is_finite() && rate > 0.0), "{limits:?}");
    assert!(!limits.bandwidth.is_empty() && limits.bandwidth.is_sorted_by(|a, b| a.0 < b.0));
    watch.assert_clean();
}
