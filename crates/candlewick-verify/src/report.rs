//! What came of all cases: counts and worst errors by operation, dtype and engine, and every failure.

use crate::case::Case;
use crate::trial::{Deviation, Fault};
use candlewick::op::OpClass;
use candlewick::{DType, Engine};
use std::fmt;

/// What [`crate::verify`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    device: String,
    rows: Vec<Row>,
    failures: Vec<Failure>,
    left_out: usize,
}

/// One operation in one dtype on one engine.
#[derive(Clone, Debug)]
pub struct Row {
    /// The operation.
    pub class: OpClass,
    /// The dtype of its operands.
    pub dtype: DType,
    /// Who ran it; `None` where the device has no engine for a case.
    pub engine: Option<Engine>,
    /// Runs, the failed ones included.
    pub runs: usize,
    /// Runs on more than one thread.
    pub threaded: usize,
    /// Runs that failed.
    pub failed: usize,
    /// The case that came closest to its bound; `None` where all failed.
    pub worst: Option<Worst>,
}

/// A right result.
#[derive(Clone, Copy, Debug)]
pub struct Worst {
    /// Its error, and what that may be.
    pub deviation: Deviation,
    /// What was run.
    pub case: Case,
}

/// A wrong result. It prints as what a person needs to look into it: what, where, and how to run it again.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was run.
    pub case: Case,
    /// Who ran it; `None` where the device has no engine for the case.
    pub engine: Option<Engine>,
    /// On how many host threads.
    pub threads: usize,
    /// What is wrong.
    pub fault: Fault,
    /// The device's name, as users type it.
    pub device: String,
}

impl Report {
    /// A report about a device, by the name that users type.
    pub fn new(device: impl Into<String>) -> Self {
        Report { device: device.into(), ..Self::default() }
    }

    /// Adds what came of one run.
    pub fn record(&mut self, case: &Case, engine: Option<Engine>, threads: usize, verdict: Result<Deviation, Fault>) {
        let (class, dtype) = (case.op.class(), case.op.dtype());
        let same = |row: &Row| (row.class, row.dtype, row.engine) == (class, dtype, engine);
        let at = self.rows.iter().position(same).unwrap_or_else(|| {
            self.rows.push(Row { class, dtype, engine, runs: 0, threaded: 0, failed: 0, worst: None });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.runs += 1;
        row.threaded += usize::from(threads > 1);
        match verdict {
            Ok(deviation) => {
                if row.worst.is_none_or(|worst| deviation.share() > worst.deviation.share()) {
                    row.worst = Some(Worst { deviation, case: *case });
                }
            }
            Err(fault) => {
                row.failed += 1;
                self.failures.push(Failure { case: *case, engine, threads, fault, device: self.device.clone() });
            }
        }
    }

    /// Counts a case that was too large to be run.
    pub(crate) fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// By operation, dtype and engine, in the order in which they ran.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Every failure, in the order in which they came.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// How many runs held their bounds.
    pub fn passed(&self) -> usize {
        self.rows.iter().map(|row| row.runs - row.failed).sum()
    }

    /// How many cases were larger than [`crate::Options::largest`], and were not run.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = &self.case;
        let engine = self.engine.map_or_else(|| self.device.clone(), |engine| engine.to_string());
        let (class, dtype) = (case.op.class(), case.op.dtype());
        writeln!(f, "FAIL {class} {dtype} on {engine}, {} thread(s): {}", self.threads, self.fault)?;
        writeln!(f, "  {:?}", case.op)?;
        writeln!(f, "  {:?} values in {:?}", case.values, case.storage)?;
        write!(f, "  again: {}", case.rerun(&self.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Hardware;

    #[test]
    fn a_failure_is_counted_and_says_how_to_repeat_it() {
        let case = Case::new(9, OpClass::MatMul, DType::F32, 40, Hardware::Gpu);
        let engine = Some(Engine::new("some", "way"));
        let mut report = Report::new("metal");
        report.record(&case, engine, 1, Ok(Deviation { error: 1e-9, bound: 1e-6 }));
        report.record(&case, engine, 2, Err(Fault::Outside { output: "c", at: -1, found: 3.0 }));
        assert_eq!((report.passed(), report.failures().len()), (1, 1));
        assert_eq!((report.rows()[0].runs, report.rows()[0].threaded, report.rows()[0].failed), (2, 1, 1));
        let printed = report.failures()[0].to_string();
        assert!(printed.starts_with("FAIL matmul f32 on some/way, 2 thread(s): c[-1] lies beside"), "{printed}");
        let again = "candlewick verify --ops matmul --dtype f32 --seed 9 --case 40 --device metal";
        assert!(printed.ends_with(again), "{printed}");
    }
}
