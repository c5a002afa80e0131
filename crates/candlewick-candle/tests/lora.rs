//! The LoRA operations against the f64 reference, finite differences and plain Candle products.

mod numbers;

use candle_core::{DType, Result, Tensor};
use candlewick::{LoraDelta, LoraLinear, Op};
use candlewick_candle::{lora_delta, lora_linear};
use numbers::*;

const SCALE: f32 = 1.5;

fn candlewick_dtype(dtype: DType) -> candlewick::DType {
    match dtype {
        DType::F16 => candlewick::DType::F16,
        DType::BF16 => candlewick::DType::BF16,
        _ => candlewick::DType::F32,
    }
}

/// The layer in plain Candle operations.
fn plain(x: &Tensor, w: &Tensor, bias: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let delta = (x.broadcast_matmul(&a.t()?)?.broadcast_matmul(&b.t()?)? * f64::from(SCALE))?;
    x.broadcast_matmul(&w.t()?)?.broadcast_add(bias)? + delta
}

#[test]
fn layers_agree_with_the_reference() -> Result<()> {
    for dtype in DTYPES {
        for (outer, n_in, n_out, rank) in
            [(vec![1], 1, 1, 1), (vec![], 5, 3, 2), (vec![3], 17, 33, 4), (vec![2, 5], 64, 65, 8), (vec![7], 3, 2, 5)]
        {
            let rows: usize = outer.iter().product();
            let shape = |last| outer.iter().copied().chain([last]).collect::<Vec<usize>>();
            let x = tensor(1, &shape(n_in), dtype);
            let (w, bias) = (tensor(2, &[n_out, n_in], dtype), tensor(3, &[n_out], dtype));
            let (a, b) = (tensor(4, &[rank, n_in], dtype), tensor(5, &[n_out, rank], dtype));
            let op = LoraLinear::new(rows, n_in, n_out, rank, SCALE, candlewick_dtype(dtype));
            let delta = LoraDelta::new(rows, n_in, n_out, rank, SCALE, candlewick_dtype(dtype));
            let [x64, w64, bias64, a64, b64] = [&x, &w, &bias, &a, &b].map(numbers);
            let [y] = reference(op, &[&x64, &w64, &a64, &b64], [rows * n_out]);
            let [y_bias] = reference(op.with_bias(), &[&x64, &w64, &bias64, &a64, &b64], [rows * n_out]);
            let [y_delta] = reference(delta, &[&x64, &a64, &b64], [rows * n_out]);
            let bound = Op::from(op).error_bound();
            let what = format!("{outer:?} {n_in} {n_out} r{rank} {dtype:?}");
            for (x, w, a, b) in [
                (x.clone(), w.clone(), a.clone(), b.clone()),
                (with_gaps(&x), with_gaps(&w), with_gaps(&a), with_gaps(&b)),
                (x, through_transpose(&w), through_transpose(&a), through_transpose(&b)),
            ] {
                let found = lora_linear(&x, &w, None, &a, &b, SCALE)?;
                assert_eq!(found.dims(), shape(n_out));
                assert_close(&found, &y, bound, &what);
                assert_close(&lora_linear(&x, &w, Some(&bias), &a, &b, SCALE)?, &y_bias, bound, &what);
                assert_close(&lora_delta(&x, &a, &b, SCALE)?, &y_delta, Op::from(delta).error_bound(), &what);
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_agree_with_plain_products_and_with_finite_differences() -> Result<()> {
    let (rows, n_in, n_out, rank) = (6, 5, 4, 2);
    let (x, a, b) =
        (var(1, &[2, 3, n_in], DType::F32), var(2, &[rank, n_in], DType::F32), var(3, &[n_out, rank], DType::F32));
    let (w, bias) = (tensor(4, &[n_out, n_in], DType::F32), tensor(5, &[n_out], DType::F32));
    let weights = tensor(6, &[2, 3, n_out], DType::F32);
    let ours = weighted_sum(&lora_linear(&x, &w, Some(&bias), &a, &b, SCALE)?, &weights).backward()?;
    let candles = weighted_sum(&plain(&x, &w, &bias, &a, &b)?, &weights).backward()?;
    for var in [&x, &a, &b] {
        assert_close(ours.get(var).expect("tracked"), &numbers(candles.get(var).unwrap()), 1e-6, "plain products");
    }
    let delta = weighted_sum(&lora_delta(&x, &a, &b, SCALE)?, &weights).backward()?;
    let zero = w.zeros_like()?;
    let plain_delta = weighted_sum(&plain(&x, &zero, &bias.zeros_like()?, &a, &b)?, &weights).backward()?;
    for var in [&x, &a, &b] {
        assert_close(delta.get(var).expect("tracked"), &numbers(plain_delta.get(var).unwrap()), 1e-6, "delta");
    }

    let op = LoraLinear::new(rows, n_in, n_out, rank, SCALE, candlewick::DType::F32).with_bias();
    let [x64, w64, bias64, a64, b64] = [&x, &w, &bias, &a, &b].map(|tensor: &Tensor| numbers(tensor));
    let weights = numbers(&weights);
    let forward = |x: &[f64], a: &[f64], b: &[f64]| {
        let [y] = reference(op, &[x, &w64, &bias64, a, b], [rows * n_out]);
        y
    };
    assert_close(ours.get(&x).unwrap(), &differences(&x64, &weights, |x| forward(x, &a64, &b64)), 1e-6, "dx");
    assert_close(ours.get(&a).unwrap(), &differences(&a64, &weights, |a| forward(&x64, a, &b64)), 1e-6, "da");
    assert_close(ours.get(&b).unwrap(), &differences(&b64, &weights, |b| forward(&x64, &a64, b)), 1e-6, "db");
    Ok(())
}

#[test]
fn gradients_reach_views_in_every_dtype() -> Result<()> {
    let (n_in, n_out, rank) = (7, 6, 3);
    for dtype in DTYPES {
        let (x, a, b) = (var(1, &[5, 9], dtype), var(2, &[rank, n_in], dtype), var(3, &[rank, n_out], dtype));
        let (w, weights) = (tensor(4, &[n_out, n_in], dtype), tensor(6, &[5, n_out], dtype));
        let (view, b_view) = (x.narrow(1, 1, n_in)?, b.t()?);
        let y = lora_linear(&view, &w, None, &a, &b_view, SCALE)?;
        let gradients = weighted_sum(&y, &weights).backward()?;
        let op = LoraLinear::new(5, n_in, n_out, rank, SCALE, candlewick_dtype(dtype));
        let inputs = [&view, &w, &a, &b_view, &weights].map(numbers);
        let lengths = [5 * n_in, rank * n_in, n_out * rank];
        let [dx, da, db] = reference(Op::LoraLinearBackward(op), &inputs.each_ref().map(Vec::as_slice), lengths);
        let bound = Op::LoraLinearBackward(op).error_bound();
        let gradient = |tensor: &Tensor| gradients.get(tensor).expect("tracked").clone();
        assert_close(&gradient(&x).narrow(1, 1, n_in)?, &dx, bound, &format!("dx {dtype:?}"));
        assert_close(&gradient(&a), &da, bound, &format!("da {dtype:?}"));
        assert_close(&gradient(&b).t()?, &db, bound, &format!("db {dtype:?}"));
    }
    Ok(())
}

#[test]
fn w_and_bias_get_no_gradient_even_as_variables() -> Result<()> {
    let (x, a, b) = (var(1, &[3, 5], DType::F32), var(2, &[2, 5], DType::F32), var(3, &[4, 2], DType::F32));
    let (w, bias) = (var(4, &[4, 5], DType::F32), var(5, &[4], DType::F32));
    let gradients = lora_linear(&x, &w, Some(&bias), &a, &b, SCALE)?.sum_all()?.backward()?;
    assert!(gradients.get(&w).is_none() && gradients.get(&bias).is_none());
    assert!([&x, &a, &b].iter().all(|var| gradients.get(var).is_some()));
    Ok(())
}

#[test]
fn an_untracked_x_leaves_the_other_gradients_as_they_are() -> Result<()> {
    let (x, a, b) = (var(1, &[3, 5], DType::F32), var(2, &[2, 5], DType::F32), var(3, &[4, 2], DType::F32));
    let w = tensor(4, &[4, 5], DType::F32);
    let weights = tensor(5, &[3, 4], DType::F32);
    let run = |x: &Tensor| weighted_sum(&lora_linear(x, &w, None, &a, &b, SCALE).unwrap(), &weights).backward();
    let (tracked, untracked) = (run(&x)?, run(&x.detach())?);
    assert!(untracked.get(&x).is_none());
    for var in [&a, &b] {
        assert_close(untracked.get(var).unwrap(), &numbers(tracked.get(var).unwrap()), 1e-6, "gradient");
    }
    Ok(())
}

#[test]
fn empty_sizes_work() -> Result<()> {
    for (rows, n_in, n_out, rank) in [(0, 5, 4, 2), (3, 0, 4, 2), (3, 5, 0, 2), (3, 5, 4, 0)] {
        let (x, a, b) =
            (var(1, &[rows, n_in], DType::F32), var(2, &[rank, n_in], DType::F32), var(3, &[n_out, rank], DType::F32));
        let (w, bias) = (tensor(4, &[n_out, n_in], DType::F32), tensor(5, &[n_out], DType::F32));
        let y = lora_linear(&x, &w, Some(&bias), &a, &b, SCALE)?;
        assert_eq!(y.dims(), [rows, n_out]);
        let base = x.matmul(&w.t()?)?.broadcast_add(&bias)?;
        assert_close(&y, &numbers(&base), 1e-6, "an empty adapter adds nothing");
        let delta = lora_delta(&x, &a, &b, SCALE)?;
        let (gradients, of_delta) = (y.sum_all()?.backward()?, delta.sum_all()?.backward()?);
        for var in [&x, &a, &b] {
            let (gradient, of_delta) = (gradients.get(var).expect("tracked"), of_delta.get(var).expect("tracked"));
            assert_eq!((gradient.dims(), of_delta.dims()), (var.dims(), var.dims()));
            // Of sums without terms.
            assert!(numbers(of_delta).iter().all(|&g| g == 0.0));
        }
        let dx = x.ones_like()?.broadcast_mul(&w.sum(0)?)?;
        assert_close(gradients.get(&x).unwrap(), &numbers(&dx), 1e-6, "dx");
        assert!(numbers(&delta).iter().all(|&y| y == 0.0));
    }
    Ok(())
}
