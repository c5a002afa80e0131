//! What `verify` prints: a line per operation, engine and dtype, then the failures.

use super::cases::Case;
use super::trial::Fault;
use candlewick::op::OpClass;
use candlewick::{DType, Engine};
use std::io::{self, Write};

/// A line of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) class: OpClass,
    pub(super) engine: Engine,
    pub(super) dtype: DType,
}

/// Every line, and what failed.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    failures: Vec<Failure>,
}

struct Row {
    key: Key,
    runs: usize,
    threaded: usize,
    failed: usize,
    /// The case that came closest to its bound.
    worst: Option<Worst>,
}

struct Worst {
    error: f64,
    bound: f64,
    case: String,
}

struct Failure {
    key: Key,
    threads: usize,
    case: Case,
    fault: Fault,
}

/// Failures that are printed whole; more would hide the table.
const PRINTED: usize = 12;

impl Table {
    pub(super) fn record(&mut self, key: Key, case: &Case, threads: usize, verdict: Result<f64, Fault>) {
        let at = self.rows.iter().position(|row| row.key == key).unwrap_or_else(|| {
            self.rows.push(Row { key, runs: 0, threaded: 0, failed: 0, worst: None });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.runs += 1;
        row.threaded += usize::from(threads > 1);
        match verdict {
            Ok(error) => {
                let bound = case.op.error_bound();
                if row.worst.as_ref().is_none_or(|worst| error / bound > worst.error / worst.bound) {
                    row.worst = Some(Worst { error, bound, case: case.to_string() });
                }
            }
            Err(fault) => {
                row.failed += 1;
                self.failures.push(Failure { key, threads, case: *case, fault });
            }
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn print(&self) {
        // Whoever closes the pipe has read enough.
        let _ = self.write(&mut io::stdout().lock());
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let header =
            ["operation", "dtype", "engine", "runs", "threaded", "worst error", "bound", "", "closest to its bound"];
        let mut lines: Vec<[String; 9]> = vec![header.map(String::from)];
        lines.extend(self.rows.iter().map(Row::columns));
        let widths: [usize; 9] =
            std::array::from_fn(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0));
        for line in &lines {
            let mut printed = String::new();
            for (i, column) in line.iter().enumerate() {
                let width = widths[i];
                // Numbers to the right, words to the left.
                printed +=
                    &if (3..7).contains(&i) { format!("{column:>width$}  ") } else { format!("{column:<width$}  ") };
            }
            writeln!(to, "{}", printed.trim_end())?;
        }
        for failure in self.failures.iter().take(PRINTED) {
            let Key { class, engine, dtype } = failure.key;
            writeln!(to, "\nFAIL {class} {dtype} on {engine}, {} thread(s): {}", failure.threads, failure.fault)?;
            writeln!(to, "  {:?}", failure.case.op)?;
            writeln!(to, "  {:?} values in {:?}", failure.case.values, failure.case.storage)?;
            writeln!(to, "  again: {}", failure.case.rerun())?;
        }
        if self.failures.len() > PRINTED {
            writeln!(to, "\n.. and {} more failures", self.failures.len() - PRINTED)?;
        }
        let runs: usize = self.rows.iter().map(|row| row.runs).sum();
        writeln!(to, "\n{} passed, {} failed", runs - self.failed(), self.failed())
    }
}

impl Row {
    fn columns(&self) -> [String; 9] {
        let (error, bound, case) = match &self.worst {
            Some(worst) => (format!("{:.2e}", worst.error), format!("{:.2e}", worst.bound), worst.case.clone()),
            None => Default::default(),
        };
        let verdict = if self.failed == 0 { "ok".into() } else { format!("FAIL {}", self.failed) };
        let Key { class, engine, dtype } = self.key;
        let (runs, threaded) = (self.runs.to_string(), self.threaded.to_string());
        [class.to_string(), dtype.to_string(), engine.to_string(), runs, threaded, error, bound, verdict, case]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_counted_and_says_how_to_repeat_it() {
        let case = Case::new(9, OpClass::MatMul, DType::F32, 40);
        let key = Key { class: OpClass::MatMul, engine: Engine::new("cpu", "some"), dtype: DType::F32 };
        let mut table = Table::default();
        table.record(key, &case, 1, Ok(1e-9));
        table.record(key, &case, 2, Err(Fault::Outside { output: "c", at: -1, found: 3.0 }));
        let mut printed = Vec::new();
        table.write(&mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert_eq!(table.failed(), 1);
        assert!(printed.contains("FAIL 1"), "{printed}");
        assert!(printed.contains("candlewick verify --ops matmul --dtype f32 --seed 9 --case 40"), "{printed}");
        assert!(printed.ends_with("1 passed, 1 failed\n"), "{printed}");
    }
}
