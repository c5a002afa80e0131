//! What Metal's validation layer refuses is refused here, by an exception with its words.

mod harness;

use std::ffi::c_void;
use std::ptr::NonNull;

use harness::*;
use metal_emulator::{Rule, Settings, watch};
use objc2::rc::autoreleasepool;
use objc2_foundation::NSRange;
use objc2_metal::*;

/// One refused call, on an encoder with `two_slots` set and nothing bound.
type Call = fn(&Device, &Encoder);

#[test]
fn calls_on_an_encoder() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let cases: &[(&str, Call)] = &[
        ("length (5000) must be <= 4096", |_, encoder| {
            let long = [0u8; 5000];
            bytes(encoder, &long, 0);
        }),
        ("no threadgroup memory length is set at index 0", |device, encoder| {
            bind(encoder, &empty(device, 4, SHARED), 0, 0);
            bind(encoder, &empty(device, 4, SHARED), 0, 3);
            // SAFETY: 0 is what an encoder starts with.
            unsafe { encoder.setThreadgroupMemoryLength_atIndex(0, 0) };
            encoder.dispatchThreads_threadsPerThreadgroup(size(4), size(4));
        }),
        ("must be <= 1024", |_, encoder| encoder.dispatchThreads_threadsPerThreadgroup(size(4096), size(2048))),
        ("must not be zero", |_, encoder| encoder.dispatchThreads_threadsPerThreadgroup(size(4), size(0))),
        ("must not be empty", |_, encoder| encoder.dispatchThreads_threadsPerThreadgroup(size(0), size(4))),
        // SAFETY: refused before anything is done.
        ("must be a multiple of 16", |_, encoder| unsafe { encoder.setThreadgroupMemoryLength_atIndex(20, 0) }),
        // SAFETY: as above.
        ("exceeds maxThreadgroupMemoryLength", |_, encoder| unsafe {
            encoder.setThreadgroupMemoryLength_atIndex(32784, 0)
        }),
        ("index 31 must be < 31", |device, encoder| bind(encoder, &empty(device, 4, SHARED), 0, 31)),
        ("past the 16 bytes", |device, encoder| bind(encoder, &empty(device, 4, SHARED), 16, 0)),
        ("is misaligned", |device, encoder| {
            bind(encoder, &empty(device, 4, SHARED), 2, 0);
            bind(encoder, &empty(device, 4, SHARED), 0, 3);
            // SAFETY: a valid length.
            unsafe { encoder.setThreadgroupMemoryLength_atIndex(16, 0) };
            encoder.dispatchThreads_threadsPerThreadgroup(size(1), size(1));
        }),
        // SAFETY: as above.
        ("no buffer is bound at index 7", |_, encoder| unsafe { encoder.setBufferOffset_atIndex(4, 7) }),
        ("no debug group is open", |_, encoder| encoder.popDebugGroup()),
        ("the fence was already updated", |device, encoder| {
            let fence = device.newFence().unwrap();
            encoder.updateFence(&fence);
            encoder.waitForFence(&fence);
        }),
    ];
    for (expected, call) in cases {
        let watch = watch(Settings::default());
        let pipeline = pipeline(&device, "two_slots");
        autoreleasepool(|_| {
            let commands = queue.commandBuffer().unwrap();
            let encoder = commands.computeCommandEncoder().unwrap();
            encoder.setComputePipelineState(&pipeline);
            let text = exception(|| call(&device, &encoder));
            assert!(text.contains(expected), "expected '{expected}', got '{text}'");
            encoder.endEncoding();
        });
        watch.assert_clean();
    }
}

#[test]
fn the_life_of_a_command_buffer() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        assert!(exception(|| commands.waitUntilCompleted()).contains("was not committed"));
        let encoder = commands.computeCommandEncoder().unwrap();
        assert!(exception(|| drop(commands.blitCommandEncoder())).contains("already encoding"));
        assert!(exception(|| commands.commit()).contains("uncommitted encoder"));
        assert!(
            exception(|| encoder.dispatchThreads_threadsPerThreadgroup(size(1), size(1)))
                .contains("no compute pipeline")
        );
        encoder.endEncoding();
        assert!(exception(|| encoder.endEncoding()).contains("after endEncoding"));
        assert!(exception(|| encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers)).contains("after endEncoding"));
        commands.commit();
        assert!(exception(|| commands.commit()).contains("already committed"));
        assert!(exception(|| drop(commands.computeCommandEncoder())).contains("already committed"));
        commands.waitUntilCompleted();
    });
    watch.assert_clean();
}

#[test]
fn buffers() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    assert!(exception(|| drop(device.newBufferWithLength_options(0, SHARED))).contains("zero length"));
    let private = device.newBufferWithLength_options(16, MTLResourceOptions::StorageModePrivate).unwrap();
    let contents = || {
        let _ = private.contents();
    };
    assert!(exception(contents).contains("private storage"));
    let odd = NonNull::<c_void>::without_provenance(std::num::NonZero::new(64).unwrap());
    // SAFETY: refused before the pointer is used.
    let no_copy =
        || drop(unsafe { device.newBufferWithBytesNoCopy_length_options_deallocator(odd, 100, SHARED, None) });
    assert!(exception(no_copy).contains("page size"));
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        let blit = commands.blitCommandEncoder().unwrap();
        let (x, y) = (empty(&device, 4, SHARED), empty(&device, 4, SHARED));
        // SAFETY: refused before anything is copied.
        let copy = |from, to, size| unsafe {
            blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(&x, from, &y, to, size)
        };
        assert!(exception(|| copy(8, 0, 12)).contains("source bytes 8..20"));
        assert!(exception(|| copy(0, 8, 12)).contains("destination bytes 8..20"));
        // SAFETY: as above.
        let overlap = || unsafe { blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(&x, 0, &x, 4, 8) };
        assert!(exception(overlap).contains("overlap"));
        assert!(exception(|| blit.fillBuffer_range_value(&x, NSRange::new(8, 12), 0)).contains("bytes 8..20"));
        blit.endEncoding();
    });
}

#[test]
fn a_selector_that_is_not_emulated_names_class_and_selector() {
    let device = device();
    let text = exception(|| {
        let _ = device.supportsTextureSampleCount(4);
    });
    assert!(text.contains("EmulatedMTLDevice") && text.contains("supportsTextureSampleCount:"), "{text}");
}

#[test]
fn reaching_outside_a_buffer_is_found_on_both_sides() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let source = "#include <metal_stdlib>\nusing namespace metal;\nkernel void reach(device float *x [[buffer(0)]], constant int &at [[buffer(1)]]) { x[at] = 1.0f; }";
    let reach = pipeline_of(&device, source, "reach");
    for (at, offset) in [(4i32, "16"), (-1, "-4"), (1000, "4000")] {
        let watch = watch(Settings::default());
        let x = empty(&device, 4, SHARED);
        x.setLabel(Some(&name("x")));
        run(&queue, false, |encoder| {
            encoder.setComputePipelineState(&reach);
            bind(encoder, &x, 0, 0);
            bytes(encoder, &at, 1);
            encoder.dispatchThreads_threadsPerThreadgroup(size(1), size(1));
        });
        watch.assert_found(Rule::OutOfBounds);
        let text = watch.reports()[0].text.clone();
        assert!(text.contains("buffer 'x'") && text.contains(offset), "{text}");
    }
}

#[test]
fn an_unbound_buffer_is_named() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    let y = empty(&device, 4, SHARED);
    run(&queue, false, |encoder| {
        encoder.setComputePipelineState(&add);
        bind(encoder, &y, 0, 1);
        encoder.dispatchThreads_threadsPerThreadgroup(size(4), size(4));
    });
    watch.assert_found(Rule::UnboundBuffer);
    let text = watch.reports()[0].text.clone();
    assert!(text.contains("`add_one`") && text.contains("`x`") && text.contains("slot 0"), "{text}");
}

#[test]
fn an_encoder_released_without_its_end_is_reported() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        drop(commands.computeCommandEncoder().unwrap());
    });
    watch.assert_found(Rule::EncoderNotEnded);
}
