//! What the library itself costs the host for an operation, the messages to Metal taken out: `encode` beside the very same
//! messages sent by hand.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, Op, RmsNorm};
use candlewick_metal::{Device, MSL, Stream};
use metal_emulator as _;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSRange, NSString};
use objc2_metal::*;
use product_on_the_emulator::Prepared;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::NonNull;
use std::time::Instant;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As many slots as RMSNorm has, and a name as long.
const KERNEL: &str = "
#include <metal_stdlib>
kernel void rms_norm_lanes_f32_wide(const device float *x [[buffer(0)]], const device float *w [[buffer(1)]], device float *y [[buffer(2)]],
                 constant uint &n [[buffer(3)]], uint i [[thread_position_in_grid]]) {
    if (i < n) y[i] = x[i] * w[i];
}";

/// Fewer than a command buffer holds, so that none is committed among them.
const OPERATIONS: usize = 40;

type Buffer = ProtocolObject<dyn MTLBuffer>;

/// The messages of one operation, by hand.
struct ByHand {
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    pipeline: Retained<ProtocolObject<dyn MTLComputePipelineState>>,
    buffer: Retained<Buffer>,
}

impl ByHand {
    fn new() -> Self {
        let device = MTLCreateSystemDefaultDevice().unwrap();
        let library = device.newLibraryWithSource_options_error(&NSString::from_str(KERNEL), None).unwrap();
        let function = library.newFunctionWithName(&NSString::from_str("rms_norm_lanes_f32_wide")).unwrap();
        let options = MTLResourceOptions::HazardTrackingModeUntracked;
        let buffer = device.newBufferWithLength_options(1 << 16, options).unwrap();
        // SAFETY: the buffer is that long.
        unsafe { buffer.contents().cast::<u8>().write_bytes(0, 1 << 16) };
        ByHand {
            queue: device.newCommandQueue().unwrap(),
            pipeline: device.newComputePipelineStateWithFunction_error(&function).unwrap(),
            buffer,
        }
    }

    /// Runs a measurement over `OPERATIONS` operations; the first opened everything.
    fn measure(&self, measured: impl FnOnce(&mut dyn FnMut())) {
        autoreleasepool(|_| {
            let commands = self.queue.commandBufferWithUnretainedReferences().unwrap();
            let encoder = commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent).unwrap();
            encoder.setComputePipelineState(&self.pipeline);
            let size = |width| MTLSize { width, height: 1, depth: 1 };
            let mut operation = || {
                encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
                let mut buffers: [*const Buffer; 4] = [&raw const *self.buffer; 4];
                let mut offsets = [0usize, 4096, 8192, 12288];
                let range = NSRange { location: 0, length: 4 };
                let (buffers, offsets) = (NonNull::from(&mut buffers[0]), NonNull::from(&mut offsets[0]));
                // SAFETY: four buffers and offsets, alive until the command buffer is done.
                unsafe { encoder.setBuffers_offsets_withRange(buffers, offsets, range) };
                encoder.dispatchThreadgroups_threadsPerThreadgroup(size(1), size(32));
            };
            measured(&mut operation);
            encoder.endEncoding();
            commands.commit();
            commands.waitUntilCompleted();
        });
    }
}

struct Ours {
    stream: Stream,
    prepared: Prepared,
}

impl Ours {
    fn new() -> Self {
        let device = Device::open().unwrap();
        let mut stream = device.stream().unwrap();
        let op = Op::from(RmsNorm::new(1, 32, 1e-5, DType::F32));
        let prepared = Prepared::new(&device, &mut stream, &op, Some(MSL)).unwrap();
        Ours { stream, prepared }
    }

    fn measure(&mut self, measured: impl FnOnce(&mut dyn FnMut())) {
        self.stream.wait().unwrap();
        self.prepared.encode(&mut self.stream).unwrap();
        measured(&mut || self.prepared.encode(&mut self.stream).unwrap());
        self.stream.wait().unwrap();
    }
}

#[test]
fn encode_allocates_nothing_of_its_own() {
    let (by_hand, mut ours) = (ByHand::new(), Ours::new());
    // The emulator allocates for what it emulates, on this thread: as much for the same messages.
    let count = |operation: &mut dyn FnMut()| {
        let each: [usize; OPERATIONS] = std::array::from_fn(|_| {
            let before = ALLOCATIONS.get();
            operation();
            ALLOCATIONS.get() - before
        });
        // Its lists grow now and then.
        *each.iter().min().unwrap()
    };
    let (mut alone, mut with_us) = (0, 0);
    by_hand.measure(|operation| alone = count(operation));
    ours.measure(|operation| with_us = count(operation));
    println!("allocations per operation: {alone} by hand, {with_us} through the library");
    assert!(alone > 0, "the counter counts");
    assert_eq!(with_us, alone);
}

#[test]
fn encode_takes_under_200_ns_of_its_own() {
    let (by_hand, mut ours) = (ByHand::new(), Ours::new());
    let time = |operation: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..OPERATIONS).for_each(|_| operation());
        start.elapsed().as_nanos() as f64 / OPERATIONS as f64
    };
    let (mut alone, mut with_us) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        by_hand.measure(|operation| alone.push(time(operation)));
        ours.measure(|operation| with_us.push(time(operation)));
    }
    // The emulated GPU is another thread on the same cores: the quick runs are those that it left alone.
    let quick = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 10]
    };
    let (alone, with_us) = (quick(&mut alone), quick(&mut with_us));
    println!(
        "an operation: {alone:.0} ns by hand, {with_us:.0} ns through the library, {:.0} ns its own",
        with_us - alone
    );
    let most = if cfg!(debug_assertions) { 1000.0 } else { 200.0 };
    assert!(with_us - alone < most, "{:.0} ns", with_us - alone);
}
