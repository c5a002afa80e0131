//! What a region of the caller costs, counted exactly, and that nothing is left over.

mod harness;

use harness::*;
use metal_emulator::{Settings, alive, allocated_bytes, region, watch};
use objc2::rc::autoreleasepool;
use objc2_metal::*;

#[test]
fn one_dispatch_costs_what_is_sent() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    let (x, y) = (buffer(&device, &[1.0; 32], SHARED), empty(&device, 32, SHARED));
    autoreleasepool(|_| {
        let commands = queue.commandBuffer().unwrap();
        let encoder = commands.computeCommandEncoder().unwrap();
        let (counts, ()) = region(|| {
            add_one(&encoder, &add, (&x, 0), (&y, 0), 32);
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        });
        // setComputePipelineState, two buffers, the dispatch, the barrier.
        assert_eq!(counts.runtime.messages, 5);
        assert_eq!((counts.gpu.bindings, counts.gpu.dispatches, counts.gpu.barriers), (3, 1, 1));
        assert_eq!((counts.runtime.objects_made, counts.runtime.retains, counts.runtime.autoreleases), (0, 0, 0));
        assert_eq!((counts.gpu.bytes_copied, counts.gpu.commits, counts.gpu.waits), (0, 0, 0));
        encoder.endEncoding();
        let (counts, ()) = region(|| {
            commands.commit();
            commands.waitUntilCompleted();
        });
        assert_eq!((counts.runtime.messages, counts.gpu.commits, counts.gpu.waits), (2, 1, 1));
    });
    watch.assert_clean();
}

#[test]
fn a_command_buffer_and_its_encoder_are_two_objects() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    autoreleasepool(|_| {
        let (counts, commands) = region(|| {
            let commands = queue.commandBuffer().unwrap();
            let encoder = commands.computeCommandEncoder().unwrap();
            encoder.endEncoding();
            commands
        });
        assert_eq!((counts.runtime.objects_made, counts.runtime.messages), (2, 3));
        assert_eq!((counts.gpu.command_buffers, counts.gpu.encoders), (1, 1));
        commands.commit();
        commands.waitUntilCompleted();
    });
    watch.assert_clean();
}

#[test]
fn bytes_and_copies_are_counted() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let (counts, x) = region(|| buffer(&device, &[1.0; 100], SHARED));
    assert_eq!((counts.gpu.bytes_copied, counts.gpu.buffers), (400, 1));
    run(&queue, false, |encoder| {
        let (counts, ()) = region(|| bytes(encoder, &7u64, 1));
        assert_eq!(counts.gpu.bytes_copied, 8);
    });
    drop(x);
    watch.assert_clean();
}

#[test]
fn nothing_is_left_after_the_pool() {
    let watch = watch(Settings::default());
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    let work = || {
        autoreleasepool(|_| {
            let (x, y) = (buffer(&device, &[1.0; 32], SHARED), empty(&device, 32, SHARED));
            run(&queue, true, |encoder| add_one(encoder, &add, (&x, 0), (&y, 0), 32));
            assert_eq!(read(&y), [2.0; 32]);
        });
        drop(watch.reports());
    };
    work();
    let (objects, bytes) = (alive(), allocated_bytes());
    for _ in 0..50 {
        work();
    }
    assert_eq!(alive(), objects, "objects alive by class");
    assert_eq!(allocated_bytes(), bytes);
    watch.assert_clean();
}

#[test]
fn an_autorelease_without_a_pool_is_counted() {
    let device = device();
    let counts = std::thread::spawn(move || {
        let queue = device.newCommandQueue().unwrap();
        // The object is handed over to `Retained` where nothing stands between; through a raw message it is not.
        let (counts, commands) = region(|| {
            // SAFETY: commandBuffer takes no arguments and returns an autoreleased object.
            let raw: *mut objc2::runtime::AnyObject = unsafe { objc2::msg_send![&*queue, commandBuffer] };
            raw
        });
        assert!(!commands.is_null());
        counts
    })
    .join()
    .unwrap();
    assert_eq!(counts.runtime.autoreleases_without_pool, 1);
}
