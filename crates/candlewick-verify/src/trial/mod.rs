//! One case: its tensors and the right answers, run on any engine, or by whoever takes the tensors.

mod fault;
mod judge;
#[cfg(test)]
mod tests;

pub use fault::Fault;

use crate::case::{Case, Hardware, Storage, Values};
use crate::tensor::Tensor;
use candlewick::op::PackedFactor;
use candlewick::{Buffer, Device, Element, Engine, Input, Kernel, Op, Output, Result, Stream, reference};

/// A case with its tensors and the right answers.
pub struct Trial<T> {
    case: Case,
    inputs: Vec<Tensor<T>>,
    outputs: Vec<Tensor<T>>,
    expected: Vec<Vec<f64>>,
}

/// The whole memory around each output: before a run as [`Trial::fresh`] makes it, after it what is judged.
pub type Memory<T> = Vec<Vec<T>>;

/// What one engine did.
pub struct Run<T> {
    /// The whole memory around each output.
    pub memory: Memory<T>,
    /// Host threads that took part.
    pub threads: usize,
}

impl<T: Element> Trial<T> {
    /// Makes the tensors, and the right answers by the f64 reference.
    ///
    /// # Errors
    /// A descriptor that contradicts itself.
    pub fn new(case: &Case) -> Result<Self> {
        let mut rng = case.rng();
        let operands = case.op.operands()?;
        let special = rng.below(operands.inputs.len());
        let mut inputs = Vec::new();
        for (i, operand) in operands.inputs.iter().enumerate() {
            let special = i == special || case.values == Values::NonFinite;
            inputs.push(Tensor::input(case, operand, special, &mut rng));
        }
        let outputs: Vec<_> = operands.outputs.iter().map(|operand| Tensor::output(case, operand, &mut rng)).collect();
        let expected = run_reference(&case.op, &as_f64(&inputs), as_f64(&outputs))?;
        Ok(Trial { case: *case, inputs, outputs, expected })
    }

    /// What is tried.
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// In the order of the operation; a packed operand is here as it is before it is packed.
    pub fn inputs(&self) -> &[Tensor<T>] {
        &self.inputs
    }

    /// In the order of the operation, as they are before a run.
    pub fn outputs(&self) -> &[Tensor<T>] {
        &self.outputs
    }

    /// Memory for one run, for a launcher of one's own: an output starts where its tensor in [`Trial::outputs`] does.
    pub fn fresh(&self) -> Memory<T> {
        self.outputs.iter().map(|output| output.memory.clone()).collect()
    }

    /// Runs on one engine.
    ///
    /// # Errors
    /// What the library says.
    pub fn run(&self, device: &Device, stream: &mut Stream, engine: Engine) -> Result<Run<T>> {
        let kernel = stream.prepare_with(self.case.op, engine)?;
        let memory = match (self.case.storage, Hardware::of(device)) {
            (Storage::Slices, Hardware::Cpu) => self.run_on_slices(stream, &kernel)?,
            _ => self.run_in_buffers(device, stream, &kernel)?,
        };
        Ok(Run { memory, threads: kernel.threads() })
    }

    fn run_on_slices(&self, stream: &mut Stream, kernel: &Kernel) -> Result<Memory<T>> {
        let mut memory = self.fresh();
        let inputs = self.inputs.iter().map(|input| input.slice().into()).collect();
        let mut outputs: Vec<Output<'_>> = memory
            .iter_mut()
            .zip(&self.outputs)
            .map(|(memory, output)| (&mut memory[output.start..output.start + output.span]).into())
            .collect();
        self.encode(stream, kernel, inputs, &mut outputs)?;
        stream.wait()?;
        Ok(memory)
    }

    fn run_in_buffers(&self, device: &Device, stream: &mut Stream, kernel: &Kernel) -> Result<Memory<T>> {
        let read = buffers(device, stream, &self.inputs)?;
        let mut written = buffers(device, stream, &self.outputs)?;
        let inputs = read
            .iter()
            .zip(&self.inputs)
            .map(|(buffer, input)| buffer.slice(input.start..input.start + input.span))
            .collect();
        let mut outputs: Vec<Output<'_>> = written
            .iter_mut()
            .zip(&self.outputs)
            .map(|(buffer, output)| buffer.slice_mut(output.start..output.start + output.span))
            .collect();
        self.encode(stream, kernel, inputs, &mut outputs)?;
        let mut memory = self.fresh();
        for (buffer, memory) in written.iter().zip(&mut memory) {
            stream.read(buffer, memory)?;
        }
        Ok(memory)
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

/// A buffer for each tensor's whole memory.
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
