//! An operation onto Candle's stream.

use super::stream;
use crate::compute::{Compute, MOST_INPUTS, Source};
use crate::error::{self, Result};
use crate::operand::{candle_dtype, span};
use arrayvec::ArrayVec;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use candle_core::{CudaStorage, Layout, Storage};
use candlewick::Op;
use candlewick_core::backend::Stream as _;

impl Compute for CudaStorage {
    fn of(storage: &Storage) -> Option<&Self> {
        match storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        }
    }

    fn wrap(self) -> Storage {
        Storage::Cuda(self)
    }

    fn run<const N: usize>(op: Op, inputs: &[Source<'_, Self>], lengths: [usize; N]) -> Result<[Self; N]> {
        let tensors: ArrayVec<_, MOST_INPUTS> = inputs.iter().map(tensor).collect();
        let Some((first, _)) = tensors.first() else { unreachable!("every operation reads something") };
        let device = first.device();
        stream::with(device, |ours, candles| {
            // Refuses sizes that no memory has before any is taken.
            let kernel = ours.prepare(&op, None)?;
            let dtype = candle_dtype(op.dtype());
            let mut memory = ArrayVec::<Self, N>::new();
            for length in lengths {
                // The driver has no memory without bytes: an empty tensor gets one element that nobody reads.
                let shape = length.max(1).into();
                // SAFETY: what Candle asks for is that the memory is written before it is read, and the launches below write
                // every output whole (the contract's fifth promise; no operation here accumulates), in order with whatever
                // reads it later. If one fails, nobody reads.
                memory.push(unsafe { device.alloc_uninit(&shape, dtype)? });
            }

            // Where Candle's tensors know of several streams: what waits for others now, and tells them on drop.
            let mut reads = ArrayVec::<SyncOnDrop<'_>, MOST_INPUTS>::new();
            let mut writes = ArrayVec::<SyncOnDrop<'_>, N>::new();
            let gpu = ours.device();
            let mut inputs = ArrayVec::<_, MOST_INPUTS>::new();
            for (storage, layout) in &tensors {
                let (address, read) = address(storage, candles)?;
                reads.push(read);
                let first = address + (layout.start_offset() * op.dtype().bytes()) as u64;
                // SAFETY: the tensor's elements lie there, at a multiple of their size, as Candle says. Candle frees them in
                // order with the stream that they were made on: that is this one, or one that waits for what `read` records.
                inputs.push(unsafe { gpu.input(first, span(layout), op.dtype()) });
            }
            let mut outputs = ArrayVec::<_, N>::new();
            for (storage, length) in memory.iter_mut().zip(lengths) {
                let (address, write) = address_mut(storage, candles)?;
                writes.push(write);
                // SAFETY: the memory was made for so many elements on this stream, nobody else has it yet, and it is freed in
                // order with the stream.
                outputs.push(unsafe { gpu.output(address, length, op.dtype()) });
            }
            ours.encode(&kernel, &inputs, &mut outputs)?;
            drop((inputs, outputs, reads, writes));
            Ok(memory.into_inner().unwrap_or_else(|_| unreachable!("one for each length")))
        })
    }
}

fn tensor<'a>(source: &Source<'a, CudaStorage>) -> (&'a CudaStorage, &'a Layout) {
    match *source {
        Source::Tensor(storage, layout) => (storage, layout),
        Source::Packed(_) => unreachable!("nothing is packed on CUDA"),
    }
}

/// Where a memory begins, to be read on `stream`.
fn address<'a>(storage: &'a CudaStorage, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    match &storage.slice {
        CudaStorageSlice::F32(numbers) => Ok(numbers.device_ptr(stream)),
        CudaStorageSlice::F16(numbers) => Ok(numbers.device_ptr(stream)),
        CudaStorageSlice::BF16(numbers) => Ok(numbers.device_ptr(stream)),
        _ => Err(error::unsupported("read", "a tensor", storage.dtype())),
    }
}

/// Where a memory begins, to be written on `stream`.
fn address_mut<'a>(storage: &'a mut CudaStorage, stream: &'a CudaStream) -> Result<(u64, SyncOnDrop<'a>)> {
    let dtype = storage.dtype();
    match &mut storage.slice {
        CudaStorageSlice::F32(numbers) => Ok(numbers.device_ptr_mut(stream)),
        CudaStorageSlice::F16(numbers) => Ok(numbers.device_ptr_mut(stream)),
        CudaStorageSlice::BF16(numbers) => Ok(numbers.device_ptr_mut(stream)),
        _ => Err(error::unsupported("write", "a tensor", dtype)),
    }
}
