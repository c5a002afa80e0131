//! `candlewick bench`: every operation beside Candle, PyTorch and MLX, in every regime, with the share of the machine's limit.
//!
//! | step | file |
//! |---|---|
//! | what to measure | `cases.rs`, on the numbers of `operands.rs` |
//! | who is measured | `contenders.rs`: `ours.rs`, and `peers/` in processes of their own |
//! | measuring in turns | `rounds.rs`, by the clock of `timing.rs`; quantiles in `stats.rs` |
//! | recorded sequences | `replay.rs` |
//! | how exact it was | `check.rs` |
//! | what one Metal product is made of | `anatomy.rs` |
//! | what comes out | `session.rs` and `rows.rs`, printed by `report/` |

#[cfg(metal)]
mod anatomy;
pub mod cases;
pub mod check;
pub mod contenders;
pub mod operands;
mod ours;
mod replay;
pub mod rounds;
pub mod rows;
pub mod runner;
pub mod session;
pub mod stats;
pub mod timing;

use crate::Counts;
use crate::args::{BenchArgs, Cli, dtypes_named};
use crate::report;
use candlewick::Device;
use cases::Case;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use contenders::Contender;
use indicatif::{ProgressBar, ProgressStyle};
use ours::Candlewick;
use rounds::{Measured, Schedule};
use runner::Runner as _;
use session::{Session, Setting};
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use timing::Regime;

/// Seconds that the turns of `--quick` share; starting, checking and the machine's limits take the rest of its 20.
const QUICK_SECONDS: f64 = 10.0;

/// Measures, prints, and writes what was asked for.
pub fn run(args: &BenchArgs, counter: Option<fn() -> Counts>) -> ExitCode {
    let device = match Device::open(&args.device) {
        Ok(device) => device,
        Err(error) => wrong_usage(&error.to_string()),
    };
    if cfg!(feature = "emulated") && args.device == "metal" && !args.anatomy {
        wrong_usage("the emulated GPU has no time: --anatomy prints what a product is made of, in counts");
    }
    let cases = match cases::select(&args.ops, &args.shapes, &dtypes_named(&args.dtype), args.quick, is_gpu(&device)) {
        Ok(cases) => cases,
        Err(message) => wrong_usage(&message),
    };
    let done = if args.anatomy { take_apart(&device, &cases, counter) } else { bench(args, &device, &cases) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the built-in shapes are a GPU's.
pub fn is_gpu(device: &Device) -> bool {
    !matches!(device, Device::Cpu(_) | Device::Empty(_))
}

#[cfg(metal)]
fn take_apart(device: &Device, cases: &[Case], counter: Option<fn() -> Counts>) -> Result<(), String> {
    anatomy::print(device, cases, counter)
}

#[cfg(not(metal))]
fn take_apart(_: &Device, _: &[Case], _: Option<fn() -> Counts>) -> Result<(), String> {
    match Device::metal() {
        Err(error) => Err(format!("--anatomy takes a product of Metal Performance Shaders apart: {error}")),
        Ok(_) => unreachable!("this build has no Metal"),
    }
}

/// Ends as clap does when a flag is wrong.
fn wrong_usage(message: &str) -> ! {
    let mut command = Cli::command();
    command.build();
    match command.find_subcommand_mut("bench") {
        Some(bench) => bench.error(ErrorKind::ValueValidation, message).exit(),
        None => command.error(ErrorKind::ValueValidation, message).exit(),
    }
}

fn bench(args: &BenchArgs, device: &Device, cases: &[Case]) -> Result<(), String> {
    // Before minutes of work: a file that cannot be written.
    for file in [&args.json, &args.report].into_iter().flatten() {
        write(file, "")?;
    }
    let in_words = |error: candlewick::Error| error.to_string();
    let starting = starting();
    let mut limits = vec![device.measure_limits(usize::MAX).map_err(in_words)?];
    if limits[0].threads > 1 {
        limits.push(device.measure_limits(1).map_err(in_words)?);
    }
    let (mut contenders, warnings) = contenders::assemble(args, device, limits[0].threads).map_err(in_words)?;
    starting.finish_and_clear();
    let settings = contenders.iter().filter_map(Setting::of).collect();
    let mut session = Session::new(device.info(), limits, settings, warnings);

    session.results = measure_all(args, cases, &mut contenders, &mut session)?;
    report::terminal::print(&session, args.markdown);
    if let Some(file) = &args.json {
        let rows = serde_json::to_string_pretty(&session.rows()).map_err(|error| error.to_string())?;
        write(file, &(rows + "\n"))?;
    }
    if let Some(file) = &args.report {
        write(file, &report::html::page(&session))?;
        eprintln!("report: {}", file.display());
    }
    Ok(())
}

fn measure_all(
    args: &BenchArgs,
    cases: &[Case],
    contenders: &mut [Contender],
    session: &mut Session,
) -> Result<Vec<Measured>, String> {
    let turns: usize = cases.iter().map(|case| contenders.iter().filter(|one| one.takes(case)).count()).sum();
    let turns = turns * session.regimes.len();
    let schedule = if args.quick {
        // A turn warms up for another fifth of its time.
        let turn = QUICK_SECONDS / 1.3 / (3 * turns).max(1) as f64;
        Schedule { rounds: 3, turn: turn.clamp(0.001, 0.03) }
    } else {
        Schedule { rounds: 5, turn: 0.03 }
    };
    let bar = progress_bar((turns * schedule.rounds) as u64);
    let mut nothing = Candlewick::new(Device::open("empty").map_err(|error| error.to_string())?, None)
        .map_err(|error| error.to_string())?;
    let mut results = Vec::new();
    for (done, case) in cases.iter().enumerate() {
        bar.set_message(case.to_string());
        let mut warn = |message: String| {
            if !session.warnings.contains(&message) {
                bar.suspend(|| eprintln!("warning: {message}"));
                session.warnings.push(message);
            }
        };
        let mut progress = || bar.inc(1);
        let entries = rounds::measure(case, contenders, &session.regimes, schedule, &mut warn, &mut progress);
        let contract = nothing.prepare(case).and_then(|_| nothing.measure(Regime::Pipelined, 0.002)).ok();
        let contract = contract.and_then(stats::Micros::of).map(|micros| micros.median);
        results.push(Measured { case: case.clone(), entries, contract });
        // Forced engines that could not run leave the bar behind.
        bar.set_position((turns * schedule.rounds * (done + 1) / cases.len()) as u64);
    }
    // Neither the cursor nor the terminal's mode is ever changed, so Ctrl-C needs no care.
    bar.finish_and_clear();
    Ok(results)
}

/// A line that says why nothing happens yet. It does not move, so that it takes nothing from what is measured.
fn starting() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let line = ProgressBar::new_spinner().with_style(style);
    line.set_message("measuring this machine's limits, starting the other libraries ..");
    line.tick();
    line
}

fn progress_bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32.cyan/dim} {percent:>3}%  {msg}  {eta} left");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| {
        format!("{} cannot be written: {error}: name a file in a directory that exists", file.display())
    })
}
