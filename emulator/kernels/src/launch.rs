//! A trial's tensors as bytes, through a program, and back.

use crate::gpu::{Gpu, Tensor};
use candlewick_core::DType;
use candlewick_core::op::PackedFactor;
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
pub fn launch(trial: &Trial, program: &Program, gpu: &mut dyn Gpu) -> Result<Memory, String> {
    let alignment = program.alignment as usize;
    let mut inputs: Vec<Tensor> =
        trial.inputs().iter().map(|input| placed(input.dtype, &input.memory, input.start, alignment)).collect();
    if let Some(PackedFactor { input, k, n, .. }) = trial.case().op.packed_factor() {
        let mut packed = [placed(trial.inputs()[input].dtype, &vec![f64::NAN; k * n], 0, alignment)];
        let program = pack(&trial.case().op).ok_or("no program packs")?;
        gpu.run(&program, std::slice::from_ref(&inputs[input]), &mut packed)?;
        [inputs[input]] = packed;
    }
    let place = |output: &candlewick_verify::Tensor| placed(output.dtype, &output.memory, output.start, alignment);
    let mut outputs: Vec<Tensor> = trial.outputs().iter().map(place).collect();
    gpu.run(program, &inputs, &mut outputs)?;
    let memory = trial.outputs().iter().zip(&outputs).map(|(output, written)| {
        let before = written.start - output.start * output.dtype.bytes();
        decoded(output.dtype, &written.memory[before..])
    });
    Ok(memory.collect())
}

/// Elements as bytes, with as many before them that element `start` lies at an odd multiple of `alignment`.
fn placed(dtype: DType, memory: &[f64], start: usize, alignment: usize) -> Tensor {
    let offset = start * dtype.bytes();
    let before = (alignment + COARSE - offset % COARSE) % COARSE;
    let mut bytes = vec![0; before];
    for &value in memory {
        match dtype {
            DType::F32 => bytes.extend((value as f32).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f64(value).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f64(value).to_le_bytes()),
            DType::U32 => bytes.extend((value as u32).to_le_bytes()),
            DType::U8 => bytes.push(value as u8),
        }
    }
    Tensor { memory: bytes, start: before + offset }
}

fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let two = |x: &[u8]| u16::from_le_bytes([x[0], x[1]]);
    let four = |x: &[u8]| u32::from_le_bytes([x[0], x[1], x[2], x[3]]);
    let value = |x: &[u8]| match dtype {
        DType::F32 => f32::from_bits(four(x)).into(),
        DType::F16 => f16::from_bits(two(x)).to_f64(),
        DType::BF16 => bf16::from_bits(two(x)).to_f64(),
        DType::U32 => four(x).into(),
        DType::U8 => x[0].into(),
    };
    bytes.chunks_exact(dtype.bytes()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_no_better_aligned_than_asked_for() {
        let memory: Vec<f64> = (0..100).map(f64::from).collect();
        for start in 60..80 {
            for alignment in [2, 16] {
                let tensor = placed(DType::F16, &memory, start, alignment);
                assert_eq!(tensor.start % (2 * alignment), alignment);
                assert_eq!(decoded(DType::F16, &tensor.memory[tensor.start..]), memory[start..]);
            }
        }
    }
}
