//! CPU tensors, read and written where they lie.

pub(crate) mod stream;

use crate::compute::{Compute, MOST_INPUTS, Source};
use crate::error::{self, Result};
use crate::operand::candle_dtype;
use arrayvec::ArrayVec;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cpu_backend::CpuDevice;
use candle_core::{CpuStorage, Storage};
use candlewick::{Input, Op, Output};

impl Compute for CpuStorage {
    fn of(storage: &Storage) -> Option<&Self> {
        match storage {
            Storage::Cpu(storage) => Some(storage),
            _ => None,
        }
    }

    fn wrap(self) -> Storage {
        Storage::Cpu(self)
    }

    fn run<const N: usize>(op: Op, inputs: &[Source<'_, Self>], lengths: [usize; N]) -> Result<[Self; N]> {
        let inputs = inputs.iter().map(input).collect::<Result<ArrayVec<_, MOST_INPUTS>>>()?;
        stream::with(|stream, _| {
            // Refuses sizes that no memory has before any is taken.
            let kernel = stream.prepare(op)?;
            let mut memory = [const { CpuStorage::F32(Vec::new()) }; N];
            for (memory, length) in memory.iter_mut().zip(lengths) {
                // SAFETY: what Candle asks for is that the memory is written before it is read, and `encode` writes every
                // output whole (the contract's fifth promise; no operation here accumulates). If it fails, nobody reads.
                *memory = unsafe { CpuDevice.alloc_uninit(&length.into(), candle_dtype(op.dtype()))? };
            }
            let mut outputs = Vec::with_capacity(N);
            for memory in &mut memory {
                outputs.push(output(memory)?);
            }
            stream.encode(&kernel, &inputs, &mut outputs)?;
            drop(outputs);
            // Candle reads a CPU tensor without asking.
            stream.wait()?;
            Ok(memory)
        })
    }
}

/// A tensor's memory from its first element on, or a packed operand.
pub(crate) fn input<'a>(source: &Source<'a, CpuStorage>) -> Result<Input<'a>> {
    // An empty view may start behind the end.
    fn from<T>(numbers: &[T], start: usize) -> &[T] {
        numbers.get(start..).unwrap_or_default()
    }
    let (storage, start) = match *source {
        Source::Tensor(storage, layout) => (storage, layout.start_offset()),
        Source::Packed(buffer) => return Ok(buffer.into()),
    };
    match storage {
        CpuStorage::F32(numbers) => Ok(from(numbers, start).into()),
        CpuStorage::F16(numbers) => Ok(from(numbers, start).into()),
        CpuStorage::BF16(numbers) => Ok(from(numbers, start).into()),
        other => Err(error::unsupported("read", "a tensor", other.dtype())),
    }
}

fn output(storage: &mut CpuStorage) -> Result<Output<'_>> {
    match storage {
        CpuStorage::F32(numbers) => Ok(numbers.as_mut_slice().into()),
        CpuStorage::F16(numbers) => Ok(numbers.as_mut_slice().into()),
        CpuStorage::BF16(numbers) => Ok(numbers.as_mut_slice().into()),
        other => Err(error::unsupported("write", "a tensor", other.dtype())),
    }
}
