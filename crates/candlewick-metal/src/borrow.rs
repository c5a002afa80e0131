//! Metal buffers of somebody else's, as tensors of our streams: no copy.

use crate::memory::Shared;
use crate::runtime::arena::Block;
use crate::runtime::objects::{DEVICE, MetalBuffer, Sendable};
use crate::{Device, Input, Output};
use candlewick_core::{DType, Error, Op, Result};
use objc2::rc::Retained;
use objc2_metal::MTLResource;
use std::fmt;
use std::sync::Arc;

/// A Metal buffer that somebody else owns. It may be private to the GPU.
///
/// It is kept until pending work is done, even where this is dropped before. The encoders that bind it make it resident.
pub struct Borrowed {
    /// Taken when this is dropped.
    block: Option<Arc<Block>>,
    shared: Arc<Shared>,
}

impl Device {
    /// Borrows a buffer of this GPU. One buffer is borrowed once at a time per stream.
    ///
    /// # Errors
    /// [`Error::WrongOwner`] for a buffer of another GPU.
    ///
    /// # Safety
    /// From the first operation that is given a part of it until the stream was waited for, nobody else writes what the
    /// stream reads, and nobody else touches what it writes: neither the CPU nor another queue.
    pub unsafe fn borrow(&self, buffer: Retained<MetalBuffer>) -> Result<Borrowed> {
        let shared = self.shared();
        if !std::ptr::eq(Retained::as_ptr(&buffer.device()), shared.metal()) {
            return Err(Error::WrongOwner {
                op: "borrow",
                what: "the buffer",
                owner: "another GPU".into(),
                here: format!("metal device {}", shared.id()),
                remedy: "open the device that made the buffer, with `Device::from_metal`",
            });
        }
        // SAFETY: a Metal buffer is safe from several threads; its contents are the caller's promise.
        let buffer = unsafe { Sendable::new(buffer) };
        Ok(Borrowed { block: Some(Arc::new(Block::foreign(buffer))), shared: shared.clone() })
    }
}

impl Borrowed {
    /// `elements` numbers from a byte on, to be read. `None` where they leave the buffer.
    pub fn input(&self, dtype: DType, offset_bytes: usize, elements: usize) -> Option<Input<'_>> {
        let block = self.block.as_deref()?;
        let end = elements.checked_mul(dtype.bytes())?.checked_add(offset_bytes)?;
        let fits = end <= block.bytes() && offset_bytes.is_multiple_of(dtype.bytes());
        fits.then(|| Input::of_block(block, offset_bytes, elements, dtype, self.shared.id()))
    }

    /// The same, to be written.
    pub fn output(&mut self, dtype: DType, offset_bytes: usize, elements: usize) -> Option<Output<'_>> {
        self.input(dtype, offset_bytes, elements).map(Output::new)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.shared.bury(Box::new(block));
            // MPS's views keep the buffer alive as well.
            self.shared.raise_generation();
        }
    }
}

impl fmt::Debug for Borrowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Borrowed({} bytes)", self.block.as_deref().map_or(0, Block::bytes))
    }
}

/// An engine that works on the CPU was given memory of the GPU's.
#[cold]
pub(crate) fn unreachable_by_cpu(op: &Op) -> Error {
    let message = format!("{}: this engine works on the CPU, which does not reach a borrowed buffer", op.name());
    Error::Backend { device: DEVICE.into(), message }
}
