//! A backend that does nothing: every operation is checked and dropped.
//!
//! It measures what the contract of [`candlewick_core::backend`] itself costs the host, proves that `encode` neither
//! allocates nor locks, and is the shape that a new backend starts from.
//!
//! ```
//! use candlewick_core::backend::{Device as _, Stream as _};
//! use candlewick_core::{DType, Softmax};
//! use candlewick_empty::Device;
//!
//! let mut stream = Device.stream()?;
//! let kernel = stream.prepare(&Softmax::new(1, 2, DType::F32).into(), None)?;
//! let (x, mut y) = (Device.alloc(DType::F32, 2)?, Device.alloc(DType::F32, 2)?);
//! stream.encode(&kernel, &[(&x).into()], &mut [(&mut y).into()])?;
//! // Arguments are checked as everywhere.
//! assert!(stream.encode(&kernel, &[], &mut [(&mut y).into()]).is_err());
//! # Ok::<(), candlewick_core::Error>(())
//! ```

mod buffer;
mod device;
mod stream;

pub use buffer::{Buffer, Input, Output};
pub use device::{Device, NOTHING};
pub use stream::{Kernel, Memory, Stream, Tape};
