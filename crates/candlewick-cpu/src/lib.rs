//! Candlewick on any CPU.
//!
//! | looking for | it is in |
//! |---|---|
//! | how an operation is cut into tasks | `ops/`, one file per operation |
//! | the loops themselves | [`kernels`], one file per kernel, written once over [`simd::Simd`] |
//! | an instruction set | [`simd`], one file each: `amx.rs`, `avx512.rs`, `avx2.rs`, `neon.rs`, `portable.rs` |
//! | threads | [`pool`]; when one more pays: [`threads`] |
//! | the contract's device and stream | `device.rs`, `stream.rs`, `buffer.rs` |
//! | recorded sequences | `tape.rs` |
//!
//! Work runs inside `encode`, on the calling thread and, where it pays, on the pool.
//!
//! ```
//! use candlewick_core::backend::{Device as _, Stream as _};
//! use candlewick_core::{DType, Softmax};
//! use candlewick_cpu::Device;
//!
//! let mut stream = Device::new().stream()?;
//! let kernel = stream.prepare(&Softmax::new(1, 2, DType::F32).into(), None)?;
//! let (x, mut y) = ([3f32, 3.], [0f32; 2]);
//! stream.encode(&kernel, &[x[..].into()], &mut [y[..].as_mut().into()])?;
//! assert_eq!(y, [0.5, 0.5]);
//! # Ok::<(), candlewick_core::Error>(())
//! ```

mod buffer;
mod device;
pub mod kernels;
mod limits;
mod ops;
pub mod pool;
pub mod simd;
mod stream;
mod tape;
pub mod threads;

pub use buffer::{Buffer, Input, Output};
pub use device::{Device, REFERENCE, engine_of};
pub use stream::{Kernel, Stream};
pub use tape::{Memory, Tape};
