//! Kernels, copies, heaps, events: what the typed API does on a GPU.

mod harness;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use block2::RcBlock;
use harness::*;
use metal_emulator::{Settings, watch};
use objc2::AnyThread;
use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSRange;
use objc2_metal::*;

#[test]
fn a_kernel_runs_and_the_rest_of_the_buffer_stays_nan() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let x = buffer(&device, &[1.0, 2.0, 3.0], SHARED);
    let y = empty(&device, 5, SHARED);
    let add = pipeline(&device, "add_one");
    let commands = run(&queue, false, |encoder| add_one(encoder, &add, (&x, 0), (&y, 0), 3));
    assert_eq!(commands.status(), MTLCommandBufferStatus::Completed);
    assert_eq!(read(&y)[..3], [2.0, 3.0, 4.0]);
    assert!(read(&y)[3..].iter().all(|value| value.is_nan()), "what nobody wrote is NaN");
    watch.assert_clean();
}

#[test]
fn threadgroup_sums_agree_under_every_order() {
    for seed in 0..6 {
        let watch = watch(Settings::seeded(seed));
        let device = device();
        let queue = device.newCommandQueue().unwrap();
        let (rows, columns) = (5usize, 100u32);
        let values: Vec<f32> = (0..rows * columns as usize).map(|i| (i % 7) as f32).collect();
        let (x, y) = (buffer(&device, &values, SHARED), empty(&device, rows, SHARED));
        let sum = pipeline(&device, "row_sum");
        run(&queue, false, |encoder| {
            encoder.setComputePipelineState(&sum);
            bind(encoder, &x, 0, 0);
            bind(encoder, &y, 0, 1);
            bytes(encoder, &columns, 2);
            encoder.dispatchThreadgroups_threadsPerThreadgroup(size(rows), size(64));
        });
        let expected: Vec<f32> = values.chunks(columns as usize).map(|row| row.iter().sum()).collect();
        assert_eq!(read(&y), expected, "seed {seed}");
        watch.assert_clean();
    }
}

#[test]
fn copies_and_fills() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let x = buffer(&device, &[1.0, 2.0, 3.0, 4.0], SHARED);
    let private = device.newBufferWithLength_options(16, MTLResourceOptions::StorageModePrivate).unwrap();
    let y = empty(&device, 4, SHARED);
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        let blit = commands.blitCommandEncoder().unwrap();
        // SAFETY: the ranges lie inside the buffers.
        unsafe {
            blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(&x, 0, &private, 0, 16);
            blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(&private, 4, &y, 0, 12);
        }
        blit.fillBuffer_range_value(&y, NSRange::new(12, 4), 0);
        blit.endEncoding();
        commands.commit();
        commands.waitUntilCompleted();
    });
    assert_eq!(read(&y), [2.0, 3.0, 4.0, 0.0]);
    watch.assert_clean();
}

#[test]
fn indirect_dispatches_read_their_size_when_they_run() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let (x, y) = (buffer(&device, &[0.0; 64], SHARED), empty(&device, 64, SHARED));
    let groups: [f32; 3] = [1u32, 1, 1].map(f32::from_bits);
    let groups = buffer(&device, &groups, SHARED);
    let add = pipeline(&device, "add_one");
    run(&queue, false, |encoder| {
        encoder.setComputePipelineState(&add);
        bind(encoder, &x, 0, 0);
        bind(encoder, &y, 0, 1);
        // SAFETY: three numbers lie in the buffer.
        unsafe {
            encoder.dispatchThreadgroupsWithIndirectBuffer_indirectBufferOffset_threadsPerThreadgroup(
                &groups,
                0,
                size(32),
            );
        }
    });
    assert!(read(&y)[..32].iter().all(|value| *value == 1.0));
    assert!(read(&y)[32..].iter().all(|value| value.is_nan()));
    watch.assert_clean();
}

#[test]
fn handlers_come_once_and_before_the_wait_ends() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        let seen = calls.clone();
        let block = RcBlock::new(move |buffer: NonNull<ProtocolObject<dyn MTLCommandBuffer>>| {
            // SAFETY: Metal passes the command buffer, alive.
            assert_eq!(unsafe { buffer.as_ref() }.status(), MTLCommandBufferStatus::Completed);
            seen.fetch_add(1, Ordering::SeqCst);
        });
        // SAFETY: a block of this signature.
        unsafe { commands.addCompletedHandler(RcBlock::as_ptr(&block)) };
        commands.commit();
        commands.waitUntilCompleted();
    });
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    watch.assert_clean();
}

#[test]
fn shared_events_order_queues_and_tell_the_host() {
    for seed in [0, 1, 2] {
        let watch = watch(Settings::seeded(seed));
        let device = device();
        let (first, second) = (device.newCommandQueue().unwrap(), device.newCommandQueue().unwrap());
        let event = device.newSharedEvent().unwrap();
        let (x, y, z) =
            (buffer(&device, &[1.0; 8], UNTRACKED), empty(&device, 8, UNTRACKED), empty(&device, 8, UNTRACKED));
        let add = pipeline(&device, "add_one");
        autoreleasepool(|_| {
            let later = second.commandBuffer().unwrap();
            later.encodeWaitForEvent_value(ProtocolObject::from_ref(&*event), 1);
            let encoder = later.computeCommandEncoder().unwrap();
            add_one(&encoder, &add, (&y, 0), (&z, 0), 8);
            encoder.endEncoding();
            later.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 2);
            later.commit();
            let earlier = first.commandBuffer().unwrap();
            let encoder = earlier.computeCommandEncoder().unwrap();
            add_one(&encoder, &add, (&x, 0), (&y, 0), 8);
            encoder.endEncoding();
            earlier.encodeSignalEvent_value(ProtocolObject::from_ref(&*event), 1);
            earlier.commit();
            assert!(event.waitUntilSignaledValue_timeoutMS(2, 10_000));
            later.waitUntilCompleted();
        });
        assert_eq!(read(&z), [3.0; 8]);
        watch.assert_clean();
    }
}

#[test]
fn heaps_are_cut_into_buffers_and_take_them_back() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let descriptor = MTLHeapDescriptor::init(MTLHeapDescriptor::alloc());
    descriptor.setSize(4096);
    descriptor.setStorageMode(MTLStorageMode::Shared);
    descriptor.setHazardTrackingMode(MTLHazardTrackingMode::Tracked);
    let heap = device.newHeapWithDescriptor(&descriptor).unwrap();
    let x = heap.newBufferWithLength_options(1024, SHARED).unwrap();
    let y = heap.newBufferWithLength_options(1024, SHARED).unwrap();
    assert_eq!((x.heapOffset(), y.heapOffset(), heap.usedSize()), (0, 1024, 2048));
    assert!(heap.newBufferWithLength_options(4096, SHARED).is_none(), "no room");
    // SAFETY: nothing else uses the buffer.
    unsafe { std::slice::from_raw_parts_mut(x.contents().as_ptr().cast::<f32>(), 256) }.fill(4.0);
    let add = pipeline(&device, "add_one");
    run(&queue, false, |encoder| add_one(encoder, &add, (&x, 0), (&y, 0), 256));
    assert_eq!(read(&y), [5.0; 256]);
    drop(x);
    assert_eq!((heap.usedSize(), heap.maxAvailableSizeWithAlignment(256)), (1024, 2048));
    watch.assert_clean();
}

#[test]
fn residency_sets_keep_what_is_added() {
    let device = device();
    let descriptor = MTLResidencySetDescriptor::init(MTLResidencySetDescriptor::alloc());
    let set = device.newResidencySetWithDescriptor_error(&descriptor).unwrap();
    let x = empty(&device, 4, SHARED);
    set.addAllocation(ProtocolObject::from_ref(&*x));
    set.commit();
    set.requestResidency();
    assert!(set.containsAllocation(ProtocolObject::from_ref(&*x)));
    assert_eq!(set.allocationCount(), 1);
    set.removeAllAllocations();
    set.commit();
    assert_eq!(set.allocationCount(), 0);
}

#[test]
fn pages_of_the_program_serve_as_a_buffer() {
    let watch = watch(Settings::default());
    let device = device();
    let layout = std::alloc::Layout::from_size_align(16384, 16384).unwrap();
    // SAFETY: the layout is not empty.
    let pages = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap().cast::<c_void>();
    let freed = Arc::new(AtomicU32::new(0));
    let seen = freed.clone();
    let block = RcBlock::new(move |_: NonNull<c_void>, length: usize| {
        seen.store(length as u32, Ordering::SeqCst);
    });
    // SAFETY: the pages live until the end of the test.
    let x = unsafe { device.newBufferWithBytesNoCopy_length_options_deallocator(pages, 16384, SHARED, Some(&block)) }
        .unwrap();
    assert_eq!(x.contents(), pages);
    drop(x);
    assert_eq!(freed.load(Ordering::SeqCst), 16384);
    // SAFETY: allocated above with this layout, and the buffer is gone.
    unsafe { std::alloc::dealloc(pages.as_ptr().cast(), layout) };
    watch.assert_clean();
}

#[test]
fn a_source_that_does_not_compile_is_an_error_with_the_line() {
    let device = device();
    let source = "#include <metal_stdlib>\nusing namespace metal;\nkernel void f(device float *x [[buffer(0)]]) {\n    y[0] = 1;\n}\n";
    let error = device.newLibraryWithSource_options_error(&name(source), None).unwrap_err();
    let text = error.localizedDescription().to_string();
    assert!(text.contains(":4:") && text.contains('y'), "{text}");
    assert_eq!(error.domain().to_string(), "MTLLibraryErrorDomain");
}

#[test]
fn function_constants_specialise_a_kernel() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let source = "#include <metal_stdlib>\nusing namespace metal;\nconstant uint pace [[function_constant(0)]];\nconstant bool twice [[function_constant(1)]];\n\
                  kernel void fill(device float *x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] = float(i * pace) * (twice ? 2.0f : 1.0f); }";
    let library = library(&device, source);
    let constants = MTLFunctionConstantValues::init(MTLFunctionConstantValues::alloc());
    let (pace, twice) = (3u32, true);
    // SAFETY: values of the types named.
    unsafe {
        constants.setConstantValue_type_atIndex(NonNull::from(&pace).cast(), MTLDataType::UInt, 0);
        constants.setConstantValue_type_atIndex(NonNull::from(&twice).cast(), MTLDataType::Bool, 1);
    }
    let function = library.newFunctionWithName_constantValues_error(&name("fill"), &constants).unwrap();
    let fill = device.newComputePipelineStateWithFunction_error(&function).unwrap();
    let x = empty(&device, 4, SHARED);
    run(&queue, false, |encoder| {
        encoder.setComputePipelineState(&fill);
        bind(encoder, &x, 0, 0);
        encoder.dispatchThreads_threadsPerThreadgroup(size(4), size(4));
    });
    assert_eq!(read(&x), [0.0, 6.0, 12.0, 18.0]);
    // SAFETY: a value of the type named; that it is the wrong one is the point.
    unsafe { constants.setConstantValue_type_atIndex(NonNull::from(&twice).cast(), MTLDataType::Bool, 0) };
    let error = library.newFunctionWithName_constantValues_error(&name("fill"), &constants).unwrap_err();
    assert!(error.localizedDescription().to_string().contains("'pace'"));
    watch.assert_clean();
}
