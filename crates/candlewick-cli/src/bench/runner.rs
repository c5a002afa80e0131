//! What every library that is measured looks like, here and in a child process.

use super::cases::Case;
use super::timing::Regime;
use serde::{Deserialize, Serialize};

/// A library with one setting, ready to run cases one after the other.
pub trait Runner {
    /// Makes the operands of a case, which replaces the one before.
    ///
    /// # Errors
    /// What it cannot run, in the library's own words.
    fn prepare(&mut self, case: &Case) -> Result<Prepared, String>;

    /// Samples in microseconds, gathered in about `seconds`.
    ///
    /// # Errors
    /// What the library says.
    fn measure(&mut self, regime: Regime, seconds: f64) -> Result<Vec<f64>, String>;

    /// Whether [`Regime::Replay`] is one of its regimes.
    fn replays(&self) -> bool {
        false
    }

    /// The first `counts[i]` numbers of output `i`: y where there is a forward pass, then the gradients, in the order
    /// and layout of [`candlewick::Op::operands`].
    ///
    /// # Errors
    /// What the library says.
    fn outputs(&mut self, counts: &[usize]) -> Result<Vec<Vec<f64>>, String>;
}

/// What a library says of a case that it has prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// What runs it: `cpu/avx512`, `candle`.
    pub engine: String,
    /// Threads that it runs on, where that is known.
    pub threads: Option<usize>,
    /// What a reader of the figures must know.
    pub note: Option<String>,
}
