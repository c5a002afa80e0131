//! Candlewick's operations on Candle's tensors, as their users call them.

use super::Hello;
use super::candle;
use super::tensors::{Forward, Leaf};
use crate::bench::cases::{Case, EPS, Family, LORA_SCALE, Pass};
use candle_core::{Device, Module as _, Result, Tensor, Var};
use candlewick_candle::{LoraConfig, LoraLinear, lora_delta, matmul, rms_norm, softmax};

/// What the adapter says of itself on a device.
pub fn hello(device: &Device) -> Hello {
    Hello {
        name: "Candlewick on Candle's tensors".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        built: format!("Candle {}", candle::VERSION),
        threads: match candlewick::Device::cpu() {
            candlewick::Device::Cpu(cpu) if device.is_cpu() => cpu.threads(),
            _ => 1,
        },
        thread_lookup_us: None,
        replays: false,
    }
}

/// The forward pass in the adapter's operations.
pub fn forward(case: &Case, tensors: Vec<Tensor>) -> Result<Forward> {
    let mut leaves = Vec::new();
    let mut leaf = |tensor: &Tensor| -> Result<Tensor> {
        let tensor =
            if case.pass == Pass::Forward { tensor.clone() } else { Var::from_tensor(tensor)?.as_tensor().clone() };
        leaves.push(Leaf { tensor: tensor.clone(), transposed: false });
        Ok(tensor)
    };
    let run: Box<dyn Fn() -> Result<Tensor>> = match (case.family, tensors.as_slice()) {
        (Family::MatMul, [a, b]) => {
            let (a, b) = (leaf(a)?, leaf(b)?);
            Box::new(move || matmul(&a, &b))
        }
        (Family::Softmax, [x]) => {
            let x = leaf(x)?;
            Box::new(move || softmax(&x, 1.0))
        }
        (Family::RmsNorm, [x, weight]) => {
            let (x, weight) = (leaf(x)?, leaf(&weight.flatten_all()?)?);
            Box::new(move || rms_norm(&x, &weight, EPS))
        }
        (Family::LoraLinear, [x, w, a, b]) => {
            let (x, a, b) = (leaf(x)?, leaf(a)?, leaf(b)?);
            let rank = a.dim(0)?;
            let config = LoraConfig::new(rank, LORA_SCALE * rank as f32);
            let base = candle_nn::Linear::new(w.clone(), None);
            let layer = LoraLinear::from_tensors(&base, config, a, b)?;
            Box::new(move || layer.forward(&x))
        }
        (Family::LoraDelta, [x, a, b]) => {
            let (x, a, b) = (leaf(x)?, leaf(a)?, leaf(b)?);
            Box::new(move || lora_delta(&x, &a, &b, LORA_SCALE))
        }
        _ => return Err(candle_core::Error::msg("the operands do not fit the operation")),
    };
    Ok(Forward { run, leaves, note: None })
}
