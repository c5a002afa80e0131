//! Foundation's constant strings: keys, domains and names of exceptions, as symbols for the linker.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use objc2::rc::Retained;
use objc2_foundation::NSString;

use super::string;

/// A variable of type `NSString *`, filled in when the classes are registered.
#[repr(transparent)]
pub(super) struct Constant(AtomicPtr<NSString>);

impl Constant {
    const fn new() -> Constant {
        Constant(AtomicPtr::new(ptr::null_mut()))
    }

    fn set(&self, text: &str) {
        self.0.store(Retained::into_raw(string::from_str(text)), Ordering::Release);
    }

    /// The string.
    pub(super) fn get(&self) -> &'static NSString {
        // SAFETY: null or a string that is never released.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }.expect("the classes are registered")
    }
}

macro_rules! constants {
    ($($name:ident = $text:literal,)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "Apple's name")]
            pub(super) static $name: Constant = Constant::new();
        )*

        /// Fills all of them in.
        pub(super) fn register() {
            $($name.set($text);)*
        }
    };
}

constants! {
    NSCocoaErrorDomain = "NSCocoaErrorDomain",
    NSPOSIXErrorDomain = "NSPOSIXErrorDomain",
    NSLocalizedDescriptionKey = "NSLocalizedDescription",
    NSLocalizedFailureReasonErrorKey = "NSLocalizedFailureReason",
    NSUnderlyingErrorKey = "NSUnderlyingError",
    NSGenericException = "NSGenericException",
    NSRangeException = "NSRangeException",
    NSInvalidArgumentException = "NSInvalidArgumentException",
    NSInternalInconsistencyException = "NSInternalInconsistencyException",
    NSMallocException = "NSMallocException",
}
