//! `candlewick verify`: a bar while `candlewick-verify` runs every case, then its report as a table.

mod plans;
mod table;

use crate::args::{VerifyArgs, dtypes_named};
use candlewick::op::OpClass;
use candlewick::{Device, Result};
use candlewick_verify::{Hardware, Options, Report, verify};
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;

pub(crate) fn run(args: &VerifyArgs) -> ExitCode {
    if let Some(count) = args.plans {
        return plans::run(args, count);
    }
    match report(args) {
        Ok(report) => {
            table::print(&report);
            if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &VerifyArgs) -> Result<Report> {
    let device = device(args)?;
    let progress = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {elapsed}") {
        progress.set_style(style);
    }
    let report = verify(&device, &options(args, &device), &mut |now| {
        progress.set_length(now.total as u64);
        progress.set_position(now.done as u64);
        progress.set_message(format!("{} {}", now.class, now.dtype));
    });
    progress.finish_and_clear();
    report
}

fn device(args: &VerifyArgs) -> Result<Device> {
    if args.unpooled { Device::open_unpooled(&args.device) } else { Device::open(&args.device) }
}

fn options(args: &VerifyArgs, device: &Device) -> Options {
    let emulated = cfg!(feature = "emulated") && Hardware::of(device) == Hardware::Gpu;
    let options = match args.quick {
        true if emulated => Options::emulated(),
        true => Options::quick(),
        false => Options::default(),
    };
    let classes = if args.ops.is_empty() { OpClass::ALL.to_vec() } else { args.ops.clone() };
    let largest = args.largest.or(options.largest);
    Options { classes, dtypes: dtypes_named(&args.dtype), seed: args.seed, only: args.case, largest, ..options }
}
