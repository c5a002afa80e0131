//! What a run opens: model, data, plans; and what it will take.

use super::checkpoint::{Progress, State};
use super::data::{Documents, Feed, Reader};
use super::estimate::{Estimate, Memory};
use super::pass::Sizes;
use super::{Error, Length, Parameters, Recipe, Result, Stepper, sources};
use crate::decoder::{Decoder, Options, Quantised};
use candlewick::Device;
use candlewick_model::{Adapter, Role, Tokenizer, Weights};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a run learns from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The model: a folder or a GGUF file. Its path stands in the adapter's configuration.
    pub model: PathBuf,
    /// Lines of JSON.
    pub data: PathBuf,
    /// Those to validate with; without it, [`Recipe::validation`] of `data`.
    pub validation: Option<PathBuf>,
    /// Those to test with: nothing is chosen by them.
    pub test: Option<PathBuf>,
    /// An adapter to begin with, instead of random numbers: of the same modules and rank.
    pub adapter: Option<PathBuf>,
}

/// A run, ready to begin or to go on.
pub struct Trainer {
    pub(super) weights: Arc<Weights>,
    pub(super) sources: Sources,
    pub(super) recipe: Recipe,
    pub(super) parameters: Parameters,
    pub(super) stepper: Stepper,
    pub(super) feed: Feed,
    pub(super) validation: Option<Feed>,
    pub(super) test: Option<Feed>,
    cut: (usize, usize),
    pub(super) steps: u64,
    pub(super) device: String,
    /// The first numbers of the adapters.
    initial: Vec<f32>,
    pub(super) progress: Progress,
}

impl Trainer {
    /// Opens the model and the data, checks everything against each other and records the plans.
    ///
    /// # Errors
    /// Options that contradict themselves or the model, files and lines that cannot be used, too little memory.
    pub fn new(device: &Device, sources: Sources, recipe: Recipe) -> Result<Trainer> {
        recipe.check()?;
        let weights = Arc::new(Weights::open(&sources.model)?);
        let config = weights.config().clone();
        if recipe.sequence > config.context {
            let remedy = format!("the model's context has {} positions: give shorter rows", config.context);
            return Err(Error::option("sequence", recipe.sequence, remedy));
        }
        let parameters = Parameters::new(&config, &recipe)?;
        let tokenizer = Tokenizer::open(&sources.model)?;
        tokenizer.check(&config)?;
        let reader = Reader { tokenizer: &tokenizer, loss_on: recipe.loss_on, sequence: recipe.sequence };
        let mut digests = vec![("model".to_owned(), sources::model(&weights)?)];
        let mut read = |name: &str, path: &Path| -> Result<Documents> {
            let bytes = fs::read(path).map_err(Error::io(path, "read the data"))?;
            digests.push((name.to_owned(), sources::data(&bytes)));
            reader.read(path, &bytes)
        };
        let mut documents = read("data", &sources.data)?;
        let validation = match &sources.validation {
            Some(path) => Some(read("validation data", path)?),
            None if recipe.validation > 0.0 && documents.all.len() < 2 => {
                let remedy = "the data has one document: give more, or a file to validate with";
                return Err(Error::option("validation", recipe.validation, remedy));
            }
            None if recipe.validation > 0.0 => Some(documents.split(recipe.validation, recipe.seed)),
            None => None,
        };
        let test = sources.test.as_deref().map(|path| read("test data", path)).transpose()?;
        let initial = match &sources.adapter {
            None => parameters.initial(recipe.seed),
            Some(folder) => parameters.gather(&config, &Adapter::open(folder)?)?,
        };
        digests.push((
            "first adapter".into(),
            sources::data(&initial.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        ));
        let cut = (documents.cut, documents.dropped);
        let (sequence, packing) = (recipe.sequence, recipe.packing);
        let feed = Feed::new(documents.all, sequence, packing, recipe.shuffle.then_some(recipe.seed));
        let in_order = |documents: Documents| Feed::new(documents.all, sequence, packing, None);
        let (validation, test) = (validation.map(in_order), test.map(in_order));
        let steps = match recipe.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => feed.rows_of(epochs).div_ceil(recipe.rows()) as u64,
        };
        if recipe.warmup >= steps && recipe.warmup > 0 {
            return Err(Error::option("warmup", recipe.warmup, format!("the run has {steps} steps: give fewer")));
        }
        let quantised = if recipe.dequantise { Quantised::Dequantise } else { Quantised::Keep };
        let options = Options { dtype: Some(recipe.precision.dtype()), quantised, int8: false };
        let decoder = Decoder::load(device, weights.clone(), options)?;
        let looks = validation.iter().chain(&test).map(|feed| feed.sizes(recipe.batch));
        let sizes = looks.reduce(Sizes::of_both);
        let stepper = Stepper::new(&decoder, &parameters, &recipe, feed.sizes(recipe.batch), sizes)?;
        let device = device.info().id;
        let progress = Progress::new(&recipe, &digests, &device);
        Ok(Trainer {
            weights,
            sources,
            recipe,
            parameters,
            stepper,
            feed,
            validation,
            test,
            cut,
            steps,
            device,
            initial,
            progress,
        })
    }

    /// What the run will take. With `timed`, steps are made and forgotten, to see how long they take.
    ///
    /// # Errors
    /// What fails on the device.
    pub fn estimate(&mut self, timed: bool) -> Result<Estimate> {
        let config = self.weights.config();
        let (compute, elements) = (self.recipe.precision.dtype().bytes(), self.parameters.elements);
        let sum = if self.recipe.accumulation > 1 { 4 } else { 0 };
        let memory = Memory {
            weights: self.stepper.weight_bytes(),
            adapters: elements * (4 + compute),
            gradients: elements * (compute + sum),
            optimizer: elements * 8,
            activations: self.stepper.arena_bytes(),
        };
        let shapes = Role::all(config).map(|role| role.shape(config));
        let rows = self.feed.rows_of(1);
        Ok(Estimate {
            model: config.to_string(),
            device: self.device.clone(),
            trainable: self.parameters.count(),
            parameters: shapes.map(|[rows, cols]| rows * cols).sum(),
            modules: self.parameters.modules.len(),
            documents: (self.feed.documents(), self.validation.as_ref().map_or(0, Feed::documents)),
            tokens: (self.feed.tokens(), self.feed.learned()),
            filled: self.feed.tokens() as f64 / (rows * self.recipe.sequence) as f64,
            cut: self.cut,
            steps: self.steps,
            tokens_per_step: self.recipe.rows() * self.recipe.sequence,
            memory,
            activations: self.stepper.activations(),
            disk: self.checkpoint_bytes() * 3,
            step: if timed { Some(self.time_a_step()?) } else { None },
        })
    }

    /// The shortest of three, after one that warms up.
    fn time_a_step(&mut self) -> Result<Duration> {
        let mut feed = self.feed.clone();
        self.begin()?;
        let mut shortest = Duration::MAX;
        for nth in 0..4 {
            let batches: Vec<_> = (0..self.recipe.accumulation).map(|_| feed.next(self.recipe.batch)).collect();
            let start = Instant::now();
            self.stepper.run(&batches, self.recipe.learning_rate, nth + 1)?;
            if nth > 0 {
                shortest = shortest.min(start.elapsed());
            }
        }
        Ok(shortest)
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        let zeros = vec![0.0; self.parameters.elements];
        self.stepper.set(&State { master: self.initial.clone(), m: zeros.clone(), v: zeros })
    }

    /// Three vectors and their description.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        12 * self.parameters.elements as u64 + (64 << 10)
    }

    /// What identifies the run: recipe, model, data.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Updates that the run has.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}
