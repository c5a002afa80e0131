//! Candlewick's operations on Candle tensors: fast, differentiable, and a drop-in LoRA layer.
//!
//! | operation | computes | gradients |
//! |---|---|---|
//! | [`matmul`] | A B, batched and broadcast | A, B |
//! | [`softmax`], [`softmax_causal`] | softmax(scale x) over the last dimension | x |
//! | [`rms_norm`] | x / sqrt(mean(x²) + eps) · weight | x, weight |
//! | [`lora_linear()`] | x Wᵀ + bias + scale (x Aᵀ) Bᵀ | x, A, B |
//! | [`lora_delta`] | scale (x Aᵀ) Bᵀ | x, A, B |
//! | [`LoraLinear`] | [`lora_linear()`] as a [`candle_core::Module`], with W packed once | x, A, B |
//!
//! Every operation takes f32, f16 and bf16 tensors on the CPU, on CUDA and on Metal, accumulates in f32, reads strided and transposed views
//! in place where it can, and takes part in Candle's autograd. Candle's `candle_nn::ops::softmax_last_dim` and
//! `rms_norm` cut gradients without a word; these do not. A frozen W gets no gradient, and none is computed.
//!
//! # A Candle model, made trainable
//! Wrap the linear layers, train the variables that appear, merge:
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{AdamW, Linear, Optimizer, VarBuilder, VarMap};
//! use candlewick_candle::{LoraConfig, LoraLinear, rms_norm, softmax};
//!
//! # fn main() -> candle_core::Result<()> {
//! let cpu = Device::Cpu;
//! let pretrained = Linear::new(Tensor::randn(0f32, 0.1, (8, 16), &cpu)?, None);
//! let weight = Tensor::ones(8, DType::F32, &cpu)?;
//!
//! let variables = VarMap::new();
//! let builder = VarBuilder::from_varmap(&variables, DType::F32, &cpu);
//! let mut layer = LoraLinear::new(&pretrained, LoraConfig::new(4, 8.0), builder.pp("head"))?;
//!
//! let (x, target) = (Tensor::randn(0f32, 1.0, (32, 16), &cpu)?, Tensor::full(0.125f32, (32, 8), &cpu)?);
//! let model = |layer: &LoraLinear| softmax(&rms_norm(&layer.forward(&x)?, &weight, 1e-6)?, 1.0);
//! let loss = |layer: &LoraLinear| model(layer)?.sub(&target)?.sqr()?.sum_all();
//! let mut optimizer = AdamW::new_lr(variables.all_vars(), 0.02)?;
//! let before = loss(&layer)?.to_scalar::<f32>()?;
//! for _ in 0..20 {
//!     optimizer.backward_step(&loss(&layer)?)?;
//! }
//! assert!(loss(&layer)?.to_scalar::<f32>()? < before);
//!
//! layer.merge()?; // one plain product from here on, until `unmerge`
//! # Ok(())
//! # }
//! ```
//!
//! # Candle's own operations
//! Candle's own product, softmax and RMSNorm are engines too: where `candlewick tune` has measured that one of them is faster
//! on this machine, it runs, with the gradients of this crate. See [`engine`].
//!
//! # Threads
//! Tensors and layers can be used from any number of threads. Each thread has a Candlewick stream of its own, which
//! keeps the kernels that the thread has used. `CANDLEWICK_THREADS` bounds the threads of one operation.
//!
//! # Errors
//! Bad input is an error that names the operation and both shapes, never a panic: see [`Error`].
//!
//! # What runs where
//! | tensors | how | when it is done |
//! |---|---|---|
//! | CPU | Candlewick's CPU kernels; a frozen W is packed once | on return |
//! | Metal, feature `metal` | own kernels, forward and backward, in Candle's open encoder, ordered with Candle's own | when the tensor is read, as with Candle's own |
//! | Metal, feature `metal`, inside `metal::region` | Metal Performance Shaders or own kernels on a queue of Candlewick's, forward only | on return: one wait in, one out |
//! | CUDA, feature `cuda` | Candlewick's CUDA kernels and cuBLASLt, forward and backward, on Candle's stream, in order with Candle's own | when the tensor is read, as with Candle's own |
//!
//! Without its feature a GPU's tensor is an error that says so.
//!
//! Feature `cuda` needs what Candle's own does: NVIDIA's toolkit to build, and its libraries at run time. What the driver
//! gets is tested on stand-ins for those libraries (`scripts/check-candle-cuda.sh`); `tests/cuda.rs` needs a GPU, and **none
//! has run it yet**.
//!
//! Feature `metal` builds for Apple systems. The types of that code are
//! checked and linted for `aarch64-apple-darwin`, and it runs on the emulator in `emulator/candle-adapter`, against the CPU
//! and under several orders of what Metal leaves open. **No Mac has run it**: nothing is known of its time there.

mod base;
mod candles;
mod compute;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod engine;
mod error;
mod lora_linear;
#[cfg(feature = "metal")]
pub mod metal;
mod operand;
mod ops;

pub use error::{Error, Result};
pub use lora_linear::{LoraConfig, LoraLinear};
pub use ops::lora::{lora_delta, lora_linear};
pub use ops::matmul::matmul;
pub use ops::rms_norm::rms_norm;
pub use ops::softmax::{softmax, softmax_causal};
