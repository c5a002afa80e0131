//! Gradients through chains of operations, where Candle's own would end.

mod numbers;

use candle_core::{D, DType, Module, Result, Tensor};
use candle_nn::Linear;
use candlewick_candle::{LoraConfig, LoraLinear, matmul, rms_norm, softmax, softmax_causal};
use numbers::*;

#[test]
fn a_gradient_flows_from_the_loss_to_the_adapter() -> Result<()> {
    let base = Linear::new(tensor(1, &[8, 12], DType::F32), Some(tensor(2, &[8], DType::F32)));
    let (a, b) = (var(3, &[2, 12], DType::F32), var(4, &[8, 2], DType::F32));
    let layer = LoraLinear::from_tensors(&base, LoraConfig::new(2, 2.0), a.as_tensor().clone(), b.as_tensor().clone())?;
    let (x, weight) = (var(5, &[3, 12], DType::F32), var(6, &[8], DType::F32));
    let weights = tensor(7, &[3, 8], DType::F32);

    let y = softmax(&rms_norm(&layer.forward(&x)?, &weight, 1e-5)?, 1.0)?;
    let ours = weighted_sum(&y, &weights).backward()?;

    let delta = x.matmul(&a.t()?)?.matmul(&b.t()?)?;
    let linear = (x.matmul(&base.weight().t()?)?.broadcast_add(base.bias().unwrap())? + delta)?;
    let rms = (linear.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
    let y = candle_nn::ops::softmax(&linear.broadcast_div(&rms)?.broadcast_mul(&weight)?, D::Minus1)?;
    let plain = weighted_sum(&y, &weights).backward()?;

    for var in [&x, &a, &b, &weight] {
        assert_close(ours.get(var).expect("the gradient is not cut"), &numbers(plain.get(var).unwrap()), 1e-5, "chain");
    }
    assert!(ours.get(base.weight()).is_none() && ours.get(base.bias().unwrap()).is_none());
    Ok(())
}

#[test]
fn attention_is_differentiable_in_q_k_and_v() -> Result<()> {
    let (batch, heads, time, size) = (2, 3, 4, 5);
    let projections = [1, 2, 3].map(|seed| var(seed, &[batch, time, heads * size], DType::F32));
    let split = |x: &Tensor| x.reshape((batch, time, heads, size))?.transpose(1, 2);
    let weights = tensor(4, &[batch, heads, time, size], DType::F32);
    let scale = 1.0 / (size as f32).sqrt();

    let [q, k, v] = projections.each_ref().map(|x| split(x).unwrap());
    let y = matmul(&softmax_causal(&matmul(&q, &k.t()?)?, scale)?, &v)?;
    let ours = weighted_sum(&y, &weights).backward()?;

    let [q, k, v] = projections.each_ref().map(|x| split(x).unwrap().contiguous().unwrap());
    let mask: Vec<f32> = (0..time * time).map(|i| if i % time > i / time { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (time, time), q.device())?;
    let scores = (q.matmul(&k.t()?)? * f64::from(scale))?.broadcast_add(&mask)?;
    let y = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
    let plain = weighted_sum(&y, &weights).backward()?;

    for x in &projections {
        assert_close(ours.get(x).expect("tracked"), &numbers(plain.get(x).unwrap()), 1e-5, "attention");
    }
    Ok(())
}

#[test]
fn a_tensor_used_twice_gets_the_sum_of_its_gradients() -> Result<()> {
    let x = var(1, &[4, 4], DType::F32);
    let ours = matmul(&x, &x.t()?)?.sum_all()?.backward()?;
    let plain = x.matmul(&x.t()?)?.sum_all()?.backward()?;
    assert_close(ours.get(&x).unwrap(), &numbers(plain.get(&x).unwrap()), 1e-6, "x x^T");
    Ok(())
}

#[test]
fn a_broadcast_gradient_is_taken() -> Result<()> {
    // The sum hands its backward a gradient whose strides are all zero before Candle adds it up.
    let x = var(1, &[3, 4], DType::F32);
    let y = rms_norm(&x, &tensor(2, &[4], DType::F32), 1e-5)?;
    let gradients = y.broadcast_as((5, 3, 4))?.sum_all()?.backward()?;
    let once = rms_norm(&x, &tensor(2, &[4], DType::F32), 1e-5)?.sum_all()?.backward()?;
    let expected: Vec<f64> = numbers(once.get(&x).unwrap()).iter().map(|g| 5.0 * g).collect();
    assert_close(gradients.get(&x).unwrap(), &expected, 1e-6, "broadcast");
    Ok(())
}
