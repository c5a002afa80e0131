//! A Candle model made LoRA-trainable: wrap its linear layers, train the variables that appear, merge.
//!
//! `cargo run --release -p candlewick-candle --example candle_lora`

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{AdamW, Linear, Optimizer, VarBuilder, VarMap};
use candlewick_candle::{LoraConfig, LoraLinear, rms_norm};

/// A pretrained block, whatever its linear layers are.
struct Model<L> {
    up: L,
    norm: Tensor,
    down: L,
}

impl<L: Module> Module for Model<L> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = rms_norm(&self.up.forward(x)?, &self.norm, 1e-6)?.silu()?;
        self.down.forward(&hidden)
    }
}

fn main() -> Result<()> {
    let cpu = Device::Cpu;
    let linear = |n_in: usize, n_out: usize| -> Result<Linear> {
        let scale = 1.0 / (n_in as f32).sqrt();
        Ok(Linear::new(Tensor::randn(0f32, scale, (n_out, n_in), &cpu)?, None))
    };
    let norm = Tensor::ones(512, DType::F32, &cpu)?;
    let pretrained = Model { up: linear(256, 512)?, norm: norm.clone(), down: linear(512, 256)? };
    // The task: what the model would say if its weights were a little different.
    let shifted = |layer: &Linear| -> Result<Linear> {
        let shift = linear(layer.weight().dims()[1], layer.weight().dims()[0])?;
        Ok(Linear::new((layer.weight() + (shift.weight() * 0.3)?)?, None))
    };
    let teacher = Model { up: shifted(&pretrained.up)?, norm, down: shifted(&pretrained.down)? };
    let x = Tensor::randn(0f32, 1.0, (64, 256), &cpu)?;
    let target = teacher.forward(&x)?;

    // These lines make it trainable:
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &cpu);
    let config = LoraConfig::new(8, 16.0);
    let mut model = Model {
        up: LoraLinear::new(&pretrained.up, config, builder.pp("up"))?,
        norm: pretrained.norm,
        down: LoraLinear::new(&pretrained.down, config, builder.pp("down"))?,
    };
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 5e-3)?;

    let loss = |model: &Model<LoraLinear>| model.forward(&x)?.sub(&target)?.sqr()?.mean_all();
    println!("loss before {:.4}", loss(&model)?.to_scalar::<f32>()?);
    let start = std::time::Instant::now();
    for _ in 0..100 {
        optimizer.backward_step(&loss(&model)?)?;
    }
    println!("loss after  {:.4}, 100 steps in {:.2?}", loss(&model)?.to_scalar::<f32>()?, start.elapsed());

    model.up.merge()?;
    model.down.merge()?;
    println!("merged      {:.4}", loss(&model)?.to_scalar::<f32>()?);
    Ok(())
}
