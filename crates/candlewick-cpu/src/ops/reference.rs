//! The f64 reference as an engine. It allocates and is slow: it is here to be compared with.

use super::{Call, Program};
use candlewick_core::backend::{Argument, Packing};
use candlewick_core::op::{Operand, PackedFactor};
use candlewick_core::{DType, Element, Op, reference};
use half::{bf16, f16};

pub(crate) struct Reference {
    op: Op,
    outputs: Vec<Operand>,
}

impl Reference {
    pub(crate) fn new(op: &Op) -> Self {
        Reference { op: *op, outputs: op.operands().map(|operands| operands.outputs).unwrap_or_default() }
    }
}

impl Program for Reference {
    fn threads(&self) -> usize {
        1
    }

    fn workspace(&self) -> usize {
        0
    }

    fn packing(&self) -> Option<Packing> {
        None
    }

    unsafe fn run(&self, call: &mut Call<'_, '_, '_>) {
        // SAFETY: an argument's memory holds as many elements of its dtype as it says.
        let widen = |pointer: *const u8, elements, dtype| unsafe { widen(pointer, elements, dtype) };
        let inputs: Vec<Vec<f64>> =
            call.inputs.iter().map(|input| widen(input.pointer(), input.elements(), input.dtype())).collect();
        // Only what the operation spans is written back.
        let mut outputs: Vec<Vec<f64>> = (call.outputs.iter_mut().zip(&self.outputs))
            .map(|(output, operand)| widen(output.pointer(), operand.span, operand.dtype))
            .collect();
        let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let mut slices: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        reference::run(&self.op, &inputs, &mut slices).expect("the arguments were checked");
        for ((output, operand), values) in call.outputs.iter_mut().zip(&self.outputs).zip(&outputs) {
            let pointer = output.pointer();
            // SAFETY: the output holds `span` elements, and this call has it alone.
            unsafe {
                match operand.dtype {
                    DType::F32 => narrow::<f32>(values, pointer),
                    DType::F16 => narrow::<f16>(values, pointer),
                    DType::BF16 => narrow::<bf16>(values, pointer),
                    DType::U32 => narrow::<u32>(values, pointer),
                    DType::U8 => narrow::<u8>(values, pointer),
                }
            }
        }
    }

    unsafe fn pack(&self, _: &PackedFactor, _: crate::Input<'_>, _: *mut u8, _: &crate::pool::Pool) {}
}

/// # Safety
/// `elements` numbers of `dtype` can be read.
unsafe fn widen(pointer: *const u8, elements: usize, dtype: DType) -> Vec<f64> {
    fn all<T: Element>(numbers: &[T]) -> Vec<f64> {
        numbers.iter().map(|number| number.to_f64()).collect()
    }
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::F32 => all(std::slice::from_raw_parts(pointer.cast::<f32>(), elements)),
            DType::F16 => all(std::slice::from_raw_parts(pointer.cast::<f16>(), elements)),
            DType::BF16 => all(std::slice::from_raw_parts(pointer.cast::<bf16>(), elements)),
            DType::U32 => all(std::slice::from_raw_parts(pointer.cast::<u32>(), elements)),
            DType::U8 => all(std::slice::from_raw_parts(pointer, elements)),
        }
    }
}

/// # Safety
/// As many numbers of `T` can be written.
unsafe fn narrow<T: Element>(values: &[f64], pointer: *mut u8) {
    for (i, &value) in values.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { pointer.cast::<T>().add(i).write(T::from_f64(value)) };
    }
}
