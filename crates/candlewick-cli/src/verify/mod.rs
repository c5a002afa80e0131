//! `candlewick verify`: every operation, dtype, layout and odd shape on every engine, against the f64 reference.
//!
//! | looking for | it is in |
//! |---|---|
//! | which descriptors are tried | `cases.rs` |
//! | what the tensors hold, and how they lie in memory | `tensors.rs` |
//! | how a result is judged | `trial.rs` |
//! | what is printed | `table.rs` |

mod cases;
mod rng;
mod table;
mod tensors;
mod trial;

use crate::args::{VerifyArgs, dtypes_named};
use candlewick::op::OpClass;
use candlewick::{DType, Device, Element, Result, Stream};
use cases::Case;
use half::{bf16, f16};
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use table::{Key, Table};
use trial::{Fault, Trial};

/// Random cases per operation and dtype, after the fixed ones.
const SWEEP: usize = 3000;
const QUICK_SWEEP: usize = 150;

/// A device as it is used here: with a number of threads.
struct Lane {
    device: Device,
    stream: Stream,
}

pub(crate) fn run(args: &VerifyArgs) -> ExitCode {
    match verify(args) {
        Ok(table) => {
            table.print();
            if table.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn verify(args: &VerifyArgs) -> Result<Table> {
    let mut lanes = lanes(&args.device)?;
    let classes = if args.ops.is_empty() { OpClass::ALL.to_vec() } else { args.ops.clone() };
    let sweep = if args.quick { QUICK_SWEEP } else { SWEEP };
    let groups: Vec<(OpClass, DType, std::ops::Range<usize>)> = classes
        .into_iter()
        .flat_map(|class| dtypes_named(&args.dtype).into_iter().map(move |dtype| (class, dtype)))
        .map(|(class, dtype)| match args.case {
            Some(case) => (class, dtype, case..case.saturating_add(1)),
            None => (class, dtype, 0..cases::fixed_count(class) + sweep),
        })
        .collect();
    let progress = ProgressBar::new(groups.iter().map(|(.., cases)| cases.len() as u64).sum());
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {elapsed}") {
        progress.set_style(style);
    }
    let mut table = Table::default();
    for (class, dtype, indices) in groups {
        progress.set_message(format!("{class} {dtype}"));
        for index in indices {
            let case = Case::new(args.seed, class, dtype, index);
            match dtype {
                DType::F32 => check::<f32>(&case, &mut lanes, &mut table)?,
                DType::F16 => check::<f16>(&case, &mut lanes, &mut table)?,
                DType::BF16 => check::<bf16>(&case, &mut lanes, &mut table)?,
                DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(table)
}

/// The device with all its threads, and with one.
fn lanes(name: &str) -> Result<Vec<Lane>> {
    let lane = |device: Device| Ok(Lane { stream: device.stream()?, device });
    let device = Device::open(name)?;
    match device {
        Device::Cpu(_) => Ok(vec![lane(device)?, lane(Device::cpu_with_threads(1))?]),
        device => Ok(vec![lane(device)?]),
    }
}

/// Runs a case on every engine.
fn check<T: Element>(case: &Case, lanes: &mut [Lane], table: &mut Table) -> Result<()> {
    let trial = Trial::<T>::new(case)?;
    let Some(engines) = lanes.first().map(|lane| lane.device.engines(case.op)) else { return Ok(()) };
    for engine in engines {
        for (index, lane) in lanes.iter_mut().enumerate() {
            let run = trial.run(&lane.device, &mut lane.stream, engine);
            let threads = run.as_ref().map_or(1, |run| run.threads);
            let verdict = match run {
                Ok(run) => trial.judge(&run.memory),
                Err(error) => Err(Fault::Refused(error.to_string())),
            };
            table.record(Key { class: case.op.class(), engine, dtype: case.op.dtype() }, case, threads, verdict);
            if index == 0 && threads == 1 {
                // Nothing was left to other threads: one thread does exactly the same.
                break;
            }
        }
    }
    Ok(())
}
