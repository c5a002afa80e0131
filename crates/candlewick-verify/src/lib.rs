//! Every operation, dtype, layout and odd shape on every engine of a device, against the f64 reference.
//!
//! ```
//! use candlewick::Device;
//! use candlewick::op::OpClass;
//! use candlewick_verify::{Options, verify};
//!
//! let options = Options { classes: vec![OpClass::Softmax], sweep: 5, largest: Some(100_000), ..Options::default() };
//! let report = verify(&Device::cpu(), &options, &mut |_| {})?;
//! assert!(report.failures().is_empty(), "{}", report.failures()[0]);
//! # Ok::<(), candlewick::Error>(())
//! ```
//!
//! | looking for | it is in |
//! |---|---|
//! | which cases run, and on which engines | `verify.rs` |
//! | what one case is, and how its number makes it | `case.rs` |
//! | everything that is special to one operation: shapes, layout, values, magnitudes | `cases/`, one file per operation |
//! | what tensors hold, and how they lie in memory | `tensor.rs` |
//! | numbers of any dtype, as f64 and as the library takes them | `numbers.rs` |
//! | running a case | `trial/mod.rs` |
//! | the same with an output in the place of an input | `trial/in_place.rs` |
//! | judging a result | `trial/judge.rs` |
//! | what came of all cases | `report.rs` |
//! | random plans | `plans/` |
//!
//! # A new operation
//! One file in `cases/` with an implementation of its trait `Operation`, and one arm in `cases::of`. Until then [`Case::new`]
//! panics for its class: a class that has no cases is a class that nothing verifies.
//!
//! # Who uses it
//! `candlewick verify` prints a [`Report`] as its table. The emulator's tests run [`verify`] on the emulated GPU. What
//! launches kernels by itself takes a [`Trial`], whose tensors it reads, and hands it the memory to judge.

mod case;
mod cases;
mod numbers;
pub mod plans;
mod report;
mod rng;
mod tensor;
mod trial;
mod verify;

pub use case::{Case, Hardware, Storage, Values, dtypes, fixed_count, gpu_edge_count};
pub use report::{Failure, Report, Row, Worst};
pub use rng::Rng;
pub use tensor::Tensor;
pub use trial::{Deviation, Fault, Memory, Run, Trial};
pub use verify::{Options, Progress, Shard, verify};
