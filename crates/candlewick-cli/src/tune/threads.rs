//! From which size on further threads pay, on a CPU.

use super::trial::{Schedule, settled};
use super::work::Work;
use crate::bench::timing::{Regime, measure};
use candlewick::cpu::threads::{DEFAULT, seconds_per_thread, set_seconds_per_thread};
use candlewick::profile::ThreadTimes;
use candlewick::{DType, Device, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};

/// Several threads pay when they are faster by so much: less is noise.
const CLEARLY: f64 = 0.95;

/// Operations of growing size, from a fraction of a microsecond to some tens, family by family.
fn ladders() -> Vec<Vec<Op>> {
    let dtype = DType::F32;
    let rows = [4usize, 8, 12, 16, 24, 32, 48, 64, 96, 128];
    vec![
        [32usize, 40, 48, 56, 64, 80, 96, 128, 160].map(|n| MatMul::new(n, n, n, dtype).into()).to_vec(),
        rows.map(|rows| Softmax::new(rows, 512, dtype).into()).to_vec(),
        rows.map(|rows| RmsNorm::new(4 * rows, 512, 1e-6, dtype).into()).to_vec(),
        rows.map(|rows| LoraDelta::new(rows, 512, 512, 8, 1.0, dtype).into()).to_vec(),
        [1usize, 2, 3, 4, 6, 8, 12, 16]
            .map(|rows| LoraLinear::new(rows, 256, 256, 8, 1.0, dtype).packed().into())
            .to_vec(),
    ]
}

/// Times the ladders on one thread and on all, and finds where all begin to pay.
///
/// # Errors
/// What the library says.
pub(super) fn measure_threads(
    threads: usize,
    schedule: Schedule,
    progress: &mut impl FnMut(),
) -> Result<(f64, Vec<ThreadTimes>), String> {
    let before = seconds_per_thread();
    let found = climb(threads, schedule, progress);
    set_seconds_per_thread(before);
    found
}

/// How many operations there are to time.
pub(super) fn steps() -> u64 {
    ladders().iter().map(|ladder| ladder.len() as u64).sum()
}

fn climb(threads: usize, schedule: Schedule, progress: &mut impl FnMut()) -> Result<(f64, Vec<ThreadTimes>), String> {
    let in_words = |error: candlewick::Error| error.to_string();
    let (one, all) = (Device::cpu_with_threads(1), Device::cpu_with_threads(threads));
    let mut times = Vec::new();
    let mut crossings = Vec::new();
    for ladder in ladders() {
        let first = times.len();
        for op in ladder {
            let mut streams = [one.stream().map_err(in_words)?, all.stream().map_err(in_words)?];
            let [of_one, of_all] = &mut streams;
            // However small the work is, every thread gets its share.
            set_seconds_per_thread(0.0);
            let mut workers = [Work::new(&one, of_one, &op, None), Work::new(&all, of_all, &op, None)];
            set_seconds_per_thread(DEFAULT);
            let mut samples = [Vec::new(), Vec::new()];
            for _ in 0..schedule.rounds {
                for (worker, samples) in workers.iter_mut().zip(&mut samples) {
                    let worker = worker.as_mut().map_err(|error| error.to_string())?;
                    samples.extend(measure(Regime::Latency, schedule.turn, worker)?);
                }
            }
            let [one, all] = samples.map(settled);
            times.push(ThreadTimes { op: op.to_string(), one, all });
            progress();
        }
        crossings.extend(crossing(&times[first..]));
    }
    crossings.sort_by(f64::total_cmp);
    // Each of the threads has its share of what one alone would take.
    let seconds = crossings.get(crossings.len() / 2).map_or(DEFAULT, |micros| micros * 1e-6 / threads as f64);
    Ok((seconds, times))
}

/// Microseconds of one thread from which on all are clearly faster, at every larger size too.
fn crossing(ladder: &[ThreadTimes]) -> Option<f64> {
    let pays = |times: &ThreadTimes| times.all < CLEARLY * times.one;
    let first = ladder.iter().rposition(|times| !pays(times)).map_or(0, |last| last + 1);
    ladder.get(first).map(|times| times.one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossing_is_where_all_larger_sizes_pay() {
        let ladder = |all: [f64; 4]| -> Vec<ThreadTimes> {
            [1.0, 2.0, 4.0, 8.0]
                .iter()
                .zip(all)
                .map(|(&one, all)| ThreadTimes { op: String::new(), one, all })
                .collect()
        };
        assert_eq!(crossing(&ladder([2.0, 2.5, 3.0, 5.0])), Some(4.0));
        assert_eq!(crossing(&ladder([0.5, 2.5, 3.0, 5.0])), Some(4.0), "one lucky size is none");
        assert_eq!(crossing(&ladder([0.5, 1.0, 2.0, 4.0])), Some(1.0));
        assert_eq!(crossing(&ladder([2.0, 3.0, 5.0, 9.0])), None);
    }
}
