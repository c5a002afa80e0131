//! A linear layer with a frozen base and a LoRA adapter, in place of [`candle_nn::Linear`].

use crate::base::Base;
use crate::error::{self, Error, Result};
use crate::ops::lora;
use crate::{matmul, operand};
use candle_core::{Module, Tensor};
use candle_nn::{Init, Linear, VarBuilder};
use std::sync::Arc;

const NAME: &str = "lora_linear";

/// What makes an adapter, as in PEFT's `LoraConfig`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoraConfig {
    /// Rows of A, columns of B; at least one.
    pub rank: usize,
    /// The adapter's weight: its factor is alpha / rank.
    pub alpha: f32,
    /// The factor is alpha / sqrt(rank) instead (Kalajdzievski, 2023).
    pub use_rslora: bool,
}

impl LoraConfig {
    /// A rank and an alpha.
    pub fn new(rank: usize, alpha: f32) -> Self {
        LoraConfig { rank, alpha, use_rslora: false }
    }

    /// With rank-stabilised scaling.
    pub fn rslora(self) -> Self {
        LoraConfig { use_rslora: true, ..self }
    }

    /// The factor of the adapter: alpha / rank, or alpha / sqrt(rank).
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }
}

/// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ with W [out, in] and bias `[out]` frozen, A [rank, in] and B [out, rank]
/// trainable.
///
/// On the CPU, W is packed once, when the layer is made, and once more at the first backward that needs the gradient of x.
/// Both packings and W are shared by clones and by threads; later changes of the tensor that W came from are not seen. On
/// GPUs, W is read as it lies.
///
/// A and B may have another dtype than W (f32 beside a bf16 base is usual in training): they are converted for each
/// forward, and their gradients come back in their own dtype.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Linear, Module, VarBuilder, VarMap};
/// use candlewick_candle::{LoraConfig, LoraLinear};
///
/// let base = Linear::new(Tensor::ones((3, 4), DType::F32, &Device::Cpu)?, None);
/// let variables = VarMap::new();
/// let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let layer = LoraLinear::new(&base, LoraConfig::new(2, 4.0), builder.pp("q_proj"))?;
/// let x = Tensor::ones((1, 4), DType::F32, &Device::Cpu)?;
/// // B starts at zero, so the layer starts as its base.
/// assert_eq!(layer.forward(&x)?.to_vec2::<f32>()?, base.forward(&x)?.to_vec2::<f32>()?);
/// assert_eq!(variables.all_vars().len(), 2); // q_proj.lora_A.weight and q_proj.lora_B.weight
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LoraLinear {
    base: Arc<Base>,
    /// The base with the adapter added to its W.
    merged: Option<Arc<Base>>,
    enabled: bool,
    config: LoraConfig,
    a: Tensor,
    b: Tensor,
    /// An adapter of rank zero, for a forward without one.
    none: [Tensor; 2],
}

impl LoraLinear {
    /// A layer with A and B from `variables`, named `lora_A.weight` and `lora_B.weight` as in PEFT. Where they are new,
    /// A is uniform in ±1 / sqrt(in), which is PEFT's `kaiming_uniform_(a=sqrt(5))`, and B is zero.
    ///
    /// # Errors
    /// A rank of zero, an infinite alpha, a base that is not [out, in] in f32, f16 or bf16, variables of another shape, or
    /// a device that this build does not compute on.
    pub fn new(base: &Linear, config: LoraConfig, variables: VarBuilder<'_>) -> candle_core::Result<Self> {
        let base = frozen(base, config)?;
        let (out_features, in_features) = base.features();
        let bound = if in_features == 0 { 0.0 } else { 1.0 / (in_features as f64).sqrt() };
        // Candle draws no numbers from an empty range.
        let init_a = if bound == 0.0 { Init::Const(0.0) } else { Init::Uniform { lo: -bound, up: bound } };
        let a = variables.pp("lora_A").get_with_hints((config.rank, in_features), "weight", init_a)?;
        let b = variables.pp("lora_B").get_with_hints((out_features, config.rank), "weight", Init::Const(0.0))?;
        Ok(Self::assemble(base, config, a, b)?)
    }

    /// A layer with A [rank, in] and B [out, rank] as given; they train where they are variables.
    ///
    /// # Errors
    /// Those of [`LoraLinear::new`], and an A or B of another shape.
    pub fn from_tensors(base: &Linear, config: LoraConfig, a: Tensor, b: Tensor) -> candle_core::Result<Self> {
        Ok(Self::assemble(frozen(base, config)?, config, a, b)?)
    }

    fn assemble(base: Base, config: LoraConfig, a: Tensor, b: Tensor) -> Result<Self> {
        let w = base.w();
        for (name, tensor) in [("a", &a), ("b", &b)] {
            operand::dtype(NAME, &[(name, tensor)])?;
        }
        let (out_features, in_features) = base.features();
        if a.dims() != [config.rank, in_features] {
            return Err(error::mismatch(
                NAME,
                ("w", w),
                ("a", &a),
                "w is [out, in] and a is [rank, in], as configured",
            ));
        }
        if b.dims() != [out_features, config.rank] {
            return Err(error::mismatch(
                NAME,
                ("w", w),
                ("b", &b),
                "w is [out, in] and b is [out, rank], as configured",
            ));
        }
        let none = [(0, in_features), (out_features, 0)].map(|shape| Tensor::zeros(shape, w.dtype(), w.device()));
        let [no_a, no_b] = none;
        Ok(LoraLinear { base: Arc::new(base), merged: None, enabled: true, config, a, b, none: [no_a?, no_b?] })
    }

    /// The adapter's rank and alpha.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// A [rank, in].
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// B [out, rank].
    pub fn b(&self) -> &Tensor {
        &self.b
    }

    /// The layer as a plain one: the frozen W, or the merged one, and the bias.
    pub fn to_linear(&self) -> Linear {
        let base = self.merged.as_ref().unwrap_or(&self.base);
        Linear::new(base.w().clone(), base.bias().cloned())
    }

    /// Adds the adapter to W, as A and B are now: W + scale B A, summed in f32 and rounded to the dtype of W once.
    /// From then on the forward is one plain product, and A and B get no gradient. A merged layer is merged anew.
    ///
    /// # Errors
    /// What running out of memory or Candle reports; the layer is unchanged then.
    pub fn merge(&mut self) -> candle_core::Result<()> {
        let base = &self.base;
        let wide = |tensor: &Tensor| tensor.detach().to_dtype(candle_core::DType::F32);
        let delta = (matmul(&wide(&self.b)?, &wide(&self.a)?)? * f64::from(self.config.scale()))?;
        let w = (wide(base.w())? + delta)?.to_dtype(base.w().dtype())?;
        self.merged = Some(Arc::new(Base::packed(&w, base.bias())?));
        Ok(())
    }

    /// Takes the adapter out of W again. The original W was kept, so this is exact.
    pub fn unmerge(&mut self) {
        self.merged = None;
    }

    /// Whether the forward runs on the merged W.
    pub fn is_merged(&self) -> bool {
        self.merged.is_some()
    }

    /// Lets the adapter take part, which it does from the start.
    pub fn enable_adapter(&mut self) {
        self.enabled = true;
    }

    /// Makes the layer its base alone, merged or not, until [`LoraLinear::enable_adapter`].
    pub fn disable_adapter(&mut self) {
        self.enabled = false;
    }

    /// Whether the adapter takes part.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

impl Module for LoraLinear {
    /// y [.., out] from x [.., in], differentiable in x, A and B.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [no_a, no_b] = &self.none;
        match &self.merged {
            _ if !self.enabled => lora::linear(x, &self.base, no_a, no_b, 0.0),
            Some(merged) => lora::linear(x, merged, no_a, no_b, 0.0),
            None => {
                let dtype = self.base.w().dtype();
                let (a, b) = (self.a.to_dtype(dtype)?, self.b.to_dtype(dtype)?);
                lora::linear(x, &self.base, &a, &b, self.config.scale())
            }
        }
    }
}

/// The base of a layer, once the configuration makes sense.
fn frozen(linear: &Linear, config: LoraConfig) -> Result<Base> {
    if config.rank == 0 || !config.scale().is_finite() {
        return Err(Error::Candlewick(candlewick::Error::Descriptor {
            op: NAME,
            field: "config",
            value: format!("{config:?} for w {:?}", linear.weight().dims()),
            remedy: "the rank is at least 1 and alpha is finite",
        }));
    }
    Base::packed(linear.weight(), linear.bias())
}
