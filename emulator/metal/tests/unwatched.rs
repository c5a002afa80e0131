//! Where nobody watches, a mistake fails its command buffer: a program's own tests see it without knowing the emulator.

mod harness;

use harness::*;
use objc2_metal::*;

#[test]
fn a_mistake_fails_the_command_buffer() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let source = "#include <metal_stdlib>\nusing namespace metal;\nkernel void reach(device float *x [[buffer(0)]]) { x[100] = 1.0f; }";
    let reach = pipeline_of(&device, source, "reach");
    let x = empty(&device, 4, SHARED);
    let commands = run(&queue, false, |encoder| {
        encoder.setComputePipelineState(&reach);
        bind(encoder, &x, 0, 0);
        encoder.dispatchThreads_threadsPerThreadgroup(size(1), size(1));
    });
    assert_eq!(commands.status(), MTLCommandBufferStatus::Error);
    let error = commands.error().expect("an error");
    assert!(error.localizedDescription().to_string().contains("OutOfBounds"));
    assert_eq!(error.domain().to_string(), "MTLCommandBufferErrorDomain");
}
