//! Device memory: a few large blocks, and parts of them. The driver takes microseconds for each block and may wait for
//! the GPU when it gets one back, so blocks stay until memory runs out.

use super::context::Context;
use super::driver::{OUT_OF_MEMORY, SUCCESS};
use candlewick_core::free_list::FreeList;
use candlewick_core::{Error, Result};

/// Where a part begins: as the driver's own allocations do at the least (CUDA C++ Programming Guide, "Device memory
/// accesses": 256 bytes).
const ALIGNMENT: usize = 256;

/// A part of a block. Given back with [`Arena::free`].
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) address: u64,
    pub(crate) bytes: usize,
}

struct Block {
    address: u64,
    bytes: usize,
    free: FreeList,
}

/// Every block of a device.
pub(crate) struct Arena {
    blocks: Vec<Block>,
    block_bytes: usize,
}

impl Arena {
    /// An arena of blocks of at least `block_bytes`. With 0 every part is a block, as long as was asked for, and goes back
    /// to the driver: a checker sees where it ends, and when.
    pub(crate) fn new(block_bytes: usize) -> Self {
        Arena { blocks: Vec::new(), block_bytes }
    }

    /// A part of at least `bytes` and one more: even an empty tensor at its end has an address inside the block.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], after unused blocks were given back.
    pub(crate) fn take(&mut self, context: &Context, bytes: usize) -> Result<Part> {
        let out_of_memory = || Error::OutOfMemory { device: context.label.clone(), bytes };
        if self.block_bytes == 0 {
            let bytes = bytes.max(1);
            let mut block = self.allocate(context, bytes)?.ok_or_else(out_of_memory)?;
            let part = Part { address: block.address, bytes };
            block.free.take(bytes).ok_or_else(out_of_memory)?;
            self.blocks.push(block);
            return Ok(part);
        }
        let bytes = bytes.checked_add(ALIGNMENT).ok_or_else(out_of_memory)? / ALIGNMENT * ALIGNMENT;
        for block in &mut self.blocks {
            if let Some(offset) = block.free.take(bytes) {
                return Ok(Part { address: block.address + offset as u64, bytes });
            }
        }
        let wanted = bytes.max(self.block_bytes);
        let mut found = self.allocate(context, wanted)?;
        if found.is_none() {
            self.trim(context);
            found = self.allocate(context, wanted)?;
        }
        // Where a whole block is too much, the part itself may not be.
        if found.is_none() && wanted > bytes {
            found = self.allocate(context, bytes)?;
        }
        let mut block = found.ok_or_else(out_of_memory)?;
        let offset = block.free.take(bytes).ok_or_else(out_of_memory)?;
        let address = block.address + offset as u64;
        self.blocks.push(block);
        Ok(Part { address, bytes })
    }

    /// Takes a part back.
    pub(crate) fn free(&mut self, context: &Context, part: &Part) {
        let owns = |block: &&mut Block| (block.address..block.address + block.bytes as u64).contains(&part.address);
        if let Some(block) = self.blocks.iter_mut().find(owns) {
            block.free.give((part.address - block.address) as usize, part.bytes);
        }
        if self.block_bytes == 0 {
            self.trim(context);
        }
    }

    /// Gives blocks back to the driver in which nothing is.
    pub(crate) fn trim(&mut self, context: &Context) {
        for block in self.blocks.extract_if(.., |block| block.free.is_whole()) {
            // SAFETY: nothing is in it, and what was has been passed by every stream.
            context.try_run(|driver| unsafe { (driver.cuMemFree_v2)(block.address) });
        }
    }

    /// Bytes taken from the driver.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes).sum()
    }

    fn allocate(&self, context: &Context, bytes: usize) -> Result<Option<Block>> {
        context.bind()?;
        let mut address = 0;
        // SAFETY: the pointer is valid.
        match unsafe { (context.driver.cuMemAlloc_v2)(&mut address, bytes) } {
            SUCCESS => Ok(Some(Block { address, bytes, free: FreeList::new(bytes) })),
            OUT_OF_MEMORY => Ok(None),
            code => Err(context.failed(code, "cuMemAlloc", &"")),
        }
    }
}
