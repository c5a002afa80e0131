//! `candlewick tune`: every engine at a grid of shapes, in turns; what won is what the dispatcher chooses from then on.
//!
//! | step | file |
//! |---|---|
//! | the shapes | `grid.rs` |
//! | an operation that can be timed | `work.rs` |
//! | the engines of one operation, in turns | `trial.rs` |
//! | Candlewick and Candle on Candle's tensors | `tensors.rs` |
//! | from which size on threads pay | `threads.rs` |
//! | how much a Metal command buffer holds | `batch.rs` |
//! | going on after an interruption | `resume.rs` |
//! | what is printed and drawn | `summary.rs`, `report.rs` with the heat maps of `heat.rs` |

pub(crate) mod args;
#[cfg(metal)]
mod batch;
mod grid;
mod heat;
mod report;
mod resume;
mod summary;
pub(crate) mod tensors;
mod threads;
pub(crate) mod trial;
pub(crate) mod work;

use crate::args::dtypes_named;
use args::TuneArgs;
use candlewick::op::OpClass;
use candlewick::profile::{Machine, Profile, Source};
use candlewick::{Device, Limits};
use indicatif::{ProgressBar, ProgressStyle};
use resume::{Journal, Run};
use std::process::ExitCode;
use tensors::OnTensors;
use trial::{Rates, Schedule};

const QUICK: Schedule = Schedule { rounds: 3, turn: 2e-3 };
const FULL: Schedule = Schedule { rounds: 5, turn: 6e-3 };

pub(crate) fn run(args: &TuneArgs) -> ExitCode {
    match tune(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn tune(args: &TuneArgs) -> Result<(), String> {
    // What an earlier profile says must not decide what is measured.
    let device = Device::open_default(&args.device).map_err(|error| error.to_string())?;
    let info = device.info();
    if matches!(device, Device::Empty(_)) {
        return Err("the device that does nothing has one engine: there is nothing to tune".into());
    }
    if args.show {
        let (profile, source) = Profile::of(&info).ok_or_else(|| missing(&info.id))?;
        summary::print(&profile, &source);
        return write_files(args, &profile);
    }
    if cfg!(feature = "emulated") && info.id == "metal" {
        return Err("the emulated GPU has no time: tune on a Mac".into());
    }
    let path = Profile::path(&info).ok_or("there is no cache folder: set CANDLEWICK_PROFILES to a folder")?;
    let profile = measure(args, &device, &path)?;
    profile.save(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    summary::print(&profile, &Source::Measured(path));
    write_files(args, &profile)
}

fn missing(device: &str) -> String {
    format!("{device} has no profile: `candlewick tune --device {device}` measures one")
}

fn write_files(args: &TuneArgs, profile: &Profile) -> Result<(), String> {
    if let Some(path) = &args.save {
        profile.save(path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("a copy of the profile is {}", path.display());
    }
    let Some(path) = &args.report else { return Ok(()) };
    std::fs::write(path, report::page(profile)).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("the report is {}", path.display());
    Ok(())
}

fn measure(args: &TuneArgs, device: &Device, path: &std::path::Path) -> Result<Profile, String> {
    let in_words = |error: candlewick::Error| error.to_string();
    let schedule = if args.quick { QUICK } else { FULL };
    let classes = if args.ops.is_empty() { OpClass::ALL.to_vec() } else { args.ops.clone() };
    let ops = grid::grid(device, &classes, &dtypes_named(&args.dtype), args.quick);
    let info = device.info();
    let mut on_tensors = OnTensors::open(&info.id, info.asynchronous);
    let names: Vec<&str> = args.ops.iter().map(|class| class.name()).collect();
    let settings = format!(
        "{}{}, dtype {}, operations {}, Candle: {}",
        if args.quick { "quick" } else { "full" },
        match device {
            Device::Cpu(device) => format!(", {} threads", device.threads()),
            _ => String::new(),
        },
        args.dtype,
        if names.is_empty() { "all".to_owned() } else { names.join(" ") },
        on_tensors.as_ref().map_or("not on this device in this build", |on_tensors| &on_tensors.built),
    );
    let run = Run { machine: Machine::of(&info), candlewick: env!("CARGO_PKG_VERSION").into(), settings };
    let journal_path = path.with_extension("partial");
    let mut journal = Journal::open(&journal_path, &run, args.fresh)
        .map_err(|error| format!("{}: {error}", journal_path.display()))?;
    if !journal.rows.is_empty() {
        eprintln!("going on after {} shapes of an interrupted run; --fresh begins anew", journal.rows.len());
    }
    let limits: Limits = device.measure_limits(usize::MAX).map_err(in_words)?;
    let climbs = match device {
        Device::Cpu(device) if device.threads() > 1 => threads::steps(),
        _ => 0,
    };
    let bar = ProgressBar::new(ops.len() as u64 + climbs);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}  {elapsed}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // Threads first: the engines are measured as they will run.
    let mut found_threads = (None, Vec::new());
    if let Device::Cpu(cpu) = device
        && climbs > 0
    {
        bar.set_message("threads");
        let (seconds, times) = threads::measure_threads(cpu.threads(), schedule, &mut || bar.inc(1))?;
        candlewick::cpu::threads::set_seconds_per_thread(seconds);
        found_threads = (Some(seconds), times);
    }
    let mut rates = Rates::default();
    for op in &ops {
        bar.set_message(op.to_string());
        if !journal.has(op) {
            let mut warn = |message: String| bar.suspend(|| eprintln!("warning: {message}"));
            let mut row = trial::row(device, op, &limits, schedule, &mut rates, &mut warn).map_err(in_words)?;
            if let Some(on_tensors) = &mut on_tensors {
                row.on_candle_tensors = on_tensors.times(op, schedule, &mut warn);
            }
            journal.push(row).map_err(|error| format!("{}: {error}", journal_path.display()))?;
        }
        bar.inc(1);
    }
    let operations = batch(device, schedule)?;
    bar.finish_and_clear();
    Ok(Profile {
        machine: run.machine,
        candlewick: run.candlewick,
        date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        settings: run.settings,
        seconds_per_thread: found_threads.0,
        threads: found_threads.1,
        operations_per_command_buffer: operations,
        rows: journal.finish(),
    })
}

#[cfg(metal)]
fn batch(device: &Device, schedule: Schedule) -> Result<Option<usize>, String> {
    match device {
        Device::Metal(device) => batch::measure_batches(device, schedule).map(Some),
        _ => Ok(None),
    }
}

#[cfg(not(metal))]
fn batch(_: &Device, _: Schedule) -> Result<Option<usize>, String> {
    Ok(None)
}
