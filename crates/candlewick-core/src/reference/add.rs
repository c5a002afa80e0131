use crate::Add;

pub(super) fn forward(op: &Add, a: &[f64], b: &[f64], y: &mut [f64]) {
    for row in 0..op.rows {
        for j in 0..op.cols {
            y[row * op.y_row + j] = a[row * op.a_row + j] + b[row * op.b_row + j];
        }
    }
}
