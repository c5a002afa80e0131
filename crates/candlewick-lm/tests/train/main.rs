//! Training of tiny random models.

mod batches;
mod parity;
mod reading;
mod resume;
mod runs;
mod tiny;
