//! A sequence of operations that is recorded once and replayed often: what a plan becomes on a backend.
//!
//! Tensors of a tape lie in memories that one stream owns, and are named by place. Places of one memory may meet: a tape
//! runs in order, as far as anyone can see, and an output may be an input where [`crate::Op::in_place`] says so. Two outputs
//! of an operation may be columns of one tensor.

use crate::backend::{Argument, Packing, Signature};
use crate::op::Operand;
use crate::{DType, Error, Result};
use std::ops::Range;

/// Where a tensor of a tape lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the tape's memories.
    pub memory: usize,
    /// Bytes from its start; a multiple of the element's size.
    pub offset: usize,
    /// Elements from the first to the last that is touched, strides included.
    pub elements: usize,
    /// Of its elements.
    pub dtype: DType,
    /// How it was packed, if it was.
    pub packing: Option<Packing>,
}

/// One operation of a tape.
#[derive(Clone, Debug)]
pub struct Step<K> {
    /// What runs, prepared on the stream that records.
    pub kernel: K,
    /// What it reads, in the order of [`crate::Op::operands`].
    pub inputs: Vec<Place>,
    /// What it writes.
    pub outputs: Vec<Place>,
    /// For each output the step behind the last that touches it: nobody reads it then, and a backend that runs the steps up
    /// to there as one may leave it unwritten. `usize::MAX`, or none: it stays.
    pub until: Vec<usize>,
}

impl<K> Step<K> {
    /// One whose outputs stay.
    pub fn new(kernel: K, inputs: Vec<Place>, outputs: Vec<Place>) -> Self {
        Step { kernel, inputs, outputs, until: Vec::new() }
    }

    /// The step behind the last that touches an output.
    pub fn until(&self, output: usize) -> usize {
        self.until.get(output).copied().unwrap_or(usize::MAX)
    }
}

impl Place {
    /// The bytes of its memory that it may touch.
    pub fn bytes(&self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.elements.saturating_mul(self.dtype.bytes()))
    }

    /// Whether two places share a byte.
    pub fn meets(&self, other: &Place) -> bool {
        let (a, b) = (self.bytes(), other.bytes());
        self.memory == other.memory && a.start < b.end && b.start < a.end
    }
}

impl Argument for Place {
    fn dtype(&self) -> DType {
        self.dtype
    }
    fn elements(&self) -> usize {
        self.elements
    }
    fn packing(&self) -> Option<Packing> {
        self.packing
    }
}

/// What every backend checks of a step before it records it; `sizes` are the memories' bytes.
///
/// # Errors
/// Places that are not what the kernel was prepared for, that leave their memory, are not aligned to their elements, or
/// meet an output.
pub fn check<K>(signature: &Signature, step: &Step<K>, sizes: &[usize]) -> Result<()> {
    signature.check(&step.inputs, &step.outputs)?;
    let op = signature.op();
    let operands = signature.inputs().iter().chain(signature.outputs());
    for (operand, place) in operands.zip(step.inputs.iter().chain(&step.outputs)) {
        let size = sizes.get(place.memory).copied().unwrap_or(0);
        if place.bytes().end > size || !place.offset.is_multiple_of(place.dtype.bytes()) {
            return Err(Error::Place {
                op: op.name(),
                operand: operand.name,
                first: place.offset,
                end: place.bytes().end,
                size,
            });
        }
    }
    for (o, output) in step.outputs.iter().enumerate() {
        // Equal spans of equal shapes have equal strides.
        let legal = |i: usize, input: &Place| {
            let spans = (signature.inputs()[i].span, signature.outputs()[o].span);
            op.in_place().contains(&(i, o)) && input.offset == output.offset && spans.0 == spans.1
        };
        let input = step.inputs.iter().enumerate().find(|(i, input)| input.meets(output) && !legal(*i, input));
        let earlier = signature.outputs().iter().zip(&step.outputs).take(o);
        let this = (&signature.outputs()[o], output);
        let other = earlier.clone().position(|other| other.1.meets(output) && !beside(other, this));
        let name = signature.outputs()[o].name;
        let with = input.map(|(i, _)| signature.inputs()[i].name).or(other.map(|at| signature.outputs()[at].name));
        if let Some(with) = with {
            return Err(Error::Overlap { op: op.name(), output: name, with });
        }
    }
    Ok(())
}

/// Whether two outputs are columns of one tensor, the rows of one in the gaps of the other.
fn beside(a: (&Operand, &Place), b: (&Operand, &Place)) -> bool {
    let (a, b) = if a.1.offset <= b.1.offset { (a, b) } else { (b, a) };
    let row = |operand: &Operand| match *operand.shape.sizes() {
        [rows, cols] if rows > 1 => Some(((operand.span - cols) / (rows - 1), cols)),
        _ => None,
    };
    let (Some((row, left)), Some((other, right))) = (row(a.0), row(b.0)) else { return false };
    let column = (b.1.offset - a.1.offset) / b.1.dtype.bytes() % row.max(1);
    a.1.dtype == b.1.dtype && row == other && left <= column && column + right <= row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::SiluMul;
    use crate::{Op, Softmax};

    fn place(offset: usize, elements: usize) -> Place {
        Place { memory: 0, offset, elements, dtype: DType::F32, packing: None }
    }

    #[test]
    fn steps_are_checked() {
        let signature = Signature::new(&Softmax::new(2, 4, DType::F32).into(), None).unwrap();
        let step = |x, y| Step::new((), vec![x], vec![y]);
        let message = |step| check(&signature, &step, &[64]).map_err(|error| error.to_string());
        assert_eq!(message(step(place(0, 8), place(32, 8))), Ok(()));
        assert_eq!(message(step(place(0, 8), place(0, 8))), Ok(()), "in place");
        assert!(message(step(place(0, 8), place(16, 8))).unwrap_err().contains("y and x"));
        assert!(message(step(place(0, 8), place(36, 8))).unwrap_err().contains("36..68"));
        assert!(message(step(place(2, 8), place(32, 8))).unwrap_err().contains("2..34"));
        let strided = Softmax { y_row: 5, ..Softmax::new(2, 4, DType::F32) };
        let signature = Signature::new(&strided.into(), None).unwrap();
        assert!(check(&signature, &step(place(0, 9), place(0, 9)), &[64]).is_err(), "other strides");
    }

    #[test]
    fn outputs_may_be_columns_of_one_tensor() {
        let op = SiluMul { gate_row: 6, up_row: 6, ..SiluMul::new(2, 3, DType::F32) };
        let written = |op: SiluMul, dgate: usize, dup: usize| {
            let signature = Signature::new(&Op::SiluMulBackward(op), None).unwrap();
            let span = |row| row + op.cols;
            let inputs = vec![place(256, span(op.gate_row)), place(320, span(op.up_row)), place(384, span(op.y_row))];
            let outputs = vec![place(4 * dgate, span(op.gate_row)), place(4 * dup, span(op.up_row))];
            check(&signature, &Step::new((), inputs, outputs), &[512])
        };
        for (dgate, dup) in [(0, 3), (3, 0), (9, 0), (1, 4)] {
            assert_eq!(written(op, dgate, dup), Ok(()), "{dgate} and {dup}");
        }
        for (dgate, dup) in [(0, 0), (0, 2), (0, 4), (2, 0), (6, 0)] {
            assert!(matches!(written(op, dgate, dup), Err(Error::Overlap { .. })), "{dgate} and {dup}");
        }
        let other = SiluMul { up_row: 7, ..op };
        assert!(matches!(written(other, 0, 3), Err(Error::Overlap { .. })), "other strides");
    }
}
