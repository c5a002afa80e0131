use crate::{Cast, DType};
use half::{bf16, f16};

pub(super) fn forward(op: &Cast, x: &[f64], y: &mut [f64]) {
    for (y, &x) in y.iter_mut().zip(&x[..op.elements]) {
        *y = match op.to {
            DType::F16 => f64::from(f16::from_f64(x)),
            DType::BF16 => f64::from(bf16::from_f64(x)),
            _ => f64::from(x as f32),
        };
    }
}
