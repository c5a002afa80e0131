use crate::Dropout;

pub(super) fn forward(op: &Dropout, x: &[f64], seed: &[f64], y: &mut [f64]) {
    let (seed, kept) = ([seed[0] as u32, seed[1] as u32], 1.0 / (1.0 - f64::from(op.rate.get())));
    for row in 0..op.rows {
        for col in 0..op.cols {
            let element = (row * op.cols + col) as u64;
            let [factor] = op.factors::<1>(element / 4, seed)[(element % 4) as usize];
            y[row * op.y_row + col] = x[row * op.x_row + col] * if factor == 0.0 { 0.0 } else { kept };
        }
    }
}
