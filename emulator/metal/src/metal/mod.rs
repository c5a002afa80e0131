//! The classes of Metal. Each turns calls into what `gpu/` runs, and refuses what Metal's validation layer refuses.
//!
//! Classes that programs make by name carry Apple's names (`MTLCompileOptions`); those behind protocols are called
//! `EmulatedMTL..`. A selector that is missing raises and names class and selector.

pub(crate) mod blit_encoder;
pub(crate) mod buffer;
pub(crate) mod capture;
pub(crate) mod class;
pub(crate) mod command_buffer;
pub(crate) mod command_buffer_descriptor;
pub(crate) mod compile_options;
pub(crate) mod compute_encoder;
pub(crate) mod device;
pub(crate) mod dispatch;
pub(crate) mod encoding;
pub(crate) mod entry;
pub(crate) mod fence;
pub(crate) mod heap;
pub(crate) mod library;
pub(crate) mod pipeline;
pub(crate) mod queue;
pub(crate) mod residency_set;

use objc2::ClassType;

/// Registers the classes that programs make by name.
pub(crate) fn register() {
    let _ = (
        capture::CaptureDescriptor::class(),
        capture::CaptureManager::class(),
        // Not made by name, but parts of them are hidden (`systems.rs`).
        command_buffer::CommandBuffer::class(),
        command_buffer_descriptor::CommandBufferDescriptor::class(),
        compile_options::CompileOptions::class(),
        compile_options::FunctionConstantValues::class(),
        device::Architecture::class(),
        device::Device::class(),
        fence::SharedEventListener::class(),
        heap::HeapDescriptor::class(),
        pipeline::ComputePipelineDescriptor::class(),
        queue::Queue::class(),
        queue::QueueDescriptor::class(),
        residency_set::ResidencySetDescriptor::class(),
    );
    entry::register();
}
