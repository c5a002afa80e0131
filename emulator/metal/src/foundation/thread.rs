//! `NSThread`: which thread is the main one. objc2's `MainThreadMarker` asks it.

use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{ClassType, define_class};

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSThread"]
    pub(super) struct EmulatedThread;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedThread {}

    impl EmulatedThread {
        #[unsafe(method(isMainThread))]
        fn _is_main() -> bool {
            // SAFETY: neither has a precondition. The main thread has the number of its process.
            unsafe { libc::gettid() == libc::getpid() }
        }

        #[unsafe(method(isMultiThreaded))]
        fn _is_multi_threaded() -> bool {
            // Command buffers run on threads of their own.
            true
        }
    }
);

pub(super) fn register() {
    EmulatedThread::class();
}
