//! Message sending: GNUstep's way, in which the sender asks for a method's code and calls it.

use std::sync::atomic::Ordering;

use crate::account;
use crate::class::{Class, Kind};
use crate::class_functions::sent_to_freed;
use crate::exception::raise;
use crate::instance::Object;
use crate::method::Imp;
use crate::root;
use crate::selector::Sel;

/// A message to the superclass's method (`struct objc_super`).
#[repr(C)]
struct Super {
    receiver: *mut Object,
    superclass: &'static Class,
}

/// What a message to nil leads to.
unsafe extern "C-unwind" fn answer_of_nil() {}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn objc_msg_lookup(receiver: *mut Object, selector: Sel) -> Imp {
    // SAFETY: the sender passes null or an object.
    match unsafe { receiver.as_ref() } {
        Some(receiver) => lookup(receiver.class(), selector),
        // objc2 and compilers answer for nil themselves; they need a function and do not use what it returns.
        None => answer_of_nil,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_msg_lookup_super(message: &Super, selector: Sel) -> Imp {
    if message.receiver.is_null() {
        return answer_of_nil;
    }
    // Every `dealloc` ends with this message: it is part of freeing an object and not counted.
    if selector == root::dealloc_selector() {
        let _own = account::own();
        return lookup(message.superclass, selector);
    }
    lookup(message.superclass, selector)
}

#[inline]
fn lookup(class: &'static Class, selector: Sel) -> Imp {
    let Some(method) = class.method(selector) else { unrecognized(class, selector) };
    if account::message() {
        method.sent.fetch_add(1, Ordering::Relaxed);
    }
    method.imp()
}

/// Raises what Apple's `doesNotRecognizeSelector:` raises.
#[cold]
pub(crate) fn unrecognized(class: &'static Class, selector: Sel) -> ! {
    if class.kind == Kind::Freed {
        sent_to_freed(class, selector);
    }
    let reason = format!("{}: unrecognized selector: not emulated", class.method_name(selector));
    raise("NSInvalidArgumentException", &reason)
}

/// Sends a message without arguments that returns an object. Not counted.
///
/// # Safety
/// The receiver is an object whose method of this name takes no arguments and returns an object.
pub(crate) unsafe fn send(receiver: *mut Object, selector: Sel) -> *mut Object {
    let _own = account::own();
    // SAFETY: the caller promises that this is the method's signature.
    unsafe {
        let imp = objc_msg_lookup(receiver, selector);
        std::mem::transmute::<Imp, unsafe extern "C-unwind" fn(*mut Object, Sel) -> *mut Object>(imp)(
            receiver, selector,
        )
    }
}
