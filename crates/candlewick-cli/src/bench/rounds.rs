//! Times every contender of a case in turns, so that whatever else the machine does meets all alike.

use super::cases::Case;
use super::check;
use super::contenders::{Contender, Maker};
use super::stats::Micros;
use super::timing::Regime;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Turns of each contender, per regime.
    pub rounds: usize,
    /// Seconds of a turn.
    pub turn: f64,
}

/// What one contender needed for a case.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose code.
    pub maker: Maker,
    /// Whether it was told to use one thread.
    pub one_thread: bool,
    /// Whether it was told which engine to use.
    pub forced: bool,
    /// What ran it.
    pub engine: String,
    /// Threads that it was allowed.
    pub threads_allowed: usize,
    /// Threads that it used, where that is known.
    pub threads_used: Option<usize>,
    /// What a reader of the figures must know.
    pub note: Option<String>,
    /// max |y - reference| / max |reference|, where it was compared.
    pub error: Option<f64>,
    /// Per regime.
    pub times: BTreeMap<Regime, Micros>,
}

/// A case and everyone's times.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was measured.
    pub case: Case,
    /// Whoever could run it.
    pub entries: Vec<Entry>,
    /// Microseconds that Candlewick's host side needs when the device does nothing.
    pub contract: Option<f64>,
}

/// Workers of a pool spin for a while after their last job, and would take a core from whoever is next.
const REST: Duration = Duration::from_millis(1);
/// Who has had so much of a case gets no further round: some operations take a peer seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Every contender that can run `case`, timed. What goes wrong is told to `warn`; `progress` is called after each turn.
pub fn measure(
    case: &Case,
    contenders: &mut [Contender],
    regimes: &[Regime],
    schedule: Schedule,
    warn: &mut impl FnMut(String),
    progress: &mut impl FnMut(),
) -> Vec<Entry> {
    let expected = check::expected(case).unwrap_or_default();
    let counts: Vec<usize> = expected.iter().map(Vec::len).collect();
    let mut running: Vec<Running<'_>> = Vec::new();
    for contender in contenders.iter_mut().filter(|contender| contender.takes(case)) {
        let chosen = running.first().map(|first| first.entry.engine.clone());
        match enter(case, contender, &expected, &counts) {
            // A forced engine that is the dispatcher's own choice would be the same row twice.
            Ok(entry) if contender.forced.is_some() && Some(&entry.engine) == chosen.as_ref() => {}
            Ok(entry) => running.push(Running { contender, entry, samples: BTreeMap::new(), spent: Duration::ZERO }),
            // Not every engine runs every operation.
            Err(_) if contender.forced.is_some() => {}
            Err(message) => warn(format!("{case}: {} is left out: {message}", contender.maker.name())),
        }
    }
    for _ in 0..schedule.rounds {
        for &regime in regimes {
            for Running { contender, samples, spent, .. } in &mut running {
                if regime == Regime::Replay && !contender.runner.replays() {
                    progress();
                    continue;
                }
                if *spent < PATIENCE || !samples.contains_key(&regime) {
                    std::thread::sleep(REST);
                    let start = Instant::now();
                    match contender.runner.measure(regime, schedule.turn) {
                        Ok(more) => samples.entry(regime).or_default().extend(more),
                        Err(message) => warn(format!("{case}: {}: {message}", contender.maker.name())),
                    }
                    *spent += start.elapsed();
                }
                progress();
            }
        }
    }
    running.into_iter().map(Running::finish).filter(|entry| !entry.times.is_empty()).collect()
}

/// A contender in the middle of a case.
struct Running<'a> {
    contender: &'a mut Contender,
    entry: Entry,
    samples: BTreeMap<Regime, Vec<f64>>,
    spent: Duration,
}

impl Running<'_> {
    fn finish(self) -> Entry {
        let quantiles = |(regime, samples)| Some((regime, Micros::of(samples)?));
        Entry { times: self.samples.into_iter().filter_map(quantiles).collect(), ..self.entry }
    }
}

/// Prepares a case and compares one result.
fn enter(case: &Case, contender: &mut Contender, expected: &[Vec<f64>], counts: &[usize]) -> Result<Entry, String> {
    let prepared = contender.runner.prepare(case)?;
    // The device that does nothing computes nothing.
    let error = if prepared.engine.starts_with("empty/") {
        None
    } else {
        Some(check::error(expected, &contender.runner.outputs(counts)?))
    };
    Ok(Entry {
        maker: contender.maker,
        one_thread: contender.one_thread,
        forced: contender.forced.is_some(),
        engine: prepared.engine,
        threads_allowed: contender.threads,
        threads_used: prepared.threads,
        note: prepared.note,
        error,
        times: BTreeMap::new(),
    })
}
