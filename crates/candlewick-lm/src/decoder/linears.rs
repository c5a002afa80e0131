//! Where adapters come in: whoever records a forward pass says how each linear layer is computed.

use candlewick::Result;
use candlewick::plan::{Recorder, Tensor};
use candlewick_model::Module;

/// The frozen part of a linear layer, in a plan.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// W [out, in], plain or quantised: what [`Recorder::linear`] and [`Recorder::lora_linear`] take.
    pub weight: Tensor,
    /// [1, out].
    pub bias: Option<Tensor>,
}

/// How linear layers are computed.
pub trait Linears {
    /// Records x Wᵀ + bias, and what an adapter adds to it.
    ///
    /// # Errors
    /// Those of the operations.
    fn linear(&mut self, p: &mut Recorder, module: Module, x: Tensor, base: &Base) -> Result<Tensor>;
}

/// Without adapters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Linears for Plain {
    #[track_caller]
    fn linear(&mut self, p: &mut Recorder, _: Module, x: Tensor, base: &Base) -> Result<Tensor> {
        p.linear(x, base.weight, base.bias)
    }
}
