//! What a run reports of its steps: `metrics.jsonl`, a JSON object a line.

use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Metric {
    /// An update of the adapter.
    Step(Step),
    /// A look at the validation data.
    Validation(Validation),
    /// A look at the test data: before the first step, and with the adapter that was kept.
    Test(Validation),
}

/// An update of the adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Counted from 1.
    pub step: u64,
    /// Mean over the labels of the step, in nats.
    pub loss: f64,
    /// Of the gradients of all adapters together, before clipping.
    pub gradient_norm: f64,
    /// As the schedule has it.
    pub learning_rate: f64,
    /// Passes over the data begun before it.
    pub epoch: u64,
    /// Positions that documents took, and labels that counted.
    pub tokens: usize,
    /// Labels that counted.
    pub learned: usize,
    /// Wall time.
    pub seconds: f64,
}

/// A look at the validation data, or at the test data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The steps before it.
    pub step: u64,
    /// Mean over all labels of that data, in nats.
    pub loss: f64,
    /// Labels that the model finds likeliest.
    pub right: usize,
    /// Labels.
    pub learned: usize,
    /// Documents that the model, asked greedily, answers to the letter.
    pub right_answers: usize,
    /// Documents.
    pub answers: usize,
    /// Wall time.
    pub seconds: f64,
}

impl Metric {
    /// The step that it belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Metric::Step(step) => step.step,
            Metric::Validation(look) | Metric::Test(look) => look.step,
        }
    }
}

/// The file, open at its end.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file for a run that has done `step` steps: lines of later ones, which a stopped run has left, are removed.
    /// Returns the lines that stay.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, step: u64) -> Result<(Metrics, Vec<Metric>)> {
        let kept: Vec<Metric> = read(path)?.into_iter().filter(|metric| metric.step() <= step).collect();
        let text: String = kept.iter().map(line).collect();
        candlewick_model::write_atomically(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io(path, "open the file"))?;
        Ok((Metrics { path: path.to_owned(), file }, kept))
    }

    /// Appends a line.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&mut self, metric: &Metric) -> Result<()> {
        self.file.write_all(line(metric).as_bytes()).map_err(Error::io(&self.path, "write the file"))
    }
}

fn line(metric: &Metric) -> String {
    serde_json::to_string(metric).expect("numbers have a text") + "\n"
}

/// The lines of a file; none where there is no file. A last line that was cut off is left out.
///
/// # Errors
/// What the system says.
pub fn read(path: &Path) -> Result<Vec<Metric>> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(path, "read the file")(error)),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Metric {
        let (loss, gradient_norm, learning_rate) = (1.5 / step as f64, 0.1, 1e-4);
        Metric::Step(Step { step, loss, gradient_norm, learning_rate, epoch: 0, tokens: 9, learned: 5, seconds: 0.25 })
    }

    #[test]
    fn what_a_stopped_run_has_left_is_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let (mut metrics, kept) = Metrics::open(&path, 0).unwrap();
        assert!(kept.is_empty());
        (1..=5).for_each(|nth| metrics.write(&step(nth)).unwrap());
        let validation = Metric::Validation(Validation {
            step: 3,
            loss: 1.0,
            right: 4,
            learned: 5,
            right_answers: 1,
            answers: 2,
            seconds: 0.5,
        });
        metrics.write(&validation).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"kind\":\"step\",\"st").unwrap();
        let (mut metrics, kept) = Metrics::open(&path, 3).unwrap();
        assert_eq!(kept, [step(1), step(2), step(3), validation]);
        metrics.write(&step(4)).unwrap();
        assert_eq!(read(&path).unwrap()[4], step(4));
    }
}
