//! `adamw` and the norm of its gradients.

use crate::engines::{Random, check};
use candlewick_core::{AdamW, DType, Op, SumSquares};

#[test]
fn the_optimizer() {
    let mut rng = Random(17);
    for dtype in DType::ALL {
        for n in [0, 1, 19, 16384, 50_000] {
            let op = SumSquares::new(n, dtype);
            let x = rng.units(n);
            check(op, std::slice::from_ref(&x), &[]);
            let sum = check(op.accumulate(), std::slice::from_ref(&x), &[vec![3.0]]).remove(0);
            for (max_norm, step) in [(0.0, 1.0), (1.0, 1000.0)] {
                let op = AdamW { max_norm: f32::into(max_norm), ..AdamW::new(n, dtype) };
                let v: Vec<f64> = rng.units(n).iter().map(|v| v * v).collect();
                let before = [rng.units(n), rng.units(n), v, vec![0.5; n]];
                check(op, &[x.clone(), sum.clone(), vec![1e-3, step]], &before);
            }
        }
    }
    let error = Op::from(AdamW { beta1: 1.0.into(), ..AdamW::new(1, DType::F32) }).operands().unwrap_err();
    assert!(error.to_string().contains("beta1 = 1"), "{error}");
}

/// Two steps of `torch.optim.AdamW([1.0, -2.0], lr=0.1, weight_decay=0.1)` with gradients (0.5, -0.25), clipped to a norm
/// of 0.1, and (0.1, 0.2), not clipped: worked out by PyTorch's formulas in double precision.
#[test]
fn adamw_of_two_numbers_worked_out_by_hand() {
    let mut master = [1.0f64, -2.0];
    let (mut m, mut v) = ([0.0f64; 2], [0.0f64; 2]);
    let mut state = [master.to_vec(), m.to_vec(), v.to_vec(), vec![0.0; 2]];
    for (step, grad) in [[0.5, -0.25], [0.1 / 3.0, 0.2 / 3.0]].into_iter().enumerate() {
        let norm = f64::sqrt(grad[0] * grad[0] + grad[1] * grad[1]);
        let clip = (0.1 / (norm + 1e-6)).min(1.0);
        let (correction1, correction2) = (1.0 - 0.9f64.powi(step as i32 + 1), 1.0 - 0.999f64.powi(step as i32 + 1));
        for i in 0..2 {
            let g = grad[i] * clip;
            master[i] *= 1.0 - 0.1 * 0.1;
            m[i] += (g - m[i]) * (1.0 - 0.9);
            v[i] = 0.999 * v[i] + (1.0 - 0.999) * g * g;
            master[i] -= 0.1 / correction1 * m[i] / (v[i].sqrt() / correction2.sqrt() + 1e-8);
        }
        let op = AdamW { weight_decay: 0.1.into(), max_norm: 0.1.into(), ..AdamW::new(2, DType::F32) };
        let schedule = vec![0.1, step as f64 + 1.0];
        let after = check(op, &[grad.to_vec(), vec![norm * norm], schedule], &state);
        for i in 0..2 {
            assert!((after[0][i] - master[i]).abs() < 1e-6, "step {step}: {} for {}", after[0][i], master[i]);
            assert!((after[3][i] - master[i]).abs() < 1e-6);
        }
        state = after.try_into().unwrap();
    }
}
