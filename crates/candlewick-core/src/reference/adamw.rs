use crate::{AdamW, Cast, SumSquares};

pub(super) fn sum_squares(op: &SumSquares, x: &[f64], sum: &mut [f64]) {
    let before = if op.accumulate { sum[0] } else { 0.0 };
    sum[0] = before + x[..op.elements].iter().map(|x| x * x).sum::<f64>();
}

/// grad, sum_squares, schedule; master, m, v, param.
pub(super) fn step(op: &AdamW, [grad, sum, schedule]: [&[f64]; 3], [master, m, v, param]: [&mut [f64]; 4]) {
    let get = |scalar: crate::Scalar| f64::from(scalar.get());
    let (beta1, beta2) = (get(op.beta1), get(op.beta2));
    let (rate, step) = (schedule[0], schedule[1]);
    let share = get(op.max_norm) / (sum[0].sqrt() + 1e-6);
    // Not `min`, which would lose a NaN.
    let clip = if op.max_norm.get() == 0.0 || share > 1.0 { 1.0 } else { share };
    for i in 0..op.elements {
        let g = grad[i] * clip;
        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        let mean = m[i] / (1.0 - beta1.powf(step));
        let square = v[i] / (1.0 - beta2.powf(step));
        master[i] = master[i] * (1.0 - rate * get(op.weight_decay)) - rate * mean / (square.sqrt() + get(op.eps));
    }
    super::cast::forward(&Cast::new(op.elements, crate::DType::F32, op.dtype), master, param);
}
