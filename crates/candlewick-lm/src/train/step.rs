//! The plans of a run. A step is one plan: embedding, layers, loss, gradients, the norm of all gradients, AdamW over all
//! adapters. With gradient accumulation a plan adds up the gradients of a micro-batch, and a small one updates at the end.

use super::data::Batch;
use super::pass::{Adapted, Pass, Sizes, forward};
use super::{Error, Parameters, Precision, Recipe, Result, Score, State};
use crate::decoder::Decoder;
use candlewick::op::{AdamW, Add, Cast, SumSquares};
use candlewick::plan::{Activations, Budget, Recorder, Session, Shared, Tensor};
use candlewick::{DType, Plan};
use half::bf16;

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean over the step's labels, in nats.
    pub loss: f64,
    /// Of all gradients together, before clipping.
    pub gradient_norm: f64,
}

/// The trained vectors on the device.
struct Trained {
    master: Shared,
    m: Shared,
    v: Shared,
    /// The adapters in the dtype of the passes.
    param: Shared,
    /// Of one micro-batch, in that dtype.
    gradient: Shared,
    /// Of the micro-batches so far, in f32, where there are several.
    sum: Option<Shared>,
}

/// The optimizer's inputs and outputs, in the plan that updates.
#[derive(Clone, Copy)]
struct Update {
    schedule: Tensor,
    sum_squares: Tensor,
}

/// The plans of a run, on one device.
pub struct Stepper {
    session: Session,
    precision: Precision,
    accumulation: usize,
    trained: Trained,
    elements: usize,
    pass: Pass,
    /// The micro-batch's share in the mean, an input.
    weight: Tensor,
    /// Of dropout: the run's, and the micro-batch's number, an input.
    seed: Tensor,
    /// The run's.
    run_seed: u64,
    update: Update,
    /// Updates alone, with gradient accumulation.
    updating: Option<Plan>,
    validation: Option<Pass>,
}

impl Stepper {
    /// Records the plans, which reads the model's weights. `validation` has the sizes of validation batches.
    ///
    /// # Errors
    /// What cannot be prepared; [`OutOfMemory`](candlewick::Error::OutOfMemory).
    pub fn new(
        decoder: &Decoder,
        parameters: &Parameters,
        recipe: &Recipe,
        sizes: Sizes,
        validation: Option<Sizes>,
    ) -> Result<Stepper> {
        let (session, dtype) = (decoder.session().clone(), recipe.precision.dtype());
        let state = |name, dtype| session.state(name, 1, parameters.elements, dtype);
        let accumulates = recipe.accumulation > 1;
        let trained = Trained {
            master: state("master", DType::F32)?,
            m: state("m", DType::F32)?,
            v: state("v", DType::F32)?,
            param: state("param", dtype)?,
            gradient: state("gradient", dtype)?,
            sum: if accumulates { Some(state("sum", DType::F32)?) } else { None },
        };
        let (plan, (rows, learned, labels, loss, weight, seed, update)) = session.record(|p| {
            let seed = p.input("seed", 1, 2, DType::U32);
            let dropout = (recipe.dropout > 0.0).then_some((seed, recipe.dropout));
            let adapted = Adapted::new(p, parameters, &trained.param, dropout)?;
            let (rows, learned, labels, loss) = forward(p, decoder, adapted.clone(), sizes)?;
            let weight = p.input("weight", 1, 2, DType::F32);
            let (seeds, factors) = ([(loss, weight)], adapted.tensors());
            let gradients = match recipe.activations {
                None => p.grad_from(&seeds, &factors)?,
                Some(bytes) => p.grad_from_within(&seeds, &factors, Budget::bytes(bytes))?,
            };
            let all = p.shared(&trained.gradient)?;
            for (gradient, place) in gradients.into_iter().zip(adapted.places()) {
                let (rows, cols) = p.shape(gradient);
                let place = p.part(all, place, rows, cols)?;
                p.settle(gradient, place)?;
            }
            let update = match &trained.sum {
                None => Some(update(p, &trained, recipe, parameters.elements)?),
                Some(sum) => {
                    let sum = p.shared(sum)?;
                    let one = if dtype == DType::F32 {
                        all
                    } else {
                        p.op(Cast::new(parameters.elements, dtype, DType::F32), &[all])?[0]
                    };
                    p.op_into(Add::new(1, parameters.elements, DType::F32), &[sum, one], &[sum])?;
                    None
                }
            };
            Ok((rows, learned, labels, loss, weight, seed, update))
        })?;
        let pass = Pass { plan, rows, learned, labels, loss, sizes };
        let (updating, update) = match update {
            Some(update) => (None, update),
            None => {
                let record = |p: &mut Recorder| self::update(p, &trained, recipe, parameters.elements);
                let (plan, update) = session.record(record)?;
                (Some(plan), update)
            }
        };
        let validation = match validation {
            None => None,
            Some(sizes) => {
                let (plan, (rows, learned, labels, loss)) = session.record(|p| {
                    let adapted = Adapted::new(p, parameters, &trained.param, None)?;
                    let handles = forward(p, decoder, adapted, sizes)?;
                    let stats = p.cross_entropy_stats(handles.3)?;
                    Ok((handles.0, handles.1, handles.2, p.output(stats)?))
                })?;
                Some(Pass { plan, rows, learned, labels, loss, sizes })
            }
        };
        let (precision, accumulation, elements) = (recipe.precision, recipe.accumulation, parameters.elements);
        let run_seed = recipe.seed;
        Ok(Stepper {
            session,
            precision,
            accumulation,
            trained,
            elements,
            pass,
            weight,
            seed,
            run_seed,
            update,
            updating,
            validation,
        })
    }

    /// Replaces the trained numbers.
    ///
    /// # Errors
    /// Vectors of another length.
    pub fn set(&mut self, state: &State) -> Result<()> {
        let Trained { master, m, v, param, .. } = &self.trained;
        for (shared, numbers) in [(master, &state.master), (m, &state.m), (v, &state.v)] {
            self.session.store(shared, numbers)?;
        }
        match self.precision {
            Precision::F32 => self.session.store(param, &state.master)?,
            Precision::Bf16 => {
                let rounded: Vec<bf16> = state.master.iter().map(|&number| bf16::from_f32(number)).collect();
                self.session.store(param, &rounded)?;
            }
        }
        Ok(())
    }

    /// Waits, and copies the trained numbers out.
    ///
    /// # Errors
    /// Whatever failed since the last wait.
    pub fn state(&self) -> Result<State> {
        let vector = |shared| -> Result<Vec<f32>> {
            let mut numbers = vec![0.0; self.elements];
            self.session.read(shared, &mut numbers)?;
            Ok(numbers)
        };
        let Trained { master, m, v, .. } = &self.trained;
        Ok(State { master: vector(master)?, m: vector(m)?, v: vector(v)? })
    }

    /// The gradients of the last micro-batch, in the places of [`Parameters`].
    ///
    /// # Errors
    /// Whatever failed since the last wait.
    pub fn gradient(&self) -> Result<Vec<f32>> {
        match self.precision {
            Precision::F32 => {
                let mut numbers = vec![0f32; self.elements];
                self.session.read(&self.trained.gradient, &mut numbers)?;
                Ok(numbers)
            }
            Precision::Bf16 => {
                let mut numbers = vec![bf16::ZERO; self.elements];
                self.session.read(&self.trained.gradient, &mut numbers)?;
                Ok(numbers.into_iter().map(bf16::to_f32).collect())
            }
        }
    }

    /// One update from the micro-batches of a step, counted from 1. Each label weighs the same, whatever its batch.
    ///
    /// # Errors
    /// Batches of other sizes than the plans', and what failed on the device.
    pub fn run(&mut self, batches: &[Batch], learning_rate: f64, step: u64) -> Result<Outcome> {
        if batches.len() != self.accumulation {
            let remedy = format!("a step has {} micro-batches", self.accumulation);
            return Err(Error::option("micro-batches", batches.len(), remedy));
        }
        let counts: Vec<usize> = batches.iter().map(Batch::learned).collect();
        let all = counts.iter().sum::<usize>().max(1) as f64;
        let schedule = [learning_rate as f32, step as f32];
        if self.updating.is_none() {
            self.pass.plan.write(self.update.schedule, &schedule)?;
        }
        let mut loss = 0.0;
        for (nth, (batch, &count)) in batches.iter().zip(&counts).enumerate() {
            self.pass.write(batch)?;
            // Both fold to 32 bits: runs are long before the second repeats.
            let number = step * self.accumulation as u64 + nth as u64;
            self.pass.plan.write(self.seed, &[(self.run_seed ^ self.run_seed >> 32) as u32, number as u32])?;
            let share = count as f64 / all;
            self.pass.plan.write(self.weight, &[share as f32, 0.0])?;
            self.pass.plan.run()?;
            let mut mean = [0f32; 2];
            self.pass.plan.read(self.pass.loss, &mut mean)?;
            loss += f64::from(mean[0]) * share;
        }
        let plan = match &mut self.updating {
            None => &mut self.pass.plan,
            Some(plan) => {
                plan.write(self.update.schedule, &schedule)?;
                plan.run()?;
                plan
            }
        };
        let mut square = [0f32];
        plan.read(self.update.sum_squares, &mut square)?;
        Ok(Outcome { loss, gradient_norm: f64::from(square[0]).sqrt() })
    }

    /// The score of validation batches.
    ///
    /// # Errors
    /// Plans without validation, batches of other sizes, and what failed on the device.
    pub fn validate(&mut self, batches: impl Iterator<Item = Batch>) -> Result<Score> {
        let Some(pass) = &mut self.validation else {
            return Err(Error::option("validation", "none", "record the plans with its sizes"));
        };
        let mut score = Score::default();
        let mut stats = vec![0f32; 3 * pass.sizes.learned];
        for batch in batches {
            pass.write(&batch)?;
            pass.plan.run()?;
            pass.plan.read(pass.loss, &mut stats)?;
            score.add(&batch, &stats, pass.learned.is_none());
        }
        Ok(score)
    }

    /// Bytes of the arenas: activations, gradients of activations and logits.
    pub fn arena_bytes(&self) -> usize {
        let plans = self.updating.iter().chain(self.validation.iter().map(|pass| &pass.plan));
        self.pass.plan.arena_bytes() + plans.map(Plan::arena_bytes).sum::<usize>()
    }

    /// What became of the activations, where there is a budget.
    pub fn activations(&self) -> Option<Activations> {
        self.pass.plan.activations().first().copied()
    }

    /// Bytes of the model's weights, as the plans read them.
    pub fn weight_bytes(&self) -> usize {
        self.pass.plan.constant_bytes()
    }

    /// The step's operations, as [`Plan::describe`] prints them.
    pub fn describe(&self) -> String {
        self.pass.plan.describe()
    }
}

/// Records the norm of all gradients and AdamW over all adapters.
fn update(p: &mut Recorder, trained: &Trained, recipe: &Recipe, elements: usize) -> candlewick::Result<Update> {
    let compute = recipe.precision.dtype();
    let gradient = p.shared(trained.sum.as_ref().unwrap_or(&trained.gradient))?;
    let dtype = p.dtype(gradient);
    let [master, m, v, param] =
        [&trained.master, &trained.m, &trained.v, &trained.param].map(|shared| p.shared(shared));
    let (master, m, v, param) = (master?, m?, v?, param?);
    let schedule = p.input("schedule", 1, 2, DType::F32);
    let square = p.op(SumSquares::new(elements, dtype), &[gradient])?[0];
    let square = p.output(square)?;
    let op = AdamW {
        beta1: recipe.beta1.into(),
        beta2: recipe.beta2.into(),
        eps: recipe.eps.into(),
        weight_decay: recipe.weight_decay.into(),
        max_norm: recipe.max_norm.into(),
        ..AdamW::new(elements, dtype)
    };
    if dtype == compute {
        p.op_into(op, &[gradient, square, schedule], &[master, m, v, param])?;
    } else {
        // The sum of gradients is f32, and so is what AdamW writes beside the master.
        let copy = p.op(Cast::new(elements, DType::F32, DType::F32), &[master])?[0];
        p.op_into(op, &[gradient, square, schedule], &[master, m, v, copy])?;
        p.op_into(Cast::new(elements, DType::F32, compute), &[master], &[param])?;
    }
    if let Some(sum) = &trained.sum {
        let (zero, sum) = (p.filled(0.0, 1, elements, DType::F32), p.shared(sum)?);
        p.op_into(Cast::new(elements, DType::F32, DType::F32), &[zero], &[sum])?;
    }
    Ok(Update { schedule, sum_squares: square })
}
