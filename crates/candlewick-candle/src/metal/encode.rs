//! An operation into Candle's open encoder.

use super::kernels::{self, Dispatch};
use crate::compute::{Compute, MOST_INPUTS, Source};
use crate::error::{self, Result};
use crate::operand::{candle_dtype, span};
use arrayvec::ArrayVec;
use candle_core::backend::BackendStorage;
use candle_core::{Layout, MetalStorage, Storage};
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder};
use candlewick::{DType, Op};
use candlewick_core::backend::{Argument, Packing};
use candlewick_metal::SlotMemory;
use std::sync::Arc;

/// The most tensors of an operation, outputs included.
const MOST_TENSORS: usize = MOST_INPUTS + 3;
/// The most memories that the dispatches of one operation share: a dispatch leaves one or two for later ones.
const MOST_WORKSPACES: usize = 16;

/// A tensor as the signature sees it.
struct Given {
    dtype: DType,
    elements: usize,
}

impl Argument for Given {
    fn dtype(&self) -> DType {
        self.dtype
    }
    fn elements(&self) -> usize {
        self.elements
    }
    fn packing(&self) -> Option<Packing> {
        None
    }
}

/// A buffer, and where in it a tensor begins, in bytes.
type Place<'a> = (&'a Buffer, usize);

impl Compute for MetalStorage {
    fn of(storage: &Storage) -> Option<&Self> {
        match storage {
            Storage::Metal(storage) => Some(storage),
            _ => None,
        }
    }

    fn wrap(self) -> Storage {
        Storage::Metal(self)
    }

    fn run<const N: usize>(op: Op, inputs: &[Source<'_, Self>], lengths: [usize; N]) -> Result<[Self; N]> {
        let tensors: ArrayVec<_, MOST_INPUTS> = inputs.iter().map(tensor).collect();
        let Some((first, _)) = tensors.first() else { unreachable!("every operation reads something") };
        let (device, dtype) = (first.device(), first.dtype());
        let kernel = kernels::get(device, &op)?;
        let given = |(storage, layout): &(&Self, &Layout)| given(&op, storage.dtype(), span(layout));
        let given = tensors.iter().map(given).collect::<Result<ArrayVec<_, MOST_INPUTS>>>()?;
        kernel.signature.check(&given, &lengths.map(|elements| Given { dtype: op.dtype(), elements }))?;

        // All memory first: the encoder comes with Candle's lock.
        let mut outputs = ArrayVec::<Self, N>::new();
        for length in lengths {
            let buffer = device.new_buffer(length, dtype, op.name())?;
            outputs.push(MetalStorage::new(buffer, device.clone(), length, dtype));
        }
        let mut workspaces = ArrayVec::<Arc<Buffer>, MOST_WORKSPACES>::new();
        for bytes in &kernel.workspaces {
            workspaces.push(device.new_buffer(*bytes, candle_core::DType::U8, op.name())?);
        }
        {
            let start = |layout: &Layout| layout.start_offset() * op.dtype().bytes();
            let mut places: ArrayVec<Place<'_>, MOST_TENSORS> =
                tensors.iter().map(|(storage, layout)| (storage.buffer(), start(layout))).collect();
            let sixteen = places.iter().all(|(_, offset)| offset.is_multiple_of(16));
            places.extend(outputs.iter().map(|output| (output.buffer(), 0)));
            let dispatches = kernel.dispatches(sixteen);
            if !dispatches.is_empty() {
                let encoder = device.command_encoder()?;
                dispatches.iter().for_each(|dispatch| encode(encoder.as_ref(), dispatch, &places, &workspaces));
            }
        }
        // The workspaces go back to Candle's pool here: whoever gets them next is ordered after these dispatches.
        Ok(outputs.into_inner().unwrap_or_else(|_| unreachable!("one for each length")))
    }
}

fn tensor<'a>(source: &Source<'a, MetalStorage>) -> (&'a MetalStorage, &'a Layout) {
    match *source {
        Source::Tensor(storage, layout) => (storage, layout),
        Source::Packed(_) => unreachable!("nothing is packed on Metal"),
    }
}

fn given(op: &Op, dtype: candle_core::DType, elements: usize) -> Result<Given> {
    let known = DType::ALL.into_iter().find(|known| candle_dtype(*known) == dtype);
    let dtype = known.ok_or_else(|| error::unsupported(op.name(), "a tensor", dtype))?;
    Ok(Given { dtype, elements })
}

/// Binds and launches. A slot that the kernel writes is announced as an output, every other one as an input: Candle puts a
/// barrier in where that asks for one.
fn encode(encoder: &ComputeCommandEncoder, dispatch: &Dispatch, places: &[Place<'_>], workspaces: &[Arc<Buffer>]) {
    let place = |memory| match memory {
        SlotMemory::Tensor(index) => Some(places[index]),
        SlotMemory::Workspace(index) => Some((&*workspaces[index], 0)),
        SlotMemory::Unused => None,
    };
    // A slot that the kernel does not touch is given what it writes anyway: that adds nothing to wait for.
    let result = dispatch.slots.iter().find(|slot| slot.writes).and_then(|slot| place(slot.memory));
    encoder.set_compute_pipeline_state(&dispatch.pipeline);
    for (index, slot) in dispatch.slots.iter().enumerate() {
        let Some((buffer, start)) = place(slot.memory).or(result) else { continue };
        if slot.writes {
            encoder.set_output_buffer(index, Some(buffer), start + slot.offset);
        } else {
            encoder.set_input_buffer(index, Some(buffer), start + slot.offset);
        }
    }
    encoder.set_bytes_directly(dispatch.slots.len(), dispatch.params.len(), dispatch.params.as_ptr().cast());
    encoder.dispatch_thread_groups(dispatch.groups, dispatch.threads);
}
