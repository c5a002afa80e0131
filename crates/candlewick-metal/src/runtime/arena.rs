//! Device memory: a few large untracked buffers, and parts of them.
//!
//! One Metal buffer per tensor would cost an object, a page and a place in the residency set each. Metal does not track
//! hazards here: [`super::hazard`] does, by byte range.

use super::dispatch::Place;
use super::objects::{DEVICE, MetalBuffer, MetalDevice, ResidencySet, Sendable};
use candlewick_core::free_list::FreeList;
use candlewick_core::{Error, Result};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLAllocation, MTLBuffer, MTLDevice, MTLResidencySet, MTLResourceOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a part begins: constants and 16-byte vectors may begin there on every GPU (Metal feature set tables, "minimum
/// constant buffer offset alignment": 256 bytes at most).
const ALIGNMENT: usize = 256;

/// One Metal buffer.
pub(crate) struct Block {
    buffer: Sendable<Retained<MetalBuffer>>,
    /// `contents` never changes: asked once. Null where the CPU may not reach it.
    contents: *mut u8,
    /// A name for its first byte: two blocks never share a byte, and their names may collide.
    address: u64,
    bytes: usize,
    /// Tells blocks apart for as long as the process runs, unlike addresses.
    id: u64,
}

// SAFETY: a buffer's address and length never change, and Metal's buffers are safe from several threads; what is read and
// written through `contents` is ordered by whoever does it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Somebody else's buffer, which may be private to the GPU.
    pub(crate) fn foreign(buffer: Sendable<Retained<MetalBuffer>>) -> Self {
        let (address, bytes) = (buffer.gpuAddress(), buffer.length());
        Block { buffer, contents: std::ptr::null_mut(), address, bytes, id: next_id() }
    }

    pub(crate) fn buffer(&self) -> &MetalBuffer {
        &self.buffer
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Null for a foreign block.
    pub(crate) fn contents(&self) -> *mut u8 {
        self.contents
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

/// A part of a block. Given back with [`Arena::free`], by the device.
pub(crate) struct Part {
    pub(crate) block: Arc<Block>,
    pub(crate) offset: usize,
    bytes: usize,
}

impl Part {
    /// Its first byte, as the CPU sees it.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.block.contents.wrapping_add(self.offset)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(crate) fn place(&self) -> Place<'_> {
        Place { block: &self.block, offset: self.offset }
    }
}

struct Slab {
    block: Arc<Block>,
    free: FreeList,
}

/// Every block of a device.
pub(crate) struct Arena {
    device: Sendable<Retained<MetalDevice>>,
    /// Keeps the blocks where the GPU reaches them without being told per command buffer. macOS 15 and later; before,
    /// Metal does it for every buffer that an encoder binds.
    residency: Option<Sendable<Retained<ResidencySet>>>,
    slabs: Vec<Slab>,
    block_bytes: usize,
}

impl Arena {
    /// An arena of blocks of at least `block_bytes`.
    pub(crate) fn new(
        device: Sendable<Retained<MetalDevice>>,
        residency: Option<Sendable<Retained<ResidencySet>>>,
        block_bytes: usize,
    ) -> Self {
        Arena { device, residency, slabs: Vec::new(), block_bytes }
    }

    /// A part of at least `bytes` and one more: even an empty tensor at its end has an address inside the block.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Part> {
        let bytes = bytes.checked_add(ALIGNMENT).ok_or_else(|| out_of_memory(bytes))? / ALIGNMENT * ALIGNMENT;
        for slab in &mut self.slabs {
            if let Some(offset) = slab.free.take(bytes) {
                return Ok(Part { block: slab.block.clone(), offset, bytes });
            }
        }
        let block = self.new_block(bytes.max(self.block_bytes))?;
        let mut free = FreeList::new(block.bytes);
        let offset = free.take(bytes).ok_or_else(|| out_of_memory(bytes))?;
        self.slabs.push(Slab { block: block.clone(), free });
        Ok(Part { block, offset, bytes })
    }

    /// Takes a part back, and gives its block back to the system where nothing else is in it. The last block of the
    /// ordinary size stays.
    ///
    /// Returns whether a block went.
    pub(crate) fn free(&mut self, part: Part) -> bool {
        let Some(at) = self.slabs.iter().position(|slab| slab.block.id == part.block.id) else { return false };
        let slab = &mut self.slabs[at];
        slab.free.give(part.offset, part.bytes);
        let ordinary = self.slabs.iter().filter(|slab| slab.block.bytes == self.block_bytes).count();
        let slab = &self.slabs[at];
        if !slab.free.is_whole() || (slab.block.bytes == self.block_bytes && ordinary == 1) {
            return false;
        }
        let slab = self.slabs.swap_remove(at);
        if let Some(residency) = &self.residency {
            let allocation: &ProtocolObject<dyn MTLAllocation> = ProtocolObject::from_ref(slab.block.buffer());
            residency.removeAllocation(allocation);
            residency.commit();
        }
        true
    }

    /// Bytes taken from the system.
    pub(crate) fn bytes(&self) -> usize {
        self.slabs.iter().map(|slab| slab.block.bytes).sum()
    }

    fn new_block(&mut self, bytes: usize) -> Result<Arc<Block>> {
        if bytes > self.device.maxBufferLength() {
            return Err(out_of_memory(bytes));
        }
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        let Some(buffer) = self.device.newBufferWithLength_options(bytes, options) else {
            return Err(out_of_memory(bytes));
        };
        let contents = buffer.contents().as_ptr().cast();
        if let Some(residency) = &self.residency {
            residency.addAllocation(ProtocolObject::from_ref(&*buffer));
            residency.commit();
        }
        // SAFETY: a Metal buffer is safe from several threads.
        let buffer = unsafe { Sendable::new(buffer) };
        // The CPU's address is as good a name as any, and costs no message.
        Ok(Arc::new(Block { buffer, contents, address: contents as u64, bytes, id: next_id() }))
    }
}

fn next_id() -> u64 {
    static BLOCKS: AtomicU64 = AtomicU64::new(1);
    BLOCKS.fetch_add(1, Ordering::Relaxed)
}

fn out_of_memory(bytes: usize) -> Error {
    Error::OutOfMemory { device: DEVICE.into(), bytes }
}
