//! Several threads on one Metal device, and memory that stays flat.

use candle_adapter_on_the_emulator::metal;
use candle_adapter_on_the_emulator::numbers::{numbers, tensor};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_on_the_emulator::assert_nothing_new;
use candlewick_candle::metal::region;
use candlewick_candle::{lora_linear, matmul, rms_norm, softmax};
use metal_emulator::{Settings, watch};

fn work(seed: u64, regions: bool) -> Result<Vec<f64>> {
    let of = |seed, shape: &[usize]| tensor(seed, shape, DType::F32).to_device(&metal());
    let rows = 8 + seed as usize % 5;
    let x = Var::from_tensor(&of(seed, &[rows, 24])?)?;
    let (w, weight) = (of(seed + 1, &[24, 24])?, of(seed + 2, &[24])?);
    let (a, b) = (of(seed + 3, &[4, 24])?, of(seed + 4, &[24, 4])?);
    let y = rms_norm(&lora_linear(&x, &w, None, &a, &b, 0.5)?, &weight, 1e-5)?;
    let y = matmul(&softmax(&matmul(&y, &y.t()?)?, 0.2)?, &y)?;
    let gradients = y.sqr()?.sum_all()?.backward()?;
    let mut result = gradients.get(&x).expect("x is a variable").clone();
    if regions {
        let [product] = region([&result, &w], |region, [x, w]| Ok([region.matmul(&x, &w.t()?)?]))?;
        result = (product * 0.5)?;
    }
    Ok(numbers(&result.to_device(&Device::Cpu)?))
}

#[test]
fn eight_threads_get_what_one_gets() {
    let expected: Vec<_> = {
        let watch = watch(Settings::default());
        let expected = (0..10).map(|seed| work(seed, true).unwrap()).collect();
        assert_nothing_new(&watch);
        expected
    };
    for shuffle in 0..2 {
        let watch = watch(Settings::seeded(shuffle));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let expected = &expected;
                scope.spawn(move || {
                    for round in 0..6 {
                        let seed = (thread * 7 + round * 3) % 10;
                        assert_eq!(work(seed, true).unwrap(), expected[seed as usize], "thread {thread}, seed {seed}");
                    }
                });
            }
        });
        assert_nothing_new(&watch);
    }
}

#[test]
fn memory_stays_flat() {
    let watch = watch(Settings::default());
    let state = || {
        let objects: u64 = metal_emulator::alive().iter().map(|(_, count)| count).sum();
        (objects, metal_emulator::allocated_bytes())
    };
    let rounds = |count: u64| {
        for i in 0..count {
            work(i % 3, false).unwrap();
        }
        metal().synchronize().unwrap();
        let scalar = Tensor::zeros(1, DType::F32, &metal()).unwrap();
        scalar.to_vec1::<f32>().unwrap();
        metal().synchronize().unwrap();
    };
    rounds(12);
    let before = state();
    rounds(60);
    let after = state();
    println!("objects and bytes: {before:?} -> {after:?}");
    assert!(after.0 <= before.0 + 8 && after.1 <= before.1, "{before:?} -> {after:?}");
    assert_nothing_new(&watch);
}
