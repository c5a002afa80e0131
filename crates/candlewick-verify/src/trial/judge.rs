//! How a result is judged: its error against the bound, NaN and infinities in their places, memory beside it untouched.

use super::{Fault, Memory, Trial, as_f64, run_reference};
use crate::cases::{self, Terms, finite_largest};
use crate::tensor::{SENTINEL, Tensor};
use candlewick::{DType, Op};

/// How far a right result is from the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// The largest error, relative to the magnitude of its output.
    pub error: f64,
    /// What it may be.
    pub bound: f64,
}

impl Deviation {
    /// The share of the bound that is used up.
    pub fn share(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.bound }
    }
}

impl Trial {
    /// What comes closest to its bound.
    ///
    /// # Errors
    /// The first fault.
    pub fn judge(&self, memory: &Memory) -> Result<Deviation, Fault> {
        let mut worst = Deviation::default();
        for (index, output) in self.outputs.iter().enumerate() {
            judge_outside(output, &memory[index])?;
            // Elements that alternate, and are of magnitudes that have nothing to do with each other.
            let columns = cases::of(self.case.op.class()).columns(&self.case.op, output.name);
            for column in 0..columns {
                let places: Vec<usize> = output.places.iter().copied().skip(column).step_by(columns).collect();
                let deviation = self.judge_places(index, &places, &memory[index][output.start..])?;
                if worst.bound == 0.0 || deviation.share() > worst.share() {
                    worst = deviation;
                }
            }
        }
        if self.exact && cases::of(self.case.op.class()).exact() {
            self.judge_rounding(memory)?;
        }
        Ok(worst)
    }

    /// As [`Trial::judge`], and every element is the right answer rounded to nearest even: for operations whose sums have
    /// one term, where the bound would let pass what is cut off.
    ///
    /// # Errors
    /// The first fault.
    pub fn judge_exactly(&self, memory: &Memory) -> Result<(), Fault> {
        self.judge(memory)?;
        self.judge_rounding(memory)
    }

    fn judge_rounding(&self, memory: &Memory) -> Result<(), Fault> {
        for ((output, expected), memory) in self.outputs.iter().zip(&self.expected).zip(memory) {
            for &at in &output.places {
                let (expected, found) = (output.dtype.round(expected[at]), memory[output.start + at]);
                let vanishes = output.dtype != DType::F16 && expected.abs().max(found.abs()) < floor(output.dtype);
                if found != expected && !(found.is_nan() && expected.is_nan()) && !vanishes {
                    return Err(Fault::Rounding { output: output.name, at, expected, found });
                }
            }
        }
        Ok(())
    }

    fn judge_places(&self, index: usize, places: &[usize], found: &[f64]) -> Result<Deviation, Fault> {
        let (output, expected) = (&self.outputs[index], &self.expected[index]);
        let mut bound = self.slack * bound(&self.case.op, output.dtype);
        if !self.exact {
            bound = bound.max(self.slack * output.dtype.unit_roundoff());
        }
        let mut magnitude = finite_largest(places.iter().map(|&at| &expected[at])).max(floor(output.dtype));
        let (mut error, mut error_at) = (0.0, 0);
        for &at in places {
            let (expected, found) = (expected[at], found[at]);
            let same = |expected: f64| same_class(output.dtype.round(expected), found);
            // An infinity and a number just below it differ by no more than the bound.
            if !same(expected) && !same(expected * (1.0 - bound)) && !same(expected * (1.0 + bound)) {
                return Err(Fault::Class { output: output.name, at, expected, found });
            }
            let distance = (found - expected).abs();
            if distance.is_finite() && distance > error {
                (error, error_at) = (distance, at);
            }
        }
        if error > bound * magnitude {
            magnitude = magnitude.max(self.uncancelled(index));
        }
        if error > bound * magnitude {
            let (expected, found) = (expected[error_at], found[error_at]);
            return Err(Fault::Error { output: output.name, at: error_at, expected, found, error: error / magnitude });
        }
        Ok(Deviation { error: error / magnitude, bound })
    }

    /// The magnitude of an output if its terms did not cancel: rounding errors are relative to the terms.
    fn uncancelled(&self, output: usize) -> f64 {
        let (inputs, outputs) = (as_f64(&self.inputs), as_f64(&self.outputs));
        match cases::of(self.case.op.class()).terms(&self.case.op, &inputs, &outputs) {
            Terms::DoNotCancel => 0.0,
            Terms::Magnitudes(magnitudes) => magnitudes[output],
            Terms::Squares(op) => {
                let sums = run_reference(&op, &squares(&self.inputs), squares(&self.outputs));
                // Of the output alone: its gaps hold large sentinels.
                let places = self.outputs[output].places.iter();
                sums.map_or(0.0, |sums| finite_largest(places.map(|&at| &sums[output][at])).sqrt())
            }
        }
    }
}

/// What the error of an output may be: the operation's bound, with the rounding of the output's own dtype.
fn bound(op: &Op, dtype: DType) -> f64 {
    let (bound, narrow) = (op.error_bound(), 2.0 * op.dtype().unit_roundoff());
    // Operations that write F32 alone have that rounding in their bound, whatever they read.
    if op.dtype() == dtype || bound < narrow { bound } else { bound - narrow + 2.0 * dtype.unit_roundoff() }
}

/// The numbers that are computed with, squared.
fn squares(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    let square = |tensor: &Tensor| -> Vec<f64> {
        let power = if tensor.dtype.is_float() { 2 } else { 1 };
        tensor.slice().iter().map(|x| x.powi(power)).collect()
    };
    tensors.iter().map(square).collect()
}

/// The memory before, after and between an output's rows is as it was.
fn judge_outside(output: &Tensor, memory: &[f64]) -> Result<(), Fault> {
    let mut outside = vec![true; memory.len()];
    for at in &output.places {
        outside[output.start + at] = false;
    }
    match (0..memory.len()).find(|&i| outside[i] && memory[i] != SENTINEL) {
        None => Ok(()),
        Some(i) => {
            let at = i as isize - output.start as isize;
            Err(Fault::Outside { output: output.name, at, found: memory[i] })
        }
    }
}

/// Below this magnitude an output's rounding is absolute, and processors may take inputs of f32 and bf16 that are
/// smaller than every normal number for zero (dot products of bf16 pairs on x86 do).
fn floor(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-14),
        _ => 1e-25,
    }
}

/// Whether both are NaN, both the same infinity, or both numbers.
fn same_class(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite()) || (a.is_infinite() && a == b)
}
