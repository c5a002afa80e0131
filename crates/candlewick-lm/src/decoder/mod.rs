//! The forward pass: a model as the operations of a plan.
//!
//! A [`Decoder`] is a model on a device: its weights as constants of one session, each with the bytes that the model's file
//! has. Plans record [`Decoder::record`] and [`Decoder::head`] over [`Rows`]; a weight is converted and brought to the
//! device when a plan first needs it, in the form that the plan's operations read.
//!
//! | looking for | it is in |
//! |---|---|
//! | weights by role, their conversion | `weights.rs` |
//! | the operations of a layer | `forward.rs` |
//! | which rows there are, what they see | `rows.rs` |
//! | keys and values of earlier tokens | `cache.rs` |
//! | where adapters come in | `linears.rs` |

mod cache;
mod forward;
mod linears;
mod rows;
mod weights;

pub use cache::Cache;
pub use linears::{Base, Linears, Plain};
pub use rows::Rows;

use crate::Result;
use candlewick::op::Quant;
use candlewick::plan::{Session, Shared};
use candlewick::{DType, Device};
use candlewick_model::{Config, Role, Weights};
use std::collections::HashMap;
use std::sync::Arc;

/// How a model is brought to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What operations compute with; nothing chooses [`Options::default_dtype`].
    pub dtype: Option<DType>,
    /// What becomes of quantised weights.
    pub quantised: Quantised,
    /// Whether what quantised weights are multiplied with may be rounded to 8 bits, as llama.cpp does: several times faster
    /// on CPUs, and logits differ by a hundredth of the largest. GPUs do not round.
    pub int8: bool,
}

/// What becomes of quantised weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quantised {
    /// They stay as their blocks are, and products and look-ups read those.
    #[default]
    Keep,
    /// They become numbers of the dtype that operations compute with.
    Dequantise,
}

impl Options {
    /// f32 on the CPU and on Apple's GPU, bf16 on NVIDIA's.
    pub fn default_dtype(device: &Device) -> DType {
        if device.info().id.starts_with("cuda") { DType::BF16 } else { DType::F32 }
    }
}

/// A model on a device: what plans of its session record the forward pass with.
#[derive(Debug)]
pub struct Decoder {
    files: Arc<Weights>,
    dtype: DType,
    int8: bool,
    session: Session,
    weights: HashMap<Role, Constant>,
    /// Of the rotary embedding, [1, head_dim / 2] in f32.
    frequencies: Shared,
}

/// A weight in a session.
#[derive(Clone, Debug)]
struct Constant {
    shared: Shared,
    /// The format of its blocks, where it has some.
    quant: Option<Quant>,
}

impl Decoder {
    /// Declares a model's weights in a new session on a device. Nothing is read before a plan needs it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn load(device: &Device, files: Arc<Weights>, options: Options) -> Result<Decoder> {
        let session = Session::new(device)?;
        let dtype = options.dtype.unwrap_or_else(|| Options::default_dtype(device));
        let frequencies = weights::frequencies(&session, files.config());
        let weights = weights::declare(&session, &files, dtype, options.quantised)?;
        Ok(Decoder { files, dtype, int8: options.int8, session, weights, frequencies })
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        self.files.config()
    }

    /// The model's files.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.files
    }

    /// What operations compute with.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The session whose plans share the weights.
    pub fn session(&self) -> &Session {
        &self.session
    }
}
