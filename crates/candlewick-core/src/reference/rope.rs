use super::{part, part_mut};
use crate::Rope;

pub(super) fn forward(op: &Rope, x: &[f64], positions: &[f64], frequencies: &[f64], y: &mut [f64]) {
    rotate(op, (x, op.x_row), positions, frequencies, 1.0, (y, op.y_row));
}

pub(super) fn backward(op: &Rope, dy: &[f64], positions: &[f64], frequencies: &[f64], dx: &mut [f64]) {
    rotate(op, (dy, op.y_row), positions, frequencies, -1.0, (dx, op.x_row));
}

fn rotate(
    op: &Rope,
    (x, x_row): (&[f64], usize),
    positions: &[f64],
    frequencies: &[f64],
    direction: f64,
    (y, y_row): (&mut [f64], usize),
) {
    for (row, &position) in positions.iter().take(op.rows).enumerate() {
        for head in 0..op.heads {
            let x = part(x, row * x_row + head * op.head, op.head);
            let y = part_mut(y, row * y_row + head * op.head, op.head);
            y[op.rotary..].copy_from_slice(&x[op.rotary..]);
            for (i, &frequency) in frequencies.iter().take(op.rotary / 2).enumerate() {
                // The product in f32 is part of the definition.
                let angle = position as f32 * frequency as f32;
                let (sin, cos) = (direction * f64::from(angle)).sin_cos();
                let (a, b) = op.pairs.elements(i, op.rotary);
                (y[a], y[b]) = (x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos);
            }
        }
    }
}
