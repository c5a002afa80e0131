//! When a further thread pays: a fact of the machine, one for the process.

use std::sync::atomic::{AtomicU32, Ordering};

/// As measured on two cores of an Intel Xeon (Emerald Rapids): what waking a thread and sharing data with it costs.
pub const DEFAULT: f64 = 4e-6;

static SECONDS: AtomicU32 = AtomicU32::new((DEFAULT as f32).to_bits());

/// Seconds of work that every thread of an operation has at least.
pub fn seconds_per_thread() -> f64 {
    f64::from(f32::from_bits(SECONDS.load(Ordering::Relaxed)))
}

/// Sets it for operations that are prepared from now on, between 10 ns and a second. With less than a thread costs, small
/// operations become slower; results stay the same.
pub fn set_seconds_per_thread(seconds: f64) {
    let seconds = if seconds.is_finite() { seconds.clamp(1e-8, 1.0) } else { DEFAULT };
    SECONDS.store((seconds as f32).to_bits(), Ordering::Relaxed);
}

/// How many of `threads` to use for work that takes one of them `seconds`.
pub(crate) fn threads_that_pay(seconds: f64, threads: usize) -> usize {
    ((seconds / seconds_per_thread()) as usize).clamp(1, threads)
}
