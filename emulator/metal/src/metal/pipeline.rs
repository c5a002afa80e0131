//! `MTLComputePipelineState` and its descriptor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::ProtocolObject;
use objc2::{DefinedClass, Message, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLAllocation, MTLComputePipelineState, MTLDevice, MTLFunction};

use super::class::{Object, emulated_class, protocol};
use super::device::{Device, MAX_THREADS, SIMD_WIDTH};
use super::fence::Sendable;
use super::library::Function;

#[derive(Default)]
pub(crate) struct DescriptorFields {
    label: String,
    function: Option<Sendable<Retained<Function>>>,
    multiple_of_simd: bool,
    max_threads: usize,
}

emulated_class!(
    /// `MTLComputePipelineDescriptor`.
    pub(crate) struct ComputePipelineDescriptor, "MTLComputePipelineDescriptor", Mutex<DescriptorFields>, {
        impl ComputePipelineDescriptor {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(Mutex::default())), init] }
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                self.fields().label = label.map(NSString::to_string).unwrap_or_default();
            }

            #[unsafe(method(setComputeFunction:))]
            fn set_function(&self, function: Option<&ProtocolObject<dyn MTLFunction>>) {
                let _own = emulator_objc::own();
                self.fields().function = function.map(|function| Sendable(Function::of(function).retain()));
            }

            #[unsafe(method_id(computeFunction))]
            fn function(&self) -> Option<Object<dyn MTLFunction>> {
                self.fields().function.as_ref().map(|function| protocol!(MTLFunction, function.0.clone()))
            }

            #[unsafe(method(setThreadGroupSizeIsMultipleOfThreadExecutionWidth:))]
            fn set_multiple_of_simd(&self, yes: bool) {
                self.fields().multiple_of_simd = yes;
            }

            #[unsafe(method(threadGroupSizeIsMultipleOfThreadExecutionWidth))]
            fn multiple_of_simd(&self) -> bool {
                self.fields().multiple_of_simd
            }

            #[unsafe(method(setMaxTotalThreadsPerThreadgroup:))]
            fn set_max_threads(&self, threads: usize) {
                self.fields().max_threads = threads;
            }

            #[unsafe(method(maxTotalThreadsPerThreadgroup))]
            fn max_threads(&self) -> usize {
                self.fields().max_threads
            }

            #[unsafe(method(setSupportIndirectCommandBuffers:))]
            fn set_support_indirect(&self, _yes: bool) {}
        }
    }
);

impl ComputePipelineDescriptor {
    fn fields(&self) -> MutexGuard<'_, DescriptorFields> {
        self.ivars().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kernel ready to launch.
pub(crate) struct Kernel {
    pub(crate) function: emulator_msl::Function,
    pub(crate) constants: Arc<HashMap<u32, Vec<u8>>>,
    pub(crate) max_threads: usize,
    /// The program promised whole SIMD groups.
    pub(crate) whole_simd_groups: bool,
}

pub(crate) struct PipelineIvars {
    device: Retained<Device>,
    label: String,
    kernel: Arc<Kernel>,
}

emulated_class!(
    /// A pipeline state.
    pub(crate) struct Pipeline, "EmulatedMTLComputePipelineState", PipelineIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLAllocation for Pipeline {
            #[unsafe(method(allocatedSize))]
            fn allocated_size(&self) -> usize {
                0
            }
        }

        // SAFETY: as above.
        unsafe impl MTLComputePipelineState for Pipeline {
            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.ivars().label)).filter(|label| !label.is_empty())
            }

            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().device.clone())
            }

            #[unsafe(method(maxTotalThreadsPerThreadgroup))]
            fn max_threads(&self) -> usize {
                self.ivars().kernel.max_threads
            }

            #[unsafe(method(threadExecutionWidth))]
            fn simd_width(&self) -> usize {
                SIMD_WIDTH
            }

            #[unsafe(method(staticThreadgroupMemoryLength))]
            fn static_threadgroup_memory(&self) -> usize {
                self.ivars().kernel.function.static_threadgroup_bytes()
            }

            #[unsafe(method(supportIndirectCommandBuffers))]
            fn support_indirect(&self) -> bool {
                false
            }
        }
    }
);

impl Pipeline {
    /// A pipeline of this function alone.
    pub(crate) fn of_function(device: &Device, function: &Function) -> Retained<Self> {
        Self::build(device, function, DescriptorFields::default())
    }

    /// A pipeline as the descriptor says; `None` without a function.
    pub(crate) fn of_descriptor(device: &Device, descriptor: &ComputePipelineDescriptor) -> Option<Retained<Self>> {
        let fields = descriptor.fields();
        let function = fields.function.as_ref()?.0.clone();
        let copy = DescriptorFields { label: fields.label.clone(), function: None, ..*fields };
        Some(Self::build(device, &function, copy))
    }

    fn build(device: &Device, function: &Function, fields: DescriptorFields) -> Retained<Self> {
        let (function, constants) = function.parts();
        let own = function.max_total_threads().map_or(MAX_THREADS, |threads| threads as usize);
        let max_threads = if fields.max_threads == 0 { own } else { own.min(fields.max_threads) };
        let kernel = Kernel { function, constants, max_threads, whole_simd_groups: fields.multiple_of_simd };
        Self::make(PipelineIvars { device: device.retain(), label: fields.label, kernel: Arc::new(kernel) })
    }

    pub(crate) fn kernel(&self) -> &Arc<Kernel> {
        &self.ivars().kernel
    }
}
