//! Every program of `candlewick-kernels`, on whatever can run one, against the core's f64 reference.
//!
//! [`cases`] makes descriptors with nasty sizes and strides, [`Trial`] their operands and the right answers, and a
//! [`Gpu`] runs a program's dispatches. `tests/` has the emulator as the GPU.

mod cases;
mod gpu;
mod judge;
#[path = "../../../crates/candlewick-cli/src/verify/rng.rs"]
mod rng;
mod trial;

pub use cases::{Case, Values, cases, fixed_count};
pub use gpu::{Gpu, Tensor};
pub use trial::Trial;
