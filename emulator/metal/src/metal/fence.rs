//! `MTLFence`, `MTLEvent`, `MTLSharedEvent` and its listener.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use block2::{DynBlock, RcBlock};
use objc2::rc::{Allocated, Retained};
use objc2::runtime::ProtocolObject;
use objc2::{DefinedClass, Message, msg_send};
use objc2_metal::{MTLEvent, MTLFence, MTLSharedEvent, MTLSharedEventListener};

use super::class::{assertion, emulated_class};
use crate::gpu::event::Event;
use crate::gpu::{observed, scheduler};

emulated_class!(
    /// A fence: a number by which passes find each other.
    pub(crate) struct Fence, "EmulatedMTLFence", u64, {
        // SAFETY: the protocol has no methods that must be there.
        unsafe impl MTLFence for Fence {}
    }
);

impl Fence {
    pub(crate) fn new() -> Retained<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::make(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn number(&self) -> u64 {
        *self.ivars()
    }
}

emulated_class!(
    /// An event. One class serves `MTLEvent` and `MTLSharedEvent`.
    pub(crate) struct EmulatedEvent, "EmulatedMTLSharedEvent", Arc<Event>, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLEvent for EmulatedEvent {}

        // SAFETY: as above.
        unsafe impl MTLSharedEvent for EmulatedEvent {
            #[unsafe(method(signaledValue))]
            fn signaled_value(&self) -> u64 {
                scheduler::look();
                let value = self.event().value();
                observed::observe(&self.event().past_until(value));
                value
            }

            #[unsafe(method(setSignaledValue:))]
            fn set_signaled_value(&self, value: u64) {
                scheduler::signal(self.event(), value, observed::known());
            }

            #[unsafe(method(waitUntilSignaledValue:timeoutMS:))]
            fn wait_until(&self, value: u64, milliseconds: u64) -> bool {
                crate::account::count(|counts| counts.waits += 1);
                scheduler::look();
                let reached = self.event().wait(value, Duration::from_millis(milliseconds));
                if reached {
                    observed::observe(&self.event().past_until(value));
                }
                reached
            }

            #[unsafe(method(notifyListener:atValue:block:))]
            fn notify(
                &self,
                _listener: &MTLSharedEventListener,
                value: u64,
                block: &DynBlock<dyn Fn(NonNull<ProtocolObject<dyn MTLSharedEvent>>, u64)>,
            ) {
                let call = Sendable((self.retain(), block.copy()));
                let event = self.event().clone();
                self.event().listen(
                    value,
                    Box::new(move |reached| {
                        let call = call;
                        let Sendable((this, block)) = call;
                        observed::observe(&event.past_until(reached));
                        block.call((NonNull::from(ProtocolObject::from_ref(&*this)), reached));
                    }),
                );
            }
        }
    }
);

impl EmulatedEvent {
    pub(crate) fn event(&self) -> &Arc<Event> {
        self.ivars()
    }
}

emulated_class!(
    /// `MTLSharedEventListener`: notifications come on the GPU's thread, whatever queue it was made with.
    pub(crate) struct SharedEventListener, "MTLSharedEventListener", (), {
        impl SharedEventListener {
            #[unsafe(method_id(init))]
            fn init(this: Allocated<Self>) -> Retained<Self> {
                let _own = emulator_objc::own();
                // SAFETY: NSObject's `init` takes no arguments.
                unsafe { msg_send![super(this.set_ivars(())), init] }
            }
        }
    }
);

/// Objects and blocks that another thread will use.
pub(crate) struct Sendable<T>(pub(crate) T);

// SAFETY: reference counts of the emulated runtime are atomic, the emulated classes are safe from several threads, and
// Metal documents that its handlers are called on threads of its own.
unsafe impl<T> Send for Sendable<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Sendable<T> {}

/// A handler of a command buffer, kept until it is called.
pub(crate) type Handler<A> = Sendable<RcBlock<dyn Fn(A)>>;

/// Copies a handler that a program passed as a raw block.
///
/// # Safety
/// `block` is null or points to a block of this signature.
pub(crate) unsafe fn keep<A: objc2::encode::EncodeArgument>(
    method: &str,
    block: *mut DynBlock<dyn Fn(A)>,
) -> Handler<A> {
    // SAFETY: promised by the caller.
    match unsafe { RcBlock::copy(block) } {
        Some(block) => Sendable(block),
        None => assertion(method, "the block must not be nil"),
    }
}
