//! `NSData`.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use block2::{DynBlock, RcBlock};
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::NSCopying;

use super::new_object;

type Deallocator = dyn Fn(*mut c_void, usize);

/// Bytes, copied or lent.
pub(super) struct Bytes {
    start: *const u8,
    length: usize,
    keeper: Keeper,
}

#[expect(dead_code, reason = "the vector is held for what it keeps alive")]
enum Keeper {
    Copy(Vec<u8>),
    Lent(Option<RcBlock<Deallocator>>),
}

impl Bytes {
    /// # Safety
    /// `bytes` points to `length` bytes, or `length` is zero.
    unsafe fn copy(bytes: *const c_void, length: usize) -> Bytes {
        let copy = match length {
            0 => Vec::new(),
            // SAFETY: promised by the caller.
            _ => unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.to_vec(),
        };
        Bytes { start: copy.as_ptr(), length, keeper: Keeper::Copy(copy) }
    }

    fn as_slice(&self) -> &[u8] {
        match self.length {
            0 => &[],
            // SAFETY: the bytes are there until this is dropped.
            _ => unsafe { std::slice::from_raw_parts(self.start, self.length) },
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Keeper::Lent(Some(deallocator)) = &self.keeper {
            deallocator.call((self.start.cast_mut().cast(), self.length));
        }
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSData"]
    #[ivars = Bytes]
    pub(super) struct EmulatedData;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedData {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            let other = other.and_then(|other| other.downcast_ref::<EmulatedData>());
            other.is_some_and(|other| other.ivars().as_slice() == self.ivars().as_slice())
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            self.ivars().length
        }
    }

    // SAFETY: data never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedData {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedData {
        #[unsafe(method_id(init))]
        fn _init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: there are no bytes.
            initialise(this, unsafe { Bytes::copy(ptr::null(), 0) })
        }

        #[unsafe(method_id(initWithBytes:length:))]
        fn _init_with_bytes(this: Allocated<Self>, bytes: *const c_void, length: usize) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes that many bytes.
            initialise(this, unsafe { Bytes::copy(bytes, length) })
        }

        #[unsafe(method_id(initWithBytesNoCopy:length:deallocator:))]
        fn _init_without_copy(
            this: Allocated<Self>,
            bytes: *mut c_void,
            length: usize,
            deallocator: Option<&DynBlock<Deallocator>>,
        ) -> Retained<Self> {
            let _own = emulator_objc::own();
            let keeper = Keeper::Lent(deallocator.map(DynBlock::copy));
            initialise(this, Bytes { start: bytes.cast(), length, keeper })
        }

        #[unsafe(method_id(dataWithBytes:length:))]
        fn _with_bytes(bytes: *const c_void, length: usize) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes that many bytes.
            new_object(unsafe { Bytes::copy(bytes, length) })
        }

        #[unsafe(method(length))]
        fn _length(&self) -> usize {
            self.ivars().length
        }

        #[unsafe(method(bytes))]
        fn _bytes(&self) -> *const c_void {
            self.ivars().as_slice().as_ptr().cast()
        }

        #[unsafe(method(getBytes:length:))]
        fn _get_bytes(&self, out: NonNull<c_void>, length: usize) {
            let _own = emulator_objc::own();
            let bytes = self.ivars().as_slice();
            let length = length.min(bytes.len());
            // SAFETY: the caller has room for `length` bytes.
            unsafe { out.as_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), length) };
        }

        #[unsafe(method(isEqualToData:))]
        fn _is_equal_to_data(&self, other: &EmulatedData) -> bool {
            let _own = emulator_objc::own();
            other.ivars().as_slice() == self.ivars().as_slice()
        }
    }
);

fn initialise(this: Allocated<EmulatedData>, bytes: Bytes) -> Retained<EmulatedData> {
    // SAFETY: `init` of NSObject.
    unsafe { msg_send![super(this.set_ivars(bytes)), init] }
}

pub(super) fn register() {
    EmulatedData::class();
}
