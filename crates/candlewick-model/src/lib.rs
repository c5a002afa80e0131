//! Language models of the Llama family with LoRA adapters, from their files.
//!
//! [`Weights::open`] maps a Hugging Face folder or a GGUF file and checks it: every weight by its [`Role`], as bytes and
//! their [`Format`], with the model's [`Config`].
//!
//! ```no_run
//! use candlewick_model::{Adapter, Tokenizer, Weights};
//!
//! let weights = Weights::open("SmolLM2-135M".as_ref())?;
//! let config = weights.config();
//! println!("{} layers of {} numbers per token", config.layers, config.hidden);
//! println!("{:?}", Tokenizer::open("SmolLM2-135M".as_ref())?.encode("The sea is", true)?);
//! let adapter = Adapter::open("my-adapter".as_ref())?;
//! println!("an adapter of {} layers", adapter.modules.len());
//! # Ok::<(), candlewick_model::Error>(())
//! ```

pub mod adapter;
mod config;
mod error;
pub mod fetch;
mod file;
mod format;
pub mod gguf;
pub mod merge;
mod names;
pub mod safetensors;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tokenizer;
pub mod weights;

pub use adapter::{Adapter, AdapterFormat, Fitted, Lora, PeftConfig, Tensor};
pub use config::{Biases, Config, Family, Rope, Scaling};
pub use error::{Error, Result};
pub use file::write_atomically;
pub use format::Format;
pub use names::{Linear, Module, Part, Role};
pub use tokenizer::{ChatTemplate, Message, TokenStream, Tokenizer};
pub use weights::{Source, Weight, Weights};
