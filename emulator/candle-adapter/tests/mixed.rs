//! Between Candle's own operations, with nothing waited for: the same encoder orders both.

use candle_adapter_on_the_emulator::numbers::{assert_close, numbers, tensor, with_gaps};
use candle_adapter_on_the_emulator::{metal, shuffled};
use candle_core::{DType, Device, Result, Tensor};
use candle_on_the_emulator::assert_nothing_new;
use candlewick_candle::metal::{MPS, SIMDGROUP};
use candlewick_candle::{lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};
use metal_emulator::{Drop, Rule, Settings, region, watch};

/// Operations of both kinds that read what the other kind wrote; memory is dropped and taken again at once.
fn chain(device: &Device, rounds: usize) -> Result<Tensor> {
    let of = |seed, shape: &[usize]| tensor(seed, shape, DType::F32).to_device(device);
    let (w, a, b) = (of(1, &[40, 40])?, of(2, &[6, 40])?, of(3, &[40, 6])?);
    let (weight, bias) = (of(4, &[40])?, of(5, &[40])?);
    let mut x = of(6, &[24, 40])?;
    for _ in 0..rounds {
        let y = (lora_linear(&x, &w, Some(&bias), &a, &b, 0.5)? * 0.25)?;
        let y = rms_norm(&(y + &x)?, &weight, 1e-5)?;
        let scores = matmul(&y, &with_gaps(&x).t()?)?;
        let scores = softmax_causal(&(scores * 0.5)?, 0.3)?;
        let z = matmul(&scores.exp()?, &y.narrow(0, 0, 24)?)?;
        let z = lora_delta(&z.relu()?, &a, &b, 0.1)?;
        x = (softmax(&z.t()?.contiguous()?.t()?, 1.0)? + y.affine(0.5, 0.1)?)?;
    }
    Ok(x)
}

#[test]
fn results_are_the_cpus_under_any_order() {
    let expected = numbers(&chain(&Device::Cpu, 3).unwrap());
    shuffled(0..6, || {
        let (counts, x) = region(|| chain(&metal(), 3).unwrap());
        assert_eq!(counts.gpu.waits, 0, "nothing waits");
        assert_close(&x.to_device(&Device::Cpu).unwrap(), &expected, 1e-4, "chain");
    });
}

/// More operations than fit into one of Candle's encoders.
#[test]
fn results_are_the_cpus_across_command_buffers() {
    let expected = numbers(&chain(&Device::Cpu, 12).unwrap());
    shuffled(0..2, || {
        let (counts, x) = region(|| chain(&metal(), 12).unwrap());
        assert!(counts.gpu.commits >= 3 && counts.gpu.waits == 0, "{counts}");
        assert_close(&x.to_device(&Device::Cpu).unwrap(), &expected, 1e-3, "chain");
    });
}

/// Whole operations, each with several dispatches and memory between them, and nothing of Candle's.
fn ours() -> Result<()> {
    let of = |seed, shape: &[usize]| tensor(seed, shape, DType::F32).to_device(&metal());
    let (w, a, b) = (of(1, &[40, 40])?, of(2, &[6, 40])?, of(3, &[40, 6])?);
    let mut x = candle_core::Var::from_tensor(&of(6, &[24, 40])?)?.as_tensor().clone();
    for _ in 0..3 {
        x = lora_linear(&x, &w, None, &a, &b, 0.5)?;
    }
    x.backward()?;
    x.to_vec2::<f32>().map(drop)
}

#[test]
fn every_barrier_is_needed() {
    metal().synchronize().unwrap();
    let barriers = {
        let watch = watch(Settings::default());
        let (counts, result) = region(ours);
        result.unwrap();
        assert_nothing_new(&watch);
        counts.gpu.barriers
    };
    assert!(barriers >= 5, "{barriers}");
    for dropped in 0..barriers {
        let watch = watch(Settings { drop: Drop::Barrier(dropped), ..Settings::seeded(1) });
        ours().unwrap();
        watch.assert_found(Rule::MissingBarrier);
    }
}

/// Operations of a region that need each other, on the engines with own dispatches and on MPS.
fn in_a_region() -> Result<()> {
    let of = |seed| tensor(seed, &[24, 24], DType::F32).to_device(&metal());
    let (x, w) = (of(1)?, of(2)?);
    let [y] = candlewick_candle::metal::region([&x, &w], |region, [x, w]| {
        let mut y = x;
        for engine in [SIMDGROUP, SIMDGROUP, MPS, SIMDGROUP, MPS, MPS] {
            region.force(Some(engine));
            y = region.matmul(&y, &w)?;
        }
        Ok([y])
    })?;
    y.to_vec2::<f32>().map(drop)
}

#[test]
fn order_in_a_region_is_needed() {
    for (dropped, rule) in [(Drop::Barriers, Rule::MissingBarrier), (Drop::Events, Rule::MissingFence)] {
        let watch = watch(Settings { drop: dropped, ..Settings::seeded(1) });
        in_a_region().unwrap();
        watch.assert_found(rule);
    }
    shuffled(0..3, || in_a_region().unwrap());
}

#[test]
fn fences_are_needed() {
    let watch = watch(Settings { drop: Drop::Fences, ..Settings::seeded(1) });
    chain(&metal(), 12).unwrap().to_vec2::<f32>().unwrap();
    watch.assert_found(Rule::MissingFence);
}
