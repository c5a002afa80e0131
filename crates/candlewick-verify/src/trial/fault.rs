//! What can be wrong with a result.

use std::fmt;

/// What is wrong with a result. `at` counts elements from the output's first.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Fault {
    /// An error beyond the bound, relative to the output's magnitude.
    Error { output: &'static str, at: usize, expected: f64, found: f64, error: f64 },
    /// NaN, an infinity or a number where something else is right.
    Class { output: &'static str, at: usize, expected: f64, found: f64 },
    /// Memory beside the output changed: before it, in its gaps or after it.
    Outside { output: &'static str, at: isize, found: f64 },
    /// The right answer in another rounding, where only one will do.
    Rounding { output: &'static str, at: usize, expected: f64, found: f64 },
    /// What is wrong where an output lies on an input.
    InPlace { input: &'static str, output: &'static str, fault: Box<Fault> },
    /// The engine refused the case, or failed.
    Refused(String),
    /// The device has no engine for the case.
    NoEngine,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Error { output, at, expected, found, error } => {
                write!(f, "{output}[{at}] is {found:e}, not {expected:e}: relative error {error:.2e}")
            }
            Fault::Class { output, at, expected, found } => write!(f, "{output}[{at}] is {found:e}, not {expected:e}"),
            Fault::Outside { output, at, found } => {
                write!(f, "{output}[{at}] lies beside the output and was overwritten with {found:e}")
            }
            Fault::Rounding { output, at, expected, found } => {
                write!(f, "{output}[{at}] is {found:e}, not {expected:e} exactly")
            }
            Fault::InPlace { input, output, fault } => write!(f, "{output} in the place of {input}: {fault}"),
            Fault::Refused(error) => write!(f, "refused: {error}"),
            Fault::NoEngine => f.write_str("no engine of the device takes it"),
        }
    }
}
