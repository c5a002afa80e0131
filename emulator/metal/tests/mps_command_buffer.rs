//! `MPSCommandBuffer`: a command buffer around another one.

mod mps_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use block2::RcBlock;
use metal_emulator::{Settings, watch};
use mps_support::{Gpu, Shape, assert_close, assert_refused};
use objc2::AnyThread;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSRange, NSString};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue,
};
use objc2_metal_performance_shaders::{MPSCommandBuffer, MPSDataType, MPSMatrixMultiplication};

const F32: MPSDataType = MPSDataType::Float32;

fn product(gpu: &Gpu) -> Retained<MPSMatrixMultiplication> {
    // SAFETY: an initialiser.
    unsafe {
        MPSMatrixMultiplication::initWithDevice_resultRows_resultColumns_interiorColumns(
            MPSMatrixMultiplication::alloc(),
            &gpu.device,
            2,
            2,
            2,
        )
    }
}

#[test]
fn work_goes_to_the_root() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let [left, right] = [1, 2].map(|seed| gpu.grid(Shape::new(2, 2, F32)).scatter(seed));
    let result = gpu.grid(Shape::new(2, 2, F32));
    // SAFETY: the matrices live until the command buffer has completed.
    let commands = unsafe { MPSCommandBuffer::commandBufferFromCommandQueue(&gpu.queue) };
    let protocol: &ProtocolObject<dyn MTLCommandBuffer> = ProtocolObject::from_ref(&*commands);
    // SAFETY: as above.
    unsafe {
        product(&gpu).encodeToCommandBuffer_leftMatrix_rightMatrix_resultMatrix(
            protocol,
            &left.matrix,
            &right.matrix,
            &result.matrix,
        );
        assert_eq!(Retained::as_ptr(&commands.rootCommandBuffer()), Retained::as_ptr(&commands.commandBuffer()));
    }
    let completed = Arc::new(AtomicUsize::new(0));
    let seen = completed.clone();
    let handler = RcBlock::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    // SAFETY: the block takes a command buffer.
    unsafe { commands.addCompletedHandler(RcBlock::as_ptr(&handler)) };
    commands.setLabel(Some(&NSString::from_str("step")));
    assert_eq!(commands.label().expect("a label").to_string(), "step");
    assert_eq!(commands.status(), MTLCommandBufferStatus::NotEnqueued);
    assert!(commands.retainedReferences());
    assert_eq!(Retained::as_ptr(&commands.device()), Retained::as_ptr(&gpu.device));
    assert_eq!(Retained::as_ptr(&commands.commandQueue()), Retained::as_ptr(&gpu.queue));
    commands.commit();
    commands.waitUntilCompleted();
    assert_eq!(commands.status(), MTLCommandBufferStatus::Completed);
    assert!(commands.error().is_none());
    assert_eq!(completed.load(Ordering::Relaxed), 1);
    let wanted = left.get(0, 0, 0) * right.get(0, 0, 0) + left.get(0, 0, 1) * right.get(0, 1, 0);
    assert_close(result.get(0, 0, 0), wanted, F32);
    watch.assert_clean();
}

#[test]
fn commit_and_continue_changes_the_root() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let buffer = gpu.buffer(8);
    // SAFETY: initialisers and properties; the buffer lives until the command buffers have completed.
    unsafe {
        let first = gpu.queue.commandBuffer().expect("a command buffer");
        let inner = MPSCommandBuffer::initWithCommandBuffer(MPSCommandBuffer::alloc(), &first);
        let outer = MPSCommandBuffer::commandBufferWithCommandBuffer(ProtocolObject::from_ref(&*inner));
        assert_eq!(Retained::as_ptr(&outer.rootCommandBuffer()), Retained::as_ptr(&first));
        let fill = |range: NSRange, value: u8| {
            let encoder = outer.blitCommandEncoder().expect("an encoder");
            encoder.fillBuffer_range_value(&buffer, range, value);
            encoder.endEncoding();
        };
        outer.prefetchHeapForWorkloadSize(1 << 20);
        fill(NSRange::new(0, 4), 0x40);
        outer.commitAndContinue();
        let second = inner.rootCommandBuffer();
        assert_ne!(Retained::as_ptr(&second), Retained::as_ptr(&first));
        assert_eq!(Retained::as_ptr(&outer.rootCommandBuffer()), Retained::as_ptr(&second));
        assert_eq!(outer.status(), MTLCommandBufferStatus::NotEnqueued);
        first.waitUntilCompleted();
        fill(NSRange::new(4, 4), 0x41);
        outer.commit();
        outer.waitUntilCompleted();
        assert_eq!(second.status(), MTLCommandBufferStatus::Completed);
    }
    let value = |byte: u8| f64::from(f32::from_ne_bytes([byte; 4]));
    assert_eq!(mps_support::load(&buffer, F32, 0), value(0x40));
    assert_eq!(mps_support::load(&buffer, F32, 1), value(0x41));
    watch.assert_clean();
}

#[test]
fn unretained_references_stay_unretained() {
    let watch = watch(Settings::default());
    let gpu = Gpu::new();
    let root = gpu.queue.commandBufferWithUnretainedReferences().expect("a command buffer");
    // SAFETY: an initialiser.
    let commands = unsafe { MPSCommandBuffer::initWithCommandBuffer(MPSCommandBuffer::alloc(), &root) };
    assert!(!commands.retainedReferences());
    // SAFETY: no encoder is open.
    unsafe { commands.commitAndContinue() };
    assert!(!commands.retainedReferences());
    watch.assert_clean();
}

#[test]
fn waiting_after_commit_and_continue_is_a_deadlock() {
    let _watch = watch(Settings::default());
    let gpu = Gpu::new();
    // SAFETY: no encoder is open.
    let commands = unsafe {
        let commands = MPSCommandBuffer::commandBufferFromCommandQueue(&gpu.queue);
        commands.commitAndContinue();
        commands
    };
    assert_refused(&["wait"], || commands.waitUntilCompleted());
}
