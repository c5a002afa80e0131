//! One case: its tensors and the right answers, run on any engine, or by whoever takes the tensors.

mod fault;
mod in_place;
mod judge;
#[cfg(test)]
mod tests;

pub use fault::Fault;
pub use judge::Deviation;

use crate::case::{Case, Hardware, Storage, Values};
use crate::cases;
use crate::numbers::Numbers;
use crate::rng::Rng;
use crate::tensor::{SENTINEL, Tensor, operand_places};
use candlewick::op::{Operand, PackedFactor};
use candlewick::{Buffer, Device, Engine, Input, Kernel, Op, Output, Result, Stream, reference};

/// A case with its tensors and the right answers.
pub struct Trial {
    case: Case,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    expected: Vec<Vec<f64>>,
    /// How many times the bound an error may be.
    slack: f64,
    /// Whether operations that have but one right answer must give it.
    exact: bool,
}

/// The whole memory around each output: before a run as [`Trial::fresh`] makes it, after it what is judged.
pub type Memory = Vec<Vec<f64>>;

/// What one engine did.
pub struct Run {
    /// The whole memory around each output.
    pub memory: Memory,
    /// Host threads that took part.
    pub threads: usize,
}

impl Trial {
    /// Makes the tensors, and the right answers by the f64 reference.
    ///
    /// # Errors
    /// A descriptor that contradicts itself.
    pub fn new(case: &Case) -> Result<Self> {
        let mut rng = case.rng();
        let operands = case.op.operands()?;
        let special = special(case, &operands.inputs, &mut rng);
        let mut inputs: Vec<Tensor> = (operands.inputs.iter().enumerate())
            .map(|(index, operand)| Tensor::input(case, operand, special == Some(index), &mut rng))
            .collect();
        derive(&case.op, &mut inputs);
        let mut outputs: Vec<Tensor> = (operands.outputs.iter().enumerate())
            .map(|(index, operand)| Tensor::output(case, operand, case.op.keeps_output(index), &mut rng))
            .collect();
        let expected = run_reference(&case.op, &as_f64(&inputs), as_f64(&outputs))?;
        for (index, output) in outputs.iter_mut().enumerate().filter(|(index, _)| !case.op.keeps_output(*index)) {
            // Where NaN is the right answer, NaN would hide an element that was not written.
            let poison = |at: &usize| if expected[index][*at].is_nan() { 2.0 * SENTINEL } else { f64::NAN };
            output.fill(output.places.iter().map(poison).collect::<Vec<_>>());
        }
        Ok(Trial { case: *case, inputs, outputs, expected, slack: 1.0, exact: true })
    }

    /// A trial on numbers that somebody else gave an operation: of its inputs, and of its outputs as they are before it,
    /// each as long as it spans. An error may be `slack` times the bound.
    ///
    /// # Errors
    /// A descriptor that contradicts itself, or too few numbers.
    pub(crate) fn given(op: Op, inputs: &[Vec<f64>], outputs: &[Vec<f64>], slack: f64, exact: bool) -> Result<Self> {
        let operands = op.operands()?;
        let expected = run_reference(&op, inputs, outputs.to_vec())?;
        let tensors = |operands: &[Operand], numbers: &[Vec<f64>]| -> Vec<Tensor> {
            operands
                .iter()
                .zip(numbers)
                .map(|(operand, numbers)| Tensor::given(&op, operand, numbers.clone()))
                .collect()
        };
        let (inputs, mut outputs) = (tensors(&operands.inputs, inputs), tensors(&operands.outputs, outputs));
        for output in &mut outputs {
            let kept: Vec<f64> = output.places.iter().map(|&at| output.memory[at]).collect();
            output.memory.fill(SENTINEL);
            output.fill(kept);
        }
        let case = Case { seed: 0, index: 0, op, values: Values::Ordinary, storage: Storage::Buffers };
        Ok(Trial { case, inputs, outputs, expected, slack, exact })
    }

    /// The offsets of an operand's elements from its first.
    pub(crate) fn places(op: &Op, operand: &Operand) -> Vec<usize> {
        operand_places(op, operand)
    }

    /// What the reference makes of the inputs, in the order of the operation; gaps are as before.
    pub(crate) fn expected(&self) -> &[Vec<f64>] {
        &self.expected
    }

    /// What is tried.
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// In the order of the operation; a packed operand is here as it is before it is packed.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// In the order of the operation, as they are before a run.
    pub fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }

    /// Memory for one run, for a launcher of one's own: an output starts where its tensor in [`Trial::outputs`] does.
    pub fn fresh(&self) -> Memory {
        self.outputs.iter().map(|output| output.memory.clone()).collect()
    }

    /// Runs on one engine.
    ///
    /// # Errors
    /// What the library says.
    pub fn run(&self, device: &Device, stream: &mut Stream, engine: Engine) -> Result<Run> {
        let kernel = stream.prepare_with(self.case.op, engine)?;
        let memory = match (self.case.storage, Hardware::of(device)) {
            (Storage::Slices, Hardware::Cpu) => self.run_on_slices(stream, &kernel)?,
            _ => self.run_in_buffers(device, stream, &kernel)?,
        };
        Ok(Run { memory, threads: kernel.threads() })
    }

    fn run_on_slices(&self, stream: &mut Stream, kernel: &Kernel) -> Result<Memory> {
        let (read, mut written) = (numbers(&self.inputs), numbers(&self.outputs));
        let inputs = read.iter().zip(&self.inputs).map(|(numbers, input)| numbers.input(range(input))).collect();
        let mut outputs: Vec<Output<'_>> =
            written.iter_mut().zip(&self.outputs).map(|(numbers, output)| numbers.output(range(output))).collect();
        self.encode(stream, kernel, inputs, &mut outputs)?;
        stream.wait()?;
        Ok(written.iter().map(Numbers::to_f64).collect())
    }

    fn run_in_buffers(&self, device: &Device, stream: &mut Stream, kernel: &Kernel) -> Result<Memory> {
        let read = buffers(device, stream, &self.inputs)?;
        let mut written = buffers(device, stream, &self.outputs)?;
        let inputs = read.iter().zip(&self.inputs).map(|(buffer, input)| buffer.slice(range(input))).collect();
        let mut outputs: Vec<Output<'_>> =
            written.iter_mut().zip(&self.outputs).map(|(buffer, output)| buffer.slice_mut(range(output))).collect();
        self.encode(stream, kernel, inputs, &mut outputs)?;
        let mut memory = numbers(&self.outputs);
        for (numbers, buffer) in memory.iter_mut().zip(&written) {
            numbers.read(stream, buffer)?;
        }
        Ok(memory.iter().map(Numbers::to_f64).collect())
    }

    /// Packs what the descriptor says is packed, and encodes.
    fn encode(
        &self,
        stream: &mut Stream,
        kernel: &Kernel,
        inputs: Vec<Input<'_>>,
        outputs: &mut [Output<'_>],
    ) -> Result<()> {
        let packed = match self.case.op.packed_factor() {
            Some(PackedFactor { input, .. }) => Some((input, stream.pack(kernel, inputs[input])?)),
            None => None,
        };
        let mut inputs = inputs;
        if let Some((input, packed)) = &packed {
            inputs[*input] = packed.into();
        }
        stream.encode(kernel, &inputs, outputs)
    }
}

/// Which input holds the large or small numbers: any that takes them.
fn special(case: &Case, inputs: &[Operand], rng: &mut Rng) -> Option<usize> {
    let operation = cases::of(case.op.class());
    let takes = |index: &usize| operation.takes(&case.op, &inputs[*index], case.values);
    let candidates: Vec<usize> = (0..inputs.len()).filter(takes).collect();
    if candidates.is_empty() { None } else { Some(rng.pick(&candidates)) }
}

/// Replaces what follows from other inputs.
fn derive(op: &Op, inputs: &mut [Tensor]) {
    let mut values = as_f64(inputs);
    cases::of(op.class()).derive(op, &mut values);
    for (input, values) in inputs.iter_mut().zip(&values) {
        input.fill(input.places.iter().map(|&at| values[at]).collect::<Vec<_>>());
    }
}

/// Where an operand lies in its memory.
fn range(tensor: &Tensor) -> std::ops::Range<usize> {
    tensor.start..tensor.start + tensor.span
}

/// Each tensor's whole memory, as the library takes it.
fn numbers(tensors: &[Tensor]) -> Vec<Numbers> {
    tensors.iter().map(|tensor| Numbers::new(tensor.dtype, &tensor.memory)).collect()
}

/// A buffer for each tensor's whole memory.
fn buffers(device: &Device, stream: &mut Stream, tensors: &[Tensor]) -> Result<Vec<Buffer>> {
    let buffer = |tensor: &Tensor| {
        let mut buffer = device.alloc(tensor.dtype, tensor.memory.len())?;
        Numbers::new(tensor.dtype, &tensor.memory).write(stream, &mut buffer)?;
        Ok(buffer)
    };
    tensors.iter().map(buffer).collect()
}

/// The tensors as the reference reads them.
fn as_f64(tensors: &[Tensor]) -> Vec<Vec<f64>> {
    tensors.iter().map(|tensor| tensor.slice().to_vec()).collect()
}

/// What the reference makes of `inputs` and of `outputs` as they are before.
pub(crate) fn run_reference(op: &Op, inputs: &[Vec<f64>], mut outputs: Vec<Vec<f64>>) -> Result<Vec<Vec<f64>>> {
    let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let mut written: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(op, &inputs, &mut written)?;
    Ok(outputs)
}
