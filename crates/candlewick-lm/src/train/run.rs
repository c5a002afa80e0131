//! The loop of a run: steps, validations, checkpoints, and what is left at its end.

use super::checkpoint::{Checkpoints, Progress};
use super::metrics::{Metric, Metrics, Step, Validation};
use super::score::Score;
use super::{Error, Housekeeping, Recipe, Result, Trainer, curve};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

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
    /// The test data was looked at.
    Tested(&'a Validation),
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
    /// The test data before the first step, and with the adapter: by lines that nothing was chosen by.
    pub test: Option<(Validation, Validation)>,
    /// Wall time of this process.
    pub seconds: f64,
    /// Positions per second of this process, over its steps alone.
    pub tokens_per_second: f64,
    /// The adapter's folder.
    pub out: PathBuf,
}

impl Trainer {
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
        if self.progress.step == 0 && flow.is_continue() {
            flow = self.test(&mut run, 0, on)?;
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
        self.finish(run, end, start, on)
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
        let found = Validation::of(self.progress.step, &score, start);
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

    /// Looks at the test data with the numbers of `step`, which the adapters have; once for each.
    fn test(
        &mut self,
        run: &mut Run<'_>,
        step: u64,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let Some(feed) = self.test.as_ref().filter(|_| run.tested(step).is_none()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let start = Instant::now();
        let found = Validation::of(step, &self.stepper.validate(feed.all(self.recipe.batch))?, start);
        let flow = on(Event::Tested(&found));
        run.write(Metric::Test(found))?;
        Ok(flow)
    }

    fn save(&mut self, run: &mut Run<'_>, on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let path = run.checkpoints.save(&self.progress, &self.stepper.state()?, run.keeping.keep)?;
        run.seen = Some(self.progress.step);
        Ok(on(Event::Saved(&path)))
    }

    /// Writes the adapter, the best one where there was a validation, and the curve; tests it where the run is over.
    fn finish(
        &mut self,
        mut run: Run<'_>,
        end: End,
        start: Instant,
        on: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Summary> {
        let best = run.checkpoints.best()?.filter(|(progress, _)| progress.best == self.progress.best);
        let (adapter_step, state) = match best {
            Some((progress, state)) if self.progress.best.is_some() => (progress.step, state),
            _ => (self.progress.step, self.stepper.state()?),
        };
        if end != End::Stopped && self.test.is_some() {
            self.stepper.set(&state)?;
            // It ends in any case.
            let _ = self.test(&mut run, adapter_step, on)?;
        }
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
            test: run.tested(0).zip(run.tested(adapter_step)).map(|(first, last)| (first.clone(), last.clone())),
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

impl Validation {
    fn of(step: u64, score: &Score, start: Instant) -> Self {
        Validation {
            step,
            loss: score.mean(),
            right: score.right,
            learned: score.learned,
            right_answers: score.right_answers,
            answers: score.answers,
            seconds: start.elapsed().as_secs_f64(),
        }
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

    /// What the test data said of the numbers of a step.
    fn tested(&self, step: u64) -> Option<&Validation> {
        let mut tests =
            self.past.iter().filter_map(|metric| if let Metric::Test(test) = metric { Some(test) } else { None });
        tests.find(|test| test.step == step)
    }

    /// The step of the last validation.
    fn validated_at(&self) -> Option<u64> {
        let validations = self.past.iter().filter(|metric| matches!(metric, Metric::Validation(_)));
        validations.map(Metric::step).next_back()
    }
}
