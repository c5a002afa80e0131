//! The frozen half of a LoRA layer.

use crate::candles;
use crate::compute::{Compute, Held, Source, Sources, hold, on_device};
use crate::cpu::{self, stream};
use crate::error::{self, Described, Result};
use crate::operand;
use candle_core::{CpuStorage, Storage, Tensor};
use candlewick::{Buffer, LoraLinear, Op};
use std::sync::OnceLock;

const NAME: &str = "lora_linear";

/// W [out, in] and bias `[out]`, which no gradient ever reaches.
#[derive(Debug)]
pub(crate) struct Base {
    w: Tensor,
    bias: Option<Tensor>,
    /// On the CPU. GPU kernels read W as it lies: packing a contiguous W would copy it and change nothing.
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
        features(w, bias.map(|bias| bias as &dyn Described))?;
        let frozen = |name, tensor: &Tensor| operand::contiguous(NAME, (name, &tensor.detach()));
        let bias = bias.map(|bias| frozen("bias", bias)).transpose()?;
        Ok(Base { w: frozen("w", w)?, bias, packed: None })
    }

    /// For many calls: on the CPU, W packed now for the forward, and for the backward when there is one.
    pub(crate) fn packed(w: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        if !w.device().is_cpu() {
            return Base::plain(w, bias);
        }
        let base = Base { packed: Some(Packed::default()), ..Base::plain(w, bias)? };
        let dtype = operand::dtype(NAME, &[("w", w)])?;
        let (out_features, in_features) = base.features();
        let op = base.op(LoraLinear::new(1, in_features, out_features, 0, 0.0, dtype));
        base.with_w::<CpuStorage, _>(Op::LoraLinear(op), |_| Ok(()))?;
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

    /// Runs a forward by Candle's own operations, which read W as it lies.
    pub(crate) fn run_candles<S: Compute>(&self, op: Op, x: Source<'_, S>, adapter: &[Source<'_, S>]) -> Result<S> {
        let (w, bias) = (hold(&self.w), self.bias.as_ref().map(hold));
        let mut inputs: Sources<'_, S> = [x, w.source()?].into_iter().collect();
        if let Some(bias) = &bias {
            inputs.push(bias.source()?);
        }
        inputs.extend(adapter.iter().copied());
        candles::run(&op, &inputs)
    }

    /// Runs a forward or a backward with x, W, the bias where the forward has one, and the rest.
    pub(crate) fn run<S: Compute, const N: usize>(
        &self,
        op: Op,
        x: Source<'_, S>,
        rest: &[Source<'_, S>],
        lengths: [usize; N],
    ) -> Result<[S; N]> {
        let bias = self.bias.as_ref().filter(|_| matches!(op, Op::LoraLinear(_))).map(hold);
        self.with_w::<S, _>(op, |w| {
            let mut inputs: Sources<'_, S> = [x, w].into_iter().collect();
            if let Some(bias) = &bias {
                inputs.push(bias.source()?);
            }
            inputs.extend(rest.iter().copied());
            S::run(op, &inputs, lengths)
        })
    }

    /// The same on tensors, x first.
    pub(crate) fn run_tensors<const N: usize>(
        &self,
        op: Op,
        [x, rest @ ..]: [&Tensor; 4],
        lengths: [usize; N],
    ) -> Result<[Storage; N]> {
        let (held_x, held_rest) = (hold(x), rest.map(hold));
        on_device!(x.device(), Memory => {
            let rest = held_rest.iter().map(Held::source).collect::<Result<Sources<'_, Memory>>>()?;
            Ok(self.run(op, held_x.source()?, &rest, lengths)?.map(Compute::wrap))
        }, Err(error::elsewhere(NAME, "x", x.device().location())))
    }

    /// Hands out W as `op` reads it.
    fn with_w<S: Compute, T>(&self, op: Op, work: impl FnOnce(Source<'_, S>) -> Result<T>) -> Result<T> {
        let Some(packed) = &self.packed else { return work(hold(&self.w).source()?) };
        let once = if matches!(op, Op::LoraLinear(_)) { &packed.forward } else { &packed.backward };
        let w = match once.get() {
            Some(w) => w,
            None => {
                let plain = hold(&self.w);
                let packed = stream::with(|stream, _| {
                    let kernel = stream.prepare(op)?;
                    Ok(stream.pack(&kernel, cpu::input(&plain.source()?)?)?)
                })?;
                // Where two threads came here at once, either result serves both.
                once.get_or_init(|| packed)
            }
        };
        work(Source::Packed(w))
    }
}

/// (out, in) of a W [out, in], after a look at the bias.
pub(crate) fn features(w: &dyn Described, bias: Option<&dyn Described>) -> Result<(usize, usize)> {
    let &[out_features, in_features] = w.dims() else { return Err(error::shape(NAME, ("w", w), "w is [out, in]")) };
    match bias {
        Some(bias) if bias.dims() != [out_features] => {
            Err(error::mismatch(NAME, ("w", w), ("bias", bias), "w is [out, in] and bias is [out]"))
        }
        _ => Ok((out_features, in_features)),
    }
}
