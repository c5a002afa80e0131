//! What every engine runs on.
//!
//! | looking for | it is in |
//! |---|---|
//! | memory, and parts of it | `arena.rs` |
//! | the command buffer and encoder that are open, and when they are committed | `encoder.rs` |
//! | which commands must wait for each other | `hazard.rs`, `ranges.rs` |
//! | how far the GPU is, and waiting for it | `completion.rs` |
//! | what keeps dropped memory and objects until the GPU is done with them | `graveyard.rs` |
//! | libraries and pipeline states | `pipeline.rs` |
//! | a kernel with its arguments | `dispatch.rs` |

#[cfg(metal)]
pub(crate) mod arena;
#[cfg(metal)]
pub(crate) mod completion;
#[cfg(metal)]
pub(crate) mod dispatch;
#[cfg(metal)]
pub(crate) mod encoder;
#[cfg(any(metal, test))]
#[cfg(metal)]
pub(crate) mod graveyard;
#[cfg(any(metal, test))]
pub(crate) mod hazard;
#[cfg(metal)]
pub(crate) mod objects;
#[cfg(metal)]
pub(crate) mod pipeline;
#[cfg(any(metal, test))]
mod ranges;
