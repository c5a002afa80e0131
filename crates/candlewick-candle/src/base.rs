//! The frozen half of a LoRA layer.

use crate::error::{self, Result};
use crate::operand::{self, hold, run};
use crate::stream;
use candle_core::{CpuStorage, Tensor};
use candlewick::{Buffer, Input, LoraLinear, Op};
use std::sync::OnceLock;

const NAME: &str = "lora_linear";

/// W [out, in] and bias `[out]`, which no gradient ever reaches.
#[derive(Debug)]
pub(crate) struct Base {
    w: Tensor,
    bias: Option<Tensor>,
    packed: Option<Packed>,
}

/// W in the order that the forward and the backward read: made once, read by every thread.
#[derive(Debug, Default)]
struct Packed {
    forward: OnceLock<Buffer>,
    backward: OnceLock<Buffer>,
}

impl Base {
    /// W as it lies in memory, for a few calls.
    pub(crate) fn plain(w: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let operands = [("w", w), ("bias", bias.unwrap_or(w))];
        operand::dtype(NAME, &operands)?;
        let &[out_features, _] = w.dims() else { return Err(error::shape(NAME, ("w", w), "w is [out, in]")) };
        if let Some(bias) = bias
            && bias.dims() != [out_features]
        {
            return Err(error::mismatch(NAME, ("w", w), ("bias", bias), "w is [out, in] and bias is [out]"));
        }
        let frozen = |name, tensor: &Tensor| operand::contiguous(NAME, (name, &tensor.detach()));
        let bias = bias.map(|bias| frozen("bias", bias)).transpose()?;
        Ok(Base { w: frozen("w", w)?, bias, packed: None })
    }

    /// W packed now for the forward, and for the backward when there is one.
    pub(crate) fn packed(w: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let base = Base { packed: Some(Packed::default()), ..Base::plain(w, bias)? };
        let dtype = operand::dtype(NAME, &[("w", w)])?;
        let (out_features, in_features) = base.features();
        let op = base.op(LoraLinear::new(1, in_features, out_features, 0, 0.0, dtype));
        base.with_w(Op::LoraLinear(op), |_| Ok(()))?;
        Ok(base)
    }

    pub(crate) fn w(&self) -> &Tensor {
        &self.w
    }

    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// (out, in).
    pub(crate) fn features(&self) -> (usize, usize) {
        (self.w.dims()[0], self.w.dims()[1])
    }

    /// The operation, as this base has its W and bias.
    pub(crate) fn op(&self, op: LoraLinear) -> LoraLinear {
        let op = if self.packed.is_some() { op.packed() } else { op };
        LoraLinear { bias: self.bias.is_some(), ..op }
    }

    /// Runs a forward or a backward with x, W, the bias where the forward has one, and the rest.
    pub(crate) fn run<const N: usize>(
        &self,
        op: Op,
        x: Input<'_>,
        rest: &[Input<'_>],
        lengths: [usize; N],
    ) -> Result<[CpuStorage; N]> {
        let bias = self.bias.as_ref().filter(|_| matches!(op, Op::LoraLinear(_))).map(hold);
        self.with_w(op, |w| {
            let mut inputs = Vec::with_capacity(5);
            inputs.extend([x, w]);
            if let Some(bias) = &bias {
                inputs.push(bias.input()?);
            }
            inputs.extend_from_slice(rest);
            run(op, &inputs, lengths)
        })
    }

    /// Hands out W as `op` reads it.
    fn with_w<T>(&self, op: Op, work: impl FnOnce(Input<'_>) -> Result<T>) -> Result<T> {
        let Some(packed) = &self.packed else { return work(hold(&self.w).input()?) };
        let once = if matches!(op, Op::LoraLinear(_)) { &packed.forward } else { &packed.backward };
        let w = match once.get() {
            Some(w) => w,
            None => {
                let plain = hold(&self.w);
                let packed = stream::with(|stream| {
                    let kernel = stream.prepare(op)?;
                    Ok(stream.pack(&kernel, plain.input()?)?)
                })?;
                // Where two threads came here at once, either result serves both.
                once.get_or_init(|| packed)
            }
        };
        work(w.into())
    }
}
