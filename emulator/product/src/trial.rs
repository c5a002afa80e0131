//! One case, run on one engine of the Metal backend and judged against the f64 reference, as `candlewick verify` does.

use super::cases::{Case, Values};
use super::tensors::{SENTINEL, Tensor};
use candlewick::backend::{Device as _, Engine, Stream as _};
use candlewick::op::PackedFactor;
use candlewick::{DType, Element, LoraDelta, LoraLinear, MatMul, Op, Result, RmsNorm, Scalar, reference};
use candlewick_metal::{Buffer, Device, Stream};

/// A case with its tensors and the right answers.
pub(crate) struct Trial<T> {
    op: Op,
    bound: f64,
    inputs: Vec<Tensor<T>>,
    outputs: Vec<Tensor<T>>,
    expected: Vec<Vec<f64>>,
}

/// The whole memory around each output after a run.
pub(crate) type Memory<T> = Vec<Vec<T>>;

impl<T: Element> Trial<T> {
    pub(crate) fn new(case: &Case) -> Result<Self> {
        let mut rng = case.rng();
        let operands = case.op.operands()?;
        let special = rng.below(operands.inputs.len());
        let mut inputs = Vec::new();
        for (i, operand) in operands.inputs.iter().enumerate() {
            let special = i == special || case.values == Values::NonFinite;
            inputs.push(Tensor::input(case, operand, special, &mut rng));
        }
        let outputs: Vec<Tensor<T>> =
            operands.outputs.iter().map(|operand| Tensor::output(case, operand, &mut rng)).collect();
        let expected = run_reference(&case.op, &as_f64(&inputs), as_f64(&outputs))?;
        Ok(Trial { op: case.op, bound: case.op.error_bound(), inputs, outputs, expected })
    }

    /// Runs on one engine, on parts of larger buffers at odd offsets.
    pub(crate) fn run(&self, device: &Device, stream: &mut Stream, engine: Engine) -> Result<Memory<T>> {
        let kernel = stream.prepare(&self.op, Some(engine))?;
        let read = buffers(device, stream, &self.inputs)?;
        let mut written = buffers(device, stream, &self.outputs)?;
        let slices = read.iter().zip(&self.inputs);
        let mut inputs: Vec<_> =
            slices.map(|(buffer, input)| buffer.slice(input.start..input.start + input.span)).collect();
        let packed = match self.op.packed_factor() {
            Some(PackedFactor { input, .. }) => Some((input, stream.pack(&kernel, inputs[input])?)),
            None => None,
        };
        if let Some((input, packed)) = &packed {
            inputs[*input] = packed.into();
        }
        let slices = written.iter_mut().zip(&self.outputs);
        let mut outputs: Vec<_> =
            slices.map(|(buffer, output)| buffer.slice_mut(output.start..output.start + output.span)).collect();
        stream.encode(&kernel, &inputs, &mut outputs)?;
        let mut memory: Memory<T> = self.outputs.iter().map(|output| output.memory.clone()).collect();
        for (buffer, memory) in written.iter().zip(&mut memory) {
            stream.read(buffer, memory)?;
        }
        Ok(memory)
    }

    /// The largest error of a result, relative to the output's magnitude, or the first fault.
    pub(crate) fn judge(&self, memory: &Memory<T>) -> std::result::Result<f64, String> {
        let mut worst = 0.0f64;
        for (index, output) in self.outputs.iter().enumerate() {
            self.judge_outside(output, &memory[index])?;
            let (expected, found) = (&self.expected[index], &memory[index][output.start..]);
            let finite = |x: f64| x.is_finite().then_some(x.abs());
            let mut magnitude = largest(output.places.iter().filter_map(|&at| finite(expected[at]))).max(floor::<T>());
            let (mut error, mut error_at) = (0.0, 0);
            for &at in &output.places {
                let (expected, found) = (expected[at], found[at].to_f64());
                if !same_class(T::from_f64(expected).to_f64(), found) && !self.rounds_to(expected, found) {
                    return Err(format!("{}[{at}] is {found:e}, not {expected:e}", output.name));
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
                let (name, error, bound) = (output.name, error / magnitude, self.bound);
                return Err(format!(
                    "{name}[{error_at}] is {found:e}, not {expected:e}: error {error:.2e} > {bound:.2e}"
                ));
            }
            worst = worst.max(error / magnitude);
        }
        Ok(worst)
    }

    /// The memory before, after and between an output's rows is as it was.
    fn judge_outside(&self, output: &Tensor<T>, memory: &[T]) -> std::result::Result<(), String> {
        let mut outside = vec![true; memory.len()];
        for at in &output.places {
            outside[output.start + at] = false;
        }
        match (0..memory.len()).find(|&i| outside[i] && memory[i].to_f64() != SENTINEL) {
            None => Ok(()),
            Some(i) => {
                let (at, found) = (i as isize - output.start as isize, memory[i].to_f64());
                Err(format!("{}[{at}] lies beside the output and was overwritten with {found:e}", output.name))
            }
        }
    }

    /// Whether an infinity and a number just below it differ by no more than the bound.
    fn rounds_to(&self, expected: f64, found: f64) -> bool {
        let factors = [1.0 - self.bound, 1.0 + self.bound];
        factors.iter().any(|factor| same_class(T::from_f64(expected * factor).to_f64(), found))
    }

    /// The magnitude of an output if its terms did not cancel: rounding errors are relative to the terms.
    fn uncancelled(&self, output: usize) -> f64 {
        let square = |tensors: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            tensors.into_iter().map(|tensor| tensor.iter().map(|x| x * x).collect()).collect()
        };
        let (inputs, outputs) = (as_f64(&self.inputs), as_f64(&self.outputs));
        let squared = |scalar: Scalar| Scalar(scalar.get() * scalar.get());
        let op = match self.op {
            Op::MatMul(op) => MatMul { alpha: squared(op.alpha), beta: squared(op.beta), ..op }.into(),
            Op::LoraLinear(op) => LoraLinear { scale: squared(op.scale), ..op }.into(),
            Op::LoraLinearBackward(op) => Op::LoraLinearBackward(LoraLinear { scale: squared(op.scale), ..op }),
            Op::LoraDelta(op) => LoraDelta { scale: squared(op.scale), ..op }.into(),
            Op::LoraDeltaBackward(op) => Op::LoraDeltaBackward(LoraDelta { scale: squared(op.scale), ..op }),
            Op::SoftmaxBackward(op) => {
                // dx = scale y (dy - sum(y dy)): both terms are at most this.
                let (y, dy) = (finite_largest(&inputs[0]), finite_largest(&inputs[1]));
                return f64::from(op.scale.get()).abs() * y * dy;
            }
            Op::RmsNormBackward(op) => return rms_norm_terms(&op, &inputs)[output],
            _ => return 0.0,
        };
        // The terms of a sum of products with random signs add up as their squares do.
        let places = self.outputs[output].places.iter();
        let sums = run_reference(&op, &square(inputs), square(outputs));
        sums.map_or(0.0, |sums| largest(places.map(|&at| sums[output][at]).filter(|x| x.is_finite())).sqrt())
    }
}

/// The largest r · weight · dy, and the largest root of the sum of (dy · x · r)².
fn rms_norm_terms(op: &RmsNorm, inputs: &[Vec<f64>]) -> [f64; 2] {
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

/// Below this magnitude an output's rounding is absolute.
fn floor<T: Element>() -> f64 {
    if T::DTYPE == DType::F16 { 2f64.powi(-14) } else { 1e-25 }
}

fn buffers<T: Element>(device: &Device, stream: &mut Stream, tensors: &[Tensor<T>]) -> Result<Vec<Buffer>> {
    let buffer = |tensor: &Tensor<T>| {
        let mut buffer = device.alloc(T::DTYPE, tensor.memory.len())?;
        stream.write(&mut buffer, &tensor.memory)?;
        Ok(buffer)
    };
    tensors.iter().map(buffer).collect()
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
