//! A Metal kernel of one's own, tested on Linux: it runs, its missing barrier is found, and what it costs is counted.

use std::ffi::c_void;
use std::ptr::NonNull;

use metal_emulator::{Rule, Settings, region, watch};
use objc2::rc::autoreleasepool;
use objc2_foundation::NSString;
use objc2_metal::*;

const SOURCE: &str = "
#include <metal_stdlib>
using namespace metal;
kernel void axpy(device const float *x [[buffer(0)]], device float *y [[buffer(1)]], constant float &a [[buffer(2)]],
                 uint i [[thread_position_in_grid]]) {
    y[i] += a * x[i];
}";

fn main() {
    for barrier in [true, false] {
        let watch = watch(Settings::seeded(7));
        let device = MTLCreateSystemDefaultDevice().expect("a device");
        let library =
            device.newLibraryWithSource_options_error(&NSString::from_str(SOURCE), None).expect("it compiles");
        let function = library.newFunctionWithName(&NSString::from_str("axpy")).expect("the kernel");
        let pipeline = device.newComputePipelineStateWithFunction_error(&function).expect("a pipeline");
        let queue = device.newCommandQueue().expect("a queue");
        let options = MTLResourceOptions::StorageModeShared;
        let buffer = |values: &[f32; 8]| {
            // SAFETY: the array is as long as said.
            unsafe { device.newBufferWithBytes_length_options(NonNull::from(values).cast::<c_void>(), 32, options) }
                .expect("memory")
        };
        let (x, y) = (buffer(&[1.0; 8]), buffer(&[0.0; 8]));
        let size = |width| MTLSize { width, height: 1, depth: 1 };
        autoreleasepool(|_| {
            let commands = queue.commandBuffer().expect("a command buffer");
            let encoder =
                commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent).expect("an encoder");
            encoder.setComputePipelineState(&pipeline);
            let (counts, ()) = region(|| {
                for a in [2.0f32, 3.0] {
                    // SAFETY: both buffers outlive the command buffer, and `a` is four bytes long.
                    unsafe {
                        encoder.setBuffer_offset_atIndex(Some(&x), 0, 0);
                        encoder.setBuffer_offset_atIndex(Some(&y), 0, 1);
                        encoder.setBytes_length_atIndex(NonNull::from(&a).cast(), 4, 2);
                    }
                    encoder.dispatchThreads_threadsPerThreadgroup(size(8), size(8));
                    if barrier {
                        encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
                    }
                }
            });
            encoder.endEncoding();
            commands.commit();
            commands.waitUntilCompleted();
            println!("two dispatches: {} messages, {} objects", counts.runtime.messages, counts.runtime.objects_made);
        });
        if barrier {
            watch.assert_clean();
            // SAFETY: the buffer holds eight numbers.
            println!("y = {:?}", unsafe { y.contents().cast::<[f32; 8]>().as_ref() });
        } else {
            watch.assert_found(Rule::MissingBarrier);
            println!("without its barrier: {}", watch.reports()[0]);
        }
    }
}
