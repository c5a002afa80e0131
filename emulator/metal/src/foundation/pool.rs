//! `NSAutoreleasePool`: an autorelease pool as an object.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol};
use objc2::{ClassType, DefinedClass, define_class, ffi, msg_send};

/// The token of a pool that was pushed; null once it is popped.
pub(super) struct Pushed(Cell<*mut c_void>);

impl Pushed {
    fn pop(&self) {
        let token = self.0.replace(ptr::null_mut());
        if !token.is_null() {
            // SAFETY: the pool was pushed by this object and not popped yet.
            unsafe { ffi::objc_autoreleasePoolPop(token) };
        }
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        self.pop();
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSAutoreleasePool"]
    #[ivars = Pushed]
    pub(super) struct EmulatedPool;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedPool {}

    impl EmulatedPool {
        #[unsafe(method_id(init))]
        fn _init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: it is popped when this object is drained or freed.
            let pushed = Pushed(Cell::new(unsafe { ffi::objc_autoreleasePoolPush() }));
            // SAFETY: `init` of NSObject.
            unsafe { msg_send![super(this.set_ivars(pushed)), init] }
        }

        /// Without garbage collection the same as `release`.
        #[unsafe(method(drain))]
        fn _drain(&self) {
            self.ivars().pop();
            let this: *const Self = self;
            // SAFETY: the sender gives its reference up, and does not use the pool any more.
            unsafe { ffi::objc_release(this.cast_mut().cast::<AnyObject>()) };
        }
    }
);

pub(super) fn register() {
    EmulatedPool::class();
}
