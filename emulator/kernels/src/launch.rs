//! A trial's tensors as bytes, through a program, and back.

use crate::gpu::{Gpu, Tensor};
use candlewick_core::op::PackedFactor;
use candlewick_core::{DType, Element};
use candlewick_kernels::{Program, pack};
use candlewick_verify::{Memory, Trial};
use half::{bf16, f16};

/// Bytes that no alignment here is a multiple of.
const COARSE: usize = 64;

/// Runs a program of the trial's operation, on tensors that are no better aligned than the program asks for. Returns the
/// memory that [`Trial::judge`] takes.
///
/// # Errors
/// What the GPU says.
pub fn launch<T: Element>(trial: &Trial<T>, program: &Program, gpu: &mut dyn Gpu) -> Result<Memory<T>, String> {
    let alignment = program.alignment as usize;
    let mut inputs: Vec<Tensor> =
        trial.inputs().iter().map(|input| placed(&input.memory, input.start, alignment)).collect();
    if let Some(PackedFactor { input, k, n, .. }) = trial.case().op.packed_factor() {
        let mut packed = [placed(&vec![T::from_f64(f64::NAN); k * n], 0, alignment)];
        let program = pack(&trial.case().op).ok_or("no program packs")?;
        gpu.run(&program, std::slice::from_ref(&inputs[input]), &mut packed)?;
        [inputs[input]] = packed;
    }
    let fresh = trial.fresh();
    let starts = trial.outputs().iter().map(|output| output.start);
    let mut outputs: Vec<Tensor> =
        fresh.iter().zip(starts.clone()).map(|(memory, start)| placed(memory, start, alignment)).collect();
    gpu.run(program, &inputs, &mut outputs)?;
    let memory = outputs.iter().zip(starts).map(|(output, start)| {
        let before = output.start - start * T::DTYPE.bytes();
        decoded(&output.memory[before..])
    });
    Ok(memory.collect())
}

/// Elements as bytes, with as many before them that element `start` lies at an odd multiple of `alignment`.
fn placed<T: Element>(memory: &[T], start: usize, alignment: usize) -> Tensor {
    let offset = start * T::DTYPE.bytes();
    let before = (alignment + COARSE - offset % COARSE) % COARSE;
    let mut bytes = vec![0; before];
    for element in memory {
        let value = element.to_f64();
        match T::DTYPE {
            DType::F32 => bytes.extend((value as f32).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
        }
    }
    Tensor { memory: bytes, start: before + offset }
}

fn decoded<T: Element>(bytes: &[u8]) -> Vec<T> {
    let two = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let elements = bytes.chunks_exact(T::DTYPE.bytes());
    let value = |x: &[u8]| match T::DTYPE {
        DType::F32 => f32::from_le_bytes([x[0], x[1], x[2], x[3]]).into(),
        DType::F16 => f16::from_bits(two(x)).to_f64(),
        DType::BF16 => bf16::from_bits(two(x)).to_f64(),
    };
    elements.map(|bytes| T::from_f64(value(bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_no_better_aligned_than_asked_for() {
        let memory: Vec<f16> = (0..100).map(|i| f16::from_f64(f64::from(i))).collect();
        for start in 60..80 {
            for alignment in [2, 16] {
                let tensor = placed(&memory, start, alignment);
                assert_eq!(tensor.start % (2 * alignment), alignment);
                assert_eq!(decoded::<f16>(&tensor.memory[tensor.start..]), memory[start..]);
            }
        }
    }
}
