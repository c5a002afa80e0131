//! RMSNorm against the f64 reference, finite differences and the formula in plain Candle operations.

mod numbers;

use candle_core::{D, DType, Result, Tensor};
use candlewick::{Op, RmsNorm};
use candlewick_candle::rms_norm;
use numbers::*;

const EPS: f32 = 1e-3;

fn op(rows: usize, cols: usize, dtype: DType) -> RmsNorm {
    let dtype = match dtype {
        DType::F16 => candlewick::DType::F16,
        DType::BF16 => candlewick::DType::BF16,
        _ => candlewick::DType::F32,
    };
    RmsNorm::new(rows, cols, EPS, dtype)
}

/// The formula, through Candle's autograd.
fn plain(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + f64::from(EPS))?.sqrt()?)?.broadcast_mul(weight)
}

#[test]
fn rows_agree_with_the_reference() -> Result<()> {
    for dtype in DTYPES {
        for shape in [vec![1, 1], vec![17], vec![3, 65], vec![2, 3, 33], vec![5, 1], vec![4, 1000]] {
            let (cols, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
            let (x, weight) = (tensor(1, &shape, dtype), tensor(2, &[cols], dtype));
            let op = op(rows, cols, dtype);
            let [y] = reference(op, &[&numbers(&x), &numbers(&weight)], [rows * cols]);
            let every_second = Tensor::stack(&[&weight, &weight], 1)?.narrow(1, 0, 1)?.squeeze(1)?;
            for (x, weight) in [(x.clone(), weight.clone()), (with_gaps(&x), with_gaps(&weight)), (x, every_second)] {
                let found = rms_norm(&x, &weight, EPS)?;
                assert_eq!(found.dims(), x.dims());
                assert_close(&found, &y, Op::from(op).error_bound(), &format!("{shape:?} {dtype:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_agree_with_the_formula_and_with_finite_differences() -> Result<()> {
    let (x, weight) = (var(1, &[2, 3, 5], DType::F32), var(2, &[5], DType::F32));
    let weights = tensor(3, &[2, 3, 5], DType::F32);
    let ours = weighted_sum(&rms_norm(&x, &weight, EPS)?, &weights).backward()?;
    let candles = weighted_sum(&plain(&x, &weight)?, &weights).backward()?;
    for var in [&x, &weight] {
        let gradient = ours.get(var).expect("the gradient is not cut");
        assert_close(gradient, &numbers(candles.get(var).unwrap()), 1e-5, "formula");
    }
    let (x64, weight64, weights) = (numbers(&x), numbers(&weight), numbers(&weights));
    let forward = |x: &[f64], weight: &[f64]| {
        let [y] = reference(op(6, 5, DType::F32), &[x, weight], [30]);
        y
    };
    let dx = differences(&x64, &weights, |x| forward(x, &weight64));
    let dweight = differences(&weight64, &weights, |weight| forward(&x64, weight));
    assert_close(ours.get(&x).unwrap(), &dx, 1e-5, "dx");
    assert_close(ours.get(&weight).unwrap(), &dweight, 1e-5, "dweight");
    Ok(())
}

#[test]
fn gradients_reach_views_in_every_dtype() -> Result<()> {
    for dtype in DTYPES {
        let (x, weight) = (var(1, &[5, 9], dtype), var(2, &[7], dtype));
        let weights = tensor(3, &[5, 7], dtype);
        let view = x.narrow(1, 1, 7)?;
        let gradients = weighted_sum(&rms_norm(&view, &weight, EPS)?, &weights).backward()?;
        let op = Op::RmsNormBackward(op(5, 7, dtype));
        let inputs = [numbers(&view), numbers(&weight), numbers(&weights)];
        let [dx, dweight] = reference(op, &inputs.each_ref().map(Vec::as_slice), [35, 7]);
        let gradient = gradients.get(&x).expect("tracked").narrow(1, 1, 7)?;
        assert_close(&gradient, &dx, op.error_bound(), &format!("dx {dtype:?}"));
        assert_close(gradients.get(&weight).unwrap(), &dweight, op.error_bound(), &format!("dweight {dtype:?}"));
    }
    Ok(())
}

#[test]
fn only_what_is_tracked_gets_a_gradient() -> Result<()> {
    let (x, weight) = (tensor(1, &[3, 4], DType::F32), var(2, &[4], DType::F32));
    let gradients = rms_norm(&x, &weight, EPS)?.sum_all()?.backward()?;
    assert!(gradients.get(&x).is_none() && gradients.get(&weight).is_some());
    Ok(())
}

#[test]
fn empty_tensors_stay_empty() -> Result<()> {
    for shape in [vec![0], vec![0, 4], vec![4, 0], vec![2, 0, 3]] {
        let (x, weight) = (var(1, &shape, DType::F32), var(2, &shape[shape.len() - 1..], DType::F32));
        let y = rms_norm(&x, &weight, EPS)?;
        assert_eq!(y.dims(), shape);
        let gradients = y.sum_all()?.backward()?;
        assert!(numbers(gradients.get(&weight).unwrap()).iter().all(|&g| g == 0.0));
    }
    Ok(())
}
