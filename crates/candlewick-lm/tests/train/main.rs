//! Training of tiny random models.

mod batches;
mod parity;
mod resume;
mod runs;
mod tiny;
