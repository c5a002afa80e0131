use super::{part, part_mut};
use crate::CopyRows;

pub(super) fn forward(op: &CopyRows, x: &[f64], slots: &[f64], cache: &mut [f64]) {
    for (row, slot) in slots[..op.rows].iter().map(|slot| *slot as usize).enumerate() {
        if slot < op.capacity {
            part_mut(cache, slot * op.width, op.width).copy_from_slice(part(x, row * op.x_row, op.width));
        }
    }
}
