use crate::Cast;

pub(super) fn forward(op: &Cast, x: &[f64], y: &mut [f64]) {
    for (y, &x) in y.iter_mut().zip(&x[..op.elements]) {
        *y = op.to.round(x);
    }
}
