//! The tests are worth something only if they fail without our synchronisation.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use candlewick_metal::{Device, MPS, MSL, SIMDGROUP};
use metal_emulator::{Drop, Rule, Settings, region, watch};
use product_on_the_emulator::Prepared;

/// A run whose operations depend on each other, in every way: within an operation, from one to the next, and across
/// command buffers. Returns how many barriers and fences it took.
fn run() -> (u64, u64) {
    let device = Device::open().unwrap();
    let mut stream = device.stream().unwrap();
    let layer = LoraLinear::new(24, 40, 48, 8, 2.0, DType::F32);
    let ops: [(Op, _); 7] = [
        (layer.into(), SIMDGROUP),
        (layer.into(), MSL),
        (Op::LoraLinearBackward(layer), SIMDGROUP),
        (Op::LoraLinearBackward(layer), MSL),
        (Softmax::new(8, 64, DType::F32).into(), MSL),
        (RmsNorm::new(8, 64, 1e-5, DType::F16).into(), MSL),
        (MatMul::new(40, 40, 40, DType::F32).into(), SIMDGROUP),
    ];
    let mut prepared = ops.map(|(op, engine)| Prepared::new(&device, &mut stream, &op, Some(engine)).unwrap());
    stream.wait().unwrap();
    let (counts, ()) = region(|| {
        for _ in 0..2 {
            for one in &mut prepared {
                one.encode(&mut stream).unwrap();
                one.encode(&mut stream).unwrap();
            }
            stream.flush().unwrap();
        }
    });
    stream.wait().unwrap();
    (counts.gpu.barriers, counts.gpu.fences)
}

#[test]
fn every_barrier_is_needed() {
    let barriers = {
        let watch = watch(Settings::default());
        let (barriers, fences) = run();
        watch.assert_clean();
        println!("{barriers} barriers, {fences} fences");
        barriers
    };
    assert!(barriers >= 4);
    for dropped in 0..barriers {
        for seed in [0, 1] {
            let watch = watch(Settings { drop: Drop::Barrier(dropped), ..Settings::seeded(seed) });
            run();
            watch.assert_found(Rule::MissingBarrier);
        }
    }
}

#[test]
fn every_fence_is_needed() {
    for seed in 0..3 {
        let watch = watch(Settings { drop: Drop::Fences, ..Settings::seeded(seed) });
        run();
        watch.assert_found(Rule::MissingFence);
    }
}

/// Around MPS it is an event that orders.
fn run_mps() {
    let device = Device::open().unwrap();
    let mut stream = device.stream().unwrap();
    let product = Op::from(MatMul::new(16, 16, 16, DType::F32));
    let mut mps = Prepared::new(&device, &mut stream, &product, Some(MPS)).unwrap();
    let mut own = Prepared::new(&device, &mut stream, &product, Some(SIMDGROUP)).unwrap();
    std::mem::swap(&mut mps.inputs[0], &mut own.outputs[0]);
    stream.wait().unwrap();
    for _ in 0..2 {
        // Own kernels write what MPS wrote, MPS writes again what it wrote itself, and so on across command buffers.
        mps.encode(&mut stream).unwrap();
        mps.encode(&mut stream).unwrap();
        std::mem::swap(&mut mps.outputs[0], &mut own.outputs[0]);
        own.encode(&mut stream).unwrap();
        std::mem::swap(&mut mps.outputs[0], &mut own.outputs[0]);
        stream.flush().unwrap();
    }
    stream.wait().unwrap();
}

#[test]
fn every_event_is_needed() {
    for seed in 0..3 {
        {
            let watch = watch(Settings::seeded(seed));
            run_mps();
            watch.assert_clean();
        }
        let watch = watch(Settings { drop: Drop::Events, ..Settings::seeded(seed) });
        run_mps();
        watch.assert_found(Rule::MissingFence);
    }
}
