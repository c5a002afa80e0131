use crate::{LoraDelta, LoraLinear};

pub(super) fn linear(op: &LoraLinear, x: &[f64], w: &[f64], bias: Option<&[f64]>, a: &[f64], b: &[f64], y: &mut [f64]) {
    for i in 0..op.rows {
        for o in 0..op.out_features {
            let product: f64 = (0..op.in_features).map(|p| x[i * op.x_row + p] * w[o * op.in_features + p]).sum();
            let y = &mut y[i * op.y_row + o];
            *y = product + bias.map_or(0.0, |bias| bias[o]) + if op.accumulate { *y } else { 0.0 };
        }
    }
    delta(&LoraDelta { accumulate: true, ..delta_of(op) }, x, a, b, y);
}

pub(super) fn delta(op: &LoraDelta, x: &[f64], a: &[f64], b: &[f64], y: &mut [f64]) {
    let scale = f64::from(op.scale.get());
    let h = down(op, x, a);
    for i in 0..op.rows {
        for o in 0..op.out_features {
            let delta: f64 = (0..op.rank).map(|r| h[i * op.rank + r] * b[o * op.rank + r]).sum();
            let y = &mut y[i * op.y_row + o];
            *y = if op.accumulate { *y + scale * delta } else { scale * delta };
        }
    }
}

#[allow(clippy::too_many_arguments)] // The operands of the formula.
pub(super) fn linear_backward(
    op: &LoraLinear,
    x: &[f64],
    w: &[f64],
    a: &[f64],
    b: &[f64],
    dy: &[f64],
    dx: &mut [f64],
    da: &mut [f64],
    db: &mut [f64],
) {
    delta_backward(&delta_of(op), x, a, b, dy, dx, da, db);
    for i in 0..op.rows {
        for p in 0..op.in_features {
            dx[i * op.x_row + p] +=
                (0..op.out_features).map(|o| dy[i * op.y_row + o] * w[o * op.in_features + p]).sum::<f64>();
        }
    }
}

#[allow(clippy::too_many_arguments)] // The operands of the formula.
pub(super) fn delta_backward(
    op: &LoraDelta,
    x: &[f64],
    a: &[f64],
    b: &[f64],
    dy: &[f64],
    dx: &mut [f64],
    da: &mut [f64],
    db: &mut [f64],
) {
    let scale = f64::from(op.scale.get());
    let h = down(op, x, a);
    let mut dh = vec![0.0; op.rows * op.rank];
    for i in 0..op.rows {
        for r in 0..op.rank {
            dh[i * op.rank + r] =
                scale * (0..op.out_features).map(|o| dy[i * op.y_row + o] * b[o * op.rank + r]).sum::<f64>();
        }
        for p in 0..op.in_features {
            dx[i * op.x_row + p] = (0..op.rank).map(|r| dh[i * op.rank + r] * a[r * op.in_features + p]).sum();
        }
    }
    for r in 0..op.rank {
        for p in 0..op.in_features {
            da[r * op.in_features + p] = (0..op.rows).map(|i| dh[i * op.rank + r] * x[i * op.x_row + p]).sum();
        }
        for o in 0..op.out_features {
            db[o * op.rank + r] = scale * (0..op.rows).map(|i| dy[i * op.y_row + o] * h[i * op.rank + r]).sum::<f64>();
        }
    }
}

/// h = x Aᵀ, [rows, rank].
fn down(op: &LoraDelta, x: &[f64], a: &[f64]) -> Vec<f64> {
    let mut h = vec![0.0; op.rows * op.rank];
    for i in 0..op.rows {
        for r in 0..op.rank {
            h[i * op.rank + r] = (0..op.in_features).map(|p| x[i * op.x_row + p] * a[r * op.in_features + p]).sum();
        }
    }
    h
}

fn delta_of(op: &LoraLinear) -> LoraDelta {
    LoraDelta {
        x_row: op.x_row,
        y_row: op.y_row,
        ..LoraDelta::new(op.rows, op.in_features, op.out_features, op.rank, op.scale.get(), op.dtype)
    }
}
