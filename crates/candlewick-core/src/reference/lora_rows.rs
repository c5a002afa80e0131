use super::{part, part_mut};
use crate::LoraRows;

pub(super) fn forward(op: &LoraRows, [x, a, b, scales, slots]: [&[f64]; 5], y: &mut [f64]) {
    for (row, slot) in slots[..op.rows].iter().map(|slot| *slot as usize).enumerate() {
        if slot >= op.adapters {
            continue;
        }
        let x = part(x, row * op.x_row, op.in_features);
        let a = part(a, slot * op.rank * op.in_features, op.rank * op.in_features);
        let b = part(b, slot * op.out_features * op.rank, op.out_features * op.rank);
        let dot = |r: usize| scales[slot] * (0..op.in_features).map(|p| x[p] * a[r * op.in_features + p]).sum::<f64>();
        let h: Vec<f64> = (0..op.rank).map(dot).collect();
        for (o, y) in part_mut(y, row * op.y_row, op.out_features).iter_mut().enumerate() {
            *y += (0..op.rank).map(|r| h[r] * b[o * op.rank + r]).sum::<f64>();
        }
    }
}
