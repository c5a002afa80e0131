//! y = softmax(scale x), over the last dimension.

use crate::compute::{self, Compute, Source, forwards};
use crate::error::{self, Described, Result};
use crate::operand::{self, Rows, gradient};
use candle_core::{CustomOp1, Layout, Shape, Tensor};
use candlewick::{DType, Op, Softmax};

pub(crate) const NAME: &str = "softmax";

/// softmax(scale x) over the last dimension, differentiable in x.
///
/// x is [.., n] in f32, f16 or bf16; y has its shape. `scale` is 1 / sqrt(head size) in attention, 1 elsewhere.
///
/// # Errors
/// A scalar, another dtype, or a device that this build does not compute on.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[0f32, 0.], [0., f32::NEG_INFINITY]], &Device::Cpu)?;
/// let y = candlewick_candle::softmax(&x, 1.0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[0.5, 0.5], [1.0, 0.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn softmax(x: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
    let (x, op) = plan(x, scale, None)?;
    // Candle's own has no gradient.
    if !x.track_op() && compute::candle_runs(&op.into(), x.device())? {
        let scaled = if scale == 1.0 { x } else { (x * f64::from(scale))? };
        return candle_nn::ops::softmax_last_dim(&scaled);
    }
    x.apply_op1(SoftmaxOp(op))
}

/// [`softmax`] of attention scores [.., queries, keys] where no query sees a later key: the last query sees the last
/// key, so query i sees the keys up to i + keys - queries. Masked elements are 0, and get no gradient.
///
/// # Errors
/// Those of [`softmax`], fewer than two dimensions, or more queries than keys.
pub fn softmax_causal(x: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
    let queries = queries(x)?;
    let (x, op) = plan(x, scale, queries)?;
    x.apply_op1(SoftmaxOp(op))
}

/// How many rows of scores a causal mask begins anew after; none where there is nothing to mask.
pub(crate) fn queries(x: &dyn Described) -> Result<Option<usize>> {
    let empty = x.dims().contains(&0);
    match *x.dims() {
        [.., queries, keys] if queries <= keys || empty => Ok((!empty).then_some(queries)),
        _ => Err(error::shape(NAME, ("x", x), "scores are [.., queries, keys] with at least as many keys as queries")),
    }
}

fn plan(x: &Tensor, scale: f32, queries: Option<usize>) -> Result<(Tensor, Softmax)> {
    let dtype = operand::dtype(NAME, &[("x", x)])?;
    let (x, rows) = operand::rows(NAME, ("x", x))?;
    Ok((x, op(rows, scale, queries, dtype)))
}

/// The operation on rows.
pub(crate) fn op(rows: Rows, scale: f32, queries: Option<usize>, dtype: DType) -> Softmax {
    let op = Softmax { x_row: rows.stride, ..Softmax::new(rows.count, rows.length, dtype).scaled(scale) };
    queries.map_or(op, |queries| op.causal(queries))
}

struct SoftmaxOp(Softmax);

impl SoftmaxOp {
    fn forward<S: Compute>(&self, [(x, layout)]: [(&S, &Layout); 1]) -> candle_core::Result<(S, Shape)> {
        let [y] = S::run(self.0.into(), &[Source::Tensor(x, layout)], [layout.shape().elem_count()])?;
        Ok((y, layout.shape().clone()))
    }
}

impl CustomOp1 for SoftmaxOp {
    fn name(&self) -> &'static str {
        NAME
    }

    forwards!(x layout);

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        // dx is a new tensor, whatever gaps x has between its rows.
        let op = Op::SoftmaxBackward(Softmax { x_row: self.0.cols, ..self.0 });
        let dy = operand::contiguous(NAME, ("dy", dy))?;
        let [dx] = compute::run(op, &[y, &dy], [x.elem_count()])?;
        Ok(gradient(x, dx))
    }
}
