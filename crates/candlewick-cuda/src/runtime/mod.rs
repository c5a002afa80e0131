//! What every engine runs on.
//!
//! | looking for | it is in |
//! |---|---|
//! | NVIDIA's libraries, found and loaded | `libraries.rs`, `driver.rs`, `nvrtc.rs` |
//! | the context, and errors that end it | `context.rs` |
//! | memory, and parts of it | `arena.rs` |
//! | how far a stream is, and waiting for it | `completion.rs` |
//! | what keeps dropped memory until the GPU is done with it | `graveyard.rs` |
//! | which operation an error may be of | `history.rs` |
//! | copies between host and device | `staging.rs` |
//! | compiled kernels, in memory and on disk | `modules.rs`, `disk.rs` |
//! | a kernel with its arguments | `launch.rs`, `tensor_map.rs` |
//! | recorded work; operations that come again | `graph.rs`; `repeats.rs` |

pub(crate) mod arena;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod disk;
pub(crate) mod driver;
pub(crate) mod graph;
pub(crate) mod graveyard;
pub(crate) mod history;
pub(crate) mod launch;
pub(crate) mod libraries;
pub(crate) mod modules;
pub(crate) mod nvrtc;
pub(crate) mod repeats;
pub(crate) mod staging;
mod tensor_map;
