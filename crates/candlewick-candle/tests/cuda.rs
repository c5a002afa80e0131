//! On an NVIDIA GPU, beside the same calls on the CPU; where there is no GPU every test says so.
#![cfg(all(feature = "cuda", unix))]

mod numbers;
mod on_cuda;

use candle_core::{D, DType, Device, Module as _, Result, Tensor, Var};
use candle_nn::{AdamW, Linear, Optimizer, VarBuilder, VarMap};
use candlewick_candle::{LoraConfig, LoraLinear, lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};
use numbers::*;
use on_cuda::gpu;

/// How far two devices may be apart, relative to the largest number: some roundings to the dtype.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => 2e-5,
    }
}

/// The same on the CPU and on the GPU.
#[track_caller]
fn same(what: &str, gpu: &Device, dtype: DType, work: impl Fn(&Device) -> Result<Vec<Tensor>>) {
    let (expected, found) = (work(&Device::Cpu).unwrap(), work(gpu).unwrap());
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.dims(), expected.dims(), "{what}, result {i}");
        assert!(found.device().is_cuda(), "{what}, result {i}");
        let found = found.to_device(&Device::Cpu).unwrap();
        assert_close(&found, &numbers(expected), bound(dtype), &format!("{what} {dtype:?}, result {i}"));
    }
}

fn on(device: &Device, seed: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
    tensor(seed, shape, dtype).to_device(device)
}

/// y, and the gradients of `of` for the numbers of seed 99 at y.
fn with_gradients(y: Tensor, of: &[&Var]) -> Result<Vec<Tensor>> {
    let weights = on(y.device(), 99, y.dims(), y.dtype())?;
    let gradients = weighted_sum(&y, &weights).backward()?;
    let of = of.iter().map(|var| gradients.get(var.as_tensor()).expect("a gradient").clone());
    Ok([y.clone()].into_iter().chain(of).collect())
}

#[test]
fn products_and_their_gradients() {
    let Some(gpu) = gpu() else { return };
    for dtype in DTYPES {
        for (m, n, k) in [(1, 1, 1), (64, 64, 64), (1, 512, 256), (33, 65, 129), (256, 256, 512)] {
            same(&format!("{m}x{n}x{k}"), &gpu, dtype, |device| {
                let a = Var::from_tensor(&on(device, 1, &[m, k], dtype)?)?;
                let b = Var::from_tensor(&on(device, 2, &[k, n], dtype)?)?;
                with_gradients(matmul(&a, &b)?, &[&a, &b])
            });
        }
        same("batched, broadcast, through views", &gpu, dtype, |device| {
            let a = Var::from_tensor(&on(device, 1, &[3, 2, 24, 40], dtype)?)?;
            let b = Var::from_tensor(&on(device, 2, &[2, 56, 40], dtype)?)?;
            let y = matmul(&a, &b.t()?)?;
            let view = matmul(&with_gaps(&a.detach()), &through_transpose(&b.detach()).t()?)?;
            Ok([with_gradients(y, &[&a, &b])?, vec![view]].concat())
        });
    }
}

#[test]
fn rows_and_their_gradients() {
    let Some(gpu) = gpu() else { return };
    for dtype in DTYPES {
        // Of one column, what is left of RMSNorm's gradient is eps alone: the difference of two equal numbers.
        for (rows, cols) in [(1, 3), (4, 64), (33, 515), (7, 700), (7, 4096), (3, 9000)] {
            same(&format!("{rows}x{cols}"), &gpu, dtype, |device| {
                let x = Var::from_tensor(&on(device, 1, &[rows, cols], dtype)?)?;
                let weight = Var::from_tensor(&on(device, 2, &[cols], dtype)?)?;
                let view = with_gaps(&x.detach());
                let views = vec![softmax(&view, 2.0)?, rms_norm(&view, &weight.detach(), 1e-5)?];
                let normed = with_gradients(rms_norm(&x, &weight, 1e-5)?, &[&x, &weight])?;
                Ok([with_gradients(softmax(&x, 3.0)?, &[&x])?, normed, views].concat())
            });
        }
        same("causal", &gpu, dtype, |device| {
            let x = Var::from_tensor(&on(device, 1, &[2, 3, 5, 9], dtype)?)?;
            with_gradients(softmax_causal(&x, 2.0)?, &[&x])
        });
    }
}

#[test]
fn lora_and_its_gradients() {
    let Some(gpu) = gpu() else { return };
    for dtype in DTYPES {
        for rows in [1, 7, 32, 200] {
            same(&format!("{rows} rows"), &gpu, dtype, |device| {
                let (inner, outer, rank) = (256, 384, 8);
                let var = |seed, shape: &[usize]| Var::from_tensor(&on(device, seed, shape, dtype)?);
                let (x, a, b) = (var(1, &[rows, inner])?, var(2, &[rank, inner])?, var(3, &[outer, rank])?);
                let (w, bias) = (on(device, 4, &[outer, inner], dtype)?, on(device, 5, &[outer], dtype)?);
                let layer = with_gradients(lora_linear(&x, &w, Some(&bias), &a, &b, 2.0)?, &[&x, &a, &b])?;
                // Without the gradient of x, the backward is another operation.
                let frozen = lora_linear(&with_gaps(&x.detach()), &w, None, &a, &b, 2.0)?;
                let frozen = with_gradients(frozen, &[&a, &b])?;
                let delta = with_gradients(lora_delta(&x, &a, &b, 0.5)?, &[&x, &a, &b])?;
                Ok([layer, frozen, delta].concat())
            });
        }
    }
}

/// Ours and Candle's in turns, many times, without a wait: any disorder would show.
#[test]
fn operations_are_in_order_with_candles_own() {
    let Some(gpu) = gpu() else { return };
    let chain = |device: &Device| -> Result<Vec<Tensor>> {
        let (mut x, w) = (on(device, 1, &[64, 64], DType::F32)?, on(device, 2, &[64, 64], DType::F32)?);
        let weight = Tensor::ones(64, DType::F32, device)?;
        for _ in 0..200 {
            x = (matmul(&x, &w)? * 0.5)?;
            x = rms_norm(&(x + &w)?, &weight, 1e-5)?.contiguous()?;
        }
        Ok(vec![x])
    };
    let bound = 1e-2; // Two hundred products apart.
    let expected = chain(&Device::Cpu).unwrap();
    for _ in 0..5 {
        let found = chain(&gpu).unwrap()[0].to_device(&Device::Cpu).unwrap();
        assert_close(&found, &numbers(&expected[0]), bound, "chain");
    }
}

#[test]
fn a_layer_trains_to_where_it_does_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let train = |device: &Device| -> Result<Vec<Tensor>> {
        let base = Linear::new(on(device, 1, &[48, 64], DType::F32)?, None);
        let variables = VarMap::new();
        let builder = VarBuilder::from_varmap(&variables, DType::F32, device);
        let a = builder.get_with_hints((4, 64), "a", candle_nn::Init::Const(0.1))?;
        let b = builder.get_with_hints((48, 4), "b", candle_nn::Init::Const(0.0))?;
        let mut layer = LoraLinear::from_tensors(&base, LoraConfig::new(4, 8.0), a, b)?;
        let (x, target) = (on(device, 2, &[32, 64], DType::F32)?, on(device, 3, &[32, 48], DType::F32)?);
        let mut optimizer = AdamW::new_lr(variables.all_vars(), 0.01)?;
        for _ in 0..20 {
            let y = softmax(&layer.forward(&x)?, 1.0)?;
            optimizer.backward_step(&y.sub(&target)?.sqr()?.sum_all()?)?;
        }
        let (trained, a, b) = (layer.forward(&x)?, layer.a().clone(), layer.b().clone());
        layer.merge()?;
        Ok(vec![trained, a, b, layer.forward(&x)?])
    };
    let (expected, found) = (train(&Device::Cpu).unwrap(), train(&gpu).unwrap());
    for (found, expected) in found.iter().zip(&expected) {
        assert_close(&found.to_device(&Device::Cpu).unwrap(), &numbers(expected), 1e-2, "after twenty steps");
    }
}

#[test]
fn threads_and_streams_of_their_own() {
    let Some(gpu) = gpu() else { return };
    let own = Device::new_cuda_with_stream(0).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let devices = [gpu.clone(), own.clone()];
            scope.spawn(move || {
                for device in devices {
                    same("on a thread", &device, DType::F32, |device| {
                        let x = on(device, seed, &[96, 96], DType::F32)?;
                        let mut y = x.clone();
                        for _ in 0..50 {
                            y = softmax(&matmul(&y, &x)?, 1.0)?;
                        }
                        Ok(vec![y])
                    });
                }
            });
        }
    });
}

/// Memory goes from one tensor to the next while work is pending: Candle frees in order with its stream.
#[test]
fn memory_is_used_again_in_order() {
    let Some(gpu) = gpu() else { return };
    same("reused memory", &gpu, DType::F32, |device| {
        let x = on(device, 1, &[512, 512], DType::F32)?;
        let mut sum = Tensor::zeros((512, 512), DType::F32, device)?;
        for i in 0..100 {
            let scaled = (&x * f64::from(i))?;
            sum = (sum + softmax(&scaled, 0.01)?)?;
        }
        Ok(vec![sum.mean(D::Minus1)?, sum])
    });
}

#[test]
fn empty_tensors_and_tensors_that_are_too_large() {
    let Some(gpu) = gpu() else { return };
    let empty = Tensor::zeros((0, 64), DType::F32, &gpu).unwrap();
    assert_eq!(softmax(&empty, 1.0).unwrap().dims(), [0, 64]);
    let zeros = matmul(&Tensor::zeros((3, 0), DType::F32, &gpu).unwrap(), &empty.narrow(0, 0, 0).unwrap());
    assert_eq!(numbers(&zeros.unwrap().to_device(&Device::Cpu).unwrap()), vec![0.0; 3 * 64]);
    let long = Tensor::ones((1 << 20, 1), DType::F32, &gpu).unwrap();
    let error = matmul(&long, &long.t().unwrap()).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("memory"), "{error}");
    same("after it", &gpu, DType::F32, |device| Ok(vec![softmax(&on(device, 1, &[4, 64], DType::F32)?, 1.0)?]));
}
