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
//!
//! ```
//! use candlewick_core::{DType, MatMul, Op, reference};
//!
//! // [1, 3] x [3, 2]: an operation is data ..
//! let op = Op::from(MatMul::new(1, 2, 3, DType::F32));
//! assert_eq!((op.to_string(), op.flops()), ("matmul 1x2x3 f32".into(), 12.0));
//! // .. and has a definition.
//! let mut c = [0.0; 2];
//! reference::run(&op, &[&[1., 2., 3.], &[1., 0., 0., 1., 1., 1.]], &mut [&mut c])?;
//! assert_eq!(c, [4.0, 5.0]);
//! # Ok::<(), candlewick_core::Error>(())
//! ```

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
