//! y = softmax(scale x), over the last dimension.

use crate::error::{self, Result};
use crate::operand::{self, gradient, hold, run};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use candlewick::{Op, Softmax};

const NAME: &str = "softmax";

/// softmax(scale x) over the last dimension, differentiable in x.
///
/// x is [.., n] in f32, f16 or bf16; y has its shape. `scale` is 1 / sqrt(head size) in attention, 1 elsewhere.
///
/// # Errors
/// A scalar, another dtype, or a tensor that is not on the CPU.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[0f32, 0.], [0., f32::NEG_INFINITY]], &Device::Cpu)?;
/// let y = candlewick_candle::softmax(&x, 1.0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.5, 0.5], [1.0, 0.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softmax(x: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
    let (x, op) = plan(x, scale)?;
    x.apply_op1(SoftmaxOp(op))
}

/// [`softmax`] of attention scores [.., queries, keys] where no query sees a later key: the last query sees the last
/// key, so query i sees the keys up to i + keys - queries. Masked elements are 0, and get no gradient.
///
/// # Errors
/// Those of [`softmax`], fewer than two dimensions, or more queries than keys.
pub fn softmax_causal(x: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
    let queries = match *x.dims() {
        [.., queries, keys] if queries <= keys || x.elem_count() == 0 => queries,
        _ => Err(error::shape(NAME, ("x", x), "scores are [.., queries, keys] with at least as many keys as queries"))?,
    };
    let (x, op) = plan(x, scale)?;
    x.apply_op1(SoftmaxOp(if x.elem_count() == 0 { op } else { op.causal(queries) }))
}

fn plan(x: &Tensor, scale: f32) -> Result<(Tensor, Softmax)> {
    let dtype = operand::dtype(NAME, &[("x", x)])?;
    let (x, rows) = operand::rows(NAME, ("x", x))?;
    let op = Softmax::new(rows.count, rows.length, dtype).scaled(scale);
    Ok((x, Softmax { x_row: rows.stride, ..op }))
}

struct SoftmaxOp(Softmax);

impl CustomOp1 for SoftmaxOp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let [y] = run(self.0, &[operand::input(x, layout)?], [layout.shape().elem_count()])?;
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        // dx is a new tensor, whatever gaps x has between its rows.
        let op = Op::SoftmaxBackward(Softmax { x_row: self.0.cols, ..self.0 });
        let dy = operand::contiguous(NAME, ("dy", dy))?;
        let [dx] = run(op, &[hold(y).input()?, hold(&dy).input()?], [x.elem_count()])?;
        Ok(gradient(x, dx))
    }
}
