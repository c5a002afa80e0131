//! The optimizer: the gradients' square sum, and AdamW.

use super::{Op, Operands, require, vector};
use crate::{DType, Result, Scalar};

/// sum of length 1 = the sum of x², or += with `accumulate`: over all parameters, the square of the global gradient norm.
/// The order of the additions is fixed, so equal gradients have equal bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SumSquares {
    /// How many.
    pub elements: usize,
    /// Add to the sum instead of writing it.
    pub accumulate: bool,
    /// Of x; the sum is F32.
    pub dtype: DType,
}

/// One step of AdamW (Loshchilov and Hutter, 2019) as PyTorch's `torch.optim.AdamW` does it, on f32 master weights.
///
/// `schedule` of length 2 = (learning rate, step counted from 1) and `sum_squares` of length 1 lie in device memory. With
/// g = grad · min(1, max_norm / (sqrt(sum_squares) + 1e-6)), as `torch.nn.utils.clip_grad_norm_`, or grad where max_norm
/// is 0: m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g²,
/// master = master (1 - lr weight_decay) - lr / (1 - beta1^step) · m / (sqrt(v / (1 - beta2^step)) + eps), and param is
/// the master rounded to its dtype. Master, m and v are read and written, param only written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdamW {
    /// How many.
    pub elements: usize,
    /// Decay of the mean.
    pub beta1: Scalar,
    /// Decay of the mean square.
    pub beta2: Scalar,
    /// Added to the root of the mean square.
    pub eps: Scalar,
    /// Decay of the weights, times the learning rate.
    pub weight_decay: Scalar,
    /// The largest norm of all gradients together; 0 for any.
    pub max_norm: Scalar,
    /// Of grad and param; everything else is F32.
    pub dtype: DType,
}

impl SumSquares {
    /// Written.
    pub fn new(elements: usize, dtype: DType) -> Self {
        SumSquares { elements, accumulate: false, dtype }
    }

    /// Added to the sum.
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::SumSquares(*self).name();
        let x = vector(op, "x", self.dtype, self.elements)?;
        Ok(Operands { inputs: vec![x], outputs: vec![vector(op, "sum_squares", DType::F32, 1)?] })
    }
}

impl AdamW {
    /// PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01; no clipping.
    pub fn new(elements: usize, dtype: DType) -> Self {
        AdamW {
            elements,
            beta1: Scalar(0.9),
            beta2: Scalar(0.999),
            eps: Scalar(1e-8),
            weight_decay: Scalar(0.01),
            max_norm: Scalar(0.0),
            dtype,
        }
    }

    pub(super) fn bytes(&self) -> f64 {
        self.elements as f64 * (2.0 * self.dtype.bytes() as f64 + 24.0) + 12.0
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::AdamW(*self).name();
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            require(op, field, beta, (0.0..1.0).contains(&beta.get()), "a decay is at least 0 and less than 1")?;
        }
        let fields = [("eps", self.eps), ("weight_decay", self.weight_decay), ("max_norm", self.max_norm)];
        for (field, value) in fields {
            let fits = value.get() >= 0.0 && value.get().is_finite();
            require(op, field, value, fits, "a finite number, zero or more")?;
        }
        let many = |name, dtype| vector(op, name, dtype, self.elements);
        let (sum, schedule) = (vector(op, "sum_squares", DType::F32, 1)?, vector(op, "schedule", DType::F32, 2)?);
        Ok(Operands {
            inputs: vec![many("grad", self.dtype)?, sum, schedule],
            outputs: vec![
                many("master", DType::F32)?,
                many("m", DType::F32)?,
                many("v", DType::F32)?,
                many("param", self.dtype)?,
            ],
        })
    }
}
