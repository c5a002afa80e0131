//! Reference counting: the functions that ARC and objc2 call (Clang's "Automatic Reference Counting", runtime support).

use std::ptr;
use std::sync::atomic::Ordering;

use crate::account;
use crate::block::{_Block_copy, _Block_release};
use crate::class::Kind;
use crate::exception::complain;
use crate::instance::{Header, Object};
use crate::method::Imp;
use crate::pool;
use crate::root;
use crate::selector::Sel;
use crate::weak;

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn objc_retain(object: *mut Object) -> *mut Object {
    // SAFETY: the caller passes null or an object.
    let Some(receiver) = (unsafe { object.as_ref() }) else {
        return object;
    };
    match receiver.class().kind {
        Kind::Counted => {
            account::retain();
            // SAFETY: just seen to be counted.
            unsafe { receiver.header() }.count.fetch_add(1, Ordering::Relaxed);
        }
        Kind::StackBlock | Kind::GlobalBlock | Kind::HeapBlock => {
            account::retain();
            // SAFETY: just seen to be a block.
            return unsafe { _Block_copy(object.cast()) }.cast();
        }
        Kind::Permanent => account::retain(),
        Kind::Freed => misuse(receiver, "retain"),
    }
    object
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn objc_release(object: *mut Object) {
    if !object.is_null() {
        account::release();
        // SAFETY: passed on.
        unsafe { give_up(object) };
    }
}

/// Gives up one reference, without counting that as a release.
///
/// # Safety
/// The object is not null and the caller owns a reference to it; if it does not, that may go unnoticed.
pub(crate) unsafe fn give_up(object: *mut Object) {
    // SAFETY: the caller promises an object.
    let receiver = unsafe { &*object };
    match receiver.class().kind {
        Kind::Counted => {
            // SAFETY: just seen to be counted.
            let header = unsafe { receiver.header() };
            let before = header.count.fetch_sub(1, Ordering::AcqRel);
            if before == 1 {
                header.count.store(Header::DEALLOCATING, Ordering::Relaxed);
                // SAFETY: this was the last reference.
                unsafe { deallocate(object) };
            } else if before <= Header::DEALLOCATING || before == 0 {
                misuse(receiver, "release");
            }
        }
        // SAFETY: just seen to be a block on the heap.
        Kind::HeapBlock => unsafe { _Block_release(object.cast()) },
        Kind::StackBlock | Kind::GlobalBlock | Kind::Permanent => {}
        Kind::Freed => misuse(receiver, "release"),
    }
}

/// Sends `dealloc`. Not counted; what an emulated class does in it is the emulator's own.
///
/// # Safety
/// No one holds a reference to the object.
unsafe fn deallocate(object: *mut Object) {
    // SAFETY: the object is still there until the end of `dealloc`.
    let receiver = unsafe { &*object };
    weak::clear(receiver);
    let class = receiver.class();
    let _own = class.is_emulated().then(account::own);
    let dealloc = root::dealloc_selector();
    let method = class.method(dealloc).expect("NSObject has a dealloc method");
    // SAFETY: this is the signature of `dealloc`.
    unsafe {
        std::mem::transmute::<Imp, unsafe extern "C-unwind" fn(*mut Object, Sel)>(method.imp())(object, dealloc);
    }
}

/// Raises the exception for a retain or release that comes too late.
#[cold]
fn misuse(object: &Object, what: &str) {
    let class = object.class().name().to_string_lossy();
    let reason = format!("{what} of a freed object of class {class} at {object:p}");
    complain("NSInternalInconsistencyException", &reason);
}

/// How many references are held.
///
/// # Safety
/// `object` is an object.
pub(crate) unsafe fn retain_count(object: *mut Object) -> usize {
    // SAFETY: the caller promises an object.
    let object = unsafe { &*object };
    match object.class().kind {
        // SAFETY: just seen to be counted.
        Kind::Counted => unsafe { object.header() }.count.load(Ordering::Relaxed).max(0) as usize,
        // What Apple's runtime says of objects that are never freed.
        _ => usize::MAX,
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn objc_autorelease(object: *mut Object) -> *mut Object {
    // SAFETY: the caller passes null or an object it owns a reference to.
    unsafe { pool::add(object, pool::Purpose::Keep) };
    object
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_autoreleaseReturnValue(object: *mut Object) -> *mut Object {
    // SAFETY: as in `objc_autorelease`.
    unsafe { pool::add(object, pool::Purpose::Return) };
    object
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_retainAutorelease(object: *mut Object) -> *mut Object {
    // SAFETY: passed on.
    unsafe { objc_autorelease(objc_retain(object)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_retainAutoreleaseReturnValue(object: *mut Object) -> *mut Object {
    // SAFETY: passed on.
    unsafe { objc_autoreleaseReturnValue(objc_retain(object)) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_retainAutoreleasedReturnValue(object: *mut Object) -> *mut Object {
    if pool::take_returned(object) {
        return object;
    }
    // SAFETY: passed on.
    unsafe { objc_retain(object) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_storeStrong(place: *mut *mut Object, object: *mut Object) {
    // SAFETY: the caller passes a variable that holds null or an object it owns, and null or an object.
    unsafe {
        let before = ptr::replace(place, objc_retain(object));
        objc_release(before);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_retainBlock(block: *mut Object) -> *mut Object {
    // SAFETY: the caller passes null or a block.
    unsafe { _Block_copy(block.cast()) }.cast()
}
