use crate::Softmax;

pub(super) fn forward(op: &Softmax, x: &[f64], y: &mut [f64]) {
    let scale = f64::from(op.scale.get());
    for row in 0..op.rows {
        if op.cols == 0 {
            continue;
        }
        let valid = op.valid(row);
        let x = &x[row * op.x_row..][..valid];
        let y = &mut y[row * op.y_row..][..op.cols];
        // f64::max would drop a NaN; the exponentials below keep it.
        let max = x.iter().map(|x| x * scale).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x * scale - max).exp()).sum();
        for j in 0..op.cols {
            y[j] = if j < valid { (x[j] * scale - max).exp() / sum } else { 0.0 };
        }
    }
}

pub(super) fn backward(op: &Softmax, y: &[f64], dy: &[f64], dx: &mut [f64]) {
    let scale = f64::from(op.scale.get());
    for row in 0..op.rows {
        if op.cols == 0 {
            continue;
        }
        let valid = op.valid(row);
        let (y, dy) = (&y[row * op.y_row..][..valid], &dy[row * op.y_row..][..valid]);
        let dx = &mut dx[row * op.x_row..][..op.cols];
        let dot: f64 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
        for j in 0..op.cols {
            dx[j] = if j < valid { scale * y[j] * (dy[j] - dot) } else { 0.0 };
        }
    }
}
