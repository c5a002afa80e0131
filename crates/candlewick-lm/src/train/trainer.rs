//! A run from its data to its adapter.

use super::checkpoint::{Checkpoints, Progress, State};
use super::data::{Documents, Feed, Reader};
use super::estimate::{Estimate, Memory};
use super::metrics::{Metric, Metrics, Step, Validation};
use super::{Error, Housekeeping, Length, Parameters, Recipe, Result, Stepper, curve, sources};
use crate::decoder::{Decoder, Options, Quantised};
use candlewick::Device;
use candlewick_model::{Adapter, Role, Tokenizer, Weights};
use std::fs;
use std::ops::ControlFlow;
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
    /// An adapter to begin with, instead of random numbers: of the same modules and rank.
    pub adapter: Option<PathBuf>,
}

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run goes on from a checkpoint, whose device is another: the last bits will differ from an undisturbed run's.
    OtherDevice(&'a str),
    /// The run goes on behind this step.
    Resumed(u64),
    /// An update was made.
    Stepped(&'a Step),
    /// The validation data was looked at; whether it is the best so far.
    Validated(&'a Validation, bool),
    /// A checkpoint was written.
    Saved(&'a Path),
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps were made.
    Complete,
    /// The validation loss had not improved for long enough.
    Early,
    /// The caller asked for it.
    Stopped,
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Why it ended.
    pub end: End,
    /// Steps that were made, those before it was resumed too.
    pub step: u64,
    /// All steps that there are.
    pub steps: u64,
    /// The step whose numbers the adapter has.
    pub adapter_step: u64,
    /// Loss of the first and of the last steps, the mean of up to ten each.
    pub loss: Option<(f64, f64)>,
    /// Validation before the first step, and of the adapter.
    pub validation: Option<(Validation, Validation)>,
    /// Wall time of this process.
    pub seconds: f64,
    /// Positions per second of this process, over its steps alone.
    pub tokens_per_second: f64,
    /// The adapter's folder.
    pub out: PathBuf,
}

/// A run, ready to begin or to go on.
pub struct Trainer {
    weights: Arc<Weights>,
    sources: Sources,
    recipe: Recipe,
    parameters: Parameters,
    stepper: Stepper,
    feed: Feed,
    validation: Option<Feed>,
    cut: (usize, usize),
    steps: u64,
    device: String,
    /// The first numbers of the adapters.
    initial: Vec<f32>,
    progress: Progress,
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
        let validation = validation.map(|documents| Feed::new(documents.all, sequence, packing, None));
        let steps = match recipe.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => feed.rows_of(epochs).div_ceil(recipe.rows()) as u64,
        };
        if recipe.warmup >= steps && recipe.warmup > 0 {
            return Err(Error::option("warmup", recipe.warmup, format!("the run has {steps} steps: give fewer")));
        }
        let quantised = if recipe.dequantise { Quantised::Dequantise } else { Quantised::Keep };
        let options = Options { dtype: Some(recipe.precision.dtype()), quantised };
        let decoder = Decoder::load(device, weights.clone(), options)?;
        let sizes = validation.as_ref().map(|feed| feed.sizes(recipe.batch));
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

    fn begin(&mut self) -> Result<()> {
        let zeros = vec![0.0; self.parameters.elements];
        self.stepper.set(&State { master: self.initial.clone(), m: zeros.clone(), v: zeros })
    }

    /// Three vectors and their description.
    fn checkpoint_bytes(&self) -> u64 {
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

    /// Trains from the last checkpoint in the folder, or from the beginning, up to the last step; or until `on` breaks off,
    /// which it can at every event. In every case the folder has a checkpoint and the adapter afterwards.
    ///
    /// # Errors
    /// A folder that cannot be written, or has a checkpoint of another run or another adapter; a loss that is no number;
    /// what fails on the device.
    pub fn run(&mut self, keeping: &Housekeeping, on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<Summary> {
        let start = Instant::now();
        let checkpoints = Checkpoints::in_folder(&keeping.out.join("checkpoints"));
        let last = checkpoints.last()?;
        if last.is_none() && keeping.out.join("adapter_config.json").exists() {
            let (out, remedy) = (keeping.out.display(), "the folder has another adapter: give a new folder");
            return Err(Error::option("out", out, remedy));
        }
        if let Some((path, progress, _)) = &last {
            progress.check_same_run(path, &self.progress)?;
        }
        // The new one beside those that are kept, before an old one is removed.
        checkpoints.prepare(self.checkpoint_bytes() * (keeping.keep.max(1) as u64 + 2))?;
        let mut flow = ControlFlow::Continue(());
        match last {
            None => self.begin()?,
            Some((_, progress, state)) => {
                if progress.device != self.device {
                    flow = on(Event::OtherDevice(&progress.device));
                }
                self.stepper.set(&state)?;
                self.feed.seek(progress.position);
                self.progress = Progress { device: self.device.clone(), ..progress };
                flow = if flow.is_break() { flow } else { on(Event::Resumed(self.progress.step)) };
            }
        }
        let (metrics, past) = Metrics::open(&keeping.out.join("metrics.jsonl"), self.progress.step)?;
        let mut run = Run { keeping, checkpoints, metrics, past, stepping: 0.0, tokens: 0, seen: None };
        // Before the first step, or where a stop came before it.
        if self.is_due(keeping.validate_every) && run.validated_at() != Some(self.progress.step) && flow.is_continue() {
            flow = self.validate(&mut run, on)?;
        }
        let end = loop {
            if self.progress.step >= self.steps {
                break End::Complete;
            }
            if keeping.patience > 0 && self.progress.since_best >= keeping.patience {
                break End::Early;
            }
            if flow.is_break() {
                break End::Stopped;
            }
            flow = self.step(&mut run, on)?;
            if self.is_due(keeping.validate_every) && flow.is_continue() {
                flow = self.validate(&mut run, on)?;
            }
            if self.is_due(keeping.save_every) || flow.is_break() {
                let saved = self.save(&mut run, on)?;
                flow = if flow.is_break() { flow } else { saved };
            }
        };
        if run.seen != Some(self.progress.step) {
            // It ends in any case.
            let _ = self.save(&mut run, on)?;
        }
        self.finish(run, end, start)
    }

    /// Whether what happens every so many steps happens behind this one: it does at both ends.
    fn is_due(&self, every: u64) -> bool {
        let step = self.progress.step;
        step == 0 || step == self.steps || (every > 0 && step.is_multiple_of(every))
    }

    fn step(&mut self, run: &mut Run<'_>, on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let start = Instant::now();
        let step = self.progress.step + 1;
        let batches: Vec<_> = (0..self.recipe.accumulation).map(|_| self.feed.next(self.recipe.batch)).collect();
        let share = self.recipe.schedule.share(step, self.recipe.warmup, self.steps);
        let learning_rate = self.recipe.learning_rate * share;
        let outcome = self.stepper.run(&batches, learning_rate, step)?;
        for (what, value) in [("the loss", outcome.loss), ("the gradients' norm", outcome.gradient_norm)] {
            if !value.is_finite() {
                return Err(Error::Diverged { step, what });
            }
        }
        self.progress.step = step;
        self.progress.position = self.feed.position();
        let metric = Step {
            step,
            loss: outcome.loss,
            gradient_norm: outcome.gradient_norm,
            learning_rate,
            epoch: self.feed.position().epoch,
            tokens: batches.iter().flat_map(|batch| &batch.documents).map(|&(_, count)| count as usize).sum(),
            learned: batches.iter().map(|batch| batch.learned()).sum(),
            seconds: start.elapsed().as_secs_f64(),
        };
        run.stepping += metric.seconds;
        run.tokens += self.recipe.rows() * self.recipe.sequence;
        let flow = on(Event::Stepped(&metric));
        run.write(Metric::Step(metric))?;
        Ok(flow)
    }

    fn validate(
        &mut self,
        run: &mut Run<'_>,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let Some(feed) = &self.validation else { return Ok(ControlFlow::Continue(())) };
        let start = Instant::now();
        let score = self.stepper.validate(feed.all(self.recipe.batch))?;
        let found = Validation {
            step: self.progress.step,
            loss: score.mean(),
            right: score.right,
            learned: score.learned,
            right_answers: score.right_answers,
            answers: score.answers,
            seconds: start.elapsed().as_secs_f64(),
        };
        let best = self.progress.best.is_none_or(|(_, loss)| found.loss < loss);
        if best {
            (self.progress.best, self.progress.since_best) = (Some((found.step, found.loss)), 0);
            run.checkpoints.save_best(&self.progress, &self.stepper.state()?)?;
        } else {
            self.progress.since_best += 1;
        }
        let flow = on(Event::Validated(&found, best));
        run.write(Metric::Validation(found))?;
        Ok(flow)
    }

    fn save(&mut self, run: &mut Run<'_>, on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let path = run.checkpoints.save(&self.progress, &self.stepper.state()?, run.keeping.keep)?;
        run.seen = Some(self.progress.step);
        Ok(on(Event::Saved(&path)))
    }

    /// Writes the adapter, the best one where there was a validation, and the curve.
    fn finish(&mut self, run: Run<'_>, end: End, start: Instant) -> Result<Summary> {
        let best = run.checkpoints.best()?.filter(|(progress, _)| progress.best == self.progress.best);
        let (adapter_step, state) = match best {
            Some((progress, state)) if self.progress.best.is_some() => (progress.step, state),
            _ => (self.progress.step, self.stepper.state()?),
        };
        let base = self.sources.model.display().to_string();
        let out = &run.keeping.out;
        self.parameters.adapter(self.weights.config(), &self.recipe, &base, &state.master)?.write(out)?;
        let drawing = curve::svg(&self.title(), &self.settings(), &run.past);
        candlewick_model::write_atomically(&out.join("loss.svg"), drawing.as_bytes())?;
        let losses: Vec<f64> = run
            .past
            .iter()
            .filter_map(|metric| if let Metric::Step(step) = metric { Some(step.loss) } else { None })
            .collect();
        let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
        let few = losses.len().min(10);
        let validations: Vec<&Validation> = run
            .past
            .iter()
            .filter_map(|metric| if let Metric::Validation(v) = metric { Some(v) } else { None })
            .collect();
        let of_adapter = validations.iter().find(|validation| validation.step == adapter_step);
        Ok(Summary {
            end,
            step: self.progress.step,
            steps: self.steps,
            adapter_step,
            loss: (few > 0).then(|| (mean(&losses[..few]), mean(&losses[losses.len() - few..]))),
            validation: validations.first().zip(of_adapter).map(|(&first, &last)| (first.clone(), last.clone())),
            seconds: start.elapsed().as_secs_f64(),
            tokens_per_second: run.tokens as f64 / run.stepping.max(1e-9),
            out: out.clone(),
        })
    }

    fn title(&self) -> String {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("{} fine-tuned on {}", name(&self.sources.model), name(&self.sources.data))
    }

    fn settings(&self) -> String {
        let Recipe { rank, alpha, targets, batch, accumulation, sequence, learning_rate, seed, .. } = &self.recipe;
        let schedule = format!("{:?}", self.recipe.schedule).to_lowercase();
        let accumulation = if *accumulation > 1 { format!(" x {accumulation}") } else { String::new() };
        format!(
            "rank {rank}, alpha {alpha}, {targets}; {batch}{accumulation} x {sequence} tokens a step; \
             AdamW {learning_rate:e}, {schedule}; {}, {}, seed {seed}",
            self.recipe.precision.dtype(),
            self.device,
        )
    }
}

/// What a run has open.
struct Run<'a> {
    keeping: &'a Housekeeping,
    checkpoints: Checkpoints,
    metrics: Metrics,
    /// All lines of the metrics.
    past: Vec<Metric>,
    /// Seconds and positions of this process's steps.
    stepping: f64,
    tokens: usize,
    /// The step that was saved last.
    seen: Option<u64>,
}

impl Run<'_> {
    fn write(&mut self, metric: Metric) -> Result<()> {
        self.metrics.write(&metric)?;
        self.past.push(metric);
        Ok(())
    }

    /// The step of the last validation.
    fn validated_at(&self) -> Option<u64> {
        let validations = self.past.iter().filter(|metric| matches!(metric, Metric::Validation(_)));
        validations.map(Metric::step).next_back()
    }
}
