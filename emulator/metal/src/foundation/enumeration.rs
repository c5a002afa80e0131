//! Fast enumeration (`NSFastEnumeration`): a collection hands out its own storage, all of it at once.

use std::ffi::c_ulong;
use std::ptr::NonNull;

use objc2::rc::Retained;
use objc2::runtime::AnyObject;
use objc2_foundation::NSFastEnumerationState;

/// What collections that never change point `mutationsPtr` to.
static UNCHANGED: c_ulong = 0;

/// Gives out all objects, the second time none.
///
/// # Safety
/// `state` is the caller's, zeroed before the first call, and `objects` stays as it is while it enumerates.
pub(super) unsafe fn next(objects: &[Retained<AnyObject>], mut state: NonNull<NSFastEnumerationState>) -> usize {
    // SAFETY: promised by the caller.
    let state = unsafe { state.as_mut() };
    if state.state != 0 {
        return 0;
    }
    state.state = 1;
    // A `Retained` is the pointer to its object.
    state.itemsPtr = objects.as_ptr().cast_mut().cast();
    state.mutationsPtr = (&raw const UNCHANGED).cast_mut();
    objects.len()
}

/// Writes the pointers to all objects.
///
/// # Safety
/// `out` has room for them.
pub(super) unsafe fn write(objects: &[Retained<AnyObject>], out: NonNull<*mut AnyObject>) {
    for (index, object) in objects.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { out.add(index).write(Retained::as_ptr(object).cast_mut()) };
    }
}
