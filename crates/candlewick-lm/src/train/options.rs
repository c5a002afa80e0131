//! What a run is told: the recipe, which decides the numbers, and the housekeeping, which does not.

use super::data::LossOn;
use super::{Error, Result, Schedule, Targets};
use candlewick::DType;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that decides the numbers of a run. A checkpoint keeps it, and only the same recipe goes on from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// The delta is multiplied by alpha / rank, or alpha / sqrt(rank) with `rslora`.
    pub alpha: f64,
    /// The share of an adapter's inputs that are zero in a step; the rest grow so that the mean stays.
    pub dropout: f32,
    /// alpha / sqrt(rank) (Kalajdzievski, 2023).
    pub rslora: bool,
    /// The linear layers that are adapted.
    pub targets: Targets,
    /// Positions of a row.
    pub sequence: usize,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Whether short documents share a row, without seeing each other.
    pub packing: bool,
    /// Which tokens the loss is taken over.
    pub loss_on: LossOn,
    /// How long.
    pub length: Length,
    /// Whether the order of the data changes from epoch to epoch.
    pub shuffle: bool,
    /// Of the order of the data, the split, the first numbers and dropout.
    pub seed: u64,
    /// The share of the data that validates, where there is no file for it; 0 for none.
    pub validation: f64,
    /// The largest learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// Steps in which it rises.
    pub warmup: u64,
    /// AdamW's decay of the mean gradient.
    pub beta1: f32,
    /// AdamW's decay of the mean square.
    pub beta2: f32,
    /// AdamW's epsilon.
    pub eps: f32,
    /// AdamW's weight decay.
    pub weight_decay: f32,
    /// The largest norm of all gradients together; 0 for any.
    pub max_norm: f32,
    /// What the passes compute with; adapters and optimizer are f32 always.
    pub precision: Precision,
    /// Whether quantised weights become numbers of that format: more memory, and quicker steps. They stay quantised otherwise.
    pub dequantise: bool,
    /// Bytes of activations that may wait for the gradient; the rest is computed again. None: all of them. It changes no bit
    /// of the numbers, so a checkpoint does not keep it.
    #[serde(skip)]
    pub activations: Option<usize>,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// Updates of the adapter.
    Steps(u64),
    /// Passes over the data; the last step is filled from the next one.
    Epochs(u64),
}

/// The number format of the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16, with f32 sums.
    Bf16,
}

impl Precision {
    /// As the operations call it.
    pub const fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        }
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            targets: Targets::all_linear(),
            sequence: 512,
            batch: 1,
            accumulation: 1,
            packing: true,
            loss_on: LossOn::Completions,
            length: Length::Epochs(1),
            shuffle: true,
            seed: 0,
            validation: 0.0,
            learning_rate: 2e-4,
            schedule: Schedule::Cosine,
            warmup: 0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            max_norm: 1.0,
            precision: Precision::F32,
            dequantise: false,
            activations: None,
        }
    }
}

/// Where a run writes, how often, and when it stops early. A run may go on with others than it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Housekeeping {
    /// The adapter's folder, which need not exist.
    pub out: PathBuf,
    /// Steps between checkpoints; 0 for the last one alone.
    pub save_every: u64,
    /// How many of the last checkpoints are kept, beside the best.
    pub keep: usize,
    /// Steps between validations, if there is anything to validate with; 0 for the end alone.
    pub validate_every: u64,
    /// Validations without a better loss after which the run stops; 0 for never.
    pub patience: u64,
}

impl Recipe {
    /// What the delta is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }

    /// Rows of a step.
    pub fn rows(&self) -> usize {
        self.batch * self.accumulation
    }

    /// Options that contradict themselves are errors that name the option and say what it can be.
    ///
    /// # Errors
    /// The first one.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("rank", self.rank, 1 << 12),
            ("sequence", self.sequence, 1 << 20),
            ("batch", self.batch, 1 << 16),
            ("accumulation", self.accumulation, 1 << 16),
        ];
        for (field, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(Error::option(field, value, format!("give a number between 1 and {most}")));
            }
        }
        if self.sequence * self.batch > 1 << 24 {
            let remedy = "a micro-batch has at most 2^24 tokens: use gradient accumulation";
            return Err(Error::option("sequence x batch", format!("{} x {}", self.sequence, self.batch), remedy));
        }
        match self.length {
            Length::Steps(0) => return Err(Error::option("steps", 0, "give one at least")),
            Length::Epochs(epochs @ (0 | 100_001..)) => {
                return Err(Error::option("epochs", epochs, "give a number between 1 and 100000"));
            }
            _ => {}
        }
        let within = |field, value: f64, fits: bool, remedy: &str| match fits && value.is_finite() {
            true => Ok(()),
            false => Err(Error::option(field, value, remedy)),
        };
        let f = f64::from;
        within("alpha", self.alpha, self.alpha > 0.0, "give a positive number: twice the rank is usual")?;
        within("dropout", f(self.dropout), (0.0..1.0).contains(&self.dropout), "at least 0 and less than 1")?;
        within("learning rate", self.learning_rate, self.learning_rate > 0.0, "give a positive number, like 2e-4")?;
        within("beta1", f(self.beta1), (0.0..1.0).contains(&self.beta1), "at least 0 and less than 1")?;
        within("beta2", f(self.beta2), (0.0..1.0).contains(&self.beta2), "at least 0 and less than 1")?;
        within("eps", f(self.eps), self.eps > 0.0, "give a positive number, like 1e-8")?;
        within("weight decay", f(self.weight_decay), self.weight_decay >= 0.0, "0 or more")?;
        within("max norm", f(self.max_norm), self.max_norm >= 0.0, "0 (no clipping) or more")?;
        within("validation", self.validation, (0.0..1.0).contains(&self.validation), "a share: 0.1 for a tenth")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        assert!(Recipe::default().check().is_ok());
        let wrong = |change: fn(&mut Recipe)| {
            let mut recipe = Recipe::default();
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert_eq!(wrong(|r| r.rank = 0), "rank = 0: give a number between 1 and 4096");
        assert!(wrong(|r| r.alpha = f64::NAN).starts_with("alpha = NaN"));
        assert!(wrong(|r| r.dropout = 1.0).starts_with("dropout = 1: at least 0"));
        assert!(wrong(|r| r.learning_rate = 0.0).starts_with("learning rate = 0"));
        assert!(wrong(|r| r.length = Length::Epochs(0)).starts_with("epochs = 0"));
        assert!(wrong(|r| (r.sequence, r.batch) = (1 << 20, 1 << 10)).contains("gradient accumulation"));
        assert!(wrong(|r| r.validation = 1.0).starts_with("validation = 1"));
    }

    #[test]
    fn a_recipe_is_its_json() {
        let recipe = Recipe { alpha: 0.1 + 0.2, beta2: 0.95, length: Length::Steps(7), ..Recipe::default() };
        let text = serde_json::to_string(&recipe).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), recipe);
        assert!(serde_json::from_str::<Recipe>(&text.replace("rslora", "dora")).is_err());
    }

    #[test]
    fn rslora_divides_by_the_root() {
        let recipe = Recipe { rank: 16, alpha: 8.0, ..Recipe::default() };
        assert_eq!(recipe.scale(), 0.5);
        assert_eq!(Recipe { rslora: true, ..recipe }.scale(), 2.0);
    }
}
