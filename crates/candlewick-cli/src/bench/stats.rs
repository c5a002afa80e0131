//! What a series of times says.

use serde::{Deserialize, Serialize};

/// Of one engine in one regime, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Micros {
    /// The fastest: what the machine can do when nothing disturbs it.
    pub min: f64,
    /// What to expect, and what every ratio compares.
    pub median: f64,
    /// One in ten is slower.
    pub p90: f64,
}

impl Micros {
    /// Of samples in microseconds; nothing of none.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let count = samples.len();
        let min = *samples.first()?;
        let median = (samples[(count - 1) / 2] + samples[count / 2]) / 2.0;
        // Nearest rank: the smallest sample that at least nine tenths do not exceed.
        let p90 = samples[(9 * count).div_ceil(10) - 1];
        Some(Micros { min, median, p90 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let of = |samples: &[f64]| Micros::of(samples.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some(Micros { min: 3.0, median: 3.0, p90: 3.0 }));
        assert_eq!(of(&[4.0, 1.0]), Some(Micros { min: 1.0, median: 2.5, p90: 4.0 }));
        let ten: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(of(&ten), Some(Micros { min: 1.0, median: 5.5, p90: 9.0 }));
        let eleven: Vec<f64> = (1..=11).map(f64::from).collect();
        assert_eq!(of(&eleven), Some(Micros { min: 1.0, median: 6.0, p90: 10.0 }));
    }
}
