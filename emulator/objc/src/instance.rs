//! Objects in memory: a header, then the class pointer that an object begins with, then its variables.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::ffi::c_char;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, Ordering};

use crate::account;
use crate::class::Class;
use crate::quarantine;

/// Objects begin at multiples of this.
pub(crate) const ALIGNMENT: usize = 16;

/// What freed variables are overwritten with, so that a stale pointer does not look sound.
const POISON: u8 = 0xA5;

/// What lies in front of every counted object.
#[repr(C, align(16))]
pub(crate) struct Header {
    /// References held; [`Header::DEALLOCATING`] and thereabouts once there are none.
    pub(crate) count: AtomicIsize,
    /// The size of the object, the header not included.
    size: usize,
    /// Whether a weak reference was ever made.
    pub(crate) has_weak: AtomicBool,
}

impl Header {
    pub(crate) const DEALLOCATING: isize = isize::MIN / 2;
}

/// Any object, which includes classes, protocols, blocks and freed objects.
#[repr(C)]
pub(crate) struct Object {
    isa: AtomicPtr<Class>,
}

impl Object {
    #[inline]
    pub(crate) fn class(&self) -> &'static Class {
        // SAFETY: an object points to its class, which lives for ever; the caller made sure that this is an object.
        unsafe { &*self.isa.load(Ordering::Relaxed) }
    }

    /// The header of a counted object or a freed one that is in quarantine.
    ///
    /// # Safety
    /// The object is `Kind::Counted`.
    #[inline]
    pub(crate) unsafe fn header(&self) -> &Header {
        // SAFETY: counted objects are only made by `class_createInstance`, which puts a header there.
        unsafe { &*ptr::from_ref(self).cast::<Header>().sub(1) }
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size_of::<Header>() + size, ALIGNMENT).expect("an object fits in memory")
}

#[unsafe(no_mangle)]
pub(crate) extern "C" fn class_createInstance(class: Option<&'static Class>, extra: usize) -> *mut Object {
    let Some(class) = class else {
        return ptr::null_mut();
    };
    let size = class.instance_size() + extra;
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout(size)) }.cast::<Header>();
    if start.is_null() {
        handle_alloc_error(layout(size));
    }
    account::made(class);
    let header = Header { count: AtomicIsize::new(1), size, has_weak: AtomicBool::new(false) };
    // SAFETY: the memory is new and large enough for the header and the class pointer behind it.
    unsafe {
        start.write(header);
        let object = start.add(1).cast::<Object>();
        object.write(Object { isa: AtomicPtr::new(ptr::from_ref(class).cast_mut()) });
        object
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn object_dispose(object: *mut Object) -> *mut Object {
    // SAFETY: the caller passes null or an object that no one uses any more.
    let Some(object) = (unsafe { object.as_ref() }) else {
        return ptr::null_mut();
    };
    let class = object.class();
    account::freed(class);
    // SAFETY: only counted objects are disposed of.
    let size = unsafe { object.header() }.size;
    object.isa.store(ptr::from_ref(class.freed()).cast_mut(), Ordering::Relaxed);
    let start = ptr::from_ref(object).cast_mut().cast::<u8>();
    // SAFETY: the variables lie behind the class pointer and are dead; the header in front of them stays as it is.
    unsafe {
        let variables = start.add(size_of::<Object>());
        variables.write_bytes(POISON, size - size_of::<Object>());
        quarantine::put(start.sub(size_of::<Header>()), layout(size));
    }
    ptr::null_mut()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn object_getClass(object: *const Object) -> Option<&'static Class> {
    // SAFETY: the caller passes null or an object.
    unsafe { object.as_ref() }.map(Object::class)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn object_getClassName(object: *const Object) -> *const c_char {
    // SAFETY: the caller passes null or an object.
    unsafe { object.as_ref() }.map_or(c"nil", |object| object.class().name()).as_ptr()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn object_setClass(object: *mut Object, class: &'static Class) -> Option<&'static Class> {
    // SAFETY: the caller passes null or an object.
    let object = unsafe { object.as_ref() }?;
    let before = object.class();
    object.isa.store(ptr::from_ref(class).cast_mut(), Ordering::Release);
    before.alive.fetch_sub(1, Ordering::Relaxed);
    class.alive.fetch_add(1, Ordering::Relaxed);
    Some(before)
}
