//! What every Candlewick backend shares: the operations as plain data, the contract that a backend fulfils, the errors,
//! the dispatch table, and an f64 reference of every operation.
//!
//! | looking for | it is in |
//! |---|---|
//! | what an operation computes, its shapes, FLOPs and bytes | [`op`], one file per operation |
//! | the definition that every backend is tested against | [`mod@reference`], one file per operation |
//! | what a backend must do, and what a caller may rely on | [`backend`] |
//! | recorded sequences of operations | [`tape`] |
//! | parts of a block of memory | [`free_list`] |
//! | random numbers that every device makes alike | [`philox`] |
//! | which engine runs which shape | [`dispatch`] |
//!
//! This crate knows no hardware, no Candle and no model.

pub mod backend;
pub mod cache;
pub mod dispatch;
mod dtype;
mod error;
pub mod free_list;
mod layout;
pub mod op;
pub mod philox;
pub mod reference;
mod scalar;
mod signature;
pub mod tape;

pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use layout::{Layout, Shape};
pub use op::{
    Activations, AdamW, Add, Attention, Cast, CopyRows, Dequantize, Dropout, Embedding, Pairs, Quant, QuantLinear,
    Rope, SiluMul,
};
pub use op::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, SumSquares};
pub use op::{LoraDelta, LoraLinear, LoraRows, Mask, MatMul, Op, RmsNorm, Softmax};
pub use scalar::Scalar;
