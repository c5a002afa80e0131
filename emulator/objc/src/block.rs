//! Blocks: closures that begin on the stack and move to the heap when they are copied.
//!
//! The layout is that of Clang's "Block Implementation Specification".

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ffi::{c_int, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

use crate::account;
use crate::class::{Class, Kind};
use crate::exception::raise;
use crate::instance::{ALIGNMENT, Object};
use crate::quarantine;
use crate::retain::{objc_release, objc_retain};

/// The class of blocks on the stack.
#[unsafe(no_mangle)]
static _NSConcreteStackBlock: Class = Class::new(c"__NSStackBlock__", Kind::StackBlock, false);
/// The class of blocks that capture nothing and are there for ever.
#[unsafe(no_mangle)]
static _NSConcreteGlobalBlock: Class = Class::new(c"__NSGlobalBlock__", Kind::GlobalBlock, false);
/// The class of blocks on the heap.
#[unsafe(no_mangle)]
static _NSConcreteMallocBlock: Class = Class::new(c"__NSMallocBlock__", Kind::HeapBlock, false);

/// `BLOCK_HAS_COPY_DISPOSE`: the descriptor has two functions for what the block captured.
const HAS_COPY_DISPOSE: c_int = 1 << 25;

/// `struct Block_literal_1`. What the block captured follows.
#[repr(C)]
struct Block {
    isa: AtomicPtr<Class>,
    flags: c_int,
    /// Reserved by the specification for the runtime: the references held to a block on the heap.
    count: AtomicI32,
    invoke: *const c_void,
    descriptor: &'static Descriptor,
}

/// `struct Block_descriptor_1`. The functions are there only if the flags say so.
#[repr(C)]
struct Descriptor {
    reserved: c_ulong,
    size: c_ulong,
}

#[repr(C)]
struct Helpers {
    copy: Option<unsafe extern "C-unwind" fn(*mut Block, *const Block)>,
    dispose: Option<unsafe extern "C-unwind" fn(*mut Block)>,
}

impl Block {
    fn kind(&self) -> Kind {
        // SAFETY: a block points to one of the classes above or to the freed class of one.
        unsafe { &*self.isa.load(Ordering::Relaxed) }.kind
    }

    fn helpers(&self) -> Option<&'static Helpers> {
        let behind = ptr::from_ref(self.descriptor).wrapping_add(1).cast::<Helpers>();
        // SAFETY: the flag says that the functions follow the descriptor.
        (self.flags & HAS_COPY_DISPOSE != 0).then(|| unsafe { &*behind })
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.descriptor.size as usize, ALIGNMENT).expect("a block fits in memory")
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn _Block_copy(block: *mut c_void) -> *mut c_void {
    let original = block.cast::<Block>();
    // SAFETY: the caller passes null or a block.
    let Some(source) = (unsafe { original.as_ref() }) else {
        return block;
    };
    match source.kind() {
        Kind::StackBlock => {}
        Kind::HeapBlock => {
            source.count.fetch_add(1, Ordering::Relaxed);
            return block;
        }
        Kind::Freed => raise("NSInternalInconsistencyException", "copy of a freed block"),
        Kind::GlobalBlock | Kind::Counted | Kind::Permanent => return block,
    }
    let layout = source.layout();
    // SAFETY: a block is never empty.
    let copy = unsafe { alloc(layout) }.cast::<Block>();
    if copy.is_null() {
        handle_alloc_error(layout);
    }
    account::block_copied();
    // SAFETY: both are blocks of the descriptor's size; `copy` moves or copies what was captured.
    unsafe {
        ptr::copy_nonoverlapping(original.cast::<u8>(), copy.cast(), layout.size());
        (*copy).isa = AtomicPtr::new((&raw const _NSConcreteMallocBlock).cast_mut());
        (*copy).count = AtomicI32::new(1);
        if let Some(helper) = source.helpers().and_then(|helpers| helpers.copy) {
            helper(copy, original);
        }
    }
    copy.cast()
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C-unwind" fn _Block_release(block: *mut c_void) {
    let block = block.cast::<Block>();
    // SAFETY: the caller passes null or a block.
    let Some(target) = (unsafe { block.as_ref() }) else {
        return;
    };
    match target.kind() {
        Kind::HeapBlock => {}
        Kind::Freed => crate::exception::complain("NSInternalInconsistencyException", "release of a freed block"),
        Kind::StackBlock | Kind::GlobalBlock | Kind::Counted | Kind::Permanent => return,
    }
    if target.kind() != Kind::HeapBlock || target.count.fetch_sub(1, Ordering::AcqRel) != 1 {
        return;
    }
    let layout = target.layout();
    // SAFETY: that was the last reference: what was captured is dropped, then the memory is given back.
    unsafe {
        if let Some(helper) = target.helpers().and_then(|helpers| helpers.dispose) {
            helper(block);
        }
        target.isa.store(ptr::from_ref(_NSConcreteMallocBlock.freed()).cast_mut(), Ordering::Relaxed);
        quarantine::put(block.cast(), layout);
    }
}

/// `BLOCK_FIELD_IS_OBJECT` and `BLOCK_FIELD_IS_BLOCK`; variables marked `__block` come from a compiler only.
const FIELD_IS_OBJECT: c_int = 3;
const FIELD_IS_BLOCK: c_int = 7;

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _Block_object_assign(to: *mut *mut Object, object: *mut Object, flags: c_int) {
    // SAFETY: the caller passes where the copy of a block keeps an object that the original keeps.
    unsafe {
        match flags {
            FIELD_IS_OBJECT => to.write(objc_retain(object)),
            FIELD_IS_BLOCK => to.write(_Block_copy(object.cast()).cast()),
            _ => raise("NSInvalidArgumentException", "a block captured a __block variable: not emulated"),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _Block_object_dispose(object: *mut Object, flags: c_int) {
    // SAFETY: the caller passes what `_Block_object_assign` stored.
    unsafe {
        match flags {
            FIELD_IS_OBJECT => objc_release(object),
            FIELD_IS_BLOCK => _Block_release(object.cast()),
            _ => raise("NSInvalidArgumentException", "a block captured a __block variable: not emulated"),
        }
    }
}
