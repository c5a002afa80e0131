//! `encode` allocates nothing on the CPU: no operation, engine, dtype or number of threads does.

use candlewick::op::{Dropout, LoraRows};
use candlewick::{Buffer, DType, Device, Input, LoraDelta, LoraLinear, MatMul, Op, Output, RmsNorm, Softmax, Stream};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Counting;

/// Of every thread, the pool's included.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

fn ops(dtype: DType) -> Vec<Op> {
    let linear = LoraLinear::new(65, 300, 257, 8, 2.0, dtype).with_bias();
    let delta = LoraDelta::new(65, 300, 257, 8, 2.0, dtype).accumulate();
    let softmax = Softmax::new(128, 1030, dtype).causal(64);
    let norm = RmsNorm::new(128, 1030, 1e-5, dtype);
    let product = MatMul::new(129, 257, 300, dtype);
    vec![
        product.into(),
        MatMul::new(1, 1025, 700, dtype).into(),
        product.trans_a().trans_b().scaled(0.5, 1.0).into(),
        product.packed_b().into(),
        MatMul::new(33, 65, 64, dtype).batched(24).into(),
        softmax.into(),
        Op::SoftmaxBackward(softmax),
        norm.into(),
        Op::RmsNormBackward(norm),
        linear.into(),
        linear.packed().into(),
        LoraLinear { rows: 1, ..linear.packed() }.into(),
        Op::LoraLinearBackward(linear),
        Op::LoraLinearBackward(linear.packed()),
        delta.into(),
        Op::LoraDeltaBackward(delta),
        LoraRows::new(65, 300, 257, 8, 3, dtype).into(),
        Dropout::new(128, 1030, 0.1, 1, dtype).into(),
    ]
}

fn buffers(device: &Device, operands: &[candlewick::op::Operand]) -> Vec<Buffer> {
    operands.iter().map(|operand| device.alloc(operand.dtype, operand.span).unwrap()).collect()
}

// One test, so that no other allocates meanwhile.
#[test]
fn encode_allocates_nothing() {
    // Threads allocate while they start: the pool's, and the test harness's own.
    drop(Device::cpu().stream().unwrap());
    std::thread::sleep(Duration::from_millis(200));
    let mut threaded = 0;
    for device in [Device::cpu(), Device::cpu_with_threads(1)] {
        let mut stream: Stream = device.stream().unwrap();
        for op in DType::ALL.into_iter().flat_map(ops) {
            let operands = op.operands().unwrap();
            let (mut inputs, mut outputs) = (buffers(&device, &operands.inputs), buffers(&device, &operands.outputs));
            // The reference is there to be compared with, and says that it allocates.
            for engine in device.engines(op).into_iter().filter(|engine| engine.name() != "reference") {
                let kernel = stream.prepare_with(op, engine).unwrap();
                threaded += usize::from(kernel.threads() > 1);
                if let Some(factor) = op.packed_factor() {
                    let plain = device.alloc(op.dtype(), operands.inputs[factor.input].span).unwrap();
                    inputs[factor.input] = stream.pack(&kernel, (&plain).into()).unwrap();
                }
                let read: Vec<Input<'_>> = inputs.iter().map(Into::into).collect();
                let mut written: Vec<Output<'_>> = outputs.iter_mut().map(Into::into).collect();
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                for _ in 0..3 {
                    stream.encode(&kernel, &read, &mut written).unwrap();
                }
                stream.wait().unwrap();
                let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
                assert_eq!(allocations, 0, "{op} on {engine}");
            }
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            drop(stream.prepare(op).unwrap());
            let first = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert!(first > 0, "the counter counts: {op} was prepared by name of its engine only");
            drop(stream.prepare(op).unwrap());
            assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, first, "{op} is cached");
        }
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(cores == 1 || threaded > 20, "{threaded} kernels ran on several threads");
}
