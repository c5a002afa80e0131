//! Softmax against the f64 reference, finite differences and Candle's own.

mod numbers;

use candle_core::{D, DType, Device, Result, Tensor};
use candlewick::{Op, Softmax};
use candlewick_candle::{softmax, softmax_causal};
use numbers::*;

fn op(rows: usize, cols: usize, dtype: DType) -> Softmax {
    let dtype = match dtype {
        DType::F16 => candlewick::DType::F16,
        DType::BF16 => candlewick::DType::BF16,
        _ => candlewick::DType::F32,
    };
    Softmax::new(rows, cols, dtype).scaled(0.7)
}

#[test]
fn rows_agree_with_the_reference() -> Result<()> {
    for dtype in DTYPES {
        for shape in [vec![1, 1], vec![17], vec![3, 65], vec![2, 3, 33], vec![5, 1], vec![4, 1000]] {
            let x = (tensor(1, &shape, dtype) * 8.0)?;
            let (cols, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
            let op = op(rows, cols, dtype);
            let [y] = reference(op, &[&numbers(&x)], [rows * cols]);
            for x in [x.clone(), with_gaps(&x)] {
                let found = softmax(&x, 0.7)?;
                assert_eq!(found.dims(), x.dims());
                assert_close(&found, &y, Op::from(op).error_bound(), &format!("{shape:?} {dtype:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn views_without_rows_are_copied() -> Result<()> {
    let x = tensor(1, &[4, 6], DType::F32);
    for x in [x.t()?, x.i_columns(2)?, x.narrow(0, 0, 1)?.broadcast_as((3, 6))?] {
        let expected = candle_nn::ops::softmax(&x.contiguous()?, D::Minus1)?;
        assert_close(&softmax(&x, 1.0)?, &numbers(&expected), 1e-6, "view");
    }
    Ok(())
}

trait Columns {
    /// Every `step`-th column.
    fn i_columns(&self, step: usize) -> Result<Tensor>;
}

impl Columns for Tensor {
    fn i_columns(&self, step: usize) -> Result<Tensor> {
        let (rows, cols) = self.dims2()?;
        self.reshape((rows, cols / step, step))?.narrow(2, 0, 1)?.squeeze(2)
    }
}

#[test]
fn a_query_sees_no_later_key() -> Result<()> {
    for (batch, queries, keys) in [(1, 1, 1), (2, 3, 3), (3, 2, 5), (1, 1, 7)] {
        let x = tensor(2, &[batch, 2, queries, keys], DType::F32);
        let y = numbers(&softmax_causal(&x, 0.7)?);
        let mut masked = numbers(&x);
        for (i, x) in masked.iter_mut().enumerate() {
            let (query, key) = (i / keys % queries, i % keys);
            if key > query + keys - queries {
                *x = f64::NEG_INFINITY;
            }
        }
        let [expected] = reference(op(batch * 2 * queries, keys, DType::F32), &[&masked], [masked.len()]);
        for (found, expected) in y.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
    }
    Ok(())
}

#[test]
fn gradients_agree_with_candles_and_with_finite_differences() -> Result<()> {
    let weights = tensor(3, &[2, 3, 5], DType::F32);
    for causal in [false, true] {
        let x = var(1, &[2, 3, 5], DType::F32);
        let y = if causal { softmax_causal(&x, 0.7)? } else { softmax(&x, 0.7)? };
        let gradients = weighted_sum(&y, &weights).backward()?;
        let gradient = gradients.get(&x).expect("the gradient is not cut");
        let op = if causal { op(6, 5, DType::F32).causal(3) } else { op(6, 5, DType::F32) };
        let expected = differences(&numbers(&x), &numbers(&weights), |x| {
            let [y] = reference(op, &[x], [30]);
            y
        });
        assert_close(gradient, &expected, 1e-5, "finite differences");
        if !causal {
            let plain = candle_nn::ops::softmax(&(x.as_tensor() * 0.7)?, D::Minus1)?;
            let candles = weighted_sum(&plain, &weights).backward()?;
            assert_close(gradient, &numbers(candles.get(&x).unwrap()), 1e-6, "Candle");
        }
    }
    Ok(())
}

#[test]
fn gradients_reach_views_in_every_dtype() -> Result<()> {
    for dtype in DTYPES {
        let x = var(1, &[5, 9], dtype);
        let weights = tensor(3, &[5, 7], dtype);
        let gradients = weighted_sum(&softmax(&x.narrow(1, 1, 7)?, 0.7)?, &weights).backward()?;
        let gradient = gradients.get(&x).expect("tracked").narrow(1, 1, 7)?;
        // As the backward has it: from y in this dtype.
        let y = softmax(&x.narrow(1, 1, 7)?, 0.7)?;
        let op = op(5, 7, dtype);
        let [dx] = reference(Op::SoftmaxBackward(op), &[&numbers(&y), &numbers(&weights)], [35]);
        assert_close(&gradient, &dx, Op::SoftmaxBackward(op).error_bound(), &format!("{dtype:?}"));
    }
    Ok(())
}

#[test]
fn empty_tensors_stay_empty() -> Result<()> {
    for shape in [vec![0], vec![0, 4], vec![4, 0], vec![2, 0, 3]] {
        let x = var(1, &shape, DType::F32);
        let y = softmax(&x, 1.0)?;
        assert_eq!(y.dims(), shape);
        y.sum_all()?.backward()?;
        if shape.len() > 1 {
            assert_eq!(softmax_causal(&x, 1.0)?.dims(), shape);
        }
    }
    Ok(())
}

#[test]
fn nan_and_infinity_pass_through() -> Result<()> {
    let x = Tensor::new(&[[f32::NAN, 0.], [f32::INFINITY, 0.], [f32::NEG_INFINITY, 0.]], &Device::Cpu)?;
    let y = softmax(&x, 1.0)?.to_vec2::<f32>()?;
    assert!(y[0].iter().all(|y| y.is_nan()) && y[1].iter().all(|y| y.is_nan()));
    assert_eq!(y[2], [0.0, 1.0]);
    Ok(())
}
