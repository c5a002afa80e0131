//! Candle's buffers and own ones, borrowed by a region's stream.

use super::Region;
use super::value::{Value, contiguous};
use crate::error::{Error, Result};
use crate::metal::gpu::Gpu;
use candle_core::backend::BackendStorage;
use candle_core::{DType, Layout, MetalDevice, MetalStorage};
use candle_metal_kernels::metal::Buffer;
use candlewick_metal::Borrowed;
use objc2::Message;
use objc2_metal::MTLResourceOptions;
use std::sync::Arc;

/// As Candle's own intermediate results: of the GPU alone, and untracked, since streams order them.
const OPTIONS: MTLResourceOptions = MTLResourceOptions::HazardTrackingModeUntracked.union(if cfg!(target_os = "ios") {
    MTLResourceOptions::StorageModeShared
} else {
    MTLResourceOptions::StorageModePrivate
});

/// One buffer.
struct Block {
    borrowed: Borrowed,
    /// Own memory; none for an input, whose tensor keeps it.
    own: Option<(Arc<Buffer>, usize)>,
    /// Tells an input's buffer from others.
    address: usize,
    /// Counts the values there.
    used: Arc<()>,
}

/// Every buffer of a region.
#[derive(Default)]
pub(super) struct Memory {
    blocks: Vec<Block>,
    /// Left by earlier regions; smallest first.
    free: Vec<(Arc<Buffer>, usize)>,
}

impl Memory {
    /// What earlier regions left. Candle's work may be pending there.
    pub(super) fn take_free(&mut self, gpu: &Gpu, device: &MetalDevice) {
        self.free = gpu.free_memory(device.id()).into_iter().map(|buffer| (buffer.clone(), buffer.length())).collect();
        self.free.sort_by_key(|(_, bytes)| *bytes);
    }

    /// Gives back what the region used, once nothing is pending.
    pub(super) fn give_back(&mut self, gpu: &Gpu, device: &MetalDevice) {
        let blocks = std::mem::take(&mut self.blocks);
        gpu.give_memory(device.id(), blocks.into_iter().filter_map(|block| block.own).map(|(buffer, _)| buffer));
        self.free.clear();
    }

    pub(super) fn is_own(&self, memory: usize) -> bool {
        self.blocks[memory].own.is_some()
    }

    /// Own memory.
    pub(super) fn buffer(&self, memory: usize) -> Arc<Buffer> {
        let own = self.blocks[memory].own.as_ref();
        own.map(|(buffer, _)| buffer.clone()).unwrap_or_else(|| unreachable!("inputs are no results"))
    }

    /// What an operation reads, and what it writes.
    pub(super) fn split<'a>(&'a mut self, output: usize) -> (impl Fn(usize) -> Option<&'a Borrowed>, &'a mut Borrowed) {
        let (before, rest) = self.blocks.split_at_mut(output);
        let Some((written, after)) = rest.split_first_mut() else { unreachable!("it was allocated") };
        let (before, after) = (&*before, &*after);
        let read = move |memory: usize| {
            let block = if memory < output { before.get(memory) } else { after.get(memory.wrapping_sub(output + 1)) };
            block.map(|block| &block.borrowed)
        };
        (read, &mut written.borrowed)
    }
}

impl Region {
    /// A Candle tensor as a value: its buffer as it is.
    pub(super) fn adopt(&mut self, storage: &MetalStorage, layout: &Layout) -> Result<Value> {
        let raw = storage.buffer().as_ref();
        let address = std::ptr::from_ref(raw).addr();
        let memory = match self.memory.blocks.iter().position(|block| block.address == address) {
            Some(memory) => memory,
            None => {
                // SAFETY: `region` holds the tensor's lock for reading until the stream was waited for, and has waited for
                // Candle's pending work; the stream only reads it.
                let borrowed = unsafe { self.gpu.device().borrow(raw.retain())? };
                self.memory.blocks.push(Block { borrowed, own: None, address, used: Arc::default() });
                self.memory.blocks.len() - 1
            }
        };
        let (start, dtype) = (layout.start_offset(), storage.dtype());
        Ok(self.value(memory, start, layout.dims().into(), layout.stride().into(), dtype))
    }

    /// Memory for a result, without gaps.
    pub(super) fn allocate(&mut self, shape: Vec<usize>, dtype: DType) -> Result<Value> {
        let bytes = shape.iter().try_fold(dtype.size_in_bytes(), |bytes, &size| bytes.checked_mul(size));
        let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or(candlewick::Error::OutOfMemory { device: "metal".into(), bytes: usize::MAX })?.max(1);
        let fits = |own: &Option<(Arc<Buffer>, usize)>| {
            own.as_ref().is_some_and(|(_, length)| (bytes..=4 * bytes.max(4096)).contains(length))
        };
        let dropped = |block: &Block| Arc::strong_count(&block.used) == 1 && fits(&block.own);
        // A value that was dropped leaves its memory to the operations after: the stream orders them.
        let memory = match self.memory.blocks.iter().position(dropped) {
            Some(memory) => memory,
            None => {
                let (buffer, length) = self.buffer_of(bytes)?;
                let raw =
                    AsRef::<objc2::runtime::ProtocolObject<dyn objc2_metal::MTLBuffer>>::as_ref(&*buffer).retain();
                let address = objc2::rc::Retained::as_ptr(&raw).addr();
                // SAFETY: the buffer is new, or was left by a region when nobody held it, before Candle's pending work was
                // waited for; nobody gets it before the stream was waited for.
                let borrowed = unsafe { self.gpu.device().borrow(raw)? };
                self.memory.blocks.push(Block { borrowed, own: Some((buffer, length)), address, used: Arc::default() });
                self.memory.blocks.len() - 1
            }
        };
        let strides = contiguous(&shape);
        Ok(self.value(memory, 0, shape, strides, dtype))
    }

    fn buffer_of(&mut self, bytes: usize) -> Result<(Arc<Buffer>, usize)> {
        let at = self.memory.free.partition_point(|(_, length)| *length < bytes);
        if at < self.memory.free.len() {
            return Ok(self.memory.free.remove(at));
        }
        // Powers of two, as Candle's pool has them, so that another shape fits too. Not from that pool: what it gives out
        // may have work of another thread's pending, and this stream would not wait for that.
        let out_of_memory = || Error::from(candlewick::Error::OutOfMemory { device: "metal".into(), bytes });
        let length = bytes.checked_next_power_of_two().ok_or_else(out_of_memory)?;
        let buffer = self.device.metal_device().new_buffer(length, OPTIONS).map_err(|_| out_of_memory())?;
        Ok((Arc::new(buffer), length))
    }

    fn value(&self, memory: usize, start: usize, shape: Vec<usize>, strides: Vec<usize>, dtype: DType) -> Value {
        let used = self.memory.blocks[memory].used.clone();
        Value { region: self.id, memory, start, shape, strides, dtype, _used: used }
    }
}
