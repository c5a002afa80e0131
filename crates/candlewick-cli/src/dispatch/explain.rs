//! The engine of one operation, the candidates, their times, and where the numbers come from.

use super::args::ExplainArgs;
use super::{Found, origin};
use crate::args::dtypes_named;
use crate::bench::cases::{self, Case};
use crate::report::grid::{Cell, Grid, Tone};
use candlewick::profile::Profile;
use candlewick::{Bucket, Device, Op, Reason};
use candlewick_candle::engine;

pub(super) fn run(args: &ExplainArgs) -> Result<(), String> {
    let device = Device::open_default(&args.device).map_err(|error| error.to_string())?;
    let found = Profile::of(&device.info());
    let device = match &found {
        Some((profile, _)) => device.with_profile(profile),
        None => device,
    };
    let dtypes = dtypes_named(&args.dtype);
    let cases =
        cases::select(std::slice::from_ref(&args.op), std::slice::from_ref(&args.shape), &dtypes, false, false)?;
    for (index, case) in cases.iter().enumerate() {
        if index > 0 {
            println!();
        }
        explain(&device, found.as_ref(), case);
    }
    Ok(())
}

fn explain(device: &Device, found: Option<&Found>, case: &Case) {
    let (forward, backward) = case.ops();
    for op in forward.iter().chain(&backward) {
        operation(device, found, op);
    }
}

fn operation(device: &Device, found: Option<&Found>, op: &Op) {
    let engines = device.engines(*op);
    let Some(decision) = device.decide(*op) else {
        println!("{op}: the device has one engine");
        return;
    };
    let table = found.map(|(profile, _)| profile.table(&engines)).unwrap_or_default();
    let times = table.measurements(op);
    println!("{op} runs on {}: {}", decision.engine, why(decision.reason, op));
    let mut grid = Grid::new(&["engine", "decides"], &["µs"]);
    for engine in &engines {
        let time = times.and_then(|(_, times)| times.iter().find(|(known, _)| known == engine));
        let chosen = *engine == decision.engine;
        grid.push(vec![
            Cell::new(engine.to_string(), if chosen { Tone::Strong } else { Tone::Plain }),
            if chosen { "chosen" } else { "" }.into(),
            time.map_or_else(|| "not measured".to_owned(), |(_, micros)| format!("{micros:.2}")).into(),
        ]);
    }
    anstream::print!("{}", grid.to_terminal());
    match times {
        Some((bucket, _)) => println!("{}, for {}", origin(&device.info(), found), sizes(bucket)),
        None => println!("{}", origin(&device.info(), None)),
    }
    on_candle_tensors(found.map(|(profile, _)| profile), op);
}

/// Which library runs it on Candle's tensors, where both can.
fn on_candle_tensors(profile: Option<&Profile>, op: &Op) {
    let candidates = engine::candidates(*op);
    if candidates.len() < 2 {
        return;
    }
    let table = profile.map(Profile::table_on_candle_tensors).unwrap_or_default();
    match (table.choose(op, candidates), table.measurements(op)) {
        (Some(decision), Some((bucket, times))) => {
            let times: Vec<String> = times.iter().map(|(engine, micros)| format!("{engine} {micros:.2} µs")).collect();
            println!("on Candle's tensors {} runs: {}, for {}", decision.engine, times.join(", "), sizes(bucket));
        }
        _ => println!("on Candle's tensors {} runs: nothing was measured there", candidates[0]),
    }
}

fn why(reason: Reason, op: &Op) -> String {
    match reason {
        Reason::Measured { microseconds } => format!("the fastest here, {microseconds:.2} µs"),
        Reason::Near { bucket, microseconds } => {
            format!(
                "the fastest at the nearest sizes that were measured, {} for {}, {microseconds:.2} µs",
                sizes(bucket),
                sizes(Bucket::of(op))
            )
        }
        Reason::Default => "nothing was measured at such sizes, and it is the first in the backend's own order".into(),
    }
}

/// `up to 64x64x64x1`.
fn sizes(bucket: Bucket) -> String {
    let [a, b, c, last] = bucket.exponents();
    // The layout of a product's factors, 16 powers of two above its batch, is no size.
    let sizes = [a, b, c, last % 16].map(|exponent| (1u64 << exponent).to_string());
    format!("sizes up to {}", sizes.join("x"))
}
