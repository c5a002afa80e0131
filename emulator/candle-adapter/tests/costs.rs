//! What an operation costs on a Metal tensor, beside Candle's own: the table is the documentation's.

use candle_adapter_on_the_emulator::{metal, numbers::tensor};
use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::Linear;
use candle_on_the_emulator::assert_nothing_new;
use candlewick_candle::{LoraConfig, LoraLinear, lora_delta, lora_linear, matmul, rms_norm, softmax};
use metal_emulator::{Counts, Settings, region, watch};

type Operation<'a> = Box<dyn Fn() -> Result<Tensor> + 'a>;

/// Ours and Candle's, with the caches warm, an encoder open, and another operation before.
fn costs(device: &Device) -> Result<Vec<(&'static str, Counts, Counts)>> {
    let of = |seed, shape: &[usize]| tensor(seed, shape, DType::F32).to_device(device);
    let (x, w, weight) = (of(1, &[64, 64])?, of(2, &[64, 64])?, of(3, &[64])?);
    let (a, b) = (of(4, &[8, 64])?, of(5, &[64, 8])?);
    let layer =
        LoraLinear::from_tensors(&Linear::new(w.clone(), None), LoraConfig::new(8, 16.0), a.clone(), b.clone())?;
    let delta = || x.matmul(&a.t()?)?.matmul(&b.t()?)? * 2.0;
    let (x, w, weight) = (&x, &w, &weight);
    let operations: [(&str, Operation<'_>, Operation<'_>); 5] = [
        ("softmax", Box::new(|| softmax(x, 1.0)), Box::new(|| candle_nn::ops::softmax_last_dim(x))),
        ("RMSNorm", Box::new(|| rms_norm(x, weight, 1e-5)), Box::new(|| candle_nn::ops::rms_norm(x, weight, 1e-5))),
        ("product 64x64x64", Box::new(|| matmul(x, w)), Box::new(|| x.matmul(w))),
        ("LoRA delta 64x64x64 r8", Box::new(|| lora_delta(x, &a, &b, 2.0)), Box::new(delta)),
        ("LoRA layer 64x64x64 r8", Box::new(|| layer.forward(x)), Box::new(|| x.matmul(&w.t()?)? + delta()?)),
    ];
    let count = |operation: &Operation<'_>| -> Result<Counts> {
        device.synchronize()?;
        drop((operation()?, operation()?));
        let (counts, result) = region(operation);
        drop(result?);
        device.synchronize()?;
        Ok(counts)
    };
    operations.iter().map(|(name, ours, candles)| Ok((*name, count(ours)?, count(candles)?))).collect()
}

fn row(counts: &Counts) -> String {
    let Counts { runtime, gpu } = counts;
    format!(
        "{} | {} | {} | {} | {} | {}",
        runtime.messages, runtime.retains, runtime.objects_made, gpu.dispatches, gpu.barriers, gpu.bytes_copied
    )
}

#[test]
fn the_documentation_has_the_table_that_is_measured() {
    let watch = watch(Settings::default());
    let costs = costs(&metal()).unwrap();
    let mut table = String::from(
        "//! | operation | | messages | retains | objects | dispatches | barriers | bytes copied |\n\
         //! |---|---|---|---|---|---|---|---|\n",
    );
    for (name, ours, candles) in &costs {
        table += &format!("//! | {name} | ours | {} |\n//! | | Candle's | {} |\n", row(ours), row(candles));
        assert_eq!(ours.runtime.objects_made + ours.runtime.autoreleases, 0, "{name}: {ours}");
        assert_eq!(
            ours.gpu.waits + ours.gpu.commits + ours.gpu.buffers + ours.gpu.command_buffers,
            0,
            "{name}: {ours}"
        );
        assert!(ours.runtime.messages < candles.runtime.messages, "{name}: {ours}");
    }
    println!("{table}");
    let documentation = include_str!("../../../crates/candlewick-candle/src/metal/mod.rs");
    assert!(documentation.contains(&table), "src/metal/mod.rs is out of date; measured is\n{table}");
    assert_nothing_new(&watch);
}

/// Not in the table: how many fences Candle waits for depends on how far the GPU is.
#[test]
fn a_backward_costs_a_third_of_candles() {
    let watch = watch(Settings::default());
    let of = |seed, shape: &[usize]| tensor(seed, shape, DType::F32).to_device(&metal()).unwrap();
    let w = of(2, &[64, 64]);
    let [x, a, b] = [of(1, &[64, 64]), of(4, &[8, 64]), of(5, &[64, 8])].map(|t| Var::from_tensor(&t).unwrap());
    let step = |y: Result<Tensor>| {
        let gradients = y.and_then(|y| y.backward()).unwrap();
        assert!([&x, &a, &b].iter().all(|variable| gradients.get(variable).is_some()));
    };
    let ours = || step(lora_linear(&x, &w, None, &a, &b, 2.0));
    let candles = || {
        let delta = x.matmul(&a.t().unwrap()).unwrap().matmul(&b.t().unwrap()).unwrap() * 2.0;
        step(x.matmul(&w.t().unwrap()).unwrap() + delta.unwrap());
    };
    let count = |step: &dyn Fn()| {
        (0..2).for_each(|_| step());
        metal().synchronize().unwrap();
        let (counts, ()) = region(step);
        metal().synchronize().unwrap();
        counts
    };
    let (ours, candles) = (count(&ours), count(&candles));
    println!("LoRA layer and its backward, ours:\n{ours}\nCandle's:\n{candles}");
    assert!(3 * ours.runtime.messages < candles.runtime.messages, "{ours}\n{candles}");
    assert!(2 * ours.gpu.dispatches < candles.gpu.dispatches, "{ours}\n{candles}");
    assert_eq!(ours.gpu.waits, 0);
    assert_nothing_new(&watch);
}
