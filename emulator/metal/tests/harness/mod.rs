//! What the tests share: a device, buffers of f32, pipelines, one dispatch.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::ffi::c_void;
use std::ptr::NonNull;

use metal_emulator as _;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::*;

pub type Device = Retained<ProtocolObject<dyn MTLDevice>>;
pub type Queue = Retained<ProtocolObject<dyn MTLCommandQueue>>;
pub type Buffer = Retained<ProtocolObject<dyn MTLBuffer>>;
pub type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;
pub type Encoder = ProtocolObject<dyn MTLComputeCommandEncoder>;

pub const KERNELS: &str = r#"
#include <metal_stdlib>
using namespace metal;

kernel void add_one(device const float *x [[buffer(0)]], device float *y [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    y[i] = x[i] + 1.0f;
}

kernel void scale(device float *x [[buffer(0)]], constant float &s [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    x[i] *= s;
}

kernel void row_sum(device const float *x [[buffer(0)]], device float *y [[buffer(1)]], constant uint &n [[buffer(2)]],
                    uint row [[threadgroup_position_in_grid]], uint lane [[thread_position_in_threadgroup]],
                    uint lanes [[threads_per_threadgroup]]) {
    threadgroup float part[64];
    float sum = 0.0f;
    for (uint i = lane; i < n; i += lanes) sum += x[row * n + i];
    part[lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint half_of = lanes / 2; half_of > 0; half_of /= 2) {
        if (lane < half_of) part[lane] += part[lane + half_of];
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (lane == 0) y[row] = part[0];
}

kernel void two_slots(device float *x [[buffer(0)]], device float *y [[buffer(3)]], threadgroup float *scratch [[threadgroup(0)]],
                      uint i [[thread_position_in_grid]]) {
    scratch[0] = 1.0f;
    x[i] = y[i];
}
"#;

pub fn device() -> Device {
    MTLCreateSystemDefaultDevice().expect("the emulated device")
}

pub fn name(text: &str) -> Retained<NSString> {
    NSString::from_str(text)
}

pub fn size(width: usize) -> MTLSize {
    MTLSize { width, height: 1, depth: 1 }
}

pub fn library(device: &Device, source: &str) -> Retained<ProtocolObject<dyn MTLLibrary>> {
    device
        .newLibraryWithSource_options_error(&name(source), None)
        .unwrap_or_else(|error| panic!("{}", error.localizedDescription()))
}

pub fn pipeline_of(device: &Device, source: &str, function: &str) -> Pipeline {
    let function = library(device, source).newFunctionWithName(&name(function)).expect("the function");
    device.newComputePipelineStateWithFunction_error(&function).expect("a pipeline")
}

pub fn pipeline(device: &Device, function: &str) -> Pipeline {
    pipeline_of(device, KERNELS, function)
}

pub const SHARED: MTLResourceOptions = MTLResourceOptions::StorageModeShared;
pub const UNTRACKED: MTLResourceOptions =
    MTLResourceOptions(MTLResourceOptions::StorageModeShared.0 | MTLResourceOptions::HazardTrackingModeUntracked.0);

pub fn buffer(device: &Device, values: &[f32], options: MTLResourceOptions) -> Buffer {
    let bytes = NonNull::from(values).cast::<c_void>();
    // SAFETY: the slice is as long as said.
    unsafe { device.newBufferWithBytes_length_options(bytes, size_of_val(values), options) }.expect("memory")
}

pub fn empty(device: &Device, count: usize, options: MTLResourceOptions) -> Buffer {
    device.newBufferWithLength_options(count * 4, options).expect("memory")
}

pub fn read(buffer: &Buffer) -> Vec<f32> {
    // SAFETY: contents are valid for the buffer's length.
    unsafe { std::slice::from_raw_parts(buffer.contents().as_ptr().cast::<f32>(), buffer.length() / 4) }.to_vec()
}

pub fn bind(encoder: &Encoder, buffer: &Buffer, offset: usize, index: usize) {
    // SAFETY: the buffer outlives the command buffer in every test but those about just that.
    unsafe { encoder.setBuffer_offset_atIndex(Some(buffer), offset, index) };
}

pub fn bytes<T>(encoder: &Encoder, value: &T, index: usize) {
    // SAFETY: the value is as long as said.
    unsafe { encoder.setBytes_length_atIndex(NonNull::from(value).cast(), size_of::<T>(), index) };
}

/// y = x + 1 over `count` numbers from element offsets on.
pub fn add_one(encoder: &Encoder, pipeline: &Pipeline, x: (&Buffer, usize), y: (&Buffer, usize), count: usize) {
    encoder.setComputePipelineState(pipeline);
    bind(encoder, x.0, x.1 * 4, 0);
    bind(encoder, y.0, y.1 * 4, 1);
    encoder.dispatchThreads_threadsPerThreadgroup(size(count), size(32));
}

/// Runs what `encode` encodes in one encoder of a command buffer, and waits.
pub fn run(
    queue: &Queue,
    concurrent: bool,
    encode: impl FnOnce(&Encoder),
) -> Retained<ProtocolObject<dyn MTLCommandBuffer>> {
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().expect("a command buffer");
        let kind = if concurrent { MTLDispatchType::Concurrent } else { MTLDispatchType::Serial };
        let encoder = commands.computeCommandEncoderWithDispatchType(kind).expect("an encoder");
        encode(&encoder);
        encoder.endEncoding();
        commands.commit();
        commands.waitUntilCompleted();
        commands
    })
}

/// The message of the exception that `code` raises.
pub fn exception(code: impl FnOnce()) -> String {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)) {
        Ok(()) => panic!("nothing was raised"),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "an exception without text".into()),
    }
}
