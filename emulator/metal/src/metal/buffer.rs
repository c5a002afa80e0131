//! `MTLBuffer`.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2::{DefinedClass, Message};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{
    MTLAllocation, MTLBuffer, MTLCPUCacheMode, MTLDevice, MTLHazardTrackingMode, MTLHeap, MTLPurgeableState,
    MTLResource, MTLResourceOptions, MTLStorageMode,
};

use super::class::{Object, assertion, emulated_class, protocol};
use super::device::Device;
use super::heap::Heap;
use crate::gpu::memory::Memory;
use crate::report::{self, Report, Rule};

/// What an [`Buffer`] is made of.
pub(crate) struct BufferIvars {
    device: Retained<Device>,
    memory: Arc<Memory>,
    options: MTLResourceOptions,
    heap: Option<(Retained<Heap>, usize)>,
    aliasable: AtomicBool,
}

emulated_class!(
    /// A buffer: a run of bytes of its own or of a heap.
    pub(crate) struct Buffer, "EmulatedMTLBuffer", BufferIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLAllocation for Buffer {
            #[unsafe(method(allocatedSize))]
            fn allocated_size(&self) -> usize {
                self.memory().length().next_multiple_of(crate::gpu::memory::APPLE_PAGE)
            }
        }

        // SAFETY: as above.
        unsafe impl MTLResource for Buffer {
            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.memory().label())).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                self.memory().set_label(label.map(NSString::to_string).unwrap_or_default());
            }

            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().device.clone())
            }

            #[unsafe(method(resourceOptions))]
            fn resource_options(&self) -> MTLResourceOptions {
                self.ivars().options
            }

            #[unsafe(method(storageMode))]
            fn storage_mode(&self) -> MTLStorageMode {
                storage_mode(self.ivars().options)
            }

            #[unsafe(method(cpuCacheMode))]
            fn cpu_cache_mode(&self) -> MTLCPUCacheMode {
                MTLCPUCacheMode(self.ivars().options.0 & 0xF)
            }

            #[unsafe(method(hazardTrackingMode))]
            fn hazard_tracking_mode(&self) -> MTLHazardTrackingMode {
                if self.memory().tracked() { MTLHazardTrackingMode::Tracked } else { MTLHazardTrackingMode::Untracked }
            }

            #[unsafe(method(setPurgeableState:))]
            fn set_purgeable_state(&self, _state: MTLPurgeableState) -> MTLPurgeableState {
                MTLPurgeableState::NonVolatile
            }

            #[unsafe(method_id(heap))]
            fn heap(&self) -> Option<Object<dyn MTLHeap>> {
                self.ivars().heap.as_ref().map(|(heap, _)| protocol!(MTLHeap, heap.clone()))
            }

            #[unsafe(method(heapOffset))]
            fn heap_offset(&self) -> usize {
                self.ivars().heap.as_ref().map_or(0, |(_, offset)| *offset)
            }

            #[unsafe(method(makeAliasable))]
            fn make_aliasable(&self) {
                let Some((heap, offset)) = &self.ivars().heap else {
                    assertion("-[MTLBuffer makeAliasable]", "the buffer was not made from a heap")
                };
                if !self.ivars().aliasable.swap(true, Ordering::AcqRel) {
                    heap.free(*offset);
                }
            }

            #[unsafe(method(isAliasable))]
            fn is_aliasable(&self) -> bool {
                self.ivars().aliasable.load(Ordering::Acquire)
            }
        }

        // SAFETY: as above; `contents` is valid for `length` bytes while the buffer lives.
        unsafe impl MTLBuffer for Buffer {
            #[unsafe(method(length))]
            fn length(&self) -> usize {
                self.memory().length()
            }

            #[unsafe(method(contents))]
            fn contents(&self) -> NonNull<c_void> {
                if storage_mode(self.ivars().options) == MTLStorageMode::Private {
                    // Metal returns a null pointer here; the typed crate promises that it is none.
                    assertion("-[MTLBuffer contents]", format_args!("{} has private storage: the CPU cannot reach it", self.memory().name()));
                }
                if self.memory().has_unseen_writer() {
                    let text = format!(
                        "contents of {} asked for, but a committed command buffer writes it and nothing has waited for that: \
                         call waitUntilCompleted or wait for a shared event first",
                        self.memory().name()
                    );
                    report::file(Report::new(Rule::HostAccess, text));
                }
                NonNull::new(self.memory().address().cast()).expect("memory has an address")
            }

            #[unsafe(method(didModifyRange:))]
            fn did_modify_range(&self, range: NSRange) {
                if storage_mode(self.ivars().options) != MTLStorageMode::Managed {
                    assertion("-[MTLBuffer didModifyRange:]", "only buffers with managed storage have it");
                }
                if range.location + range.length > self.memory().length() {
                    assertion("-[MTLBuffer didModifyRange:]", format_args!("range {range:?} past {} bytes", self.memory().length()));
                }
            }

            #[unsafe(method(gpuAddress))]
            fn gpu_address(&self) -> u64 {
                self.memory().address() as u64
            }

            #[unsafe(method(addDebugMarker:range:))]
            fn add_debug_marker(&self, _marker: &NSString, _range: NSRange) {}

            #[unsafe(method(removeAllDebugMarkers))]
            fn remove_all_debug_markers(&self) {}
        }
    }
);

impl Buffer {
    /// A buffer over this memory.
    pub(crate) fn over(device: &Device, memory: Arc<Memory>, options: MTLResourceOptions) -> Retained<Self> {
        Self::in_heap(device, memory, options, None)
    }

    pub(crate) fn in_heap(
        device: &Device,
        memory: Arc<Memory>,
        options: MTLResourceOptions,
        heap: Option<(Retained<Heap>, usize)>,
    ) -> Retained<Self> {
        crate::account::count(|counts| counts.buffers += 1);
        Self::make(BufferIvars { device: device.retain(), memory, options, heap, aliasable: AtomicBool::new(false) })
    }

    /// Its bytes.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.ivars().memory
    }
}

/// The emulated memory behind a buffer of the typed crate.
pub(crate) fn memory_of(buffer: &ProtocolObject<dyn MTLBuffer>) -> &Arc<Memory> {
    Buffer::of(buffer).memory()
}

/// `MTLResourceOptions` holds the storage mode in bits 4 to 7 (MTLResource.h, MTLResourceStorageModeShift).
pub(crate) fn storage_mode(options: MTLResourceOptions) -> MTLStorageMode {
    MTLStorageMode(options.0 >> 4 & 0xF)
}

/// Bits 8 and 9 hold the hazard tracking mode (MTLResource.h, MTLResourceHazardTrackingModeShift). A device tracks by
/// default, a heap does not.
pub(crate) fn is_tracked(options: MTLResourceOptions, default: bool) -> bool {
    match MTLHazardTrackingMode(options.0 >> 8 & 0x3) {
        MTLHazardTrackingMode::Untracked => false,
        MTLHazardTrackingMode::Tracked => true,
        _ => default,
    }
}
