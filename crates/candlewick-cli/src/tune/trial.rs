//! Times the engines of one operation in turns, and sends home early who cannot win.

use super::grid::{self, work};
use super::work::Work;
use crate::bench::stats::Micros;
use candlewick::profile::{Row, Time};
use candlewick::{Bucket, Device, Engine, Limits, Op, Stream};
use std::collections::HashMap;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Turns of each engine.
    pub rounds: usize,
    /// Seconds of a turn; what runs first in a turn is cold and is dropped.
    pub turn: f64,
}

/// After the first round an engine goes that was slower than the fastest by this factor ..
const HOPELESS: f64 = 1.5;
/// .. and after each later one by this.
const BEHIND: f64 = 1.15;
/// A call that is expected to take longer is not made for an engine that is not expected to win.
const PATIENCE: f64 = 50e-3;

/// What is known of the engines so far: the most work per second that each did in an operation's class.
#[derive(Default)]
pub(super) struct Rates(HashMap<(candlewick::op::OpClass, candlewick::DType, Engine), f64>);

impl Rates {
    fn seconds(&self, op: &Op, engine: Engine) -> Option<f64> {
        Some(work(op) / self.0.get(&(op.class(), op.dtype(), engine))?)
    }

    fn learn(&mut self, op: &Op, engine: Engine, seconds: f64) {
        let rate = self.0.entry((op.class(), op.dtype(), engine)).or_default();
        *rate = rate.max(work(op) / seconds);
    }

    /// Whether a call would take long, for an engine at its best, and others are much faster.
    fn too_slow(&self, op: &Op, engine: Engine, others: &[Engine]) -> bool {
        let least = others.iter().filter_map(|&other| self.seconds(op, other)).fold(f64::INFINITY, f64::min);
        self.seconds(op, engine).is_some_and(|seconds| seconds > PATIENCE && seconds > 3.0 * least)
    }
}

/// An engine that is timed in turns.
pub(super) struct Turns<'a> {
    engine: Engine,
    turn: Box<dyn FnMut() -> Result<Vec<f64>, String> + 'a>,
    samples: Vec<f64>,
    out: bool,
}

impl<'a> Turns<'a> {
    /// `turn` gives the microseconds of as many operations as it makes.
    pub fn new(engine: Engine, turn: impl FnMut() -> Result<Vec<f64>, String> + 'a) -> Self {
        Turns { engine, turn: Box::new(turn), samples: Vec::new(), out: false }
    }

    fn median(&self) -> f64 {
        settled(self.samples.clone())
    }
}

/// The median without outliers: whatever disturbs a run only adds time, so samples of more than twice the lower quartile
/// are not the engine's.
pub(super) fn settled(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let Some(&quartile) = samples.get(samples.len() / 4) else { return f64::INFINITY };
    samples.retain(|&sample| sample <= 2.0 * quartile);
    Micros::of(samples).map_or(f64::INFINITY, |micros| micros.median)
}

/// The engines' times for one operation; what goes wrong with one is told to `warn`.
///
/// # Errors
/// A device that gives no stream.
pub(super) fn row(
    device: &Device,
    op: &Op,
    limits: &Limits,
    schedule: Schedule,
    rates: &mut Rates,
    warn: &mut impl FnMut(String),
) -> candlewick::Result<Row> {
    let candidates = grid::candidates(device, op);
    let entered: Vec<Engine> =
        candidates.iter().copied().filter(|&engine| !rates.too_slow(op, engine, &candidates)).collect();
    let mut streams = entered.iter().map(|_| device.stream()).collect::<candlewick::Result<Vec<Stream>>>()?;
    let mut turns = Vec::new();
    for (&engine, stream) in entered.iter().zip(&mut streams) {
        match Work::as_used(device, stream, op, Some(engine)) {
            Ok(mut work) => turns.push(Turns::new(engine, move || work.times(schedule.turn))),
            Err(error) => warn(format!("{op}: {engine} is left out: {error}")),
        }
    }
    let times = compete(turns, op, schedule, warn);
    for (engine, time) in entered.iter().filter_map(|engine| Some((engine, time_of(&times, *engine)?))) {
        rates.learn(op, *engine, time * 1e-6);
    }
    Ok(Row {
        op: op.name().into(),
        dtype: op.dtype().name().into(),
        shape: op.shape(),
        bucket: Bucket::of(op).exponents(),
        limit: limits.seconds(op) * 1e6,
        times,
        on_candle_tensors: Vec::new(),
    })
}

fn time_of(times: &[Time], engine: Engine) -> Option<f64> {
    times.iter().find(|time| time.engine == engine.to_string()).map(|time| time.microseconds)
}

/// Lets engines take turns until one is left or all have had theirs; the times, fastest first.
pub(super) fn compete(
    mut engines: Vec<Turns<'_>>,
    op: &Op,
    schedule: Schedule,
    warn: &mut impl FnMut(String),
) -> Vec<Time> {
    for round in 0..schedule.rounds {
        if round > 0 && engines.iter().filter(|engine| !engine.out).count() < 2 {
            break;
        }
        for engine in engines.iter_mut().filter(|engine| !engine.out) {
            match (engine.turn)() {
                Ok(samples) => engine.samples.extend(samples),
                Err(error) => {
                    warn(format!("{op}: {} is left out: {error}", engine.engine));
                    (engine.samples, engine.out) = (Vec::new(), true);
                }
            }
        }
        let best = engines.iter().map(Turns::median).fold(f64::INFINITY, f64::min);
        let factor = if round == 0 { HOPELESS } else { BEHIND };
        engines.iter_mut().for_each(|engine| engine.out |= engine.median() > factor * best);
    }
    let ran = engines.iter().filter(|engine| !engine.samples.is_empty());
    let time = |ran: &Turns<'_>| Time {
        engine: ran.engine.to_string(),
        microseconds: ran.median(),
        samples: ran.samples.len(),
    };
    let mut times: Vec<Time> = ran.map(time).collect();
    times.sort_by(|a, b| a.microseconds.total_cmp(&b.microseconds));
    times
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn disturbances_do_not_count() {
        assert_eq!(settled(vec![]), f64::INFINITY);
        assert_eq!(settled(vec![1.0, 1.2, 1.1, 50.0, 60.0, 70.0, 80.0, 90.0]), 1.1);
    }
}
