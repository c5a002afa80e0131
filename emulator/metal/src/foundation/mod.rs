//! The part of Foundation that code for Metal reaches through objc2-foundation.
//!
//! Every class here has the name of Apple's class, so that `NSString::class()` of the typed crate finds it.
//! The Rust types are called `Emulated..`; code outside this folder works with the typed crate's own types.

mod array;
mod bundle;
mod constants;
mod data;
mod dictionary;
mod enumeration;
mod error;
mod exception;
mod number;
mod object;
mod pool;
mod process;
mod string;
mod thread;
mod url;
mod value;

use objc2::rc::Retained;
use objc2::runtime::AnyObject;
use objc2_foundation::{NSArray, NSError};

pub(crate) use object::new_object;

/// Registers every class of this module with the runtime; the loader calls it before the first class is looked up.
pub fn register() {
    string::register();
    constants::register();
    array::register();
    dictionary::register();
    value::register();
    number::register();
    data::register();
    error::register();
    exception::register();
    url::register();
    bundle::register();
    process::register();
    thread::register();
    pool::register();
}

/// An `NSError` whose `localizedDescription` is `description`.
pub(crate) fn error(domain: &str, code: isize, description: String) -> Retained<NSError> {
    error::with_description(domain, code, description)
}

/// Stores `error`, autoreleased, where an `NSError **` parameter points; a null `out` drops it.
///
/// # Safety
/// `out` is null or points to writable memory for one pointer.
pub(crate) unsafe fn put_error(out: *mut *mut NSError, error: Retained<NSError>) {
    if out.is_null() {
        return;
    }
    let _own = emulator_objc::own();
    // SAFETY: the caller promises that a non-null `out` is writable.
    unsafe { *out = Retained::autorelease_ptr(error) };
}

/// Raises an Objective-C exception: `NSInvalidArgumentException` and the like, as Apple's frameworks would.
///
/// It unwinds as a Rust panic with the message `name: reason`.
pub(crate) fn raise(name: &str, reason: &str) -> ! {
    emulator_objc::raise(name, reason)
}

/// An `NSArray` of these objects.
pub(crate) fn array(objects: Vec<Retained<AnyObject>>) -> Retained<NSArray> {
    array::from_objects(objects)
}
