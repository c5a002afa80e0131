//! The engine of one operation, the candidates, their times, and where the numbers come from.

use super::args::ExplainArgs;
use crate::args::dtypes_named;
use crate::bench::cases::{self, Case};
use crate::report::grid::{Cell, Grid, Tone};
use candlewick::profile::{Profile, Source};
use candlewick::{Bucket, Device, Op, Reason};

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

/// A profile and where it comes from.
type Found = (Profile, Source);

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
    let measured = found.map(|(profile, source)| (profile.table(&engines), &profile.date, source));
    let times = measured.as_ref().and_then(|(table, ..)| table.measurements(op));
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
    match (&measured, times) {
        (Some((_, date, Source::Measured(path))), Some((bucket, _))) => {
            println!("measured here, {date}, for {}; {}", sizes(bucket), path.display());
        }
        (Some((_, date, Source::BuiltIn)), Some((bucket, _))) => {
            println!("built in: measured on this chip, {date}, for {}", sizes(bucket));
        }
        _ => println!("the order is the backend's own; `candlewick tune --device {}` measures", device.info().id),
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
    let sizes = bucket.exponents().map(|exponent| (1u64 << exponent).to_string());
    format!("sizes up to {}", sizes.join("x"))
}
