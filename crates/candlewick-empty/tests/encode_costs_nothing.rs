//! The contract's own cost: `encode` allocates nothing, locks nothing, and takes well under a microsecond.

use candlewick_core::backend::{Device as _, Stream as _};
use candlewick_core::{DType, LoraLinear, Op};
use candlewick_empty::Device;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
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

fn allocations(run: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

#[test]
fn encode_of_a_prepared_op_allocates_nothing() {
    let device = Device;
    let mut stream = device.stream().unwrap();
    let op = Op::from(LoraLinear::new(32, 512, 512, 8, 2.0, DType::F32));
    let buffers: Vec<_> = op
        .operands()
        .unwrap()
        .inputs
        .iter()
        .map(|operand| device.alloc(operand.dtype, operand.span).unwrap())
        .collect();
    let mut y = device.alloc(DType::F32, 32 * 512).unwrap();

    let preparing = allocations(|| drop(stream.prepare(&op, None).unwrap()));
    assert!(preparing > 0, "the counter counts");
    let kernel = stream.prepare(&op, None).unwrap();
    let encoding = allocations(|| {
        for _ in 0..1000 {
            let inputs = [&buffers[0], &buffers[1], &buffers[2], &buffers[3]].map(Into::into);
            stream.encode(&kernel, &inputs, &mut [(&mut y).into()]).unwrap();
        }
    });
    assert_eq!(encoding, 0);
    assert_eq!(allocations(|| drop(stream.prepare(&op, None).unwrap())), 0, "nor does preparing it again");
    assert_eq!(stream.cache_counters().misses, 1);

    // The target is 100 ns; the bound leaves room for a debug build on a busy machine.
    let start = Instant::now();
    for _ in 0..10_000 {
        let inputs = [&buffers[0], &buffers[1], &buffers[2], &buffers[3]].map(Into::into);
        stream.encode(&kernel, &inputs, &mut [(&mut y).into()]).unwrap();
    }
    let each = start.elapsed().as_nanos() / 10_000;
    println!("encode: {each} ns");
    assert!(each < if cfg!(debug_assertions) { 10_000 } else { 1_000 }, "{each} ns");
}

#[test]
fn wrong_arguments_are_named() {
    let device = Device;
    let mut stream = device.stream().unwrap();
    let op = Op::from(LoraLinear::new(2, 4, 6, 2, 1.0, DType::F32));
    let kernel = stream.prepare(&op, None).unwrap();
    let (x, w, a, b) = ([0f32; 8], [0f32; 23], [0f32; 8], [0f32; 12]);
    let mut y = [0f32; 12];
    let error = stream
        .encode(&kernel, &[x[..].into(), w[..].into(), a[..].into(), b[..].into()], &mut [y[..].as_mut().into()])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "lora_linear: w [6, 4] spans 24 elements with its strides, and 23 were given: pass a longer slice"
    );
    let error = stream.encode(&kernel, &[x[..].into()], &mut [y[..].as_mut().into()]).unwrap_err();
    assert_eq!(error.to_string(), "lora_linear: 1 inputs given, 4 expected (x, w, a, b)");
    let mut other = device.stream().unwrap();
    let error = other.encode(&kernel, &[], &mut []).unwrap_err();
    assert!(error.to_string().contains("prepare it on the stream that encodes it"), "{error}");
}
