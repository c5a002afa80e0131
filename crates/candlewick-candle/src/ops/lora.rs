//! The LoRA layer and its delta, in PEFT's convention: W [out, in], A [rank, in], B [out, rank].

use crate::base::Base;
use crate::compute::{self, Compute, Source, forwards};
use crate::error::{self, Described, Result};
use crate::operand::{self, elements, gradient};
use candle_core::{CustomOp3, Layout, Shape, Storage, Tensor};
use candlewick::{LoraDelta, LoraLinear, Op};
use std::sync::Arc;

pub(crate) const NAME: &str = "lora_linear";
pub(crate) const DELTA: &str = "lora_delta";

/// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ, differentiable in x, A and B (Hu et al., 2021).
///
/// x is [.., in], w [out, in], bias `[out]`, a [rank, in], b [out, rank], all f32, f16 or bf16; y is [.., out].
/// `scale` is alpha / rank, or alpha / sqrt(rank) with rslora.
///
/// W and bias are frozen by definition: even a variable gets no gradient here, and none is computed. Where W stays the
/// same for many calls, [`LoraLinear`](crate::LoraLinear) packs it once.
///
/// # Errors
/// Shapes that do not fit, an infinite `scale`, different or other dtypes, different devices, or one that this build does
/// not compute on.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let w = Tensor::new(&[[1f32, 0.], [0., 1.], [1., 1.]], &Device::Cpu)?;
/// let a = Tensor::new(&[[1f32, 1.]], &Device::Cpu)?;
/// let b = Tensor::new(&[[1f32], [0.], [0.]], &Device::Cpu)?;
/// let y = candlewick_candle::lora_linear(&x, &w, None, &a, &b, 2.0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[7.0, 2.0, 3.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn lora_linear(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scale: f32,
) -> candle_core::Result<Tensor> {
    let base = Base::plain(w, bias)?;
    linear(x, &Arc::new(base), a, b, scale)
}

/// The operation on a base that may be packed.
pub(crate) fn linear(x: &Tensor, base: &Arc<Base>, a: &Tensor, b: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
    let w = base.w();
    let dtype = operand::dtype(NAME, &[("x", x), ("w", w), ("a", a), ("b", b)])?;
    let (out_features, in_features) = base.features();
    let rank = layer(x, w, a, b)?;
    let (x, rows) = operand::rows(NAME, ("x", x))?;
    let (a, b) = (operand::contiguous(NAME, ("a", a))?, operand::contiguous(NAME, ("b", b))?);
    let op = base.op(LoraLinear::new(rows.count, in_features, out_features, rank, scale, dtype));
    let op = LoraLinear { x_row: rows.stride, ..op };
    let candle = compute::candle_runs(&op.into(), x.device())?;
    x.apply_op3(&a, &b, LinearOp { op, base: base.clone(), candle })
}

/// scale (x Aᵀ) Bᵀ, the LoRA layer without its base product, differentiable in x, A and B.
///
/// x is [.., in], a [rank, in], b [out, rank], all f32, f16 or bf16; y is [.., out].
///
/// # Errors
/// Shapes that do not fit, an infinite `scale`, different or other dtypes, different devices, or one that this build does
/// not compute on.
pub fn lora_delta(x: &Tensor, a: &Tensor, b: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
    let dtype = operand::dtype(DELTA, &[("x", x), ("a", a), ("b", b)])?;
    let rank = adapter(DELTA, x, a, b)?;
    let (x, rows) = operand::rows(DELTA, ("x", x))?;
    let (a, b) = (operand::contiguous(DELTA, ("a", a))?, operand::contiguous(DELTA, ("b", b))?);
    let op = LoraDelta::new(rows.count, rows.length, b.dims()[0], rank, scale, dtype);
    let op = LoraDelta { x_row: rows.stride, ..op };
    let candle = compute::candle_runs(&op.into(), x.device())?;
    x.apply_op3(&a, &b, DeltaOp { op, candle })
}

/// The rank of an adapter that fits x and w [out, in].
pub(crate) fn layer(x: &dyn Described, w: &dyn Described, a: &dyn Described, b: &dyn Described) -> Result<usize> {
    let (out_features, in_features) = (w.dims()[0], w.dims()[1]);
    if x.dims().last() != Some(&in_features) {
        return Err(error::mismatch(NAME, ("x", x), ("w", w), "x is [.., in] and w is [out, in]"));
    }
    let rank = adapter(NAME, x, a, b)?;
    if b.dims()[0] != out_features {
        return Err(error::mismatch(NAME, ("w", w), ("b", b), "w is [out, in] and b is [out, rank]"));
    }
    Ok(rank)
}

/// The rank of an adapter that fits x.
pub(crate) fn adapter(op: &'static str, x: &dyn Described, a: &dyn Described, b: &dyn Described) -> Result<usize> {
    match (x.dims(), a.dims(), b.dims()) {
        (&[.., features], &[_, in_features], _) if features != in_features => {
            Err(error::mismatch(op, ("x", x), ("a", a), "x is [.., in] and a is [rank, in]"))
        }
        (&[.., _], &[rank, _], &[_, b_rank]) if rank == b_rank => Ok(rank),
        (&[.., _], &[_, _], _) => Err(error::mismatch(op, ("a", a), ("b", b), "a is [rank, in] and b is [out, rank]")),
        _ => Err(error::mismatch(op, ("x", x), ("a", a), "x is [.., in] and a is [rank, in]")),
    }
}

/// The shape of y.
pub(crate) fn output_shape(x: &[usize], out_features: usize) -> Shape {
    let mut shape = x.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = out_features;
    }
    shape.into()
}

struct LinearOp {
    op: LoraLinear,
    base: Arc<Base>,
    /// Whether Candle's own computes it.
    candle: bool,
}

struct DeltaOp {
    op: LoraDelta,
    candle: bool,
}

type Gradients = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl LinearOp {
    fn forward<S: Compute>(
        &self,
        [(x, x_layout), (a, a_layout), (b, b_layout)]: [(&S, &Layout); 3],
    ) -> candle_core::Result<(S, Shape)> {
        let shape = output_shape(x_layout.dims(), self.op.out_features);
        let adapter = [Source::Tensor(a, a_layout), Source::Tensor(b, b_layout)];
        let x = Source::Tensor(x, x_layout);
        let op = Op::LoraLinear(self.op);
        if self.candle {
            return Ok((self.base.run_candles(op, x, &adapter)?, shape));
        }
        let [y] = self.base.run::<S, 1>(op, x, &adapter, [elements(shape.dims())])?;
        Ok((y, shape))
    }
}

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        NAME
    }

    forwards!(x x_layout, a a_layout, b b_layout);

    fn bwd(&self, x: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Gradients> {
        let LoraLinear { rows, in_features, out_features, rank, scale, dtype, .. } = self.op;
        if !x.track_op() {
            // Without dx, the product with W falls away.
            let op = LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype);
            return delta_backward(op, x, a, b, dy);
        }
        let op = Op::LoraLinearBackward(LoraLinear { x_row: in_features, ..self.op });
        backward(NAME, x, a, b, dy, |tensors, lengths| self.base.run_tensors(op, tensors, lengths))
    }
}

impl DeltaOp {
    fn forward<S: Compute>(
        &self,
        [(x, x_layout), (a, a_layout), (b, b_layout)]: [(&S, &Layout); 3],
    ) -> candle_core::Result<(S, Shape)> {
        let shape = output_shape(x_layout.dims(), self.op.out_features);
        let inputs = [Source::Tensor(x, x_layout), Source::Tensor(a, a_layout), Source::Tensor(b, b_layout)];
        let y = compute::forward(self.op.into(), self.candle, &inputs, elements(shape.dims()))?;
        Ok((y, shape))
    }
}

impl CustomOp3 for DeltaOp {
    fn name(&self) -> &'static str {
        DELTA
    }

    forwards!(x x_layout, a a_layout, b b_layout);

    fn bwd(&self, x: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Gradients> {
        delta_backward(LoraDelta { x_row: self.op.in_features, ..self.op }, x, a, b, dy)
    }
}

fn delta_backward(op: LoraDelta, x: &Tensor, a: &Tensor, b: &Tensor, dy: &Tensor) -> candle_core::Result<Gradients> {
    backward(DELTA, x, a, b, dy, |tensors, lengths| compute::run(Op::LoraDeltaBackward(op), &tensors, lengths))
}

/// dx, da and db at once; `run` gets x, a, b and dy.
fn backward(
    name: &'static str,
    x: &Tensor,
    a: &Tensor,
    b: &Tensor,
    dy: &Tensor,
    run: impl FnOnce([&Tensor; 4], [usize; 3]) -> Result<[Storage; 3]>,
) -> candle_core::Result<Gradients> {
    // dx is a new tensor, whatever gaps x has between its rows.
    let rows = operand::contiguous(name, ("x", &x.detach()))?;
    let dy = operand::contiguous(name, ("dy", dy))?;
    let [dx, da, db] = run([&rows, a, b, &dy], [x.elem_count(), a.elem_count(), b.elem_count()])?;
    Ok((gradient(x, dx), gradient(a, da), gradient(b, db)))
}
