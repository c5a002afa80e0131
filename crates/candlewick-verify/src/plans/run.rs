//! Runs a random plan: as users have it, and with every tensor in sight.

use super::generate::{Generated, Kind, generate};
use super::given::{Given, Role};
use super::judge::{Wrong, judge};
use crate::numbers::Numbers;
use crate::rng::Rng;
use candlewick::op::OpClass;
use candlewick::plan::{Session, Tensor};
use candlewick::{DType, Device, Plan, Result};
use std::collections::HashMap;
use std::fmt;

/// What is wrong with a random plan.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Flaw {
    /// An operation's result is not what the reference makes of its operands, in run `run`.
    Operation { run: usize, wrong: Box<Wrong> },
    /// The plan as users have it gives another result than with memory of its own for every tensor.
    Memory { run: usize, result: String, element: usize, expected: f64, found: f64 },
    /// The same plan gave other bits when it ran on the same numbers again.
    Repeated { result: String, element: usize, expected: f64, found: f64 },
    /// It was refused, or failed.
    Refused(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Operation { run, wrong } => {
                let Wrong { at, op, fault } = &**wrong;
                write!(f, "operation {at}, {op}, in run {run}: {fault}")
            }
            Flaw::Memory { run, result, element, expected, found } => write!(
                f,
                "{result}, element {element}, in run {run}: {found:e}, and {expected:e} where no tensor shares memory"
            ),
            Flaw::Repeated { result, element, expected, found } => {
                write!(
                    f,
                    "{result}, element {element}: {found:e} in a second run on the same numbers, {expected:e} before"
                )
            }
            Flaw::Refused(error) => write!(f, "refused: {error}"),
        }
    }
}

/// The numbers of one plan's results, after each of its runs, exactly: for comparisons between devices that shall agree.
pub type Results = Vec<Vec<Vec<f64>>>;

/// Runs the plan of a seed, and judges it: the class and the error of each of its operations, as a share of the bound.
///
/// # Errors
/// What is wrong.
pub fn verify_plan(device: &Device, seed: u64) -> std::result::Result<Vec<(OpClass, f64)>, Flaw> {
    check(device, seed).unwrap_or_else(|error| Err(Flaw::Refused(error.to_string())))
}

/// The results of the plan of a seed as users have it, after three runs: the third is on the numbers of the first.
///
/// # Errors
/// What the library says.
pub fn plan_results(device: &Device, seed: u64) -> Result<Results> {
    let mut running = Running::new(device, seed, Kind::Plain, Rewrites::Made)?;
    let mut results = Vec::new();
    for run in [0, 1, 0] {
        running.give(run)?;
        running.plan.run()?;
        results.push(running.results()?);
    }
    Ok(results)
}

fn check(device: &Device, seed: u64) -> Result<std::result::Result<Vec<(OpClass, f64)>, Flaw>> {
    // A plan that was rewritten rounds elsewhere, which some operations enlarge without bound: bits are compared without.
    let mut plain = Running::new(device, seed, Kind::Plain, Rewrites::Left)?;
    let mut observed = Running::new(device, seed, Kind::Observed, Rewrites::Left)?;
    let (mut judged, mut results) = (Vec::new(), Vec::new());
    for run in 0..2 {
        let before = observed.give(run)?;
        observed.plan.run()?;
        let after = observed.written()?;
        match judge(&observed.generated, &before, &after)? {
            Ok(operations) => judged.extend(operations),
            Err(wrong) => return Ok(Err(Flaw::Operation { run, wrong })),
        }
        plain.give(run)?;
        plain.plan.run()?;
        let (expected, found) = (observed.results()?, plain.results()?);
        if let Some((result, element)) = plain.difference(&expected, &found) {
            let (expected, found) = (expected[result][element], found[result][element]);
            let result = plain.name(result);
            return Ok(Err(Flaw::Memory { run, result, element, expected, found }));
        }
        results.push(found);
    }
    if let Some(flaw) = plain.again(&results[0])? {
        return Ok(Err(flaw));
    }
    // As users have it.
    let mut rewritten = Running::new(device, seed, Kind::Plain, Rewrites::Made)?;
    rewritten.give(0)?;
    rewritten.plan.run()?;
    let first = rewritten.results()?;
    if let Some(flaw) = rewritten.again(&first)? {
        return Ok(Err(flaw));
    }
    Ok(Ok(judged))
}

/// What becomes of operations that rewrites would join.
#[derive(Clone, Copy, PartialEq)]
enum Rewrites {
    Made,
    Left,
}

/// A plan with its session.
struct Running {
    seed: u64,
    plan: Plan,
    generated: Generated,
    shapes: HashMap<Tensor, (DType, usize)>,
}

impl Running {
    fn new(device: &Device, seed: u64, kind: Kind, rewrites: Rewrites) -> Result<Self> {
        let session = Session::new(device)?;
        let (plan, (generated, shapes)) = session.record(|p| {
            if rewrites == Rewrites::Left {
                p.without_rewrites();
            }
            let generated = generate(p, seed, kind)?;
            let written = generated.recording.operations().flat_map(|operation| operation.outputs);
            let all: Vec<Tensor> = written.chain(generated.results.iter().copied()).collect();
            let shape = |&tensor: &Tensor| {
                let (rows, cols) = p.shape(tensor);
                (tensor, (p.dtype(tensor), rows * cols))
            };
            let shapes = all.iter().map(shape).collect();
            Ok((generated, shapes))
        })?;
        let mut running = Running { seed, plan, generated, shapes };
        for (index, given) in running.constants() {
            let numbers = running.numbers(index, &given, 0);
            numbers.load_into(&mut running.plan, given.tensor)?;
        }
        Ok(running)
    }

    fn constants(&self) -> Vec<(usize, Given)> {
        self.given().filter(|(_, given)| given.role == Role::Constant).collect()
    }

    fn given(&self) -> impl Iterator<Item = (usize, Given)> + '_ {
        self.generated.given.iter().copied().enumerate()
    }

    fn numbers(&self, index: usize, given: &Given, run: usize) -> Numbers {
        let run = if given.role == Role::Input { run as u64 } else { 0 };
        Numbers::new(given.dtype, &given.values(&mut Rng::new(&[self.seed, index as u64, run])))
    }

    /// Gives inputs the numbers of a run, and states those before the first run; returns all that the plan reads.
    fn give(&mut self, run: usize) -> Result<HashMap<Tensor, Vec<f64>>> {
        let mut before = HashMap::new();
        for (index, given) in self.given().collect::<Vec<_>>() {
            let numbers = self.numbers(index, &given, run);
            if given.role != Role::Constant {
                numbers.write_into(&mut self.plan, given.tensor)?;
            }
            before.insert(given.tensor, numbers.to_f64());
        }
        Ok(before)
    }

    /// Everything that operations wrote.
    fn written(&mut self) -> Result<HashMap<Tensor, Vec<f64>>> {
        let all: Vec<Tensor> = self.generated.recording.operations().flat_map(|operation| operation.outputs).collect();
        all.into_iter().map(|tensor| Ok((tensor, self.read(tensor)?))).collect()
    }

    fn results(&mut self) -> Result<Vec<Vec<f64>>> {
        self.generated.results.clone().into_iter().map(|tensor| self.read(tensor)).collect()
    }

    fn read(&mut self, tensor: Tensor) -> Result<Vec<f64>> {
        let (dtype, elements) = self.shapes[&tensor];
        let mut numbers = Numbers::new(dtype, &vec![0.0; elements]);
        numbers.read_from(&mut self.plan, tensor)?;
        Ok(numbers.to_f64())
    }

    fn name(&self, result: usize) -> String {
        let tensor = self.generated.results[result];
        let writer = |operation: &candlewick::plan::Operation| operation.outputs.contains(&tensor);
        match self.generated.recording.operations().enumerate().filter(|(_, operation)| writer(operation)).last() {
            Some((at, operation)) => format!("what operation {at}, {}, wrote", operation.op),
            None => "an input, or a part of a tensor".into(),
        }
    }

    /// Runs twice more, without a wait between, at last on the numbers of run 0, whose results were `expected`.
    fn again(&mut self, expected: &[Vec<f64>]) -> Result<Option<Flaw>> {
        for run in [1, 0] {
            self.give(run)?;
            drop(self.plan.submit()?);
        }
        let found = self.results()?;
        Ok(self.difference(expected, &found).map(|(result, element)| {
            let (expected, found) = (expected[result][element], found[result][element]);
            Flaw::Repeated { result: self.name(result), element, expected, found }
        }))
    }

    /// The first result that differs in any bit, and where.
    fn difference(&self, expected: &[Vec<f64>], found: &[Vec<f64>]) -> Option<(usize, usize)> {
        for (result, (expected, found)) in expected.iter().zip(found).enumerate() {
            let differs = |(a, b): (&f64, &f64)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
            if let Some(element) = expected.iter().zip(found).position(differs) {
                return Some((result, element));
            }
        }
        None
    }
}
