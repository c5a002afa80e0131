//! Fine-tuning: forward, backward and optimizer of a step as one plan.
//!
//! A [`Trainer`] is a run: it opens a model and lines of JSON, trains LoRA adapters on any device and leaves a PEFT adapter,
//! checkpoints, metrics and a loss curve in a folder. Killed at any moment, it goes on bit for bit from its last checkpoint.
//!
//! | looking for | it is in |
//! |---|---|
//! | the options | `options.rs`, `targets.rs`, `schedule.rs` |
//! | lines, tokens, rows, batches | `data/` |
//! | the trained numbers and their PEFT adapter | `adapter.rs` |
//! | the plans of a step | `step.rs`; the model up to the loss in `pass.rs` |
//! | a run: what it opens, its loop | `trainer.rs`, `run.rs` |
//! | how well a model does | `score.rs` |
//! | what is left for later: checkpoints, metrics, the curve | `checkpoint.rs`, `metrics.rs`, `curve.rs` |
//! | what a run will take | `estimate.rs` |
//! | randomness, and what identifies a run | `random.rs`, `sources.rs` |

mod adapter;
mod checkpoint;
pub mod curve;
pub mod data;
mod error;
pub mod estimate;
pub mod metrics;
mod options;
mod pass;
mod random;
mod run;
mod schedule;
mod score;
mod sources;
mod step;
mod targets;
mod trainer;

pub use adapter::{Parameters, Trained};
pub use checkpoint::{Checkpoints, Progress, State};
pub use error::{Error, Result};
pub use estimate::{Estimate, Memory};
pub use options::{Housekeeping, Length, Precision, Recipe};
pub use pass::Sizes;
pub use run::{End, Event, Summary};
pub use schedule::Schedule;
pub use score::Score;
pub use step::{Outcome, Stepper};
pub use targets::Targets;
pub use trainer::{Sources, Trainer};
