//! What `verify` prints: a line per operation, engine and dtype, then the failures.

use candlewick_verify::{Report, Row};
use std::io::{self, Write};

/// Failures that are printed whole; more would hide the table.
const PRINTED: usize = 12;

/// Prints a report to standard output.
pub(super) fn print(report: &Report) {
    // Whoever closes the pipe has read enough.
    let _ = write(report, &mut io::stdout().lock());
}

fn write(report: &Report, to: &mut impl Write) -> io::Result<()> {
    let header =
        ["operation", "dtype", "engine", "runs", "threaded", "worst error", "bound", "", "closest to its bound"];
    let mut lines: Vec<[String; 9]> = vec![header.map(String::from)];
    lines.extend(report.rows().iter().map(columns));
    let widths: [usize; 9] =
        std::array::from_fn(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0));
    for line in &lines {
        let mut printed = String::new();
        for (i, column) in line.iter().enumerate() {
            let width = widths[i];
            // Numbers to the right, words to the left.
            printed += &if (3..7).contains(&i) { format!("{column:>width$}  ") } else { format!("{column:<width$}  ") };
        }
        writeln!(to, "{}", printed.trim_end())?;
    }
    for failure in report.failures().iter().take(PRINTED) {
        writeln!(to, "\n{failure}")?;
    }
    let failed = report.failures().len();
    if failed > PRINTED {
        writeln!(to, "\n.. and {} more failures", failed - PRINTED)?;
    }
    writeln!(to, "\n{} passed, {failed} failed", report.passed())?;
    match report.left_out() {
        0 => Ok(()),
        left_out => writeln!(to, "{left_out} cases cost more than the largest asked for, and were not run"),
    }
}

fn columns(row: &Row) -> [String; 9] {
    let (error, bound, case) = match row.worst {
        Some(worst) => {
            (format!("{:.2e}", worst.deviation.error), format!("{:.2e}", worst.deviation.bound), worst.case.to_string())
        }
        None => Default::default(),
    };
    let verdict = if row.failed == 0 { "ok".into() } else { format!("FAIL {}", row.failed) };
    let engine = row.engine.map_or_else(|| "none".into(), |engine| engine.to_string());
    let (runs, threaded) = (row.runs.to_string(), row.threaded.to_string());
    [row.class.to_string(), row.dtype.to_string(), engine, runs, threaded, error, bound, verdict, case]
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::op::OpClass;
    use candlewick::{DType, Engine};
    use candlewick_verify::{Case, Deviation, Fault, Hardware};

    #[test]
    fn a_failure_is_counted_and_says_how_to_repeat_it() {
        let case = Case::new(9, OpClass::MatMul, DType::F32, 40, Hardware::Cpu);
        let engine = Some(Engine::new("cpu", "some"));
        let mut report = Report::new("cpu");
        report.record(&case, engine, 1, Ok(Deviation { error: 1e-9, bound: 1e-6 }));
        report.record(&case, engine, 2, Err(Fault::Outside { output: "c", at: -1, found: 3.0 }));
        let mut printed = Vec::new();
        write(&report, &mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains("FAIL 1"), "{printed}");
        assert!(printed.contains("candlewick verify --ops matmul --dtype f32 --seed 9 --case 40"), "{printed}");
        assert!(printed.ends_with("1 passed, 1 failed\n"), "{printed}");
    }
}
