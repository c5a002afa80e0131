//! y = x / sqrt(mean(x²) + eps) · weight, over the last dimension.

use crate::error;
use crate::operand::{self, gradient, hold, run};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use candlewick::{Op, RmsNorm};

const NAME: &str = "rms_norm";

/// Root mean square normalisation over the last dimension (Zhang and Sennrich, 2019):
/// y = x / sqrt(mean(x²) + eps) · weight, differentiable in x and in weight.
///
/// x is [.., n], weight `[n]`, both f32, f16 or bf16; y has the shape of x.
///
/// # Errors
/// A weight of another length, a negative `eps`, different or other dtypes, or a tensor that is not on the CPU.
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
    if x.rank() == 0 || weight.dims() != &x.dims()[x.rank() - 1..] {
        Err(error::mismatch(NAME, ("x", x), ("weight", weight), "x is [.., n] and weight is [n]"))?;
    }
    let (x, rows) = operand::rows(NAME, ("x", x))?;
    let weight = operand::contiguous(NAME, ("weight", weight))?;
    let op = RmsNorm { x_row: rows.stride, ..RmsNorm::new(rows.count, rows.length, eps, dtype) };
    x.apply_op2(&weight, RmsNormOp(op))
}

struct RmsNormOp(RmsNorm);

impl CustomOp2 for RmsNormOp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let inputs = [operand::input(x, layout)?, operand::input(weight, weight_layout)?];
        let [y] = run(self.0, &inputs, [layout.shape().elem_count()])?;
        Ok((y, layout.shape().clone()))
    }

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
        let (rows, held, dy) = (hold(&rows), hold(weight), hold(&dy));
        let inputs = [rows.input()?, held.input()?, dy.input()?];
        let [dx, dweight] = run(op, &inputs, [x.elem_count(), weight.elem_count()])?;
        Ok((gradient(x, dx), gradient(weight, dweight)))
    }
}
