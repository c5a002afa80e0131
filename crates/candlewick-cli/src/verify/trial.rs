//! One case: prepared once, run on any engine, judged against the f64 reference.

use super::cases::{Case, Storage, Values};
use super::tensors::{SENTINEL, Tensor};
use candlewick::op::PackedFactor;
use candlewick::{Buffer, Device, Element, Engine, Input, Op, Output, Result, Scalar, Stream, reference};
use std::fmt;

/// A case with its tensors and the right answers.
pub(super) struct Trial<T> {
    op: Op,
    bound: f64,
    storage: Storage,
    inputs: Vec<Tensor<T>>,
    outputs: Vec<Tensor<T>>,
    expected: Vec<Vec<f64>>,
}

/// The whole memory around each output after a run.
pub(super) type Memory<T> = Vec<Vec<T>>;

/// What one engine did.
pub(super) struct Run<T> {
    pub(super) memory: Memory<T>,
    pub(super) threads: usize,
}

/// What is wrong with a result.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// An error beyond the bound.
    Error { output: &'static str, at: usize, expected: f64, found: f64, error: f64 },
    /// NaN, an infinity or a number where something else is right.
    Class { output: &'static str, at: usize, expected: f64, found: f64 },
    /// Memory beside the output changed.
    Outside { output: &'static str, at: isize, found: f64 },
    /// The engine refused the case.
    Refused(String),
}

impl<T: Element> Trial<T> {
    /// # Errors
    /// A descriptor that contradicts itself.
    pub(super) fn new(case: &Case) -> Result<Self> {
        let mut rng = case.rng();
        let operands = case.op.operands()?;
        let special = rng.below(operands.inputs.len());
        let inputs: Vec<Tensor<T>> = operands
            .inputs
            .iter()
            .enumerate()
            .map(|(i, operand)| {
                Tensor::input(case, operand, i == special || case.values == Values::NonFinite, &mut rng)
            })
            .collect();
        let outputs: Vec<Tensor<T>> =
            operands.outputs.iter().map(|operand| Tensor::output(case, operand, &mut rng)).collect();
        let expected = run_reference(&case.op, &as_f64(&inputs), as_f64(&outputs))?;
        Ok(Trial { op: case.op, bound: case.op.error_bound(), storage: case.storage, inputs, outputs, expected })
    }

    /// Runs on one engine.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn run(&self, device: &Device, stream: &mut Stream, engine: Engine) -> Result<Run<T>> {
        let kernel = stream.prepare_with(self.op, engine)?;
        let factor = self.op.packed_factor();
        let packed = factor.map(|PackedFactor { input, .. }| stream.pack(&kernel, self.inputs[input].slice().into()));
        let packed = packed.transpose()?;
        let mut memory: Memory<T> = self.outputs.iter().map(|output| output.memory.clone()).collect();
        match self.storage {
            Storage::Slices => {
                let mut inputs: Vec<Input<'_>> = self.inputs.iter().map(|input| input.slice().into()).collect();
                if let (Some(PackedFactor { input, .. }), Some(packed)) = (factor, &packed) {
                    inputs[input] = packed.into();
                }
                let mut outputs: Vec<Output<'_>> = memory
                    .iter_mut()
                    .zip(&self.outputs)
                    .map(|(memory, output)| (&mut memory[output.start..output.start + output.span]).into())
                    .collect();
                stream.encode(&kernel, &inputs, &mut outputs)?;
                stream.wait()?;
            }
            Storage::Buffers => {
                let read = buffers(device, stream, &self.inputs)?;
                let mut written = buffers(device, stream, &self.outputs)?;
                let mut inputs: Vec<Input<'_>> = read
                    .iter()
                    .zip(&self.inputs)
                    .map(|(buffer, input)| buffer.slice(input.start..input.start + input.span))
                    .collect();
                if let (Some(PackedFactor { input, .. }), Some(packed)) = (factor, &packed) {
                    inputs[input] = packed.into();
                }
                let mut outputs: Vec<Output<'_>> = written
                    .iter_mut()
                    .zip(&self.outputs)
                    .map(|(buffer, output)| buffer.slice_mut(output.start..output.start + output.span))
                    .collect();
                stream.encode(&kernel, &inputs, &mut outputs)?;
                for (buffer, memory) in written.iter().zip(&mut memory) {
                    stream.read(buffer, memory)?;
                }
            }
        }
        Ok(Run { memory, threads: kernel.threads() })
    }

    /// The largest error of a result, relative to the output's magnitude.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn judge(&self, memory: &Memory<T>) -> std::result::Result<f64, Fault> {
        let mut worst = 0.0f64;
        for (index, output) in self.outputs.iter().enumerate() {
            self.judge_outside(output, &memory[index])?;
            let (expected, found) = (&self.expected[index], &memory[index][output.start..]);
            let finite = |x: f64| x.is_finite().then_some(x.abs());
            let mut magnitude = largest(output.places.iter().filter_map(|&at| finite(expected[at]))).max(self.floor());
            let (mut error, mut error_at) = (0.0, 0);
            for &at in &output.places {
                let (expected, found) = (expected[at], found[at].to_f64());
                if !same_class(T::from_f64(expected).to_f64(), found) && !self.rounds_to::<T>(expected, found) {
                    return Err(Fault::Class { output: output.name, at, expected, found });
                }
                let distance = (found - expected).abs();
                if distance.is_finite() && distance > error {
                    (error, error_at) = (distance, at);
                }
            }
            if error > self.bound * magnitude {
                magnitude = magnitude.max(self.uncancelled(index));
            }
            if error > self.bound * magnitude {
                let (expected, found) = (expected[error_at], found[error_at].to_f64());
                let error = error / magnitude;
                return Err(Fault::Error { output: output.name, at: error_at, expected, found, error });
            }
            worst = worst.max(error / magnitude);
        }
        Ok(worst)
    }

    /// The memory before, after and between an output's rows is as it was.
    fn judge_outside(&self, output: &Tensor<T>, memory: &[T]) -> std::result::Result<(), Fault> {
        let mut outside = vec![true; memory.len()];
        for at in &output.places {
            outside[output.start + at] = false;
        }
        for (i, found) in memory.iter().enumerate().filter(|&(i, _)| outside[i]) {
            if found.to_f64() != SENTINEL {
                let at = i as isize - output.start as isize;
                return Err(Fault::Outside { output: output.name, at, found: found.to_f64() });
            }
        }
        Ok(())
    }

    /// Whether an infinity and a number just below it differ by no more than the bound.
    fn rounds_to<U: Element>(&self, expected: f64, found: f64) -> bool {
        [1.0 - self.bound, 1.0 + self.bound]
            .iter()
            .any(|factor| same_class(U::from_f64(expected * factor).to_f64(), found))
    }

    /// Below this magnitude an output's rounding is absolute, and processors may take inputs of f32 and bf16 that are
    /// smaller than every normal number for zero (dot products of bf16 pairs on x86 do).
    fn floor(&self) -> f64 {
        match T::DTYPE {
            candlewick::DType::F16 => 2f64.powi(-14),
            _ => 1e-25,
        }
    }

    /// The magnitude of an output if its terms did not cancel. The sum of a single 1x1 product may come out near zero
    /// by chance, and rounding errors are relative to the terms.
    fn uncancelled(&self, output: usize) -> f64 {
        let square = |tensors: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            tensors.into_iter().map(|tensor| tensor.iter().map(|x| x * x).collect()).collect()
        };
        let (inputs, outputs) = (as_f64(&self.inputs), as_f64(&self.outputs));
        let squared = |scalar: Scalar| Scalar(scalar.get() * scalar.get());
        let op = match self.op {
            Op::MatMul(op) => candlewick::MatMul { alpha: squared(op.alpha), beta: squared(op.beta), ..op }.into(),
            Op::LoraLinear(op) => candlewick::LoraLinear { scale: squared(op.scale), ..op }.into(),
            Op::LoraLinearBackward(op) => {
                Op::LoraLinearBackward(candlewick::LoraLinear { scale: squared(op.scale), ..op })
            }
            Op::LoraDelta(op) => candlewick::LoraDelta { scale: squared(op.scale), ..op }.into(),
            Op::LoraDeltaBackward(op) => {
                Op::LoraDeltaBackward(candlewick::LoraDelta { scale: squared(op.scale), ..op })
            }
            Op::SoftmaxBackward(op) => {
                // dx = scale y (dy - sum(y dy)): both terms are at most this.
                let (y, dy) = (finite_largest(&inputs[0]), finite_largest(&inputs[1]));
                return f64::from(op.scale.get()).abs() * y * dy;
            }
            Op::RmsNormBackward(op) => return rms_norm_terms(&op, &inputs)[output],
            _ => return 0.0,
        };
        // The terms of a sum of products with random signs add up as their squares do.
        let sums = run_reference(&op, &square(inputs), square(outputs));
        let places = self.outputs[output].places.iter();
        // Of the output alone: its gaps hold large sentinels.
        sums.map_or(0.0, |sums| largest(places.map(|&at| sums[output][at]).filter(|x| x.is_finite())).sqrt())
    }
}

/// The largest r · weight · dy, and the largest root of the sum of (dy · x · r)²: where a row has one column, the two
/// terms of dx differ by eps alone.
fn rms_norm_terms(op: &candlewick::RmsNorm, inputs: &[Vec<f64>]) -> [f64; 2] {
    let (mut dx, mut dweight) = (0.0f64, vec![0.0f64; op.cols]);
    for row in 0..op.rows {
        let (x, dy) = (&inputs[0][row * op.x_row..], &inputs[2][row * op.y_row..]);
        let mean = (0..op.cols).map(|j| x[j] * x[j]).sum::<f64>() / op.cols as f64;
        let r = 1.0 / (mean + f64::from(op.eps.get())).sqrt();
        for (j, dweight) in dweight.iter_mut().enumerate() {
            let term = (r * inputs[1][j] * dy[j]).abs();
            dx = dx.max(if term.is_finite() { term } else { 0.0 });
            *dweight += (dy[j] * x[j] * r).powi(2);
        }
    }
    [dx, finite_largest(&dweight).sqrt()]
}

fn buffers<T: Element>(device: &Device, stream: &mut Stream, tensors: &[Tensor<T>]) -> Result<Vec<Buffer>> {
    tensors
        .iter()
        .map(|tensor| {
            let mut buffer = device.alloc(T::DTYPE, tensor.memory.len())?;
            stream.write(&mut buffer, &tensor.memory)?;
            Ok(buffer)
        })
        .collect()
}

fn as_f64<T: Element>(tensors: &[Tensor<T>]) -> Vec<Vec<f64>> {
    tensors.iter().map(Tensor::to_f64).collect()
}

fn run_reference(op: &Op, inputs: &[Vec<f64>], mut outputs: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let mut written: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(op, &inputs, &mut written)?;
    Ok(outputs)
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

fn finite_largest(values: &[f64]) -> f64 {
    largest(values.iter().filter(|x| x.is_finite()).map(|x| x.abs()))
}

fn same_class(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite()) || (a.is_infinite() && a == b)
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
            Fault::Refused(error) => write!(f, "refused: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
