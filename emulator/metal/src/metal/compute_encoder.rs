//! `MTLComputeCommandEncoder`: the calls. What a dispatch becomes is in `dispatch.rs`.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use objc2::DefinedClass;
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{
    MTLBarrierScope, MTLBuffer, MTLCommandEncoder, MTLComputeCommandEncoder, MTLComputePipelineState, MTLDevice,
    MTLDispatchType, MTLFence, MTLHeap, MTLResource, MTLResourceUsage, MTLSize,
};

use super::buffer::{Buffer, memory_of};
use super::class::{Object, emulated_class, protocol};
use super::command_buffer::CommandBuffer;
use super::device::{Device, MAX_THREADGROUP_BYTES};
use super::dispatch::{Argument, Bindings, Grid};
use super::encoding::Encoding;
use super::fence::Fence;
use super::pipeline::Pipeline;
use crate::gpu::work::Work;

/// Metal feature set tables: buffer arguments of a function.
pub(crate) const SLOTS: usize = 31;
/// MTLComputeCommandEncoder.h, `setBytes:length:atIndex:`: at most 4 KiB.
const MAX_BYTES: usize = 4096;

pub(crate) struct ComputeIvars {
    pub(crate) encoding: Encoding,
    bindings: Mutex<Bindings>,
}

emulated_class!(
    /// A compute encoder.
    pub(crate) struct ComputeEncoder, "EmulatedMTLComputeCommandEncoder", ComputeIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLCommandEncoder for ComputeEncoder {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, Device::system())
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.encoding().label())).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                self.encoding().set_label(label.map(NSString::to_string).unwrap_or_default());
            }

            #[unsafe(method(endEncoding))]
            fn end_encoding(&self) {
                let _own = emulator_objc::own();
                self.encoding().end();
                *self.bindings() = Bindings::default();
            }

            #[unsafe(method(insertDebugSignpost:))]
            fn insert_debug_signpost(&self, _text: &NSString) {}

            #[unsafe(method(pushDebugGroup:))]
            fn push_debug_group(&self, _name: &NSString) {
                self.encoding().push_debug_group();
            }

            #[unsafe(method(popDebugGroup))]
            fn pop_debug_group(&self) {
                self.encoding().pop_debug_group();
            }
        }

        // SAFETY: as above.
        unsafe impl MTLComputeCommandEncoder for ComputeEncoder {
            #[unsafe(method(dispatchType))]
            fn dispatch_type(&self) -> MTLDispatchType {
                if self.encoding().is_concurrent() { MTLDispatchType::Concurrent } else { MTLDispatchType::Serial }
            }

            #[unsafe(method(setComputePipelineState:))]
            fn set_pipeline(&self, pipeline: &ProtocolObject<dyn MTLComputePipelineState>) {
                self.setting("setComputePipelineState:");
                self.bindings().kernel = Some(Pipeline::of(pipeline).kernel().clone());
            }

            #[unsafe(method(setBuffer:offset:atIndex:))]
            fn set_buffer(&self, buffer: Option<&ProtocolObject<dyn MTLBuffer>>, offset: usize, index: usize) {
                self.setting("setBuffer:offset:atIndex:");
                self.bind("setBuffer:offset:atIndex:", buffer, offset, index);
            }

            #[unsafe(method(setBufferOffset:atIndex:))]
            fn set_offset(&self, offset: usize, index: usize) {
                let selector = "setBufferOffset:atIndex:";
                self.setting(selector);
                self.check_slot(selector, index);
                let problem = match self.bindings().buffers[index].as_mut() {
                    Some(Argument::Buffer { memory, offset: place, .. }) if offset < memory.length() => {
                        *place = offset;
                        return;
                    }
                    Some(Argument::Buffer { memory, .. }) => format!("offset {offset} past the {} bytes of {}", memory.length(), memory.name()),
                    _ => format!("no buffer is bound at index {index}"),
                };
                self.encoding().fail(selector, problem)
            }

            #[unsafe(method(setBuffers:offsets:withRange:))]
            fn set_buffers(
                &self,
                buffers: NonNull<*const ProtocolObject<dyn MTLBuffer>>,
                offsets: NonNull<usize>,
                range: NSRange,
            ) {
                self.setting("setBuffers:offsets:withRange:");
                for position in 0..range.length {
                    // SAFETY: the caller passes as many valid or nil buffers, and offsets, as the range is long.
                    let (buffer, offset) = unsafe { (buffers.add(position).read().as_ref(), offsets.add(position).read()) };
                    self.bind("setBuffers:offsets:withRange:", buffer, offset, range.location + position);
                }
            }

            #[unsafe(method(setBytes:length:atIndex:))]
            fn set_bytes(&self, bytes: NonNull<c_void>, length: usize, index: usize) {
                let selector = "setBytes:length:atIndex:";
                self.setting(selector);
                self.check_slot(selector, index);
                if length > MAX_BYTES {
                    self.encoding().fail(selector, format_args!("length ({length}) must be <= {MAX_BYTES}"));
                }
                if length == 0 {
                    self.encoding().fail(selector, "length must not be zero");
                }
                crate::account::count(|counts| counts.bytes_copied += length as u64);
                // SAFETY: the caller promises `length` bytes.
                let copy = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), length) };
                self.bindings().buffers[index] = Some(Argument::bytes(copy));
            }

            #[unsafe(method(setThreadgroupMemoryLength:atIndex:))]
            fn set_threadgroup_memory(&self, length: usize, index: usize) {
                let selector = "setThreadgroupMemoryLength:atIndex:";
                self.setting(selector);
                self.check_slot(selector, index);
                if length % 16 != 0 {
                    self.encoding().fail(selector, format_args!("length ({length}) must be a multiple of 16 bytes"));
                }
                if length > MAX_THREADGROUP_BYTES {
                    self.encoding().fail(selector, format_args!("length ({length}) exceeds maxThreadgroupMemoryLength ({MAX_THREADGROUP_BYTES})"));
                }
                self.bindings().threadgroup[index] = length;
            }

            #[unsafe(method(dispatchThreadgroups:threadsPerThreadgroup:))]
            fn dispatch_threadgroups(&self, threadgroups: MTLSize, threads: MTLSize) {
                let _own = emulator_objc::own();
                self.dispatch("dispatchThreadgroups:threadsPerThreadgroup:", Grid::Threadgroups(threadgroups), threads);
            }

            #[unsafe(method(dispatchThreads:threadsPerThreadgroup:))]
            fn dispatch_threads(&self, grid: MTLSize, threads: MTLSize) {
                let _own = emulator_objc::own();
                self.dispatch("dispatchThreads:threadsPerThreadgroup:", Grid::Threads(grid), threads);
            }

            #[unsafe(method(dispatchThreadgroupsWithIndirectBuffer:indirectBufferOffset:threadsPerThreadgroup:))]
            fn dispatch_indirect(&self, buffer: &ProtocolObject<dyn MTLBuffer>, offset: usize, threads: MTLSize) {
                let _own = emulator_objc::own();
                let selector = "dispatchThreadgroupsWithIndirectBuffer:indirectBufferOffset:threadsPerThreadgroup:";
                let memory = memory_of(buffer);
                if offset % 4 != 0 || offset + 12 > memory.length() {
                    let text = format!("12 bytes at offset {offset} of {} ({} bytes): misaligned or past its end", memory.name(), memory.length());
                    self.encoding().fail(selector, text);
                }
                self.dispatch(selector, Grid::Indirect(memory.clone(), offset), threads);
            }

            #[unsafe(method(memoryBarrierWithScope:))]
            fn barrier(&self, scope: MTLBarrierScope) {
                let selector = "memoryBarrierWithScope:";
                if scope.contains(MTLBarrierScope::Buffers) {
                    self.encoding().barrier(selector, None);
                } else {
                    self.encoding().must_be_open(selector);
                }
            }

            #[unsafe(method(memoryBarrierWithResources:count:))]
            fn barrier_over(&self, resources: NonNull<NonNull<ProtocolObject<dyn MTLResource>>>, count: usize) {
                let mut roots = Vec::with_capacity(count);
                for position in 0..count {
                    // SAFETY: the caller passes `count` valid resources.
                    let resource = unsafe { resources.add(position).read().as_ref() };
                    let any: &AnyObject = resource.as_ref();
                    roots.extend(any.downcast_ref::<Buffer>().map(|buffer| buffer.memory().root().0));
                }
                self.encoding().barrier("memoryBarrierWithResources:count:", Some(roots));
            }

            #[unsafe(method(updateFence:))]
            fn update_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
                self.encoding().update_fence(Fence::of(fence).number());
            }

            #[unsafe(method(waitForFence:))]
            fn wait_for_fence(&self, fence: &ProtocolObject<dyn MTLFence>) {
                self.encoding().wait_for_fence(Fence::of(fence).number());
            }

            #[unsafe(method(useResource:usage:))]
            fn use_resource(&self, _resource: &ProtocolObject<dyn MTLResource>, _usage: MTLResourceUsage) {
                self.encoding().must_be_open("useResource:usage:");
            }

            #[unsafe(method(useResources:count:usage:))]
            fn use_resources(&self, _resources: NonNull<NonNull<ProtocolObject<dyn MTLResource>>>, _count: usize, _usage: MTLResourceUsage) {
                self.encoding().must_be_open("useResources:count:usage:");
            }

            #[unsafe(method(useHeap:))]
            fn use_heap(&self, _heap: &ProtocolObject<dyn MTLHeap>) {
                self.encoding().must_be_open("useHeap:");
            }
        }
    }
);

impl ComputeEncoder {
    pub(crate) fn new(command_buffer: &CommandBuffer, concurrent: bool) -> Retained<Self> {
        let encoding = Encoding::open("MTLComputeCommandEncoder", command_buffer, concurrent);
        Self::make(ComputeIvars { encoding, bindings: Mutex::default() })
    }

    pub(crate) fn encoding(&self) -> &Encoding {
        &self.ivars().encoding
    }

    /// Whether its command buffer keeps the resources of its commands alive.
    pub(crate) fn retained(&self) -> bool {
        self.encoding().command_buffer().retained()
    }

    /// A command of MPS inside this encoder. MPS sets a pipeline and buffers of its own; that it leaves the program's
    /// in place is documented nowhere, so they are forgotten.
    pub(crate) fn encode(&self, work: Work) {
        self.encoding().push_work("encodeToCommandEncoder:..", work);
        *self.bindings() = Bindings::default();
    }

    fn bindings(&self) -> MutexGuard<'_, Bindings> {
        self.ivars().bindings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn setting(&self, selector: &str) {
        self.encoding().must_be_open(selector);
        crate::account::count(|counts| counts.bindings += 1);
    }

    fn check_slot(&self, selector: &str, index: usize) {
        if index >= SLOTS {
            self.encoding().fail(selector, format_args!("index {index} must be < {SLOTS}"));
        }
    }

    fn bind(&self, selector: &str, buffer: Option<&ProtocolObject<dyn MTLBuffer>>, offset: usize, index: usize) {
        self.check_slot(selector, index);
        let argument = buffer.map(|buffer| {
            let memory: &Arc<_> = memory_of(buffer);
            if offset >= memory.length() {
                let text = format!("offset {offset} past the {} bytes of {}", memory.length(), memory.name());
                self.encoding().fail(selector, text);
            }
            Argument::Buffer { memory: memory.clone(), offset }
        });
        self.bindings().buffers[index] = argument;
    }

    fn dispatch(&self, selector: &str, grid: Grid, threads: MTLSize) {
        self.encoding().must_be_open(selector);
        crate::account::count(|counts| counts.dispatches += 1);
        let work = self.bindings().dispatch(grid, threads, self.retained(), &self.encoding().label());
        match work {
            Ok(work) => self.encoding().push_work(selector, work),
            Err(problem) => self.encoding().fail(selector, problem),
        }
    }
}
