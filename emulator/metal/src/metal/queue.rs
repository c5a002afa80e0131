//! `MTLCommandQueue`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use objc2::rc::{Allocated, Retained};
use objc2::runtime::ProtocolObject;
use objc2::{DefinedClass, Message, msg_send};
use objc2_foundation::NSString;
use objc2_metal::{MTLCommandBuffer, MTLCommandBufferDescriptor, MTLCommandQueue, MTLDevice, MTLResidencySet};

use super::class::{Object, emulated_class, protocol};
use super::command_buffer::CommandBuffer;
use super::command_buffer_descriptor::CommandBufferDescriptor;
use super::device::Device;

emulated_class!(
    /// `MTLCommandQueueDescriptor`.
    pub(crate) struct QueueDescriptor, "MTLCommandQueueDescriptor", Mutex<usize>, {
        impl QueueDescriptor {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(Mutex::new(Queue::DEFAULT_MAXIMUM))), init] }
            }

            #[unsafe(method(maxCommandBufferCount))]
            fn maximum_count(&self) -> usize {
                self.maximum()
            }

            #[unsafe(method(setMaxCommandBufferCount:))]
            fn set_maximum_count(&self, maximum: usize) {
                *self.ivars().lock().unwrap_or_else(PoisonError::into_inner) = maximum;
            }
        }
    }
);

impl QueueDescriptor {
    pub(crate) fn maximum(&self) -> usize {
        *self.ivars().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct QueueIvars {
    device: Retained<Device>,
    number: u64,
    label: Mutex<String>,
    /// Command buffers that exist and have not completed: Metal blocks when there are too many.
    alive: Mutex<usize>,
    fewer: Condvar,
    maximum: usize,
}

emulated_class!(
    /// A queue.
    pub(crate) struct Queue, "EmulatedMTLCommandQueue", QueueIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLCommandQueue for Queue {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().device.clone())
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                let label = self.ivars().label.lock().unwrap_or_else(PoisonError::into_inner);
                Some(NSString::from_str(&label)).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                let label = label.map(NSString::to_string).unwrap_or_default();
                *self.ivars().label.lock().unwrap_or_else(PoisonError::into_inner) = label;
            }

            #[unsafe(method_id(commandBuffer))]
            fn command_buffer(&self) -> Option<Object<dyn MTLCommandBuffer>> {
                Some(protocol!(MTLCommandBuffer, CommandBuffer::new(self, true)))
            }

            #[unsafe(method_id(commandBufferWithUnretainedReferences))]
            fn unretained_command_buffer(&self) -> Option<Object<dyn MTLCommandBuffer>> {
                Some(protocol!(MTLCommandBuffer, CommandBuffer::new(self, false)))
            }

            #[unsafe(method_id(commandBufferWithDescriptor:))]
            fn command_buffer_of(&self, descriptor: &MTLCommandBufferDescriptor) -> Option<Object<dyn MTLCommandBuffer>> {
                let retained = CommandBufferDescriptor::of(descriptor).retained();
                Some(protocol!(MTLCommandBuffer, CommandBuffer::new(self, retained)))
            }

            #[unsafe(method(addResidencySet:))]
            fn add_residency_set(&self, _set: &ProtocolObject<dyn MTLResidencySet>) {}

            #[unsafe(method(removeResidencySet:))]
            fn remove_residency_set(&self, _set: &ProtocolObject<dyn MTLResidencySet>) {}

            #[unsafe(method(insertDebugCaptureBoundary))]
            fn insert_debug_capture_boundary(&self) {}
        }
    }
);

impl Queue {
    /// MTLDevice.h, `newCommandQueue`: "maximum number of uncompleted command buffers is 64".
    pub(crate) const DEFAULT_MAXIMUM: usize = 64;

    pub(crate) fn new(device: &Device, maximum: usize) -> Retained<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::make(QueueIvars {
            device: device.retain(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            label: Mutex::default(),
            alive: Mutex::new(0),
            fewer: Condvar::new(),
            maximum: maximum.max(1),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.ivars().number
    }

    pub(crate) fn owner(&self) -> &Retained<Device> {
        &self.ivars().device
    }

    /// Takes one of the places for uncompleted command buffers, waiting for one as Metal does.
    pub(crate) fn enter(&self) {
        let alive = self.ivars().alive.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |alive: &mut usize| *alive >= self.ivars().maximum;
        let waited = self.ivars().fewer.wait_timeout_while(alive, Duration::from_secs(30), full);
        let (mut alive, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let maximum = self.ivars().maximum;
            drop(alive);
            super::class::assertion(
                "-[MTLCommandQueue commandBuffer]",
                format_args!("{maximum} command buffers exist and none completes: Metal would block here for ever"),
            );
        }
        *alive += 1;
    }

    /// Gives the place back.
    pub(crate) fn leave(&self) {
        *self.ivars().alive.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.ivars().fewer.notify_all();
    }
}
