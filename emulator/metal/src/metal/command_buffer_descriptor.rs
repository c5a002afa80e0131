//! `MTLCommandBufferDescriptor`.

use std::sync::atomic::{AtomicBool, Ordering};

use objc2::rc::{Allocated, Retained};
use objc2::{DefinedClass, msg_send};
use objc2_metal::MTLCommandBufferErrorOption;

use super::class::emulated_class;

emulated_class!(
    /// `MTLCommandBufferDescriptor`.
    pub(crate) struct CommandBufferDescriptor, "MTLCommandBufferDescriptor", AtomicBool, {
        impl CommandBufferDescriptor {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(AtomicBool::new(true))), init] }
            }

            #[unsafe(method(retainedReferences))]
            fn retained_references(&self) -> bool {
                self.retained()
            }

            #[unsafe(method(setRetainedReferences:))]
            fn set_retained_references(&self, retained: bool) {
                self.ivars().store(retained, Ordering::Relaxed);
            }

            #[unsafe(method(setErrorOptions:))]
            fn set_error_options(&self, _options: MTLCommandBufferErrorOption) {}
        }
    }
);

impl CommandBufferDescriptor {
    pub(crate) fn retained(&self) -> bool {
        self.ivars().load(Ordering::Relaxed)
    }
}
