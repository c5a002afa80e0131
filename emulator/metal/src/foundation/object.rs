//! Making instances of emulated classes from Rust.

use objc2::rc::Retained;
use objc2::{AnyThread, ClassType, DefinedClass, msg_send};

/// A new instance of the emulated class `T` that holds `ivars`.
///
/// The `alloc` and `init` are the emulator's own and not counted; the object is.
pub(crate) fn new_object<T>(ivars: T::Ivars) -> Retained<T>
where
    T: DefinedClass + AnyThread,
    T::Super: ClassType,
{
    let _own = emulator_objc::own();
    // SAFETY: `init` of an emulated superclass takes no arguments and returns the object it was sent to.
    unsafe { msg_send![super(T::alloc().set_ivars(ivars)), init] }
}
