//! Candle with its synchronisation taken away is caught, so that a clean run means something.

use candle_core::{Device, Result};
use candle_nn::ops;
use candle_on_the_emulator::{assert_nothing_new, numbers};
use metal_emulator::{Drop, Rule, Settings, watch};

fn work() -> Result<()> {
    let device = Device::new_metal(0)?;
    let (x, w) = (numbers(&[32, 64], 37, &device)?, numbers(&[64, 64], 91, &device)?);
    let mut y = x.clone();
    for _ in 0..6 {
        y = (ops::softmax_last_dim(&y.matmul(&w)?)? + &x)?;
    }
    y.sum_all()?.to_scalar::<f32>()?;
    Ok(())
}

#[test]
fn as_it_is() {
    for seed in 0..5 {
        let watch = watch(Settings::seeded(seed));
        work().unwrap();
        assert_nothing_new(&watch);
    }
}

#[test]
fn without_barriers() {
    let watch = watch(Settings { drop: Drop::Barriers, ..Settings::default() });
    work().unwrap();
    watch.assert_found(Rule::MissingBarrier);
}

#[test]
fn without_fences() {
    let watch = watch(Settings { drop: Drop::Fences, ..Settings::default() });
    // More operations than fit into one encoder.
    for _ in 0..12 {
        work().unwrap();
    }
    watch.assert_found(Rule::MissingFence);
}
