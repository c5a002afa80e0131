//! The functions by which objc2 makes, finds and asks classes (`objc/runtime.h`).

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;

use crate::class::{self, Class, Ivar, Kind};
use crate::exception::raise;
use crate::method::{Imp, Method, malloc_copy};
use crate::protocol::Protocol;
use crate::selector::Sel;

type ClassRef = Option<&'static Class>;

/// A list the caller gives back with `free`; null if it is empty.
pub(crate) fn malloc_list<T: Copy>(items: &[T], length: Option<&mut c_uint>) -> *mut T {
    if let Some(length) = length {
        *length = items.len() as c_uint;
    }
    if items.is_empty() { ptr::null_mut() } else { malloc_copy(items) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_lookUpClass(name: *const c_char) -> ClassRef {
    // SAFETY: the caller passes a string that ends in NUL.
    class::lookup(unsafe { CStr::from_ptr(name) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_getClass(name: *const c_char) -> ClassRef {
    // SAFETY: passed on.
    unsafe { objc_lookUpClass(name) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_getRequiredClass(name: *const c_char) -> &'static Class {
    // SAFETY: passed on.
    match unsafe { objc_lookUpClass(name) } {
        Some(class) => class,
        // The function is defined to end the process.
        None => std::process::abort(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_getMetaClass(name: *const c_char) -> ClassRef {
    // SAFETY: passed on.
    unsafe { objc_lookUpClass(name) }.map(Class::isa)
}

#[unsafe(no_mangle)]
extern "C" fn objc_copyClassList(length: Option<&mut c_uint>) -> *mut &'static Class {
    malloc_list(&class::all(), length)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_getClassList(buffer: *mut &'static Class, capacity: c_int) -> c_int {
    let classes = class::all();
    if !buffer.is_null() {
        for (at, class) in classes.iter().take(capacity.max(0) as usize).enumerate() {
            // SAFETY: the caller's buffer has room for `capacity` classes.
            unsafe { buffer.add(at).write(class) };
        }
    }
    classes.len() as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_allocateClassPair(superclass: ClassRef, name: *const c_char, _extra: usize) -> ClassRef {
    // SAFETY: the caller passes a string that ends in NUL.
    class::allocate(superclass, unsafe { CStr::from_ptr(name) })
}

#[unsafe(no_mangle)]
extern "C" fn objc_registerClassPair(class: &'static Class) {
    class::register(class);
}

#[unsafe(no_mangle)]
extern "C" fn objc_disposeClassPair(class: &'static Class) {
    class::dispose(class);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn class_addIvar(
    class: &'static Class,
    name: *const c_char,
    size: usize,
    log2_alignment: u8,
    types: *const c_char,
) -> u8 {
    // SAFETY: the caller passes strings that end in NUL.
    let (name, types) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(types)) };
    u8::from(class.add_ivar(name, size, 1 << log2_alignment, types))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn class_addMethod(class: &'static Class, selector: Sel, imp: Imp, types: *const c_char) -> u8 {
    // SAFETY: the caller passes a string that ends in NUL.
    u8::from(class.add_method(selector, imp, unsafe { CStr::from_ptr(types) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn class_replaceMethod(
    class: &'static Class,
    selector: Sel,
    imp: Imp,
    types: *const c_char,
) -> Option<Imp> {
    match class.own_method(selector) {
        Some(method) => Some(method.replace_imp(imp)),
        None => {
            // SAFETY: passed on.
            unsafe { class_addMethod(class, selector, imp, types) };
            None
        }
    }
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn class_addProtocol(class: &'static Class, protocol: &'static Protocol) -> u8 {
    if class.adopts(protocol) {
        return 0;
    }
    class.protocols.lock().expect("never poisoned").push(protocol);
    1
}

#[unsafe(no_mangle)]
extern "C" fn class_conformsToProtocol(class: ClassRef, protocol: Option<&'static Protocol>) -> u8 {
    u8::from(class.zip(protocol).is_some_and(|(class, protocol)| class.adopts(protocol)))
}

#[unsafe(no_mangle)]
extern "C" fn class_copyProtocolList(class: &Class, length: Option<&mut c_uint>) -> *mut &'static Protocol {
    malloc_list(&class.protocols.lock().expect("never poisoned"), length)
}

#[unsafe(no_mangle)]
extern "C" fn class_copyIvarList(class: &Class, length: Option<&mut c_uint>) -> *mut &'static Ivar {
    malloc_list(&class.ivars.lock().expect("never poisoned"), length)
}

#[unsafe(no_mangle)]
extern "C" fn class_copyMethodList(class: &Class, length: Option<&mut c_uint>) -> *mut &'static Method {
    malloc_list(&class.own_methods(), length)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn class_getInstanceVariable(class: &'static Class, name: *const c_char) -> Option<&'static Ivar> {
    // SAFETY: the caller passes a string that ends in NUL.
    class.ivar(unsafe { CStr::from_ptr(name) })
}

/// Classes have no variables here: `class_addIvar` refuses a metaclass.
#[unsafe(no_mangle)]
extern "C" fn class_getClassVariable(_class: &Class, _name: *const c_char) -> Option<&'static Ivar> {
    None
}

/// Layouts serve garbage collection, which there is none of.
#[unsafe(no_mangle)]
extern "C" fn class_getIvarLayout(_class: &Class) -> *const u8 {
    ptr::null()
}

#[unsafe(no_mangle)]
extern "C" fn class_getName(class: &Class) -> *const c_char {
    class.name().as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn class_getSuperclass(class: ClassRef) -> ClassRef {
    class.and_then(Class::superclass)
}

#[unsafe(no_mangle)]
extern "C" fn class_getInstanceSize(class: ClassRef) -> usize {
    class.map_or(0, Class::instance_size)
}

#[unsafe(no_mangle)]
extern "C" fn class_isMetaClass(class: ClassRef) -> u8 {
    u8::from(class.is_some_and(Class::is_metaclass))
}

/// With debug assertions objc2 asks this before each message, so it is the first to see one to a freed object.
#[unsafe(no_mangle)]
extern "C-unwind" fn class_getInstanceMethod(class: ClassRef, selector: Sel) -> Option<&'static Method> {
    let class = class?;
    if class.kind == Kind::Freed {
        sent_to_freed(class, selector);
    }
    class.method(selector)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_getClassMethod(class: ClassRef, selector: Sel) -> Option<&'static Method> {
    class?.isa().method(selector)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn class_respondsToSelector(class: ClassRef, selector: Sel) -> u8 {
    u8::from(class.is_some_and(|class| class.method(selector).is_some()))
}

#[unsafe(no_mangle)]
extern "C" fn ivar_getName(ivar: &Ivar) -> *const c_char {
    ivar.name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn ivar_getOffset(ivar: &Ivar) -> isize {
    ivar.offset as isize
}

#[unsafe(no_mangle)]
extern "C" fn ivar_getTypeEncoding(ivar: &Ivar) -> *const c_char {
    ivar.types.as_ptr()
}

/// Raises the exception for a message to an object that is freed.
pub(crate) fn sent_to_freed(class: &Class, selector: Sel) -> ! {
    raise(
        "NSInternalInconsistencyException",
        &format!("{}: message sent to a freed object", class.method_name(selector)),
    )
}
