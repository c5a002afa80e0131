//! `MTLHeap`: one allocation that buffers are cut from, by the heap or at offsets of the program's choice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use objc2::rc::{Allocated, Retained};
use objc2::{DefinedClass, Message, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{
    MTLAllocation, MTLBuffer, MTLCPUCacheMode, MTLDevice, MTLHazardTrackingMode, MTLHeap, MTLHeapType,
    MTLPurgeableState, MTLResourceOptions, MTLStorageMode,
};

use super::buffer::{Buffer, is_tracked, storage_mode};
use super::class::{Object, assertion, emulated_class, protocol};
use super::device::Device;
use crate::gpu::memory::Memory;

/// What sub-allocations of a heap are rounded to (`heapBufferSizeAndAlignWithLength:options:`). Not documented for Apple
/// chips; 256 is what the documentation's examples use.
pub(crate) const HEAP_ALIGNMENT: usize = 256;

#[derive(Clone, Copy)]
pub(crate) struct HeapOptions {
    size: usize,
    storage: MTLStorageMode,
    cache: MTLCPUCacheMode,
    tracking: MTLHazardTrackingMode,
    kind: MTLHeapType,
}

impl HeapOptions {
    fn resource_options(self) -> MTLResourceOptions {
        MTLResourceOptions(self.cache.0 | self.storage.0 << 4 | self.tracking.0 << 8)
    }
}

emulated_class!(
    /// `MTLHeapDescriptor`. Its storage is private and untracked unless set (MTLHeap.h).
    pub(crate) struct HeapDescriptor, "MTLHeapDescriptor", Mutex<HeapOptions>, {
        impl HeapDescriptor {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                let options = HeapOptions {
                    size: 0,
                    storage: MTLStorageMode::Private,
                    cache: MTLCPUCacheMode::DefaultCache,
                    tracking: MTLHazardTrackingMode::Default,
                    kind: MTLHeapType::Automatic,
                };
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(Mutex::new(options))), init] }
            }

            #[unsafe(method(size))]
            fn size(&self) -> usize {
                self.options().size
            }

            #[unsafe(method(setSize:))]
            fn set_size(&self, size: usize) {
                self.change(|options| options.size = size);
            }

            #[unsafe(method(setStorageMode:))]
            fn set_storage_mode(&self, mode: MTLStorageMode) {
                self.change(|options| options.storage = mode);
            }

            #[unsafe(method(setCpuCacheMode:))]
            fn set_cpu_cache_mode(&self, mode: MTLCPUCacheMode) {
                self.change(|options| options.cache = mode);
            }

            #[unsafe(method(setHazardTrackingMode:))]
            fn set_hazard_tracking_mode(&self, mode: MTLHazardTrackingMode) {
                self.change(|options| options.tracking = mode);
            }

            #[unsafe(method(setResourceOptions:))]
            fn set_resource_options(&self, resource: MTLResourceOptions) {
                self.change(|options| {
                    options.storage = storage_mode(resource);
                    options.cache = MTLCPUCacheMode(resource.0 & 0xF);
                    options.tracking = MTLHazardTrackingMode(resource.0 >> 8 & 0x3);
                });
            }

            #[unsafe(method(setType:))]
            fn set_type(&self, kind: MTLHeapType) {
                self.change(|options| options.kind = kind);
            }
        }
    }
);

impl HeapDescriptor {
    fn options(&self) -> HeapOptions {
        *self.ivars().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut HeapOptions)) {
        change(&mut self.ivars().lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The parts of an automatic heap in use: offset to length and ticket. An aliased part may be in use by its successor
/// when its buffer is freed: the ticket tells them apart.
type Parts = Arc<Mutex<BTreeMap<usize, (usize, u64)>>>;

pub(crate) struct HeapIvars {
    device: Retained<Device>,
    memory: Arc<Memory>,
    options: HeapOptions,
    parts: Parts,
}

emulated_class!(
    /// A heap.
    pub(crate) struct Heap, "EmulatedMTLHeap", HeapIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLAllocation for Heap {
            #[unsafe(method(allocatedSize))]
            fn allocated_size(&self) -> usize {
                self.ivars().memory.length()
            }
        }

        // SAFETY: as above.
        unsafe impl MTLHeap for Heap {
            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.ivars().memory.label())).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                self.ivars().memory.set_label(label.map(NSString::to_string).unwrap_or_default());
            }

            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().device.clone())
            }

            #[unsafe(method(storageMode))]
            fn storage_mode(&self) -> MTLStorageMode {
                self.ivars().options.storage
            }

            #[unsafe(method(resourceOptions))]
            fn resource_options(&self) -> MTLResourceOptions {
                self.ivars().options.resource_options()
            }

            #[unsafe(method(type))]
            fn kind(&self) -> MTLHeapType {
                self.ivars().options.kind
            }

            #[unsafe(method(size))]
            fn size(&self) -> usize {
                self.ivars().memory.length()
            }

            #[unsafe(method(usedSize))]
            fn used_size(&self) -> usize {
                self.parts().values().map(|(length, _)| length).sum()
            }

            #[unsafe(method(currentAllocatedSize))]
            fn current_allocated_size(&self) -> usize {
                self.ivars().memory.length()
            }

            #[unsafe(method(maxAvailableSizeWithAlignment:))]
            fn max_available_size(&self, alignment: usize) -> usize {
                let parts = self.parts();
                let gaps = gaps(&parts, self.ivars().memory.length(), alignment);
                gaps.into_iter().map(|(_, length)| length).max().unwrap_or(0)
            }

            #[unsafe(method(setPurgeableState:))]
            fn set_purgeable_state(&self, _state: MTLPurgeableState) -> MTLPurgeableState {
                MTLPurgeableState::NonVolatile
            }

            #[unsafe(method_id(newBufferWithLength:options:))]
            fn new_buffer(&self, length: usize, options: MTLResourceOptions) -> Option<Object<dyn MTLBuffer>> {
                let method = "-[MTLHeap newBufferWithLength:options:]";
                if self.ivars().options.kind != MTLHeapType::Automatic {
                    assertion(method, "a placement heap needs an offset");
                }
                self.check(method, length, options);
                self.find(length, options)
            }

            #[unsafe(method_id(newBufferWithLength:options:offset:))]
            fn new_buffer_at(&self, length: usize, options: MTLResourceOptions, offset: usize) -> Option<Object<dyn MTLBuffer>> {
                let method = "-[MTLHeap newBufferWithLength:options:offset:]";
                if self.ivars().options.kind != MTLHeapType::Placement {
                    assertion(method, "only placement heaps take an offset");
                }
                if offset % HEAP_ALIGNMENT != 0 {
                    assertion(method, format_args!("offset {offset} is not a multiple of {HEAP_ALIGNMENT}"));
                }
                self.check(method, length, options);
                if offset + length > self.ivars().memory.length() {
                    let size = self.ivars().memory.length();
                    assertion(method, format_args!("bytes {offset}..{} past the heap's {size}", offset + length));
                }
                self.cut(offset, length, options, None)
            }
        }
    }
);

impl Heap {
    /// A heap as the descriptor says; `None` without memory.
    pub(crate) fn new(device: &Device, descriptor: &HeapDescriptor) -> Option<Retained<Self>> {
        let options = descriptor.options();
        if options.size == 0 {
            assertion("-[MTLDevice newHeapWithDescriptor:]", "the descriptor's size is 0");
        }
        let tracked = options.tracking == MTLHazardTrackingMode::Tracked;
        let memory = Memory::allocate(options.size, tracked)?;
        Some(Self::make(HeapIvars { device: device.retain(), memory, options, parts: Parts::default() }))
    }

    /// Gives the part at this offset back, for `makeAliasable`.
    pub(crate) fn free(&self, offset: usize) {
        self.parts().remove(&offset);
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, (usize, u64)>> {
        self.ivars().parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, method: &str, length: usize, options: MTLResourceOptions) {
        if length == 0 {
            assertion(method, "length is 0");
        }
        let (wanted, own) = (storage_mode(options), self.ivars().options.storage);
        if wanted != own {
            assertion(method, format_args!("storage mode {wanted:?} in a heap of {own:?}"));
        }
    }

    /// The first part that is free and long enough.
    fn find(&self, length: usize, options: MTLResourceOptions) -> Option<Object<dyn MTLBuffer>> {
        let rounded = length.next_multiple_of(HEAP_ALIGNMENT);
        let ticket = next_ticket();
        let offset = {
            let mut parts = self.parts();
            let gaps = gaps(&parts, self.ivars().memory.length(), HEAP_ALIGNMENT);
            let (offset, _) = gaps.into_iter().find(|(_, room)| *room >= rounded)?;
            parts.insert(offset, (rounded, ticket));
            offset
        };
        let parts = self.ivars().parts.clone();
        let free = Box::new(move || {
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            if parts.get(&offset).is_some_and(|(_, owner)| *owner == ticket) {
                parts.remove(&offset);
            }
        });
        self.cut(offset, length, options, Some(free))
    }

    fn cut(
        &self,
        offset: usize,
        length: usize,
        options: MTLResourceOptions,
        free: Option<Box<dyn FnOnce() + Send>>,
    ) -> Option<Object<dyn MTLBuffer>> {
        let ivars = self.ivars();
        let tracked = is_tracked(options, ivars.memory.tracked());
        let memory = Memory::part(&ivars.memory, offset..offset + length, tracked, free)?;
        let heap = Some((self.retain(), offset));
        Some(protocol!(MTLBuffer, Buffer::in_heap(&ivars.device, memory, options, heap)))
    }
}

/// The free runs of a heap: aligned offset and length.
fn gaps(parts: &BTreeMap<usize, (usize, u64)>, size: usize, alignment: usize) -> Vec<(usize, usize)> {
    let alignment = alignment.max(1);
    let mut gaps = Vec::new();
    let mut free = 0usize;
    for (&offset, &(length, _)) in parts.iter().chain([(&size, &(0, 0))]) {
        let start = free.next_multiple_of(alignment);
        if start < offset {
            gaps.push((start, offset - start));
        }
        free = offset + length;
    }
    gaps
}

fn next_ticket() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
