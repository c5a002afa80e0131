//! `candlewick verify --plans`: random plans, and what each operation came to in them.

use super::device;
use crate::args::VerifyArgs;
use candlewick_verify::plans::{PlanReport, verify_plans};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Write};
use std::process::ExitCode;

/// Failures that are printed whole.
const PRINTED: usize = 12;

pub(super) fn run(args: &VerifyArgs, count: usize) -> ExitCode {
    let device = match device(args) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let progress = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} plans {elapsed}") {
        progress.set_style(style);
    }
    let report = verify_plans(&device, args.seed, count, &mut |done| progress.set_position(done as u64));
    progress.finish_and_clear();
    // Whoever closes the pipe has read enough.
    let _ = write(&report, &mut io::stdout().lock());
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write(report: &PlanReport, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "{:<24}{:>12}  largest error", "operation", "in plans")?;
    for (class, row) in &report.rows {
        let (name, share) = (class.name(), row.share);
        writeln!(to, "{name:<24}{:>12}  {share:.2} of its bound, in plan {}", row.operations, row.seed)?;
    }
    for failure in report.failures.iter().take(PRINTED) {
        writeln!(to, "\n{failure}")?;
    }
    if report.failures.len() > PRINTED {
        writeln!(to, "\n.. and {} more failures", report.failures.len() - PRINTED)?;
    }
    writeln!(to, "\n{report}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::Device;

    #[test]
    fn failures_say_how_to_repeat_them() {
        let mut printed = Vec::new();
        write(&verify_plans(&Device::cpu(), 5, 3, &mut |_| {}), &mut printed).unwrap();
        let text = String::from_utf8(printed).unwrap();
        assert!(text.contains("of its bound, in plan") && text.ends_with("; 0 failed\n"), "{text}");
        // The device that does nothing.
        let mut printed = Vec::new();
        write(&verify_plans(&Device::open("empty").unwrap(), 5, 20, &mut |_| {}), &mut printed).unwrap();
        let text = String::from_utf8(printed).unwrap();
        assert!(text.contains("candlewick verify --plans 1 --seed 5 --device empty"), "{text}");
        assert!(text.contains("and 8 more failures") && text.ends_with("; 20 failed\n"), "{text}");
    }
}
