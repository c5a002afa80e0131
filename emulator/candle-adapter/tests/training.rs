//! A small model of Candle's with LoRA layers: a step of an optimizer on Metal is the CPU's.

use candle_adapter_on_the_emulator::numbers::{assert_close, numbers, tensor};
use candle_adapter_on_the_emulator::{metal, shuffled};
use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{AdamW, Linear, Optimizer, VarBuilder, VarMap};
use candlewick_candle::{LoraConfig, LoraLinear, matmul, rms_norm, softmax_causal};

const WIDTH: usize = 32;
const TOKENS: usize = 12;

/// One attention layer and a head.
struct Model {
    layers: Vec<LoraLinear>,
    weight: Tensor,
}

impl Model {
    fn new(variables: &VarMap, dtype: DType, device: &Device) -> Result<Self> {
        let builder = VarBuilder::from_varmap(variables, DType::F32, device);
        let layer = |seed: u64| {
            let w = (tensor(seed, &[WIDTH, WIDTH], dtype).to_device(device)? * 0.2)?;
            let bias = (seed == 3).then(|| tensor(9, &[WIDTH], dtype).to_device(device)).transpose()?;
            LoraLinear::new(&Linear::new(w, bias), LoraConfig::new(4, 8.0), builder.pp(format!("{seed}")))
        };
        let layers = (0..4).map(layer).collect::<Result<_>>()?;
        // The same adapters on every device.
        for (i, (name, var)) in sorted(variables).into_iter().enumerate() {
            let values = tensor(100 + i as u64, var.dims(), DType::F32).to_device(device)?;
            let small = if name.contains("lora_B") { 0.02 } else { 0.2 };
            var.set(&(values * small)?)?;
        }
        Ok(Model { layers, weight: Tensor::ones(WIDTH, dtype, device)? })
    }

    fn loss(&self, x: &Tensor, target: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(x, &self.weight, 1e-5)?;
        let [q, k, v] = [0, 1, 2].map(|i| self.layers[i].forward(&normed));
        let scores = softmax_causal(&matmul(&q?, &k?.t()?)?, 1.0 / (WIDTH as f32).sqrt())?;
        let y = self.layers[3].forward(&(matmul(&scores, &v?)? + x)?)?;
        // Not `mean_all`: its backward on Metal sets zero bytes (candle-core 0.11.1, a binary operation on two scalars).
        (y.sub(target)?.to_dtype(DType::F32)? * 0.05)?.sqr()?.sum_all()
    }
}

fn sorted(variables: &VarMap) -> Vec<(String, candle_core::Var)> {
    let mut all: Vec<_> =
        variables.data().lock().unwrap().iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Losses of some steps, and the adapters after.
fn train(dtype: DType, device: &Device, steps: usize) -> Result<(Vec<f32>, Vec<Tensor>)> {
    let variables = VarMap::new();
    let model = Model::new(&variables, dtype, device)?;
    let x = tensor(50, &[2, TOKENS, WIDTH], dtype).to_device(device)?;
    let target = tensor(51, &[2, TOKENS, WIDTH], dtype).to_device(device)?;
    let mut optimizer = AdamW::new_lr(sorted(&variables).into_iter().map(|(_, var)| var).collect(), 0.01)?;
    let mut losses = Vec::new();
    for _ in 0..steps {
        let loss = model.loss(&x, &target)?;
        optimizer.backward_step(&loss)?;
        losses.push(loss);
    }
    let losses = losses.iter().map(|loss| loss.to_scalar::<f32>()).collect::<Result<_>>()?;
    let after = sorted(&variables).iter().map(|(_, var)| var.to_device(&Device::Cpu)).collect::<Result<_>>()?;
    Ok((losses, after))
}

#[test]
fn an_optimizer_makes_of_the_adapters_what_it_does_on_the_cpu() {
    for (dtype, bound) in [(DType::F32, 2e-4), (DType::F16, 2e-1)] {
        let (expected, expected_after) = train(dtype, &Device::Cpu, 4).unwrap();
        assert!(expected[3] < expected[0], "it learns: {expected:?}");
        shuffled(0..2, || {
            let (losses, after) = train(dtype, &metal(), 4).unwrap();
            let close = losses.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= bound as f32 * b.abs());
            assert!(close, "{dtype:?}: {losses:?}, on the CPU {expected:?}");
            for (found, expected) in after.iter().zip(&expected_after) {
                assert_close(found, &numbers(expected), bound, &format!("an adapter in {dtype:?}"));
            }
        });
    }
}

#[test]
fn a_layer_merges_and_unmerges() {
    shuffled(0..2, || {
        let on = |device: &Device| -> Result<[Vec<f64>; 4]> {
            let w = tensor(1, &[24, 16], DType::F32).to_device(device)?;
            let (a, b) = (tensor(2, &[3, 16], DType::F32), tensor(3, &[24, 3], DType::F32));
            let (a, b) = (a.to_device(device)?, b.to_device(device)?);
            let mut layer = LoraLinear::from_tensors(&Linear::new(w, None), LoraConfig::new(3, 1.5), a, b)?;
            let x = tensor(4, &[5, 16], DType::F32).to_device(device)?;
            let result =
                |layer: &LoraLinear| Ok::<_, candle_core::Error>(numbers(&layer.forward(&x)?.to_device(&Device::Cpu)?));
            let plain = result(&layer)?;
            layer.merge()?;
            let merged = result(&layer)?;
            layer.unmerge();
            let unmerged = result(&layer)?;
            layer.disable_adapter();
            Ok([plain, merged, unmerged, result(&layer)?])
        };
        let (cpu, metal) = (on(&Device::Cpu).unwrap(), on(&metal()).unwrap());
        assert_eq!(metal[0], metal[2], "unmerging is exact");
        for (found, expected) in metal.iter().zip(&cpu) {
            let found = Tensor::new(found.as_slice(), &Device::Cpu).unwrap();
            assert_close(&found, expected, 1e-5, "a layer");
        }
    });
}
