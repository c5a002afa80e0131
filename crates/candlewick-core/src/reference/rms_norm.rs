use crate::RmsNorm;

pub(super) fn forward(op: &RmsNorm, x: &[f64], weight: &[f64], y: &mut [f64]) {
    for row in 0..op.rows {
        if op.cols == 0 {
            continue;
        }
        let x = &x[row * op.x_row..][..op.cols];
        let r = inverse_rms(op, x);
        for j in 0..op.cols {
            y[row * op.y_row + j] = x[j] * r * weight[j];
        }
    }
}

pub(super) fn backward(op: &RmsNorm, x: &[f64], weight: &[f64], dy: &[f64], dx: &mut [f64], dweight: &mut [f64]) {
    dweight[..op.cols].fill(0.0);
    for row in 0..op.rows {
        if op.cols == 0 {
            continue;
        }
        let (x, dy) = (&x[row * op.x_row..][..op.cols], &dy[row * op.y_row..][..op.cols]);
        let r = inverse_rms(op, x);
        let dot: f64 = (0..op.cols).map(|j| weight[j] * dy[j] * x[j]).sum();
        for j in 0..op.cols {
            dx[row * op.x_row + j] = r * weight[j] * dy[j] - x[j] * r * r * r / op.cols as f64 * dot;
            dweight[j] += dy[j] * x[j] * r;
        }
    }
}

fn inverse_rms(op: &RmsNorm, x: &[f64]) -> f64 {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / op.cols as f64;
    1.0 / (mean + f64::from(op.eps.get())).sqrt()
}
