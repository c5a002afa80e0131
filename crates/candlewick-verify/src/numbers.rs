//! Numbers of any dtype. Tensors hold theirs as f64, which is exact; here they become what the library takes, and back.

use candlewick::plan::Tensor as PlanTensor;
use candlewick::{Buffer, DType, Element, Input, Memory, Output, Plan, Result, Stream};
use half::{bf16, f16};
use std::ops::Range;

/// Numbers of one dtype in the host's memory.
pub(crate) enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

/// One expression for the vector of whichever dtype.
macro_rules! on_each {
    ($numbers:expr, $vector:ident => $body:expr) => {
        match $numbers {
            Numbers::F32($vector) => $body,
            Numbers::F16($vector) => $body,
            Numbers::BF16($vector) => $body,
            Numbers::U32($vector) => $body,
            Numbers::U8($vector) => $body,
        }
    };
}

impl Numbers {
    /// Of these values, which are numbers of the dtype.
    pub(crate) fn new(dtype: DType, values: &[f64]) -> Self {
        fn all<T: Element>(values: &[f64]) -> Vec<T> {
            values.iter().map(|&value| T::from_f64(value)).collect()
        }
        match dtype {
            DType::F32 => Numbers::F32(all(values)),
            DType::F16 => Numbers::F16(all(values)),
            DType::BF16 => Numbers::BF16(all(values)),
            DType::U32 => Numbers::U32(all(values)),
            DType::U8 => Numbers::U8(all(values)),
        }
    }

    pub(crate) fn to_f64(&self) -> Vec<f64> {
        on_each!(self, numbers => numbers.iter().map(|number| number.to_f64()).collect())
    }

    /// A part of them as an input.
    pub(crate) fn input(&self, range: Range<usize>) -> Input<'_> {
        on_each!(self, numbers => (&numbers[range]).into())
    }

    /// A part of them as an output.
    pub(crate) fn output(&mut self, range: Range<usize>) -> Output<'_> {
        on_each!(self, numbers => (&mut numbers[range]).into())
    }

    /// Copies all of them to a buffer of as many.
    pub(crate) fn write(&self, stream: &mut Stream, buffer: &mut Buffer) -> Result<()> {
        on_each!(self, numbers => stream.write(buffer, numbers))
    }

    /// Replaces all of them by a buffer's.
    pub(crate) fn read(&mut self, stream: &mut Stream, buffer: &Buffer) -> Result<()> {
        on_each!(self, numbers => stream.read(buffer, numbers))
    }

    /// Loads all of them as a constant of a plan.
    pub(crate) fn load_into(&self, plan: &mut Plan, constant: PlanTensor) -> Result<()> {
        on_each!(self, numbers => plan.load(constant, numbers))
    }

    /// Writes all of them as an input or a state of a plan.
    pub(crate) fn write_into(&self, plan: &mut Plan, tensor: PlanTensor) -> Result<()> {
        on_each!(self, numbers => plan.write(tensor, numbers))
    }

    /// Replaces all of them by a tensor of a plan.
    pub(crate) fn read_from(&mut self, plan: &mut Plan, tensor: PlanTensor) -> Result<()> {
        on_each!(self, numbers => plan.read(tensor, numbers))
    }

    /// Copies all of them to the start of a tape's memory.
    pub(crate) fn store(&self, stream: &mut Stream, memory: &Memory) -> Result<()> {
        on_each!(self, numbers => stream.store(memory, 0, numbers))
    }

    /// Replaces all of them by the first numbers of a tape's memory.
    pub(crate) fn load(&mut self, stream: &mut Stream, memory: &Memory) -> Result<()> {
        on_each!(self, numbers => stream.load(memory, 0, numbers))
    }
}
