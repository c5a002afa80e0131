//! Candle's own operations as an engine: the same numbers within the same bounds, and every gradient.

mod numbers;

use candle_core::{DType, Module, Result, Tensor, Var};
use candle_nn::Linear;
use candlewick::{LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use candlewick_candle::engine::{self, CANDLE, CANDLEWICK};
use candlewick_candle::{LoraConfig, lora_delta, lora_linear, matmul, rms_norm, softmax, softmax_causal};
use numbers::*;

const F32: candlewick::DType = candlewick::DType::F32;
const SCALE: f32 = 1.5;

fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

fn candles<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    engine::with(CANDLE, work)
}

#[test]
fn products_agree_with_the_reference() -> Result<()> {
    for (dtype, known) in DTYPES.into_iter().zip([F32, candlewick::DType::F16, candlewick::DType::BF16]) {
        for (batch, m, n, k) in [(1, 1, 1, 1), (1, 33, 17, 65), (3, 8, 5, 7), (1, 20, 30, 3000), (2, 64, 64, 64)] {
            let outer: &[usize] = if batch == 1 { &[] } else { &[batch] };
            let (a, b) = (tensor(1, &[outer, &[m, k]].concat(), dtype), tensor(2, &[outer, &[k, n]].concat(), dtype));
            let op = MatMul::new(m, n, k, known);
            let op = if batch > 1 { op.batched(batch) } else { op };
            assert_eq!(engine::candidates(op), [CANDLEWICK, CANDLE]);
            let [c] = reference(op, &[&numbers(&a), &numbers(&b)], [batch * m * n]);
            let views = [(a.clone(), b.clone()), (through_transpose(&a), b.clone()), (a, through_transpose(&b))];
            for (a, b) in views {
                let found = candles(|| matmul(&a, &b))?;
                assert_eq!(found.dims(), [outer, &[m, n]].concat());
                assert_close(&found, &c, Op::from(op).error_bound(), &format!("{op:?}"));
            }
        }
    }
    Ok(())
}

/// It is Candle's own indeed: the same bits, which are others than ours.
#[test]
fn what_is_asked_for_is_what_runs() -> Result<()> {
    let (a, b) = (tensor(1, &[40, 3000], DType::F32), tensor(2, &[3000, 50], DType::F32));
    let (x, weight) = (tensor(3, &[7, 1000], DType::F32), tensor(4, &[1000], DType::F32));
    let ours = engine::with(CANDLEWICK, || matmul(&a, &b))?;
    assert_eq!(bits(&candles(|| matmul(&a, &b))?)?, bits(&a.matmul(&b)?)?);
    assert_ne!(bits(&ours)?, bits(&a.matmul(&b)?)?);
    assert_eq!(bits(&candles(|| softmax(&x, 1.0))?)?, bits(&candle_nn::ops::softmax_last_dim(&x)?)?);
    assert_eq!(bits(&candles(|| rms_norm(&x, &weight, 1e-3))?)?, bits(&candle_nn::ops::rms_norm(&x, &weight, 1e-3)?)?);
    // Outside, nothing stays asked for.
    assert_eq!(engine::of(MatMul::new(3, 5, 7, F32), a.device())?, CANDLEWICK);
    Ok(())
}

#[test]
fn rows_agree_with_the_reference() -> Result<()> {
    for shape in [vec![1, 1], vec![3, 65], vec![2, 3, 33], vec![4, 1000]] {
        let (cols, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
        let (x, weight) = (tensor(1, &shape, DType::F32), tensor(2, &[cols], DType::F32));
        let op = Softmax::new(rows, cols, F32).scaled(0.7);
        let [y] = reference(op, &[&numbers(&x)], [rows * cols]);
        assert_close(&candles(|| softmax(&x, 0.7))?, &y, Op::from(op).error_bound(), "softmax");
        let op = RmsNorm::new(rows, cols, 1e-3, F32);
        let [y] = reference(op, &[&numbers(&x), &numbers(&weight)], [rows * cols]);
        assert_close(&candles(|| rms_norm(&x, &weight, 1e-3))?, &y, Op::from(op).error_bound(), "rms_norm");
    }
    Ok(())
}

#[test]
fn lora_layers_agree_with_the_reference() -> Result<()> {
    let (rows, n_in, n_out, rank) = (6, 65, 33, 4);
    let (x, w) = (tensor(1, &[2, 3, n_in], DType::F32), tensor(2, &[n_out, n_in], DType::F32));
    let (a, b, bias) =
        (tensor(3, &[rank, n_in], DType::F32), tensor(4, &[n_out, rank], DType::F32), tensor(5, &[n_out], DType::F32));
    let [x64, w64, a64, b64, bias64] = [&x, &w, &a, &b, &bias].map(numbers);
    let op = LoraLinear::new(rows, n_in, n_out, rank, SCALE, F32);
    let bound = Op::from(op).error_bound();
    let [y] = reference(op, &[&x64, &w64, &a64, &b64], [rows * n_out]);
    assert_close(&candles(|| lora_linear(&x, &w, None, &a, &b, SCALE))?, &y, bound, "plain W");
    let [y] = reference(op.with_bias(), &[&x64, &w64, &bias64, &a64, &b64], [rows * n_out]);
    assert_close(&candles(|| lora_linear(&x, &w, Some(&bias), &a, &b, SCALE))?, &y, bound, "bias");
    // The layer has W packed for Candlewick, and Candle reads the plain one.
    let config = LoraConfig::new(rank, SCALE * rank as f32);
    let layer = candlewick_candle::LoraLinear::from_tensors(&Linear::new(w, Some(bias)), config, a.clone(), b.clone())?;
    let found = candles(|| layer.forward(&x))?;
    assert_eq!(found.dims(), [2, 3, n_out]);
    assert_close(&found, &y, bound, "layer");
    assert_ne!(bits(&found)?, bits(&layer.forward(&x)?)?, "Candle rounds between its products");
    let op = LoraDelta::new(rows, n_in, n_out, rank, SCALE, F32);
    let [y] = reference(op, &[&x64, &a64, &b64], [rows * n_out]);
    assert_close(&candles(|| lora_delta(&x, &a, &b, SCALE))?, &y, Op::from(op).error_bound(), "delta");
    Ok(())
}

/// The gradient of `of` in `f`, forward and backward on Candle's own, against differences of the f64 reference.
fn check(f: impl Fn() -> Result<Tensor>, of: &Var, reference: impl Fn(&[f64]) -> Vec<f64>, what: &str) -> Result<()> {
    let (y, gradients) = candles(|| {
        let y = f()?;
        let weights = tensor(9, y.dims(), DType::F32);
        let gradients = weighted_sum(&y, &weights).backward()?;
        Ok((y, gradients))
    })?;
    let expected = differences(&numbers(of), &numbers(&tensor(9, y.dims(), DType::F32)), reference);
    assert_close(gradients.get(of).expect("the gradient is not cut"), &expected, 1e-5, what);
    Ok(())
}

#[test]
fn gradients_agree_with_finite_differences() -> Result<()> {
    let first = |op: Op, inputs: &[&[f64]], length| -> Vec<f64> {
        let [y] = reference(op, inputs, [length]);
        y
    };
    let (a, b) = (var(1, &[2, 3, 5], DType::F32), var(2, &[2, 5, 4], DType::F32));
    let (a64, b64) = (numbers(&a), numbers(&b));
    let op = Op::from(MatMul::new(3, 4, 5, F32).batched(2));
    check(|| matmul(&a, &b), &a, |a| first(op, &[a, &b64], 24), "a")?;
    check(|| matmul(&a, &b), &b, |b| first(op, &[&a64, b], 24), "b")?;

    // A softmax and an RMSNorm that need a gradient are Candlewick's: Candle's would cut it.
    let (x, weight) = (var(3, &[3, 5], DType::F32), var(4, &[5], DType::F32));
    let (x64, weight64) = (numbers(&x), numbers(&weight));
    let op = Softmax::new(3, 5, F32).scaled(0.7);
    check(|| softmax(&x, 0.7), &x, |x| first(op.into(), &[x], 15), "softmax")?;
    check(|| softmax_causal(&x, 0.7), &x, |x| first(op.causal(3).into(), &[x], 15), "softmax_causal")?;
    let op = Op::from(RmsNorm::new(3, 5, 1e-3, F32));
    check(|| rms_norm(&x, &weight, 1e-3), &x, |x| first(op, &[x, &weight64], 15), "x")?;
    check(
        || rms_norm(x.as_detached_tensor().as_ref(), &weight, 1e-3),
        &weight,
        |w| first(op, &[&x64, w], 15),
        "weight",
    )?;

    let (n_out, rank) = (4, 2);
    let (w, bias) = (tensor(5, &[n_out, 5], DType::F32), tensor(6, &[n_out], DType::F32));
    let (a, b) = (var(7, &[rank, 5], DType::F32), var(8, &[n_out, rank], DType::F32));
    let [w64, bias64, a64, b64] = [&w, &bias, a.as_tensor(), b.as_tensor()].map(numbers);
    let op = Op::from(LoraLinear::new(3, 5, n_out, rank, SCALE, F32).with_bias());
    let layer = || lora_linear(&x, &w, Some(&bias), &a, &b, SCALE);
    check(layer, &x, |x| first(op, &[x, &w64, &bias64, &a64, &b64], 12), "layer x")?;
    check(layer, &a, |a| first(op, &[&x64, &w64, &bias64, a, &b64], 12), "layer a")?;
    check(layer, &b, |b| first(op, &[&x64, &w64, &bias64, &a64, b], 12), "layer b")?;
    let op = Op::from(LoraDelta::new(3, 5, n_out, rank, SCALE, F32));
    check(|| lora_delta(&x, &a, &b, SCALE), &a, |a| first(op, &[&x64, a, &b64], 12), "delta a")
}

/// What Candle has no operation for, or one with other roundings, runs on Candlewick.
#[test]
fn candle_is_no_candidate_for_what_it_does_otherwise() -> Result<()> {
    let product = MatMul::new(4, 5, 6, F32);
    for op in [
        Op::from(Softmax::new(4, 4, F32).causal(4)),
        Softmax::new(4, 4, candlewick::DType::F16).into(),
        LoraLinear::new(4, 4, 4, 2, 1.0, candlewick::DType::BF16).into(),
        MatMul { lda: 9, ..product }.into(),
        product.scaled(2.0, 0.0).into(),
        MatMul::new(0, 5, 6, F32).into(),
        Op::SoftmaxBackward(Softmax::new(4, 4, F32)),
    ] {
        assert_eq!(engine::candidates(op), [CANDLEWICK], "{op}");
    }
    let x = tensor(1, &[4, 6], DType::F32);
    assert_eq!(candles(|| softmax_causal(&x, 1.0))?.dims(), [4, 6]);
    assert_eq!(candles(|| matmul(&x.narrow(0, 0, 0)?, &x.t()?))?.dims(), [0, 4]);
    Ok(())
}

#[test]
#[should_panic(expected = "there are candle/candle and candle/candlewick")]
fn engines_of_a_device_are_not_asked_for_here() {
    engine::with(engine::Engine::new("cpu", "portable"), || ());
}
