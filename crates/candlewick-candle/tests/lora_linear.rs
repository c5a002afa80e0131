//! The layer: initialisation, merging, dtypes, threads, training.

mod numbers;

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{AdamW, Linear, Optimizer, SGD, VarBuilder, VarMap};
use candlewick_candle::{LoraConfig, LoraLinear, lora_linear};
use numbers::*;

const CONFIG: (usize, f32) = (4, 8.0);

/// A layer 17 -> 9 with variables for A and B, none of them zero.
fn layer(dtype: DType) -> Result<(LoraLinear, Linear, Var, Var)> {
    let base = Linear::new(tensor(1, &[9, 17], dtype), Some(tensor(2, &[9], dtype)));
    let (a, b) = (var(3, &[4, 17], dtype), var(4, &[9, 4], dtype));
    let config = LoraConfig::new(CONFIG.0, CONFIG.1);
    let layer = LoraLinear::from_tensors(&base, config, a.as_tensor().clone(), b.as_tensor().clone())?;
    Ok((layer, base, a, b))
}

#[test]
fn a_new_layer_is_its_base_and_has_pefts_variables() -> Result<()> {
    let base = Linear::new(tensor(1, &[30, 20], DType::F32), Some(tensor(2, &[30], DType::F32)));
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let layer = LoraLinear::new(&base, LoraConfig::new(8, 16.0), builder.pp("model.q_proj"))?;
    let x = tensor(3, &[2, 5, 20], DType::F32);
    assert_close(&layer.forward(&x)?, &numbers(&base.forward(&x)?), 1e-6, "B is zero");

    let variables = variables.data().lock().unwrap();
    let a = &variables["model.q_proj.lora_A.weight"];
    let b = &variables["model.q_proj.lora_B.weight"];
    assert_eq!((a.dims(), b.dims(), variables.len()), (&[8, 20][..], &[30, 8][..], 2));
    let bound = 1.0 / 20f64.sqrt();
    let a = numbers(a);
    assert!(a.iter().all(|a| a.abs() <= bound) && a.iter().any(|a| a.abs() > bound / 2.0), "uniform in ±1 / sqrt(in)");
    assert!(numbers(b).iter().all(|&b| b == 0.0));
    Ok(())
}

#[test]
fn the_layer_is_the_operation_with_pefts_scale() -> Result<()> {
    let (layer, base, a, b) = layer(DType::F32)?;
    let x = tensor(5, &[6, 17], DType::F32);
    let expected = lora_linear(&x, base.weight(), base.bias(), &a, &b, 2.0)?;
    assert_close(&layer.forward(&x)?, &numbers(&expected), 1e-6, "alpha / rank");
    assert_eq!(LoraConfig::new(4, 8.0).rslora().scale(), 4.0);
    Ok(())
}

#[test]
fn gradients_are_the_operations() -> Result<()> {
    for dtype in DTYPES {
        let (layer, base, a, b) = layer(dtype)?;
        let x = var(5, &[6, 17], dtype);
        let weights = tensor(6, &[6, 9], dtype);
        let found = weighted_sum(&layer.forward(&x)?, &weights).backward()?;
        let expected = weighted_sum(&lora_linear(&x, base.weight(), base.bias(), &a, &b, 2.0)?, &weights).backward()?;
        let bound = if dtype == DType::F32 { 1e-6 } else { 1e-2 };
        for var in [&x, &a, &b] {
            assert_close(found.get(var).expect("tracked"), &numbers(expected.get(var).unwrap()), bound, "gradient");
        }
        assert!(found.get(base.weight()).is_none());
    }
    Ok(())
}

#[test]
fn merging_changes_nothing_but_the_road_and_unmerging_is_exact() -> Result<()> {
    for dtype in DTYPES {
        let (mut layer, base, _, _) = layer(dtype)?;
        let x = var(5, &[6, 17], dtype);
        let (before, w) = (numbers(&layer.forward(&x)?), numbers(base.weight()));
        for _ in 0..3 {
            layer.merge()?;
            assert!(layer.is_merged());
            let bound = if dtype == DType::F32 { 1e-6 } else { 2e-2 };
            let merged = layer.forward(&x)?;
            assert_close(&merged, &before, bound, &format!("{dtype:?}"));
            // The gradient of x goes through the merged W.
            let gradients = merged.sum_all()?.backward()?;
            let dx = x.ones_like()?.broadcast_mul(&layer.to_linear().weight().sum(0)?)?;
            assert_close(gradients.get(&x).unwrap(), &numbers(&dx), bound, "dx");
            assert!(gradients.get(layer.a()).is_none());
            assert_ne!(numbers(layer.to_linear().weight()), w);
            layer.unmerge();
            assert!(!layer.is_merged());
            assert_eq!(numbers(layer.to_linear().weight()), w, "bit for bit");
            assert_eq!(numbers(&layer.forward(&x)?), before, "bit for bit");
        }
    }
    Ok(())
}

#[test]
fn the_merged_w_is_rounded_once() -> Result<()> {
    let (mut layer, base, a, b) = layer(DType::BF16)?;
    layer.merge()?;
    let (wide_a, wide_b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let exact = (base.weight().to_dtype(DType::F64)? + (wide_b.matmul(&wide_a)? * 2.0)?)?;
    let merged = numbers(layer.to_linear().weight());
    for (merged, exact) in merged.iter().zip(numbers(&exact)) {
        assert!((merged - exact).abs() <= exact.abs() / 256.0 + 1e-6, "{merged} for {exact}");
    }
    Ok(())
}

#[test]
fn a_disabled_adapter_leaves_the_base() -> Result<()> {
    let (mut layer, base, a, _) = layer(DType::F32)?;
    let x = tensor(5, &[6, 17], DType::F32);
    let with_adapter = numbers(&layer.forward(&x)?);
    let plain = numbers(&base.forward(&x)?);
    layer.disable_adapter();
    let y = layer.forward(&x)?;
    assert_close(&y, &plain, 1e-6, "disabled");
    assert!(!y.track_op(), "nothing to train");
    layer.merge()?;
    assert_close(&layer.forward(&x)?, &plain, 1e-6, "disabled while merged");
    layer.enable_adapter();
    assert_close(&layer.forward(&x)?, &with_adapter, 1e-6, "merged");
    layer.unmerge();
    assert_eq!(numbers(&layer.forward(&x)?), with_adapter);
    assert!(layer.is_enabled() && layer.forward(&x)?.sum_all()?.backward()?.get(&a).is_some());
    Ok(())
}

#[test]
fn an_f32_adapter_trains_beside_a_bf16_base() -> Result<()> {
    let base = Linear::new(tensor(1, &[9, 17], DType::BF16), None);
    let (a, b) = (var(3, &[4, 17], DType::F32), var(4, &[9, 4], DType::F32));
    let layer = LoraLinear::from_tensors(&base, LoraConfig::new(4, 8.0), a.as_tensor().clone(), b.as_tensor().clone())?;
    let y = layer.forward(&tensor(5, &[6, 17], DType::BF16))?;
    assert_eq!(y.dtype(), DType::BF16);
    let gradients = y.sum_all()?.backward()?;
    assert!([&a, &b].iter().all(|var| gradients.get(var).is_some_and(|gradient| gradient.dtype() == DType::F32)));
    Ok(())
}

#[test]
fn threads_and_clones_share_one_layer() -> Result<()> {
    fn assert_shared<T: Send + Sync + Clone>(_: &T) {}
    let (layer, _, _, _) = layer(DType::F32)?;
    assert_shared(&layer);
    let run = |layer: &LoraLinear, seed: u64| {
        let x = var(seed, &[1 + seed as usize, 17], DType::F32);
        let y = layer.forward(&x).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        [numbers(&y), numbers(gradients.get(&x).unwrap()), numbers(gradients.get(layer.a()).unwrap())]
    };
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let layer = layer.clone();
            std::thread::spawn(move || (0..20).map(|i| run(&layer, thread + i)).collect::<Vec<_>>())
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (thread, results) in results.iter().enumerate() {
        for (i, result) in results.iter().enumerate() {
            assert_eq!(*result, run(&layer, (thread + i) as u64), "the same on every thread");
        }
    }
    Ok(())
}

#[test]
fn training_lowers_the_loss_and_leaves_w_alone() -> Result<()> {
    let base = Linear::new(tensor(1, &[8, 16], DType::F32), None);
    let w = numbers(base.weight());
    let x = tensor(2, &[32, 16], DType::F32);
    let target = x.matmul(&(base.weight() + tensor(3, &[8, 16], DType::F32))?.t()?)?;
    for adam in [true, false] {
        let variables = VarMap::new();
        let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layer = LoraLinear::new(&base, LoraConfig::new(8, 8.0), builder)?;
        let loss = || layer.forward(&x)?.sub(&target)?.sqr()?.mean_all();
        let before = loss()?.to_scalar::<f32>()?;
        let mut adam_w = AdamW::new_lr(variables.all_vars(), 0.05)?;
        let mut sgd = SGD::new(variables.all_vars(), 0.5)?;
        for _ in 0..100 {
            if adam { adam_w.backward_step(&loss()?)? } else { sgd.backward_step(&loss()?)? }
        }
        let after = loss()?.to_scalar::<f32>()?;
        assert!(after < before / 10.0, "{before} -> {after}");
    }
    assert_eq!(numbers(base.weight()), w);
    Ok(())
}

#[test]
fn a_saved_adapter_comes_back() -> Result<()> {
    let (layer, base, a, b) = layer(DType::F32)?;
    let tensors = [("m.lora_A.weight", a.as_tensor()), ("m.lora_B.weight", b.as_tensor())];
    let tensors = tensors.map(|(name, tensor)| (name.to_string(), tensor.detach())).into_iter().collect();
    let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let loaded = LoraLinear::new(&base, *layer.config(), builder.pp("m"))?;
    let x = tensor(5, &[6, 17], DType::F32);
    assert_eq!(numbers(&loaded.forward(&x)?), numbers(&layer.forward(&x)?));
    Ok(())
}

#[test]
fn a_base_without_inputs_or_outputs_works() -> Result<()> {
    for (n_out, n_in) in [(0, 5), (5, 0)] {
        let base = Linear::new(Tensor::zeros((n_out, n_in), DType::F32, &Device::Cpu)?, None);
        let builder = VarMap::new();
        let builder = VarBuilder::from_varmap(&builder, DType::F32, &Device::Cpu);
        let mut layer = LoraLinear::new(&base, LoraConfig::new(2, 2.0), builder)?;
        let x = var(1, &[3, n_in], DType::F32);
        layer.forward(&x)?.sum_all()?.backward()?;
        layer.merge()?;
        assert_eq!(layer.forward(&x)?.dims(), [3, n_out]);
    }
    Ok(())
}
