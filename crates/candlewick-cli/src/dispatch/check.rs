//! Whether the dispatcher's choices hold: at no shape of `bench` slower than the best engine alone, beyond noise, and in
//! total faster than any one engine; and on Candle's tensors, at no shape slower than Candle's own.

use super::args::CheckArgs;
use crate::args::dtypes_named;
use crate::bench::stats::Micros;
use crate::bench::{cases, is_gpu};
use crate::report::grid::{Cell, Grid, Tone};
use crate::tune::tensors::OnTensors;
use crate::tune::trial::Schedule;
use crate::tune::work::Work;
use candlewick::profile::Profile;
use candlewick::{Device, Engine, Op, Stream};
use candlewick_candle::engine::{self, CANDLE, CANDLEWICK};
use indicatif::ProgressBar;
use std::collections::BTreeMap;

/// At most so much slower than the best engine alone.
const SLACK: f64 = 1.05;
/// In total; where one engine is the best at every shape, two sums of the same times differ by so much.
const NOISE: f64 = 1.01;
const ROUNDS: usize = 7;
const TURN: f64 = 8e-3;

/// An operation's median microseconds: as dispatched, and by engine.
struct Checked {
    op: Op,
    chosen: (Engine, f64),
    engines: Vec<(Engine, f64)>,
}

/// Whether all choices hold.
pub(super) fn run(args: &CheckArgs) -> Result<bool, String> {
    let device = Device::open(&args.device).map_err(|error| error.to_string())?;
    let cases = cases::select(&[], &[], &dtypes_named(&args.dtype), args.quick, is_gpu(&device))?;
    let mut ops: Vec<Op> = Vec::new();
    for case in &cases {
        let (forward, backward) = case.ops();
        ops.extend(forward.into_iter().chain(backward).filter(|op| !ops.contains(op)).collect::<Vec<_>>());
    }
    let bar = ProgressBar::new(ops.len() as u64);
    let mut checked = Vec::new();
    for op in &ops {
        checked.extend(check(&device, op)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let held = if checked.is_empty() {
        println!("one engine runs every operation on this device: there is nothing to choose");
        true
    } else {
        print(&checked)
    };
    Ok(on_candle_tensors(&device, &ops) && held)
}

/// Whether the choice between Candlewick and Candle's own holds, on Candle's tensors.
fn on_candle_tensors(device: &Device, ops: &[Op]) -> bool {
    let info = device.info();
    let Some(mut on_tensors) = OnTensors::open(&info.id, info.asynchronous) else {
        println!("this binary's Candle does not compute on {}: what it would take is not measured", info.id);
        return true;
    };
    let table = Profile::of(&info).map(|(profile, _)| profile.table_on_candle_tensors()).unwrap_or_default();
    let mut grid =
        Grid::new(&["on Candle's tensors", "chosen"], &["Candlewick µs", "Candle µs", "ratio to the faster"]);
    let mut held = true;
    for op in ops {
        let schedule = Schedule { rounds: ROUNDS, turn: TURN };
        let times = on_tensors.times(op, schedule, &mut |message| eprintln!("warning: {message}"));
        let time = |engine: Engine| {
            let found = times.iter().find(|time| time.engine == engine.to_string());
            found.map_or(f64::INFINITY, |time| time.microseconds)
        };
        let Some(fastest) = times.first() else { continue };
        // Where nothing was measured, Candlewick runs.
        let choice = table.choose(op, engine::candidates(*op)).map_or(CANDLEWICK, |decision| decision.engine);
        let ratio = time(choice) / fastest.microseconds;
        held &= ratio <= SLACK;
        grid.push(vec![
            op.to_string().into(),
            choice.to_string().into(),
            format!("{:.2}", time(CANDLEWICK)).into(),
            format!("{:.2}", time(CANDLE)).into(),
            Cell::new(format!("{ratio:.2}"), if ratio <= SLACK { Tone::Good } else { Tone::Bad }),
        ]);
    }
    println!("\nCandle {}", on_tensors.built);
    anstream::print!("{}", grid.to_terminal());
    println!(
        "{}",
        if held { "the choices hold there too" } else { "there they do not hold: `candlewick tune` measures anew" }
    );
    held
}

fn check(device: &Device, op: &Op) -> Result<Option<Checked>, String> {
    let in_words = |error: candlewick::Error| error.to_string();
    let mut candidates: Vec<Option<Engine>> = device.engines(*op).into_iter().map(Some).collect();
    candidates.retain(|engine| engine.is_some_and(|engine| !matches!(engine.name(), "reference" | "portable")));
    if candidates.len() < 2 {
        return Ok(None);
    }
    candidates.push(None);
    let mut streams: Vec<Stream> =
        candidates.iter().map(|_| device.stream()).collect::<Result<_, _>>().map_err(in_words)?;
    let mut runners = Vec::new();
    for (&engine, stream) in candidates.iter().zip(&mut streams) {
        match Work::as_used(device, stream, op, engine) {
            Ok(work) => runners.push((engine, work, Vec::new())),
            // Not every engine has an algorithm for every size.
            Err(_) if engine.is_some() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    for _ in 0..ROUNDS {
        for (_, work, samples) in &mut runners {
            samples.extend(work.times(TURN)?);
        }
    }
    let median = |samples: &[f64]| Micros::of(samples.to_vec()).map_or(f64::INFINITY, |micros| micros.median);
    let chosen = runners.iter().find(|(engine, ..)| engine.is_none());
    let Some(chosen) = chosen.map(|(_, work, samples)| (work.engine(), median(samples))) else { return Ok(None) };
    let engines = runners.iter().filter_map(|(engine, _, samples)| Some(((*engine)?, median(samples)))).collect();
    Ok(Some(Checked { op: *op, chosen, engines }))
}

fn print(checked: &[Checked]) -> bool {
    let mut grid = Grid::new(&["operation", "chosen", "best alone"], &["µs", "best µs", "ratio"]);
    let mut held = true;
    for Checked { op, chosen, engines } in checked {
        let Some(&(best, least)) = engines.iter().min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        let ratio = chosen.1 / least;
        // The same engine twice is the same code: what differs is noise, and it is shown as such.
        let holds = ratio <= SLACK || chosen.0 == best;
        held &= holds;
        let tone = if holds { Tone::Good } else { Tone::Bad };
        let numbers = [format!("{:.2}", chosen.1), format!("{least:.2}")];
        grid.push(vec![
            op.to_string().into(),
            chosen.0.to_string().into(),
            best.to_string().into(),
            numbers[0].as_str().into(),
            numbers[1].as_str().into(),
            Cell::new(format!("{ratio:.2}"), tone),
        ]);
    }
    anstream::print!("{}", grid.to_terminal());
    // The chosen engines' times alone: were the dispatched runs' taken, a second measurement of the same code would decide.
    let alone_of = |checked: &Checked| {
        let own = checked.engines.iter().find(|(engine, _)| *engine == checked.chosen.0);
        own.map_or(checked.chosen.1, |&(_, time)| time)
    };
    let total: f64 = checked.iter().map(alone_of).sum();
    let mut alone: BTreeMap<Engine, Vec<f64>> = BTreeMap::new();
    for (engine, time) in checked.iter().flat_map(|checked| &checked.engines) {
        alone.entry(*engine).or_default().push(*time);
    }
    println!("\nall {} operations one after the other: {total:.0} µs as dispatched", checked.len());
    for (engine, times) in alone {
        let sum: f64 = times.iter().sum();
        if times.len() == checked.len() {
            held &= total <= NOISE * sum;
            println!("  {engine} alone: {sum:.0} µs");
        } else {
            println!("  {engine} alone: it runs {} of them", times.len());
        }
    }
    println!("{}", if held { "the choices hold" } else { "the choices do not hold: `candlewick tune` measures anew" });
    held
}
