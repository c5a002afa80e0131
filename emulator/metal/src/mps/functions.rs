//! The C functions of MetalPerformanceShaders.h.

use objc2::rc::Retained;
use objc2::runtime::Bool;
use objc2_metal::{MTLCommandBuffer, MTLCommandBufferStatus, MTLCreateSystemDefaultDevice};
use objc2_metal_performance_shaders::MPSDeviceOptions;

use super::object::{Commands, Device};
use crate::foundation;

/// "Determine whether MetalPerformanceShaders.framework supports a MTLDevice." It supports the emulated one.
#[unsafe(no_mangle)]
extern "C-unwind" fn MPSSupportsMTLDevice(device: Option<&Device>) -> Bool {
    Bool::new(device.is_some())
}

/// "A valid MTLDevice supported by MPS or nil if none are available."
#[unsafe(no_mangle)]
extern "C-unwind" fn MPSGetPreferredDevice(_options: MPSDeviceOptions) -> *mut Device {
    let _own = emulator_objc::own();
    MTLCreateSystemDefaultDevice().map_or(std::ptr::null_mut(), Retained::autorelease_ptr)
}

/// A hint: it "will cause MPS to prefetch a MTLHeap".
#[unsafe(no_mangle)]
extern "C-unwind" fn MPSHintTemporaryMemoryHighWaterMark(_commands: &Commands, _bytes: usize) {}

/// "If the MTLCommandBuffer has already been committed, behavior is undefined."
#[unsafe(no_mangle)]
extern "C-unwind" fn MPSSetHeapCacheDuration(commands: &Commands, _seconds: f64) {
    let _own = emulator_objc::own();
    let status = commands.status();
    if status != MTLCommandBufferStatus::NotEnqueued && status != MTLCommandBufferStatus::Enqueued {
        foundation::raise("MPSSetHeapCacheDuration", "the command buffer has already been committed");
    }
}
