//! Order, memory and threads.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Element, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use candlewick_metal::{Device, MPS, MPS_NDARRAY, MSL, NAIVE_MPS, SIMDGROUP, Stage, naive_product};
use metal_emulator::{Settings, region, watch};
use product_on_the_emulator::Prepared;

fn open() -> Device {
    Device::open().unwrap()
}

#[test]
fn writes_come_in_order_with_pending_work() {
    for seed in 0..5 {
        let watch = watch(Settings::seeded(seed));
        let device = open();
        let mut stream = device.stream().unwrap();
        let op = Op::from(Softmax::new(1, 4, DType::F32));
        let kernel = stream.prepare(&op, None).unwrap();
        let mut x = device.alloc(DType::F32, 4).unwrap();
        let mut results: Vec<_> = (0..3).map(|_| device.alloc(DType::F32, 4).unwrap()).collect();
        let (counts, ()) = region(|| {
            for (hot, y) in results.iter_mut().enumerate() {
                let mut values = [0f32; 4];
                values[hot] = 1000.0;
                stream.write(&mut x, &values).unwrap();
                stream.encode(&kernel, &[(&x).into()], &mut [y.into()]).unwrap();
            }
        });
        assert_eq!(counts.gpu.waits, 0, "a write waits for nothing");
        for (hot, y) in results.iter().enumerate() {
            let mut found = [0f32; 4];
            stream.read(y, &mut found).unwrap();
            let mut expected = [0f32; 4];
            expected[hot] = 1.0;
            assert_eq!(found, expected, "result {hot}, seed {seed}");
        }
        watch.assert_clean();
    }
}

#[test]
fn new_memory_is_zero_and_memory_is_reused() {
    let watch = watch(Settings::default());
    let device = open();
    let mut stream = device.stream().unwrap();
    let op = Op::from(Softmax::new(64, 64, DType::F32));
    let mut after_a_while = 0;
    for round in 0..200 {
        let mut prepared = Prepared::new(&device, &mut stream, &op, None).unwrap();
        prepared.encode(&mut stream).unwrap();
        // Dropped while its work is pending.
        drop(prepared);
        let fresh = device.alloc(DType::F32, 100).unwrap();
        if round % 20 == 0 {
            let mut zeros = [1f32; 100];
            stream.read(&fresh, &mut zeros).unwrap();
            assert_eq!(zeros, [0.0; 100]);
        }
        if round == 50 {
            after_a_while = device.allocated_bytes();
        }
    }
    assert_eq!(device.allocated_bytes(), after_a_while, "memory stays flat");
    watch.assert_clean();
}

#[test]
fn large_memory_goes_back_to_the_system() {
    let watch = watch(Settings::default());
    let device = open();
    let before = device.allocated_bytes();
    let large = device.alloc(DType::F32, 20 << 20).unwrap();
    assert!(device.allocated_bytes() >= before + (80 << 20));
    drop(large);
    assert_eq!(device.allocated_bytes(), before);
    let error = device.alloc(DType::F32, usize::MAX / 2).unwrap_err();
    assert!(error.to_string().contains("could not be allocated"), "{error}");
    watch.assert_clean();
}

#[test]
fn a_kernel_may_be_dropped_while_its_work_is_pending() {
    for seed in 0..3 {
        let watch = watch(Settings::seeded(seed));
        let device = open();
        let mut stream = device.stream().unwrap();
        let mut y = device.alloc(DType::F32, 24 * 48).unwrap();
        {
            // Another stream's caches die with it; so a stream of its own, whose kernels go while the work is pending.
            let op = Op::from(LoraLinear::new(24, 40, 48, 8, 2.0, DType::F32));
            let prepared = Prepared::new(&device, &mut stream, &op, Some(SIMDGROUP)).unwrap();
            let inputs: Vec<_> = prepared.inputs.iter().map(Into::into).collect();
            stream.encode(&prepared.kernel, &inputs, &mut [(&mut y).into()]).unwrap();
        }
        // More kernels than the cache holds, so that the first goes.
        for cols in 1..1100 {
            stream.prepare(&Op::from(RmsNorm::new(1, cols, 1e-5, DType::F32)), Some(MSL)).unwrap();
        }
        assert!(stream.counters().kernels.evictions > 0);
        stream.wait().unwrap();
        watch.assert_clean();
    }
}

#[test]
fn wrong_owners_are_named() {
    let watch = watch(Settings::default());
    let (here, there) = (open(), open());
    let (mut stream, mut other) = (here.stream().unwrap(), here.stream().unwrap());
    let op = Op::from(Softmax::new(1, 4, DType::F32));
    let kernel = stream.prepare(&op, None).unwrap();
    let mut y = here.alloc(DType::F32, 4).unwrap();
    let mut x = there.alloc(DType::F32, 4).unwrap();
    let error = stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap_err();
    assert!(error.to_string().contains("x belongs to metal device"), "{error}");
    let error = stream.write(&mut x, &[0f32; 4]).unwrap_err();
    assert!(error.to_string().contains("open the device once"), "{error}");
    let x = here.alloc(DType::F32, 4).unwrap();
    let error = other.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()]).unwrap_err();
    assert!(error.to_string().contains("prepare it on the stream that encodes it"), "{error}");
    let error = stream.prepare(&Op::from(MatMul::new(4, 4, 4, DType::BF16)), Some(MPS)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("no engine metal/mps"), "{error}");
    watch.assert_clean();
}

#[test]
fn eight_threads_get_what_one_gets() {
    let watch = watch(Settings::seeded(3));
    let device = open();
    let work = |device: &Device, thread: usize| -> Vec<f32> {
        let mut stream = device.stream().unwrap();
        let ops: [Op; 4] = [
            LoraLinear::new(17, 33, 20 + thread, 4, 2.0, DType::F32).into(),
            MatMul::new(20, 30, 10 + thread, DType::F32).into(),
            Softmax::new(3, 50 + thread, DType::F32).into(),
            RmsNorm::new(5, 60 + thread, 1e-5, DType::F32).into(),
        ];
        let mut results = Vec::new();
        for round in 0..6 {
            for op in &ops {
                let engines = device.engines(op);
                let engine = engines[round % engines.len()];
                let mut prepared = Prepared::new(device, &mut stream, op, Some(engine)).unwrap();
                prepared.encode(&mut stream).unwrap();
                let y = &prepared.outputs[0];
                let mut values = vec![0f32; op.operands().unwrap().outputs[0].span];
                stream.read(y, &mut values).unwrap();
                results.extend(values);
            }
        }
        results
    };
    let alone: Vec<Vec<f32>> = (0..8).map(|thread| work(&device, thread)).collect();
    let together: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn({
                    let device = &device;
                    move || work(device, thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    watch.assert_clean();
}

/// The same numbers in the same places, whichever engine ran, one after the other in one command buffer.
#[test]
fn engines_follow_each_other_in_one_command_buffer() {
    for seed in 0..5 {
        for beta_zero_reads in [false, true] {
            let watch = watch(Settings { mps_beta_zero_reads: beta_zero_reads, ..Settings::seeded(seed) });
            let device = open();
            let mut stream = device.stream().unwrap();
            let op = Op::from(MatMul::new(24, 24, 24, DType::F32));
            let mut prepared = [MPS, SIMDGROUP, MPS_NDARRAY, MSL, MPS, NAIVE_MPS, MPS]
                .map(|engine| Prepared::new(&device, &mut stream, &op, Some(engine)).unwrap());
            // Each reads what the one before wrote.
            for i in 1..prepared.len() {
                let (before, rest) = prepared.split_at_mut(i);
                rest[0].inputs[0] =
                    std::mem::replace(&mut before[i - 1].inputs[0], device.alloc(DType::F32, 0).unwrap());
            }
            let a = std::mem::replace(&mut prepared[6].inputs[0], device.alloc(DType::F32, 0).unwrap());
            let mut nan = device.alloc(DType::F32, 24 * 24).unwrap();
            stream.write(&mut nan, &[f32::NAN; 24 * 24]).unwrap();
            let mut source = a;
            let mut results = Vec::new();
            for one in &mut prepared {
                one.outputs[0] = device.alloc(DType::F32, 24 * 24).unwrap();
                stream.write(&mut one.outputs[0], &[f32::NAN; 24 * 24]).unwrap();
                one.inputs[0] = source;
                one.encode(&mut stream).unwrap();
                source = std::mem::replace(&mut one.outputs[0], device.alloc(DType::F32, 0).unwrap());
            }
            let mut found = vec![0f32; 24 * 24];
            stream.read(&source, &mut found).unwrap();
            results.extend_from_slice(&found);
            assert!(results.iter().all(|value| value.is_finite()), "seed {seed}, {beta_zero_reads}");
            drop(stream);
            watch.assert_clean();
        }
    }
}

#[test]
fn the_naive_product_is_told_stage_by_stage() {
    let watch = watch(Settings::default());
    let device = open();
    let mut stream = device.stream().unwrap();
    let product = MatMul::new(8, 8, 8, DType::F32);
    let mut prepared = Prepared::new(&device, &mut stream, &Op::from(product), Some(MPS)).unwrap();
    stream.wait().unwrap();
    let mut stages = Vec::new();
    let inputs = [(&prepared.inputs[0]).into(), (&prepared.inputs[1]).into()];
    let mut output = (&mut prepared.outputs[0]).into();
    let (counts, result) =
        region(|| naive_product(&device, &product, &inputs, &mut output, &mut |stage| stages.push(stage)));
    result.unwrap();
    assert_eq!(stages, Stage::ALL);
    assert_eq!((counts.gpu.command_buffers, counts.gpu.waits), (1, 1));
    assert!(counts.runtime.objects_made >= 9, "{counts}");
    let mut naive = [0f32; 64];
    stream.read(&prepared.outputs[0], &mut naive).unwrap();
    prepared.encode(&mut stream).unwrap();
    let mut ours = [0f32; 64];
    stream.read(&prepared.outputs[0], &mut ours).unwrap();
    assert_eq!(naive, ours);
    assert!(naive.iter().any(|value| value.to_f64() != 0.0));
    watch.assert_clean();
}

#[test]
fn matrices_of_mps_are_kept_and_bounded() {
    let watch = watch(Settings::default());
    let device = open();
    let mut stream = device.stream().unwrap();
    let op = Op::from(MatMul::new(2, 2, 2, DType::F32));
    let kernel = stream.prepare(&op, Some(MPS)).unwrap();
    let x = device.alloc(DType::F32, 8).unwrap();
    let mut y = device.alloc(DType::F32, 4 * 5000).unwrap();
    for place in (0..5000).chain(4990..5000) {
        let inputs = [x.slice(0..4), x.slice(4..8)];
        stream.encode(&kernel, &inputs, &mut [y.slice_mut(4 * place..4 * place + 4)]).unwrap();
    }
    stream.wait().unwrap();
    let counters = stream.counters();
    assert_eq!(counters.matrices.misses, 5002, "{counters:?}");
    assert!(counters.matrices.evictions > 900 && counters.matrices.hits >= 2 * 5009, "{counters:?}");
    assert_eq!((counters.descriptors.misses, counters.descriptors.evictions), (1, 0), "{counters:?}");
    // Memory that goes back to the system takes its matrices along.
    let large = device.alloc(DType::F32, 20 << 20).unwrap();
    stream.encode(&kernel, &[large.slice(0..4), x.slice(4..8)], &mut [y.slice_mut(0..4)]).unwrap();
    drop(large);
    stream.wait().unwrap();
    let before = metal_emulator::allocated_bytes();
    stream.encode(&kernel, &[x.slice(0..4), x.slice(4..8)], &mut [y.slice_mut(0..4)]).unwrap();
    stream.wait().unwrap();
    assert!(metal_emulator::allocated_bytes() + (80 << 20) <= before, "the buffer went when its matrix did");
    watch.assert_clean();
}
