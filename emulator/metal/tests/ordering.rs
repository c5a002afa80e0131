//! What Metal leaves unordered: found by byte range with both commands named, and shuffled by seed.

mod harness;

use harness::*;
use metal_emulator::{Rule, Settings, Watch, watch};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::*;

struct Bench {
    watch: Watch,
    device: Device,
    queue: Queue,
    add: Pipeline,
}

fn bench(seed: u64) -> Bench {
    let watch = watch(Settings::seeded(seed));
    let device = device();
    let queue = device.newCommandQueue().unwrap();
    let add = pipeline(&device, "add_one");
    Bench { watch, device, queue, add }
}

fn text(watch: &Watch) -> String {
    watch.reports().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Two dispatches that meet in `y`, with `between` encoded between them.
fn meet(bench: &Bench, concurrent: bool, between: impl Fn(&Encoder, &Buffer)) -> Vec<f32> {
    let x = buffer(&bench.device, &[1.0; 64], SHARED);
    let (y, z) = (empty(&bench.device, 64, SHARED), empty(&bench.device, 64, SHARED));
    y.setLabel(Some(&name("y")));
    run(&bench.queue, concurrent, |encoder| {
        add_one(encoder, &bench.add, (&x, 0), (&y, 0), 64);
        between(encoder, &y);
        add_one(encoder, &bench.add, (&y, 16), (&z, 0), 32);
    });
    read(&z)
}

#[test]
fn a_missing_barrier_is_found_in_every_order() {
    for seed in 0..8 {
        let bench = bench(seed);
        meet(&bench, true, |_, _| {});
        bench.watch.assert_found(Rule::MissingBarrier);
        let text = text(&bench.watch);
        assert!(
            text.contains("read after write")
                && text.contains("`add_one`")
                && text.contains("buffer 'y' bytes 64..192"),
            "{text}"
        );
    }
}

#[test]
fn without_its_barrier_some_order_gives_wrong_numbers() {
    let wrong = (1..20).filter(|seed| meet(&bench(*seed), true, |_, _| {})[0].is_nan()).count();
    assert!(wrong > 0, "no seed of nineteen ran the second dispatch first");
}

#[test]
fn a_barrier_orders_under_every_seed() {
    for seed in 0..8 {
        let bench = bench(seed);
        let z = meet(&bench, true, |encoder, _| encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers));
        assert_eq!(z[..32], [3.0; 32]);
        bench.watch.assert_clean();
    }
}

#[test]
fn a_barrier_over_resources_orders_those_alone() {
    for seed in 0..8 {
        let bench = bench(seed);
        let over = |encoder: &Encoder, buffer: &Buffer| {
            let mut resource: std::ptr::NonNull<ProtocolObject<dyn MTLResource>> =
                std::ptr::NonNull::from(ProtocolObject::from_ref(&**buffer));
            // SAFETY: one resource, alive.
            unsafe { encoder.memoryBarrierWithResources_count(std::ptr::NonNull::from(&mut resource), 1) };
        };
        let z = meet(&bench, true, over);
        assert_eq!(z[..32], [3.0; 32]);
        bench.watch.assert_clean();
        let other = empty(&bench.device, 4, SHARED);
        meet(&bench, true, |encoder, _| over(encoder, &other));
        bench.watch.assert_found(Rule::MissingBarrier);
    }
}

#[test]
fn a_barrier_over_textures_orders_no_buffers() {
    let bench = bench(0);
    meet(&bench, true, |encoder, _| encoder.memoryBarrierWithScope(MTLBarrierScope::Textures));
    bench.watch.assert_found(Rule::MissingBarrier);
}

#[test]
fn serial_encoders_order_by_themselves() {
    for seed in 0..4 {
        let bench = bench(seed);
        assert_eq!(meet(&bench, false, |_, _| {})[..32], [3.0; 32]);
        bench.watch.assert_clean();
    }
}

#[test]
fn dispatches_on_disjoint_bytes_of_one_buffer_need_no_barrier() {
    let bench = bench(3);
    let x = buffer(&bench.device, &[1.0; 64], UNTRACKED);
    run(&bench.queue, true, |encoder| {
        add_one(encoder, &bench.add, (&x, 0), (&x, 16), 16);
        add_one(encoder, &bench.add, (&x, 32), (&x, 48), 16);
    });
    bench.watch.assert_clean();
}

#[test]
fn reading_twice_is_no_hazard_and_writing_twice_is() {
    let bench = bench(0);
    let x = buffer(&bench.device, &[1.0; 64], SHARED);
    let (y, z) = (empty(&bench.device, 64, SHARED), empty(&bench.device, 64, SHARED));
    run(&bench.queue, true, |encoder| {
        add_one(encoder, &bench.add, (&x, 0), (&y, 0), 64);
        add_one(encoder, &bench.add, (&x, 0), (&z, 0), 64);
    });
    bench.watch.assert_clean();
    run(&bench.queue, true, |encoder| {
        add_one(encoder, &bench.add, (&x, 0), (&y, 0), 40);
        add_one(encoder, &bench.add, (&x, 0), (&y, 32), 32);
    });
    let text = text(&bench.watch);
    assert!(text.contains("write after write") && text.contains("bytes 128..160"), "{text}");
}

/// Two passes that meet in `y`, each in an encoder of its own, of one command buffer or of two.
fn passes(bench: &Bench, options: MTLResourceOptions, two_buffers: bool, fence: bool) {
    let x = buffer(&bench.device, &[1.0; 64], options);
    let (y, z) = (empty(&bench.device, 64, options), empty(&bench.device, 64, options));
    let fence = fence.then(|| bench.device.newFence().unwrap());
    autoreleasepool(|_| {
        let first = bench.queue.commandBuffer().unwrap();
        let second: Retained<ProtocolObject<dyn MTLCommandBuffer>> =
            if two_buffers { bench.queue.commandBuffer().unwrap() } else { first.clone() };
        let encoder = first.computeCommandEncoder().unwrap();
        add_one(&encoder, &bench.add, (&x, 0), (&y, 0), 64);
        if let Some(fence) = &fence {
            encoder.updateFence(fence);
        }
        encoder.endEncoding();
        if two_buffers {
            first.commit();
        }
        let encoder = second.computeCommandEncoder().unwrap();
        if let Some(fence) = &fence {
            encoder.waitForFence(fence);
        }
        add_one(&encoder, &bench.add, (&y, 0), (&z, 0), 64);
        encoder.endEncoding();
        second.commit();
        first.waitUntilCompleted();
        second.waitUntilCompleted();
    });
    bench.watch.reports();
}

#[test]
fn untracked_passes_need_a_fence_and_tracked_ones_do_not() {
    for seed in 0..4 {
        for two_buffers in [false, true] {
            let bench = bench(seed);
            passes(&bench, SHARED, two_buffers, false);
            bench.watch.assert_clean();
            passes(&bench, UNTRACKED, two_buffers, true);
            bench.watch.assert_clean();
            passes(&bench, UNTRACKED, two_buffers, false);
            bench.watch.assert_found(Rule::MissingFence);
        }
    }
}

#[test]
fn what_the_host_waited_for_needs_no_fence() {
    let bench = bench(5);
    let x = buffer(&bench.device, &[1.0; 64], UNTRACKED);
    let (y, z) = (empty(&bench.device, 64, UNTRACKED), empty(&bench.device, 64, UNTRACKED));
    run(&bench.queue, true, |encoder| add_one(encoder, &bench.add, (&x, 0), (&y, 0), 64));
    run(&bench.queue, true, |encoder| add_one(encoder, &bench.add, (&y, 0), (&z, 0), 64));
    bench.watch.assert_clean();
    assert_eq!(read(&z), [3.0; 64]);
}

#[test]
fn tracked_buffers_are_not_tracked_across_queues() {
    let bench = bench(0);
    let other = bench.device.newCommandQueue().unwrap();
    let x = buffer(&bench.device, &[1.0; 64], SHARED);
    let (y, z) = (empty(&bench.device, 64, SHARED), empty(&bench.device, 64, SHARED));
    autoreleasepool(|_| {
        let (first, second) = (bench.queue.commandBuffer().unwrap(), other.commandBuffer().unwrap());
        let encoder = first.computeCommandEncoder().unwrap();
        add_one(&encoder, &bench.add, (&x, 0), (&y, 0), 64);
        encoder.endEncoding();
        let encoder = second.computeCommandEncoder().unwrap();
        add_one(&encoder, &bench.add, (&y, 0), (&z, 0), 64);
        encoder.endEncoding();
        first.commit();
        second.commit();
        first.waitUntilCompleted();
        second.waitUntilCompleted();
    });
    bench.watch.assert_found(Rule::MissingFence);
}

#[test]
fn one_order_per_seed() {
    let orders: Vec<Vec<u32>> = (1..6)
        .map(|seed| {
            let bench = bench(seed);
            meet(&bench, true, |_, _| {}).iter().map(|value| value.to_bits()).collect()
        })
        .collect();
    for (index, order) in orders.iter().enumerate() {
        let bench = bench(index as u64 + 1);
        let again: Vec<u32> = meet(&bench, true, |_, _| {}).iter().map(|value| value.to_bits()).collect();
        assert_eq!(*order, again, "seed {}", index + 1);
    }
}
