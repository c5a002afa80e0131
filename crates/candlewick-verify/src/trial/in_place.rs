//! Outputs on the memory of inputs, where the operation allows it: through a tape, as plans do it.

use super::{Fault, Memory, Trial, range};
use crate::cases;
use crate::numbers::Numbers;
use crate::tensor::Tensor;
use candlewick::{Engine, Result, Stream};
use candlewick_core::tape::{Place, Step};

impl Trial {
    /// The pairs of an input and an output whose layouts are equal and that may lie on each other.
    pub fn in_place(&self) -> Vec<(usize, usize)> {
        let op = &self.case.op;
        let layout = |tensor: &Tensor| (tensor.dtype, cases::of(op.class()).dims(op, tensor.name));
        let equal = |&(input, output): &(usize, usize)| layout(&self.inputs[input]) == layout(&self.outputs[output]);
        op.in_place().iter().copied().filter(equal).collect()
    }

    /// Runs on one engine with an output in the place of an input.
    ///
    /// # Errors
    /// What the library says.
    pub fn run_in_place(&self, stream: &mut Stream, engine: Engine, pair: (usize, usize)) -> Result<Memory> {
        let kernel = stream.prepare_with(self.case.op, engine)?;
        let (shared_input, shared_output) = pair;
        let mut outputs = self.outputs.clone();
        let values = &self.inputs[shared_input];
        outputs[shared_output].fill(values.places.iter().map(|at| values.slice()[*at]));
        // The memories of the outputs come first.
        let tensors: Vec<&Tensor> = outputs.iter().chain(&self.inputs).collect();
        let mut memories = Vec::new();
        for tensor in &tensors {
            let memory = stream.memory(tensor.memory.len() * tensor.dtype.bytes())?;
            Numbers::new(tensor.dtype, &tensor.memory).store(stream, &memory)?;
            memories.push(memory);
        }
        let place = |memory: usize| {
            let tensor = tensors[memory];
            let (offset, elements) = (tensor.start * tensor.dtype.bytes(), range(tensor).len());
            Place { memory, offset, elements, dtype: tensor.dtype, packing: None }
        };
        let input = |index| place(if index == shared_input { shared_output } else { outputs.len() + index });
        let (inputs, outputs_of) = ((0..self.inputs.len()).map(input), (0..outputs.len()).map(place));
        let step = Step::new(kernel, inputs.collect(), outputs_of.collect());
        let mut tape = stream.record(&memories, &[step])?;
        stream.replay(&mut tape)?;
        let mut written = Vec::new();
        for (output, memory) in outputs.iter().zip(&memories) {
            let mut numbers = Numbers::new(output.dtype, &output.memory);
            numbers.load(stream, memory)?;
            written.push(numbers.to_f64());
        }
        Ok(written)
    }

    /// A fault of a run with an output in the place of an input.
    pub(crate) fn fault_in_place(&self, (input, output): (usize, usize), fault: Fault) -> Fault {
        let (input, output) = (self.inputs[input].name, self.outputs[output].name);
        Fault::InPlace { input, output, fault: Box::new(fault) }
    }
}
