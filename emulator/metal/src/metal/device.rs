//! `MTLDevice`: one emulated GPU. By default it says that it is an M1 (Apple7) under macOS 15.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;

use block2::{DynBlock, RcBlock};
use objc2::Message;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, Bool, ProtocolObject};
use objc2_foundation::{NSError, NSString, NSURL};
use objc2_metal::{
    MTLArchitecture, MTLArgumentBuffersTier, MTLBuffer, MTLCommandQueue, MTLCommandQueueDescriptor, MTLCompileOptions,
    MTLComputePipelineDescriptor, MTLComputePipelineState, MTLDevice, MTLDeviceLocation, MTLEvent, MTLFence,
    MTLFunction, MTLGPUFamily, MTLHeap, MTLHeapDescriptor, MTLLibrary, MTLLibraryError, MTLNewLibraryCompletionHandler,
    MTLPipelineOption, MTLReadWriteTextureTier, MTLResidencySet, MTLResidencySetDescriptor, MTLResourceOptions,
    MTLSharedEvent, MTLSize, MTLSizeAndAlign,
};

use super::buffer::{Buffer, is_tracked};
use super::class::{Object, assertion, emulated_class, protocol};
use super::compile_options::{CompileOptions, Options};
use super::fence::{EmulatedEvent, Fence, Sendable};
use super::heap::{HEAP_ALIGNMENT, Heap, HeapDescriptor};
use super::library::{self, Function, Library};
use super::pipeline::{ComputePipelineDescriptor, Pipeline};
use super::queue::Queue;
use super::residency_set::{ResidencySet, ResidencySetDescriptor};
use crate::foundation;
use crate::gpu::memory::{self, APPLE_PAGE, Memory};

/// Metal feature set tables, Apple7: threads per threadgroup.
pub(crate) const MAX_THREADS: usize = 1024;
/// Metal feature set tables, Apple7: bytes of threadgroup memory.
pub(crate) const MAX_THREADGROUP_BYTES: usize = 32768;
/// Lanes of a SIMD group on every Apple GPU.
pub(crate) const SIMD_WIDTH: usize = 32;
/// What an emulated buffer may hold; an M1 with 8 GB says about as much.
const MAX_BUFFER: usize = 4 << 30;

emulated_class!(
    /// `MTLArchitecture`: the name says that it is no chip of Apple's.
    pub(crate) struct Architecture, "MTLArchitecture", (), {
        impl Architecture {
            #[unsafe(method_id(name))]
            fn name(&self) -> Retained<NSString> {
                let _own = emulator_objc::own();
                NSString::from_str("applegpu_emulated")
            }

            #[unsafe(method_id(copy))]
            fn copy(&self) -> Retained<Self> {
                self.retain()
            }
        }
    }
);

emulated_class!(
    /// The device.
    pub(crate) struct Device, "EmulatedMTLDevice", (), {
        // SAFETY: the methods have the signatures of the protocol, and return new objects where its names say so.
        unsafe impl MTLDevice for Device {
            #[unsafe(method_id(name))]
            fn name(&self) -> Retained<NSString> {
                let _own = emulator_objc::own();
                NSString::from_str("Emulated Metal (CPU)")
            }

            #[unsafe(method(registryID))]
            fn registry_id(&self) -> u64 {
                0xE31
            }

            #[unsafe(method_id(architecture))]
            fn architecture(&self) -> Retained<MTLArchitecture> {
                // SAFETY: the emulated class is the one registered under this name.
                unsafe { Retained::cast_unchecked(Architecture::make(())) }
            }

            #[unsafe(method(location))]
            fn location(&self) -> MTLDeviceLocation {
                MTLDeviceLocation::BuiltIn
            }

            #[unsafe(method(isLowPower))]
            fn is_low_power(&self) -> bool {
                false
            }

            #[unsafe(method(isHeadless))]
            fn is_headless(&self) -> bool {
                false
            }

            #[unsafe(method(isRemovable))]
            fn is_removable(&self) -> bool {
                false
            }

            #[unsafe(method(hasUnifiedMemory))]
            fn has_unified_memory(&self) -> bool {
                true
            }

            #[unsafe(method(recommendedMaxWorkingSetSize))]
            fn recommended_working_set(&self) -> u64 {
                8 << 30
            }

            #[unsafe(method(currentAllocatedSize))]
            fn current_allocated_size(&self) -> usize {
                memory::allocated_bytes() as usize
            }

            #[unsafe(method(maxThreadsPerThreadgroup))]
            fn max_threads(&self) -> MTLSize {
                MTLSize { width: MAX_THREADS, height: MAX_THREADS, depth: MAX_THREADS }
            }

            #[unsafe(method(maxThreadgroupMemoryLength))]
            fn max_threadgroup_memory(&self) -> usize {
                MAX_THREADGROUP_BYTES
            }

            #[unsafe(method(maxBufferLength))]
            fn max_buffer_length(&self) -> usize {
                MAX_BUFFER
            }

            #[unsafe(method(argumentBuffersSupport))]
            fn argument_buffers_support(&self) -> MTLArgumentBuffersTier {
                MTLArgumentBuffersTier::Tier2
            }

            #[unsafe(method(readWriteTextureSupport))]
            fn read_write_texture_support(&self) -> MTLReadWriteTextureTier {
                MTLReadWriteTextureTier::TierNone
            }

            /// Every Apple family up to that of the settings, Metal3 and the common families (MTLDevice.h, feature set
            /// tables). Metal4 came with macOS 26, for every Apple silicon.
            #[unsafe(method(supportsFamily:))]
            fn supports_family(&self, family: MTLGPUFamily) -> bool {
                let settings = crate::settings::current();
                let newest = MTLGPUFamily::Apple1.0 + settings.family as isize - 1;
                let apple = (MTLGPUFamily::Apple1.0..=newest).contains(&family.0);
                let metal4 = family == MTLGPUFamily::Metal4 && settings.macos.0 >= 26;
                let common = (MTLGPUFamily::Common1.0..=MTLGPUFamily::Common3.0).contains(&family.0);
                apple || common || metal4 || family == MTLGPUFamily::Mac2 || family == MTLGPUFamily::Metal3
            }

            #[unsafe(method(supportsRaytracing))]
            fn supports_raytracing(&self) -> bool {
                false
            }

            #[unsafe(method(supportsDynamicLibraries))]
            fn supports_dynamic_libraries(&self) -> bool {
                false
            }

            #[unsafe(method_id(counterSets))]
            fn counter_sets(&self) -> Option<Retained<AnyObject>> {
                None
            }

            #[unsafe(method_id(newCommandQueue))]
            fn new_queue(&self) -> Option<Object<dyn MTLCommandQueue>> {
                Some(protocol!(MTLCommandQueue, Queue::new(self, Queue::DEFAULT_MAXIMUM)))
            }

            #[unsafe(method_id(newCommandQueueWithMaxCommandBufferCount:))]
            fn new_queue_with_maximum(&self, maximum: usize) -> Option<Object<dyn MTLCommandQueue>> {
                Some(protocol!(MTLCommandQueue, Queue::new(self, maximum)))
            }

            #[unsafe(method_id(newCommandQueueWithDescriptor:))]
            fn new_queue_of(&self, descriptor: &MTLCommandQueueDescriptor) -> Option<Object<dyn MTLCommandQueue>> {
                let maximum = super::queue::QueueDescriptor::of(descriptor).maximum();
                Some(protocol!(MTLCommandQueue, Queue::new(self, maximum)))
            }

            #[unsafe(method_id(newBufferWithLength:options:))]
            fn new_buffer(&self, length: usize, options: MTLResourceOptions) -> Option<Object<dyn MTLBuffer>> {
                let buffer = self.buffer("-[MTLDevice newBufferWithLength:options:]", length, options);
                buffer.map(|buffer| protocol!(MTLBuffer, buffer))
            }

            #[unsafe(method_id(newBufferWithBytes:length:options:))]
            fn new_buffer_with_bytes(
                &self,
                bytes: NonNull<c_void>,
                length: usize,
                options: MTLResourceOptions,
            ) -> Option<Object<dyn MTLBuffer>> {
                let buffer = self.buffer("-[MTLDevice newBufferWithBytes:length:options:]", length, options);
                buffer.map(|buffer| {
                    crate::account::count(|counts| counts.bytes_copied += length as u64);
                    let to = buffer.memory().address();
                    // SAFETY: the caller promises `length` bytes, and the buffer was just made that long.
                    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast::<u8>(), to, length) };
                    protocol!(MTLBuffer, buffer)
                })
            }

            #[unsafe(method_id(newBufferWithBytesNoCopy:length:options:deallocator:))]
            fn new_buffer_no_copy(
                &self,
                pointer: NonNull<c_void>,
                length: usize,
                options: MTLResourceOptions,
                deallocator: Option<&DynBlock<dyn Fn(NonNull<c_void>, usize)>>,
            ) -> Option<Object<dyn MTLBuffer>> {
                let method = "-[MTLDevice newBufferWithBytesNoCopy:length:options:deallocator:]";
                // MTLDevice.h: "must be page-aligned", both of them.
                let aligned = |number: usize| number.is_multiple_of(APPLE_PAGE);
                if !aligned(pointer.as_ptr() as usize) || !aligned(length) || length == 0 {
                    assertion(method, format_args!("pointer {pointer:p} and length {length} must be multiples of the page size, {APPLE_PAGE}"));
                }
                let free = deallocator.map(|block| {
                    let kept = Sendable((block.copy(), pointer));
                    Box::new(move || {
                        let kept = kept;
                        let Sendable((block, pointer)) = kept;
                        block.call((pointer, length));
                    }) as Box<dyn FnOnce() + Send>
                });
                // SAFETY: the caller keeps the pages until the deallocator has been called.
                let memory = unsafe { Memory::foreign(pointer.as_ptr().cast(), length, is_tracked(options, true), free) };
                Some(protocol!(MTLBuffer, Buffer::over(self, memory, options)))
            }

            #[unsafe(method(heapBufferSizeAndAlignWithLength:options:))]
            fn heap_size_and_align(&self, length: usize, _options: MTLResourceOptions) -> MTLSizeAndAlign {
                MTLSizeAndAlign { size: length.next_multiple_of(HEAP_ALIGNMENT), align: HEAP_ALIGNMENT }
            }

            #[unsafe(method_id(newHeapWithDescriptor:))]
            fn new_heap(&self, descriptor: &MTLHeapDescriptor) -> Option<Object<dyn MTLHeap>> {
                Heap::new(self, HeapDescriptor::of(descriptor)).map(|heap| protocol!(MTLHeap, heap))
            }

            #[unsafe(method_id(newFence))]
            fn new_fence(&self) -> Option<Object<dyn MTLFence>> {
                Some(protocol!(MTLFence, Fence::new()))
            }

            #[unsafe(method_id(newEvent))]
            fn new_event(&self) -> Option<Object<dyn MTLEvent>> {
                Some(protocol!(MTLEvent, EmulatedEvent::make(Default::default())))
            }

            #[unsafe(method_id(newSharedEvent))]
            fn new_shared_event(&self) -> Option<Object<dyn MTLSharedEvent>> {
                Some(protocol!(MTLSharedEvent, EmulatedEvent::make(Default::default())))
            }

            #[unsafe(method_id(newResidencySetWithDescriptor:error:))]
            fn new_residency_set(
                &self,
                descriptor: &MTLResidencySetDescriptor,
                _error: *mut *mut NSError,
            ) -> Option<Object<dyn MTLResidencySet>> {
                Some(protocol!(MTLResidencySet, ResidencySet::new(self, ResidencySetDescriptor::of(descriptor))))
            }

            #[unsafe(method_id(newDefaultLibrary))]
            fn new_default_library(&self) -> Option<Object<dyn MTLLibrary>> {
                None
            }

            #[unsafe(method_id(newLibraryWithURL:error:))]
            fn new_library_from_file(&self, url: &NSURL, error: *mut *mut NSError) -> Option<Object<dyn MTLLibrary>> {
                let _own = emulator_objc::own();
                let path = url.path().map(|path| path.to_string()).unwrap_or_default();
                let text = format!("{path}: compiled libraries cannot be emulated; give the source");
                // SAFETY: the caller passed this out-parameter.
                unsafe { put_library_error(error, MTLLibraryError::Unsupported, text) };
                None
            }

            #[unsafe(method_id(newLibraryWithSource:options:error:))]
            fn new_library(
                &self,
                source: &NSString,
                options: Option<&MTLCompileOptions>,
                error: *mut *mut NSError,
            ) -> Option<Object<dyn MTLLibrary>> {
                let _own = emulator_objc::own();
                let options = options.map_or_else(Options::default, |options| CompileOptions::of(options).options());
                match Library::compile(self, &source.to_string(), &options) {
                    Ok(library) => Some(protocol!(MTLLibrary, library)),
                    Err(text) => {
                        // SAFETY: the caller passed this out-parameter.
                        unsafe { put_library_error(error, MTLLibraryError::CompileFailure, text) };
                        None
                    }
                }
            }

            #[unsafe(method(newLibraryWithSource:options:completionHandler:))]
            fn new_library_later(
                &self,
                source: &NSString,
                options: Option<&MTLCompileOptions>,
                handler: MTLNewLibraryCompletionHandler,
            ) {
                let _own = emulator_objc::own();
                let options = options.map_or_else(Options::default, |options| CompileOptions::of(options).options());
                let source = source.to_string();
                // SAFETY: the caller passes a block of this signature.
                let handler = Sendable(unsafe { RcBlock::copy(handler) });
                let device = Sendable(self.retain());
                std::thread::spawn(move || {
                    let (Sendable(device), Sendable(handler)) = ({ device }, { handler });
                    let result = Library::compile(&device, &source, &options).map(|library| protocol!(MTLLibrary, library));
                    let Some(handler) = handler else { return };
                    match result {
                        Ok(library) => handler.call((Retained::as_ptr(&library).cast_mut(), std::ptr::null_mut())),
                        Err(text) => {
                            let code = MTLLibraryError::CompileFailure.0 as isize;
                            let error = foundation::error(library::ERROR_DOMAIN, code, text);
                            handler.call((std::ptr::null_mut(), Retained::as_ptr(&error).cast_mut()));
                        }
                    }
                });
            }

            #[unsafe(method_id(newComputePipelineStateWithFunction:error:))]
            fn new_pipeline(
                &self,
                function: &ProtocolObject<dyn MTLFunction>,
                _error: *mut *mut NSError,
            ) -> Option<Object<dyn MTLComputePipelineState>> {
                let _own = emulator_objc::own();
                Some(protocol!(MTLComputePipelineState, Pipeline::of_function(self, Function::of(function))))
            }

            #[unsafe(method_id(newComputePipelineStateWithDescriptor:options:reflection:error:))]
            fn new_pipeline_of(
                &self,
                descriptor: &MTLComputePipelineDescriptor,
                _options: MTLPipelineOption,
                _reflection: *mut *mut AnyObject,
                error: *mut *mut NSError,
            ) -> Option<Object<dyn MTLComputePipelineState>> {
                let _own = emulator_objc::own();
                match Pipeline::of_descriptor(self, ComputePipelineDescriptor::of(descriptor)) {
                    Some(pipeline) => Some(protocol!(MTLComputePipelineState, pipeline)),
                    None => {
                        let text = "the descriptor has no computeFunction".to_owned();
                        // SAFETY: the caller passed this out-parameter.
                        unsafe { put_library_error(error, MTLLibraryError::FunctionNotFound, text) };
                        None
                    }
                }
            }

            #[unsafe(method(shouldMaximizeConcurrentCompilation))]
            fn maximizes_compilation(&self) -> Bool {
                Bool::NO
            }
        }
    }
);

impl Device {
    /// The one device of the process.
    pub(crate) fn system() -> Retained<Device> {
        static DEVICE: OnceLock<Sendable<Retained<Device>>> = OnceLock::new();
        DEVICE.get_or_init(|| Sendable(Device::make(()))).0.clone()
    }

    fn buffer(&self, method: &str, length: usize, options: MTLResourceOptions) -> Option<Retained<Buffer>> {
        // Metal's validation layer refuses both by these names.
        if length == 0 {
            assertion(method, "Cannot create buffer of zero length.");
        }
        if length > MAX_BUFFER {
            assertion(
                method,
                format_args!("Buffer Validation: length {length} must not exceed maxBufferLength, {MAX_BUFFER}"),
            );
        }
        let memory = Memory::allocate(length, is_tracked(options, true))?;
        Some(Buffer::over(self, memory, options))
    }
}

/// # Safety
/// `error` is null or writable.
unsafe fn put_library_error(error: *mut *mut NSError, code: MTLLibraryError, text: String) {
    // SAFETY: promised by the caller.
    unsafe { foundation::put_error(error, foundation::error(library::ERROR_DOMAIN, code.0 as isize, text)) };
}
