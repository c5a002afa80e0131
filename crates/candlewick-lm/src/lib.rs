//! Language models of the Llama family with LoRA adapters, run and fine-tuned as plans: one submission per token, one per
//! training step.

pub mod decoder;
mod error;
pub mod generate;
#[cfg(feature = "testing")]
pub mod testing;
pub mod train;

pub use decoder::Decoder;
pub use error::{Error, Result};
