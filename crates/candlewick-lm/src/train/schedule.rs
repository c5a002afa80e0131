//! The learning rate of each step.

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// To zero, in equal steps.
    Linear,
    /// To zero, along half a cosine (Loshchilov and Hutter, 2017, without restarts).
    #[default]
    Cosine,
}

impl Schedule {
    /// The share of the peak rate in `step` of `steps`, counted from 1.
    ///
    /// Within the first `warmup` steps it rises in equal steps to 1, which the last of them has; PyTorch's and
    /// transformers' schedules begin with a step at zero instead. Afterwards it is what transformers' have.
    pub fn share(self, step: u64, warmup: u64, steps: u64) -> f64 {
        if step <= warmup {
            return step as f64 / warmup as f64;
        }
        let done = (step - 1 - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        let done = done.min(1.0);
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - done,
            Schedule::Cosine => 0.5 * (1.0 + (PI * done).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls() {
        let shares = |schedule: Schedule| (1..=6).map(|step| schedule.share(step, 2, 6)).collect::<Vec<_>>();
        assert_eq!(shares(Schedule::Constant), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(shares(Schedule::Linear), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
        let cosine = shares(Schedule::Cosine);
        for (found, expected) in cosine.iter().zip([0.5, 1.0, 1.0, 0.853_553_390_593, 0.5, 0.146_446_609_407]) {
            assert!((found - expected).abs() < 1e-9, "{cosine:?}");
        }
        assert_eq!(Schedule::Linear.share(1, 0, 4), 1.0, "without warm-up the first step has the peak");
        assert_eq!(Schedule::Linear.share(9, 0, 4), 0.0);
    }
}
