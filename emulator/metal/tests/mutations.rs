//! Mistakes made on purpose. Each must be caught by name, or the emulator proves nothing.

mod harness;

use harness::*;
use metal_emulator::{Drop, Rule, Settings, watch};
use objc2::AnyThread;
use objc2::rc::autoreleasepool;
use objc2_metal::*;
use objc2_metal_performance_shaders::*;

fn dropping(drop: Drop) -> Settings {
    Settings { drop, ..Settings::default() }
}

/// Three dispatches, each reading what the one before wrote; correct as it stands.
fn chain(device: &Device, queue: &Queue) {
    let add = pipeline(device, "add_one");
    let buffers: Vec<Buffer> = (0..4).map(|_| buffer(device, &[1.0; 32], SHARED)).collect();
    run(queue, true, |encoder| {
        for pair in buffers.windows(2) {
            add_one(encoder, &add, (&pair[0], 0), (&pair[1], 0), 32);
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
    });
}

#[test]
fn dropping_barriers() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    for (drop, caught) in [
        (Drop::Nothing, false),
        (Drop::Barriers, true),
        (Drop::Barrier(0), true),
        (Drop::Barrier(1), true),
        (Drop::Barrier(2), false), // the last one has nothing after it
    ] {
        let watch = watch(dropping(drop));
        chain(&device, &queue);
        if caught {
            watch.assert_found(Rule::MissingBarrier);
        } else {
            watch.assert_clean();
        }
    }
}

#[test]
fn dropping_fences() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    for (drop, caught) in [(Drop::Nothing, false), (Drop::Fences, true), (Drop::Fence(0), true), (Drop::Fence(1), true)]
    {
        let watch = watch(dropping(drop));
        let buffers: Vec<Buffer> = (0..4).map(|_| buffer(&device, &[1.0; 32], UNTRACKED)).collect();
        let fences: Vec<_> = (0..2).map(|_| device.newFence().unwrap()).collect();
        autoreleasepool(|_| {
            let commands = queue.commandBuffer().unwrap();
            for (index, pair) in buffers.windows(2).enumerate() {
                let encoder = commands.computeCommandEncoder().unwrap();
                if index > 0 {
                    encoder.waitForFence(&fences[index - 1]);
                }
                add_one(&encoder, &add, (&pair[0], 0), (&pair[1], 0), 32);
                if let Some(fence) = fences.get(index) {
                    encoder.updateFence(fence);
                }
                encoder.endEncoding();
            }
            commands.commit();
            commands.waitUntilCompleted();
        });
        if caught {
            watch.assert_found(Rule::MissingFence);
        } else {
            watch.assert_clean();
        }
    }
}

#[test]
fn dropping_events() {
    let device = device();
    let (first, second) = (device.newCommandQueue().unwrap(), device.newCommandQueue().unwrap());
    let add = pipeline(&device, "add_one");
    for (drop, caught) in [(Drop::Nothing, false), (Drop::Events, true)] {
        let watch = watch(dropping(drop));
        let (x, y) = (buffer(&device, &[1.0; 32], SHARED), buffer(&device, &[1.0; 32], SHARED));
        let event = device.newEvent().unwrap();
        autoreleasepool(|_| {
            let (earlier, later) = (first.commandBuffer().unwrap(), second.commandBuffer().unwrap());
            let encoder = earlier.computeCommandEncoder().unwrap();
            add_one(&encoder, &add, (&x, 0), (&y, 0), 32);
            encoder.endEncoding();
            earlier.encodeSignalEvent_value(&event, 1);
            later.encodeWaitForEvent_value(&event, 1);
            let encoder = later.computeCommandEncoder().unwrap();
            add_one(&encoder, &add, (&y, 0), (&x, 0), 32);
            encoder.endEncoding();
            earlier.commit();
            later.commit();
            earlier.waitUntilCompleted();
            later.waitUntilCompleted();
        });
        if caught {
            watch.assert_found(Rule::MissingFence);
        } else {
            watch.assert_clean();
        }
    }
}

#[test]
fn dropping_every_threadgroup_barrier_of_a_kernel() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let barrier = "threadgroup_barrier(mem_flags::mem_threadgroup);";
    let places: Vec<usize> = KERNELS.match_indices(barrier).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2);
    for place in places {
        let mut source = KERNELS.to_owned();
        source.replace_range(place..place + barrier.len(), "");
        let sum = pipeline_of(&device, &source, "row_sum");
        let watch = watch(Settings::default());
        let (x, y) = (buffer(&device, &[1.0; 256], SHARED), empty(&device, 1, SHARED));
        run(&queue, false, |encoder| {
            encoder.setComputePipelineState(&sum);
            bind(encoder, &x, 0, 0);
            bind(encoder, &y, 0, 1);
            bytes(encoder, &256u32, 2);
            encoder.dispatchThreadgroups_threadsPerThreadgroup(size(1), size(64));
        });
        watch.assert_found(Rule::Race);
    }
}

#[test]
fn releasing_a_buffer_early() {
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    for retained in [true, false] {
        let watch = watch(Settings::default());
        autoreleasepool(|_| {
            let commands =
                if retained { queue.commandBuffer() } else { queue.commandBufferWithUnretainedReferences() }.unwrap();
            let (x, y) = (buffer(&device, &[1.0; 32], SHARED), empty(&device, 32, SHARED));
            x.setLabel(Some(&name("freed too early")));
            let encoder = commands.computeCommandEncoder().unwrap();
            add_one(&encoder, &add, (&x, 0), (&y, 0), 32);
            encoder.endEncoding();
            drop(x);
            commands.commit();
            commands.waitUntilCompleted();
        });
        if retained {
            watch.assert_clean();
        } else {
            watch.assert_found(Rule::FreedResource);
            assert!(watch.reports()[0].text.contains("'freed too early'"));
        }
    }
}

#[test]
fn releasing_a_pipeline_early() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let (x, y) = (buffer(&device, &[1.0; 32], SHARED), empty(&device, 32, SHARED));
    autoreleasepool(|_| {
        let commands = queue.commandBufferWithUnretainedReferences().unwrap();
        let encoder = commands.computeCommandEncoder().unwrap();
        let add = pipeline(&device, "add_one");
        add_one(&encoder, &add, (&x, 0), (&y, 0), 32);
        drop(add);
        encoder.endEncoding();
        commands.commit();
        commands.waitUntilCompleted();
    });
    watch.assert_found(Rule::FreedResource);
}

#[test]
fn skipping_the_wait() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    let (x, y) = (buffer(&device, &[1.0; 32], SHARED), empty(&device, 32, SHARED));
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        let encoder = commands.computeCommandEncoder().unwrap();
        add_one(&encoder, &add, (&x, 0), (&y, 0), 32);
        encoder.endEncoding();
        commands.commit();
        let _ = read(&y);
        commands.waitUntilCompleted();
    });
    watch.assert_found(Rule::HostAccess);
}

#[test]
fn swapping_float16_and_float32() {
    let device = device();
    let x = buffer(&device, &[0.0; 16], SHARED);
    // Rows of 4 halves in a buffer laid out for f32 are told apart by their row bytes.
    let swapped = |kind, row_bytes| {
        // SAFETY: the emulator checks what the header asks for.
        unsafe {
            let descriptor =
                MPSMatrixDescriptor::matrixDescriptorWithRows_columns_rowBytes_dataType(4, 4, row_bytes, kind);
            MPSMatrix::initWithBuffer_descriptor(MPSMatrix::alloc(), &x, &descriptor)
        }
    };
    drop(swapped(MPSDataType::Float32, 16));
    let text = exception(|| drop(swapped(MPSDataType::Float32, 8)));
    assert!(text.contains("MPS") && text.contains("Float32"), "{text}");
}

#[test]
fn row_bytes_in_elements() {
    let device = device();
    let x = buffer(&device, &[0.0; 64], SHARED);
    let text = exception(|| {
        // SAFETY: the emulator checks what the header asks for.
        let matrix = unsafe {
            let descriptor =
                MPSMatrixDescriptor::matrixDescriptorWithRows_columns_rowBytes_dataType(8, 8, 8, MPSDataType::Float32);
            MPSMatrix::initWithBuffer_descriptor(MPSMatrix::alloc(), &x, &descriptor)
        };
        drop(matrix);
    });
    assert!(text.contains("row") && text.contains("bytes"), "{text}");
}
