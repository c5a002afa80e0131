//! Times an operation in a regime. Candlewick and every peer in Rust are timed by this code.

use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::time::Instant;

/// How an operation is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Wall time of one operation, waited for.
    Latency,
    /// Wall time per operation over a long run closed by one wait.
    Pipelined,
    /// Host time per operation, nothing waited for.
    Enqueue,
    /// Wall time per operation when a sequence was recorded once and is resubmitted, closed by one wait.
    Replay,
}

/// Operations of a sequence that is replayed.
pub const RECORDED: usize = 200;

impl Regime {
    /// What a summary is called that shows it.
    pub const fn title(self) -> &'static str {
        match self {
            Regime::Latency => "latency",
            Regime::Pipelined => "pipelined",
            Regime::Enqueue => "enqueue",
            Regime::Replay => "replay",
        }
    }
}

/// An operation that can be submitted again and again.
pub trait Timed {
    /// Submits it once.
    fn submit(&mut self) -> Result<(), String>;
    /// Returns when everything submitted is done.
    fn wait(&mut self) -> Result<(), String>;
}

/// Enough samples of a turn: more would say nothing new.
const MOST_SAMPLES: usize = 2000;
/// Operations in flight while the host's cost of one is timed.
const ENQUEUED: usize = 50;

/// Samples in microseconds, gathered in about `seconds`. What runs first is cold and is dropped.
///
/// # Errors
/// What the operation says.
pub fn measure(regime: Regime, seconds: f64, work: &mut impl Timed) -> Result<Vec<f64>, String> {
    let estimate = warm_up(seconds / 5.0, work)?;
    // A sample is `run` operations; two at least, where a run is what is asked for.
    let run = match regime {
        Regime::Latency => 1,
        Regime::Pipelined => ((seconds / 4.0 / estimate) as usize).clamp(2, 1 << 20),
        Regime::Enqueue => ENQUEUED,
        Regime::Replay => 1,
    };
    let clock = clock_cost();
    let mut samples = Vec::with_capacity(MOST_SAMPLES);
    let begin = Instant::now();
    while samples.is_empty() || samples.len() < MOST_SAMPLES && begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        for _ in 0..run {
            work.submit()?;
        }
        let submitted = (regime == Regime::Enqueue).then(|| start.elapsed());
        work.wait()?;
        let elapsed = submitted.unwrap_or_else(|| start.elapsed()).as_secs_f64();
        samples.push((elapsed - clock).max(0.0) / run as f64 * 1e6);
    }
    Ok(samples)
}

/// Runs for `seconds`, at least twice unless it is slow, and returns the seconds that one operation takes.
fn warm_up(seconds: f64, work: &mut impl Timed) -> Result<f64, String> {
    let start = Instant::now();
    for count in 1.. {
        work.submit()?;
        work.wait()?;
        let elapsed = start.elapsed().as_secs_f64();
        if elapsed >= seconds && (count > 1 || elapsed >= 2.0 * seconds) {
            return Ok((elapsed / f64::from(count)).max(1e-9));
        }
    }
    Ok(seconds)
}

/// What reading the clock twice costs, in seconds: part of every sample, and taken off it.
fn clock_cost() -> f64 {
    static COST: OnceLock<f64> = OnceLock::new();
    *COST.get_or_init(|| {
        let mut costs: Vec<f64> = (0..1001).map(|_| Instant::now().elapsed().as_secs_f64()).collect();
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn regimes_time_what_they_say() {
        // Submitting takes 1 ms, waiting takes 5 ms.
        struct Slow;
        impl Timed for Slow {
            fn submit(&mut self) -> Result<(), String> {
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            fn wait(&mut self) -> Result<(), String> {
                std::thread::sleep(Duration::from_millis(5));
                Ok(())
            }
        }
        let least = |regime| measure(regime, 0.05, &mut Slow).unwrap().into_iter().fold(f64::INFINITY, f64::min);
        assert!(least(Regime::Latency) >= 6000.0);
        assert!(least(Regime::Pipelined) >= 1000.0);
        assert!(least(Regime::Enqueue) >= 1000.0);
        assert!(least(Regime::Enqueue) < least(Regime::Latency));
    }

    #[test]
    fn an_error_ends_the_measurement() {
        struct Failing;
        impl Timed for Failing {
            fn submit(&mut self) -> Result<(), String> {
                Err("no".into())
            }
            fn wait(&mut self) -> Result<(), String> {
                Ok(())
            }
        }
        assert_eq!(measure(Regime::Latency, 1.0, &mut Failing), Err("no".into()));
    }
}
