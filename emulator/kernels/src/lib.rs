//! Every program of `candlewick-kernels`, on whatever can run one, against the core's f64 reference.
//!
//! `candlewick-verify` makes the cases, their tensors and the right answers, and judges; [`launch`] brings the tensors to a
//! [`Gpu`], which runs a program's dispatches. `tests/` has the emulator as the GPU.

// The facade that the cases come through links to Metal's classes, which nothing here uses.
use candlewick as _;
use metal_emulator as _;

mod gpu;
mod launch;

pub use gpu::{Gpu, Tensor};
pub use launch::launch;
