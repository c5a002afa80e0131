//! Exceptions: Rust panics that carry an exception's name and reason.
//!
//! objc2's feature `exception` is not supported: its helper is compiled by an Objective-C compiler, whose handlers
//! cannot end a Rust panic. Catch exceptions with `std::panic::catch_unwind` and [`Exception::from_panic`].

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char};
use std::sync::Mutex;
use std::{fmt, thread};

use crate::account;
use crate::instance::Object;
use crate::message::{objc_msg_lookup, send};
use crate::method::Imp;
use crate::selector::Sel;

/// An Objective-C exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its name, such as `NSInvalidArgumentException`.
    pub name: String,
    /// What happened.
    pub reason: String,
}

impl Exception {
    /// The exception that a panic caught by `catch_unwind` is, or `None` if it is another panic.
    ///
    /// The payload is the `String` that other panics with a formatted message have too, so that messages and
    /// `should_panic` work; it is told apart by beginning with the name of an exception that was raised.
    pub fn from_panic(payload: &(dyn Any + Send)) -> Option<Exception> {
        let (name, reason) = payload.downcast_ref::<String>()?.split_once(": ")?;
        let raised = NAMES.lock().expect("never poisoned").contains(name);
        raised.then(|| Exception { name: name.to_owned(), reason: reason.to_owned() })
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl std::error::Error for Exception {}

/// The names of all exceptions raised so far.
static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Raises an exception: a panic with the message `name: reason`.
pub fn raise(name: &str, reason: &str) -> ! {
    NAMES.lock().expect("never poisoned").insert(name.to_owned());
    panic!("{name}: {reason}")
}

/// Raises an exception, or, where a second panic would end the process, prints it.
pub(crate) fn complain(name: &str, reason: &str) {
    if thread::panicking() {
        eprintln!("{name}: {reason}");
    } else {
        raise(name, reason);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_exception_throw(exception: *mut Object) -> ! {
    // SAFETY: the caller passes null or an object.
    let Some(object) = (unsafe { exception.as_ref() }) else {
        raise("NSGenericException", "nil was thrown");
    };
    let class = object.class();
    let (name, reason) = (Sel::named(c"name"), Sel::named(c"reason"));
    if class.method(name).is_none() || class.method(reason).is_none() {
        raise("NSGenericException", &format!("an object of class {} was thrown", class.name().to_string_lossy()));
    }
    // SAFETY: an object with these two methods is an `NSException`, where both return a string or null.
    let (name, reason) = unsafe { (text_of(send(exception, name)), text_of(send(exception, reason))) };
    raise(&name, &reason)
}

/// The text of an `NSString`.
///
/// # Safety
/// The object is null or an `NSString`.
unsafe fn text_of(string: *mut Object) -> String {
    if string.is_null() {
        return String::new();
    }
    let _own = account::own();
    let selector = Sel::named(c"UTF8String");
    // SAFETY: this is the signature of `-[NSString UTF8String]`, whose result ends in NUL.
    unsafe {
        let imp = objc_msg_lookup(string, selector);
        let text = std::mem::transmute::<Imp, unsafe extern "C-unwind" fn(*mut Object, Sel) -> *const c_char>(imp)(
            string, selector,
        );
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
