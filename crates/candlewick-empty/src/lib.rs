//! A backend that does nothing: every operation is checked and dropped.
//!
//! It measures what the contract of [`candlewick_core::backend`] itself costs the host, proves that `encode` neither
//! allocates nor locks, and is the shape that a new backend starts from.

mod buffer;
mod device;
mod stream;

pub use buffer::{Buffer, Input, Output};
pub use device::{Device, NOTHING};
pub use stream::{Kernel, Memory, Stream, Tape};
