//! `MPSCommandBuffer` (MPSCommandBuffer.h): a command buffer around another one, which it can replace.
//!
//! Methods for graphics are not forwarded: the command buffers below have none.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, ProtocolObject};
use objc2::{DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSError, NSString};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBlitPassDescriptor, MTLCommandBuffer, MTLCommandBufferErrorOption,
    MTLCommandBufferHandler, MTLCommandBufferStatus, MTLCommandQueue, MTLComputeCommandEncoder,
    MTLComputePassDescriptor, MTLDispatchType, MTLEvent, MTLLogContainer, MTLResidencySet,
};

use super::call::Call;
use super::object::{Commands, Device, downcast};
use crate::foundation::new_object;

const CLASS: &str = "MPSCommandBuffer";

type Queue = ProtocolObject<dyn MTLCommandQueue>;
type Object<P> = Retained<ProtocolObject<P>>;

define_class!(
    // SAFETY: NSObject has no requirements on subclasses.
    #[unsafe(super(NSObject))]
    #[name = "MPSCommandBuffer"]
    #[ivars = Mutex<Retained<Commands>>]
    pub(super) struct EmulatedMpsCommandBuffer;

    // SAFETY: NSObject implements it.
    unsafe impl NSObjectProtocol for EmulatedMpsCommandBuffer {}

    impl EmulatedMpsCommandBuffer {
        #[unsafe(method_id(init))]
        fn init(_this: Allocated<Self>) -> Retained<Self> {
            Call::new(CLASS, "init").refuse("is unavailable: use initWithCommandBuffer: (MPSCommandBuffer.h)")
        }

        #[unsafe(method_id(initWithCommandBuffer:))]
        fn init_with_command_buffer(this: Allocated<Self>, commands: &Commands) -> Retained<Self> {
            let _own = emulator_objc::own();
            let this = this.set_ivars(Mutex::new(commands.retain()));
            // SAFETY: NSObject's `init` takes no arguments.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method_id(commandBufferWithCommandBuffer:))]
        fn with_command_buffer(commands: &Commands) -> Retained<Self> {
            new_object(Mutex::new(commands.retain()))
        }

        #[unsafe(method_id(commandBufferFromCommandQueue:))]
        fn from_command_queue(queue: &Queue) -> Retained<Self> {
            let commands = {
                let _own = emulator_objc::own();
                queue.commandBuffer()
            };
            let call = Call::new(CLASS, "commandBufferFromCommandQueue:");
            new_object(Mutex::new(commands.unwrap_or_else(|| call.refuse("the queue gave no command buffer"))))
        }

        #[unsafe(method_id(commandBuffer))]
        fn command_buffer(&self) -> Retained<Commands> {
            self.wrapped()
        }

        #[unsafe(method_id(rootCommandBuffer))]
        fn root_command_buffer(&self) -> Retained<Commands> {
            self.root()
        }

        // "This method commits the underlying root MTLCommandBuffer, and makes a new one on the same command queue."
        #[unsafe(method(commitAndContinue))]
        fn commit_and_continue(&self) {
            self.commit_root();
        }

        // A hint: "pre-warm the MPS heap".
        #[unsafe(method(prefetchHeapForWorkloadSize:))]
        fn prefetch_heap(&self, _size: usize) {}

        #[unsafe(method_id(predicate))]
        fn predicate(&self) -> Option<Retained<AnyObject>> {
            None
        }

        #[unsafe(method(setPredicate:))]
        fn set_predicate(&self, predicate: Option<&AnyObject>) {
            Call::new(CLASS, "setPredicate:").require(predicate.is_none(), || "predicates are not emulated".to_owned());
        }

        #[unsafe(method_id(heapProvider))]
        fn heap_provider(&self) -> Option<Retained<AnyObject>> {
            None
        }

        #[unsafe(method(setHeapProvider:))]
        fn set_heap_provider(&self, provider: Option<&AnyObject>) {
            let call = Call::new(CLASS, "setHeapProvider:");
            call.require(provider.is_none(), || "heap providers are not emulated".to_owned());
        }
    }

    // SAFETY: the methods have the signatures of the protocol, and do what the command buffer below does.
    unsafe impl MTLCommandBuffer for EmulatedMpsCommandBuffer {
        #[unsafe(method_id(device))]
        fn device(&self) -> Retained<Device> {
            self.root().device()
        }

        #[unsafe(method_id(commandQueue))]
        fn command_queue(&self) -> Retained<Queue> {
            self.root().commandQueue()
        }

        #[unsafe(method(retainedReferences))]
        fn retained_references(&self) -> bool {
            self.root().retainedReferences()
        }

        #[unsafe(method(errorOptions))]
        fn error_options(&self) -> MTLCommandBufferErrorOption {
            self.root().errorOptions()
        }

        #[unsafe(method_id(label))]
        fn label(&self) -> Option<Retained<NSString>> {
            self.root().label()
        }

        #[unsafe(method(setLabel:))]
        fn set_label(&self, label: Option<&NSString>) {
            self.root().setLabel(label);
        }

        #[unsafe(method(kernelStartTime))]
        fn kernel_start_time(&self) -> f64 {
            self.root().kernelStartTime()
        }

        #[unsafe(method(kernelEndTime))]
        fn kernel_end_time(&self) -> f64 {
            self.root().kernelEndTime()
        }

        #[unsafe(method(GPUStartTime))]
        fn gpu_start_time(&self) -> f64 {
            self.root().GPUStartTime()
        }

        #[unsafe(method(GPUEndTime))]
        fn gpu_end_time(&self) -> f64 {
            self.root().GPUEndTime()
        }

        #[unsafe(method_id(logs))]
        fn logs(&self) -> Object<dyn MTLLogContainer> {
            self.root().logs()
        }

        #[unsafe(method(enqueue))]
        fn enqueue(&self) {
            self.root().enqueue();
        }

        #[unsafe(method(commit))]
        fn commit(&self) {
            self.root().commit();
        }

        #[unsafe(method(addScheduledHandler:))]
        fn add_scheduled_handler(&self, block: MTLCommandBufferHandler) {
            // SAFETY: the caller's block, as it was given.
            unsafe { self.root().addScheduledHandler(block) };
        }

        #[unsafe(method(waitUntilScheduled))]
        fn wait_until_scheduled(&self) {
            self.root().waitUntilScheduled();
        }

        #[unsafe(method(addCompletedHandler:))]
        fn add_completed_handler(&self, block: MTLCommandBufferHandler) {
            // SAFETY: the caller's block, as it was given.
            unsafe { self.root().addCompletedHandler(block) };
        }

        #[unsafe(method(waitUntilCompleted))]
        fn wait_until_completed(&self) {
            self.root().waitUntilCompleted();
        }

        #[unsafe(method(status))]
        fn status(&self) -> MTLCommandBufferStatus {
            self.root().status()
        }

        #[unsafe(method_id(error))]
        fn error(&self) -> Option<Retained<NSError>> {
            self.root().error()
        }

        #[unsafe(method_id(blitCommandEncoder))]
        fn blit_command_encoder(&self) -> Option<Object<dyn MTLBlitCommandEncoder>> {
            self.root().blitCommandEncoder()
        }

        #[unsafe(method_id(blitCommandEncoderWithDescriptor:))]
        fn blit_with_descriptor(&self, pass: &MTLBlitPassDescriptor) -> Option<Object<dyn MTLBlitCommandEncoder>> {
            self.root().blitCommandEncoderWithDescriptor(pass)
        }

        #[unsafe(method_id(computeCommandEncoder))]
        fn compute_command_encoder(&self) -> Option<Object<dyn MTLComputeCommandEncoder>> {
            self.root().computeCommandEncoder()
        }

        #[unsafe(method_id(computeCommandEncoderWithDispatchType:))]
        fn compute_with_dispatch_type(&self, kind: MTLDispatchType) -> Option<Object<dyn MTLComputeCommandEncoder>> {
            self.root().computeCommandEncoderWithDispatchType(kind)
        }

        #[unsafe(method_id(computeCommandEncoderWithDescriptor:))]
        fn compute_with_descriptor(
            &self,
            pass: &MTLComputePassDescriptor,
        ) -> Option<Object<dyn MTLComputeCommandEncoder>> {
            self.root().computeCommandEncoderWithDescriptor(pass)
        }

        #[unsafe(method(encodeWaitForEvent:value:))]
        fn encode_wait_for_event(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            self.root().encodeWaitForEvent_value(event, value);
        }

        #[unsafe(method(encodeSignalEvent:value:))]
        fn encode_signal_event(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
            self.root().encodeSignalEvent_value(event, value);
        }

        #[unsafe(method(pushDebugGroup:))]
        fn push_debug_group(&self, name: &NSString) {
            self.root().pushDebugGroup(name);
        }

        #[unsafe(method(popDebugGroup))]
        fn pop_debug_group(&self) {
            self.root().popDebugGroup();
        }

        #[unsafe(method(useResidencySet:))]
        fn use_residency_set(&self, set: &ProtocolObject<dyn MTLResidencySet>) {
            self.root().useResidencySet(set);
        }

        #[unsafe(method(useResidencySets:count:))]
        fn use_residency_sets(&self, sets: NonNull<NonNull<ProtocolObject<dyn MTLResidencySet>>>, count: usize) {
            // SAFETY: the caller's array, as it was given.
            unsafe { self.root().useResidencySets_count(sets, count) };
        }
    }
);

impl EmulatedMpsCommandBuffer {
    fn commit_root(&self) {
        let _own = emulator_objc::own();
        let wrapped = self.wrapped();
        // "If the underlying MTLCommandBuffer also implements -commitAndContinue, then the message will be
        // forwarded to that object instead."
        if let Some(inner) = downcast::<EmulatedMpsCommandBuffer>(&*wrapped) {
            return inner.commit_root();
        }
        let queue = wrapped.commandQueue();
        wrapped.commit();
        // Whether the new one keeps references is not documented; the old one's way is chosen.
        let next = if wrapped.retainedReferences() {
            queue.commandBuffer()
        } else {
            queue.commandBufferWithUnretainedReferences()
        };
        let call = Call::new(CLASS, "commitAndContinue");
        let next = next.unwrap_or_else(|| call.refuse("the queue gave no command buffer"));
        *self.ivars().lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    fn wrapped(&self) -> Retained<Commands> {
        self.ivars().lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// "MPSCommandBuffers may wrap other MPSCommandBuffers": the command buffer that is none.
    fn root(&self) -> Retained<Commands> {
        let _own = emulator_objc::own();
        let wrapped = self.wrapped();
        downcast::<Self>(&*wrapped).map_or_else(|| wrapped.clone(), Self::root)
    }
}
