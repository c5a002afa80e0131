//! Language models of the Llama family with LoRA adapters, run and fine-tuned as plans: one submission per token, one per
//! training step.
//!
//! ```no_run
//! use candlewick::Device;
//! use candlewick_lm::generate::{Generator, Options, Request};
//! use candlewick_model::Adapter;
//!
//! let mut generator = Generator::open("SmolLM2-135M".as_ref(), &Device::cpu(), Options::default())?;
//! let adapter = generator.load_adapter(&Adapter::open("my-adapter".as_ref())?, 1.0)?;
//! let prompt = generator.tokenizer().encode("The sea is", true)?;
//! let request = Request { adapter: Some(adapter), ..Request::new(prompt) };
//! generator.generate(&[request], &mut |_, text| print!("{text}"))?;
//! # Ok::<(), candlewick_lm::Error>(())
//! ```
//!
//! | looking for | it is in |
//! |---|---|
//! | a model on a device, its forward pass as part of a plan | [`decoder`] |
//! | text: sampling, batches, an adapter for each row | [`generate`] |
//! | fine-tuning an adapter | [`train`] |

pub mod decoder;
mod error;
pub mod generate;
#[cfg(feature = "testing")]
pub mod testing;
pub mod train;

pub use decoder::Decoder;
pub use error::{Error, Result};
