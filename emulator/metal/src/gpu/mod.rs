//! The emulated GPU: memory, commands, what orders them, and a thread that runs them.
//!
//! Knows nothing of Objective-C; `metal/` and `mps/` turn calls into [`pass::Submission`]s.

pub mod event;
pub mod hazard;
pub mod memory;
pub mod observed;
pub mod order;
pub mod pass;
pub mod past;
pub mod random;
pub mod scheduler;
pub mod work;
