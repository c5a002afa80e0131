//! y = x / sqrt(mean(x²) + eps) · weight, over the last dimension.

use crate::compute::{self, Compute, Source, forwards};
use crate::error::{self, Described, Result};
use crate::operand::{self, Rows, gradient};
use candle_core::{CustomOp2, Layout, Shape, Tensor};
use candlewick::{DType, Op, RmsNorm};

pub(crate) const NAME: &str = "rms_norm";

/// Root mean square normalisation over the last dimension (Zhang and Sennrich, 2019):
/// y = x / sqrt(mean(x²) + eps) · weight, differentiable in x and in weight.
///
/// x is [.., n], weight `[n]`, both f32, f16 or bf16; y has the shape of x.
///
/// # Errors
/// A weight of another length, a negative `eps`, different or other dtypes, different devices, or one that this build does
/// not compute on.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[3f32, 3.], [-2., 2.]], &Device::Cpu)?;
/// let weight = Tensor::new(&[1f32, 10.], &Device::Cpu)?;
/// let y = candlewick_candle::rms_norm(&x, &weight, 0.0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1.0, 10.0], [-1.0, 10.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> candle_core::Result<Tensor> {
    let dtype = operand::dtype(NAME, &[("x", x), ("weight", weight)])?;
    fits(x, weight)?;
    let (x, rows) = operand::rows(NAME, ("x", x))?;
    let weight = operand::contiguous(NAME, ("weight", weight))?;
    let op = op(rows, eps, dtype);
    // Candle's own has no gradient.
    if !x.track_op() && !weight.track_op() && compute::candle_runs(&op.into(), x.device())? {
        return candle_nn::ops::rms_norm(&x, &weight, eps);
    }
    x.apply_op2(&weight, RmsNormOp(op))
}

/// Whether x and weight fit each other.
pub(crate) fn fits(x: &dyn Described, weight: &dyn Described) -> Result<()> {
    match x.dims().last() {
        Some(&last) if weight.dims() == [last] => Ok(()),
        _ => Err(error::mismatch(NAME, ("x", x), ("weight", weight), "x is [.., n] and weight is [n]")),
    }
}

/// The operation on rows.
pub(crate) fn op(rows: Rows, eps: f32, dtype: DType) -> RmsNorm {
    RmsNorm { x_row: rows.stride, ..RmsNorm::new(rows.count, rows.length, eps, dtype) }
}

struct RmsNormOp(RmsNorm);

impl RmsNormOp {
    fn forward<S: Compute>(
        &self,
        [(x, layout), (weight, weight_layout)]: [(&S, &Layout); 2],
    ) -> candle_core::Result<(S, Shape)> {
        let inputs = [Source::Tensor(x, layout), Source::Tensor(weight, weight_layout)];
        let [y] = S::run(self.0.into(), &inputs, [layout.shape().elem_count()])?;
        Ok((y, layout.shape().clone()))
    }
}

impl CustomOp2 for RmsNormOp {
    fn name(&self) -> &'static str {
        NAME
    }

    forwards!(x layout, weight weight_layout);

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let op = Op::RmsNormBackward(RmsNorm { x_row: self.0.cols, ..self.0 });
        let rows = operand::contiguous(NAME, ("x", &x.detach()))?;
        let dy = operand::contiguous(NAME, ("dy", dy))?;
        let [dx, dweight] = compute::run(op, &[&rows, weight, &dy], [x.elem_count(), weight.elem_count()])?;
        Ok((gradient(x, dx), gradient(weight, dweight)))
    }
}
