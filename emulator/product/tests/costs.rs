//! What one operation costs in the steady state, counted: messages, objects, command buffers, waits, allocations.

use candlewick_core::backend::{Device as _, Engine, Stream as _};
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Op, Result, RmsNorm, Softmax};
use candlewick_metal::{CommitLimits, Device, MPS, MPS_NDARRAY, MSL, Options, SIMDGROUP, Stream};
use metal_emulator::{Counts, Settings, region, watch};
use product_on_the_emulator::Prepared;

fn device() -> Result<(Device, Stream)> {
    let device = Device::open()?;
    let stream = device.stream()?;
    Ok((device, stream))
}

/// What the sixth of six calls costs, in a command buffer that stays open, after another operation.
fn steady(device: &Device, stream: &mut Stream, op: &Op, engine: Option<Engine>) -> Counts {
    let mut prepared = Prepared::new(device, stream, op, engine).unwrap();
    stream.wait().unwrap();
    for _ in 0..5 {
        prepared.encode(stream).unwrap();
    }
    let other = Op::from(RmsNorm::new(1, 40, 1e-5, DType::F16));
    Prepared::new(device, stream, &other, Some(MSL)).unwrap().encode(stream).unwrap();
    let (counts, ()) = region(|| prepared.encode(stream).unwrap());
    stream.wait().unwrap();
    counts
}

#[test]
fn an_operation_costs_few_messages_and_nothing_else() {
    let watch = watch(Settings::default());
    let (device, mut stream) = device().unwrap();
    let f32 = DType::F32;
    let product = Op::from(MatMul::new(64, 64, 64, f32));
    // (operation, engine, messages at most)
    let cases: [(Op, Engine, u64); 11] = [
        (Softmax::new(32, 64, f32).into(), MSL, 8),
        (Op::SoftmaxBackward(Softmax::new(32, 64, f32)), MSL, 8),
        (RmsNorm::new(32, 64, 1e-5, f32).into(), MSL, 8),
        (product, MSL, 10),
        (product, SIMDGROUP, 10),
        (product, MPS, 10),
        (product, MPS_NDARRAY, 10),
        (LoraLinear::new(32, 64, 64, 8, 2.0, f32).into(), MSL, 10),
        (LoraLinear::new(32, 64, 64, 8, 2.0, f32).into(), SIMDGROUP, 10),
        (LoraLinear::new(32, 64, 64, 8, 2.0, f32).into(), MPS, 10),
        (LoraDelta::new(32, 64, 64, 8, 2.0, f32).into(), SIMDGROUP, 10),
    ];
    println!("| operation | engine | messages | objects | dispatches | barriers |\n|---|---|---|---|---|---|");
    for (op, engine, most) in cases {
        let counts = steady(&device, &mut stream, &op, Some(engine));
        let (runtime, gpu) = (counts.runtime, counts.gpu);
        println!(
            "| {op} | {engine} | {} | {} | {} | {} |",
            runtime.messages,
            runtime.objects_made,
            gpu.dispatches + gpu.mps_kernels,
            gpu.barriers
        );
        assert!(runtime.messages <= most, "{op} on {engine}: {counts}");
        let nothing = [
            runtime.objects_made,
            runtime.autoreleases,
            runtime.retains,
            runtime.blocks_copied,
            gpu.command_buffers,
            gpu.commits,
            gpu.waits,
            gpu.buffers,
            gpu.blits,
            gpu.bytes_copied,
        ];
        assert_eq!(nothing, [0; 10], "{op} on {engine}: {counts}");
    }
    watch.assert_clean();
}

/// Operations that do not meet in memory get no barrier between them.
#[test]
fn barriers_go_in_only_where_operations_meet() {
    let watch = watch(Settings::default());
    let (device, mut stream) = device().unwrap();
    let op = Op::from(Softmax::new(16, 64, DType::F32));
    let mut apart: Vec<Prepared> =
        (0..4).map(|_| Prepared::new(&device, &mut stream, &op, Some(MSL)).unwrap()).collect();
    stream.wait().unwrap();
    let (counts, ()) = region(|| apart.iter_mut().for_each(|one| one.encode(&mut stream).unwrap()));
    assert_eq!(counts.gpu.barriers, 0, "four outputs in one Metal buffer, and no barrier");
    let (counts, ()) = region(|| apart.iter_mut().for_each(|one| one.encode(&mut stream).unwrap()));
    assert_eq!(counts.gpu.barriers, 1, "the first writes again what is there, and one barrier serves all");
    stream.wait().unwrap();
    watch.assert_clean();
}

#[test]
fn a_thousand_operations_take_few_command_buffers_and_one_wait() {
    for limit in [50, 64] {
        let watch = watch(Settings::default());
        let commit = Some(CommitLimits { operations: limit, bytes: usize::MAX });
        let device = Device::with_options(Options { commit, ..Options::default() }).unwrap();
        let mut stream = device.stream().unwrap();
        let op = Op::from(Softmax::new(2, 32, DType::F32));
        let mut prepared = Prepared::new(&device, &mut stream, &op, Some(MSL)).unwrap();
        prepared.encode(&mut stream).unwrap();
        stream.wait().unwrap();
        let mut y = vec![0f32; 64];
        let (counts, ()) = region(|| {
            for _ in 0..1000 {
                prepared.encode(&mut stream).unwrap();
            }
            stream.read(&prepared.outputs[0], &mut y).unwrap();
        });
        println!("limit {limit}: {} command buffers, {} waits", counts.gpu.command_buffers, counts.gpu.waits);
        assert!(counts.gpu.command_buffers <= 1000 / limit as u64 + 1, "{counts}");
        assert_eq!(counts.gpu.command_buffers, counts.gpu.commits);
        // The wait is a look at the event where the GPU is done by then.
        assert!(counts.gpu.waits <= 1, "{counts}");
        assert!((y.iter().sum::<f32>() - 2.0).abs() < 1e-5);
        watch.assert_clean();
    }
}
