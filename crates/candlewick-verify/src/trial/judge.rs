//! How a result is judged: its error against the bound, NaN and infinities in their places, memory beside it untouched.

use super::{Fault, Memory, Trial, as_f64, run_reference};
use crate::cases::{self, Terms, finite_largest};
use crate::tensor::{SENTINEL, Tensor};
use candlewick::{DType, Element};

impl<T: Element> Trial<T> {
    /// The largest error of a result, relative to the output's magnitude.
    ///
    /// # Errors
    /// The first fault.
    pub fn judge(&self, memory: &Memory<T>) -> Result<f64, Fault> {
        let mut worst = 0.0f64;
        for (index, output) in self.outputs.iter().enumerate() {
            judge_outside(output, &memory[index])?;
            worst = worst.max(self.judge_output(index, &memory[index][output.start..])?);
        }
        Ok(worst)
    }

    /// As [`Trial::judge`], and every element is the right answer rounded to nearest even: for operations whose sums have
    /// one term, where the bound would let pass what is cut off.
    ///
    /// # Errors
    /// The first fault.
    pub fn judge_exactly(&self, memory: &Memory<T>) -> Result<(), Fault> {
        self.judge(memory)?;
        for ((output, expected), memory) in self.outputs.iter().zip(&self.expected).zip(memory) {
            for &at in &output.places {
                let (expected, found) = (T::from_f64(expected[at]).to_f64(), memory[output.start + at].to_f64());
                if found != expected && !(found.is_nan() && expected.is_nan()) {
                    return Err(Fault::Rounding { output: output.name, at, expected, found });
                }
            }
        }
        Ok(())
    }

    fn judge_output(&self, index: usize, found: &[T]) -> Result<f64, Fault> {
        let (output, expected, bound) = (&self.outputs[index], &self.expected[index], self.case.op.error_bound());
        let mut magnitude = finite_largest(output.places.iter().map(|&at| &expected[at])).max(floor(T::DTYPE));
        let (mut error, mut error_at) = (0.0, 0);
        for &at in &output.places {
            let (expected, found) = (expected[at], found[at].to_f64());
            if !same_class(T::from_f64(expected).to_f64(), found) && !rounds_to::<T>(expected, bound, found) {
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
            let (expected, found) = (expected[error_at], found[error_at].to_f64());
            return Err(Fault::Error { output: output.name, at: error_at, expected, found, error: error / magnitude });
        }
        Ok(error / magnitude)
    }

    /// The magnitude of an output if its terms did not cancel: rounding errors are relative to the terms.
    fn uncancelled(&self, output: usize) -> f64 {
        let square = |tensors: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            tensors.into_iter().map(|tensor| tensor.iter().map(|x| x * x).collect()).collect()
        };
        let inputs = as_f64(&self.inputs);
        match cases::of(self.case.op.class()).terms(&self.case.op, &inputs) {
            Terms::DoNotCancel => 0.0,
            Terms::Magnitudes(magnitudes) => magnitudes[output],
            Terms::Squares(op) => {
                let sums = run_reference(&op, &square(inputs), square(as_f64(&self.outputs)));
                // Of the output alone: its gaps hold large sentinels.
                let places = self.outputs[output].places.iter();
                sums.map_or(0.0, |sums| finite_largest(places.map(|&at| &sums[output][at])).sqrt())
            }
        }
    }
}

/// The memory before, after and between an output's rows is as it was.
fn judge_outside<T: Element>(output: &Tensor<T>, memory: &[T]) -> Result<(), Fault> {
    let mut outside = vec![true; memory.len()];
    for at in &output.places {
        outside[output.start + at] = false;
    }
    match (0..memory.len()).find(|&i| outside[i] && memory[i].to_f64() != SENTINEL) {
        None => Ok(()),
        Some(i) => {
            let at = i as isize - output.start as isize;
            Err(Fault::Outside { output: output.name, at, found: memory[i].to_f64() })
        }
    }
}

/// Below this magnitude an output's rounding is absolute, and processors may take inputs of f32 and bf16 that are
/// smaller than every normal number for zero (dot products of bf16 pairs on x86 do).
fn floor(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-14),
        DType::F32 | DType::BF16 => 1e-25,
    }
}

/// Whether an infinity and a number just below it differ by no more than the bound.
fn rounds_to<T: Element>(expected: f64, bound: f64, found: f64) -> bool {
    [1.0 - bound, 1.0 + bound].iter().any(|factor| same_class(T::from_f64(expected * factor).to_f64(), found))
}

/// Whether both are NaN, both the same infinity, or both numbers.
fn same_class(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite()) || (a.is_infinite() && a == b)
}
