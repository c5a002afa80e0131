//! `NSBundle`: the main bundle only, which is the folder of the executable.

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

use objc2::rc::Retained;
use objc2::runtime::{NSObject, NSObjectProtocol};
use objc2::{ClassType, define_class};
use objc2_foundation::NSString;

use super::{new_object, string};

/// The main bundle, made when the class is registered and never released.
static MAIN: AtomicPtr<EmulatedBundle> = AtomicPtr::new(std::ptr::null_mut());

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSBundle"]
    pub(super) struct EmulatedBundle;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedBundle {}

    impl EmulatedBundle {
        #[unsafe(method(mainBundle))]
        fn _main() -> *mut EmulatedBundle {
            MAIN.load(Ordering::Acquire)
        }

        #[unsafe(method_id(bundlePath))]
        fn _path(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            let executable = env::current_exe().unwrap_or_default();
            string::from_str(&executable.parent().unwrap_or(Path::new("/")).to_string_lossy())
        }

        #[unsafe(method_id(bundleIdentifier))]
        fn _identifier(&self) -> Option<Retained<NSString>> {
            // An executable that is no application has none.
            None
        }
    }
);

pub(super) fn register() {
    EmulatedBundle::class();
    MAIN.store(Retained::into_raw(new_object::<EmulatedBundle>(())), Ordering::Release);
}
