//! `NSValue`: bytes and the encoding of their type.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSCopying, NSRange};

use super::{new_object, raise};

/// The size of the largest value: those of Metal and of MPS are structs of a few words.
const CAPACITY: usize = 256;

#[derive(PartialEq)]
pub(super) struct Boxed {
    bytes: Vec<u8>,
    encoding: CString,
}

impl Boxed {
    /// # Safety
    /// `bytes` points to a value of the type that `encoding` describes.
    unsafe fn new(bytes: NonNull<c_void>, encoding: &CStr) -> Boxed {
        let size = size_of_encoded(encoding.to_bytes()).filter(|size| *size <= CAPACITY).unwrap_or_else(|| {
            let reason =
                format!("-[NSValue initWithBytes:objCType:]: type {}: not emulated", encoding.to_string_lossy());
            raise("NSInvalidArgumentException", &reason)
        });
        // SAFETY: promised by the caller.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), size) };
        Boxed { bytes: bytes.to_vec(), encoding: encoding.to_owned() }
    }
}

/// The size of a value by its encoding, C's rules for structs included.
fn size_of_encoded(encoding: &[u8]) -> Option<usize> {
    let (layout, rest) = layout_of_first(encoding)?;
    rest.is_empty().then_some(layout.size)
}

struct Layout {
    size: usize,
    alignment: usize,
}

fn layout_of_first(encoding: &[u8]) -> Option<(Layout, &[u8])> {
    let (first, rest) = encoding.split_first()?;
    let size = match first {
        b'c' | b'C' | b'B' => 1,
        b's' | b'S' => 2,
        b'i' | b'I' | b'f' => 4,
        b'l' | b'L' | b'q' | b'Q' | b'd' | b'@' | b'#' | b':' | b'*' => 8,
        b'^' => {
            // What it points to has no size of its own here: `^v`, or another type.
            let rest = match rest {
                [b'v' | b'?', rest @ ..] => rest,
                _ => layout_of_first(rest)?.1,
            };
            return Some((Layout { size: 8, alignment: 8 }, rest));
        }
        b'[' => return layout_of_array(rest),
        b'{' => return layout_of_struct(rest),
        _ => return None,
    };
    Some((Layout { size, alignment: size }, rest))
}

/// `4f]`
fn layout_of_array(encoding: &[u8]) -> Option<(Layout, &[u8])> {
    let digits = encoding.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let count: usize = std::str::from_utf8(&encoding[..digits]).ok()?.parse().ok()?;
    let (item, rest) = layout_of_first(&encoding[digits..])?;
    Some((Layout { size: item.size.checked_mul(count)?, alignment: item.alignment }, rest.strip_prefix(b"]")?))
}

/// `Name=dd}`
fn layout_of_struct(encoding: &[u8]) -> Option<(Layout, &[u8])> {
    let name = encoding.iter().position(|byte| *byte == b'=')?;
    let mut rest = &encoding[name + 1..];
    let mut whole = Layout { size: 0, alignment: 1 };
    loop {
        if let Some(rest) = rest.strip_prefix(b"}") {
            whole.size = whole.size.next_multiple_of(whole.alignment);
            return Some((whole, rest));
        }
        let (field, after) = layout_of_first(rest)?;
        whole.size = whole.size.next_multiple_of(field.alignment) + field.size;
        whole.alignment = whole.alignment.max(field.alignment);
        rest = after;
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSValue"]
    #[ivars = Boxed]
    pub(super) struct EmulatedValue;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedValue {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            let other = other.and_then(|other| other.downcast_ref::<EmulatedValue>());
            other.is_some_and(|other| other.ivars() == self.ivars())
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            self.ivars().bytes.iter().fold(0, |hash: usize, byte| hash.wrapping_mul(31) ^ usize::from(*byte))
        }
    }

    // SAFETY: a value never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedValue {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedValue {
        #[unsafe(method_id(initWithBytes:objCType:))]
        fn _init(this: Allocated<Self>, bytes: NonNull<c_void>, encoding: NonNull<c_char>) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes a value and its encoding, which ends in NUL.
            let boxed = unsafe { Boxed::new(bytes, CStr::from_ptr(encoding.as_ptr())) };
            // SAFETY: `init` of NSObject.
            unsafe { msg_send![super(this.set_ivars(boxed)), init] }
        }

        #[unsafe(method_id(valueWithBytes:objCType:))]
        fn _value(bytes: NonNull<c_void>, encoding: NonNull<c_char>) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: as above.
            new_object(unsafe { Boxed::new(bytes, CStr::from_ptr(encoding.as_ptr())) })
        }

        #[unsafe(method(objCType))]
        fn _encoding(&self) -> NonNull<c_char> {
            NonNull::from(self.ivars().encoding.as_c_str()).cast()
        }

        #[unsafe(method(getValue:))]
        fn _get(&self, out: NonNull<c_void>) {
            let _own = emulator_objc::own();
            // SAFETY: the caller has room for a value of the type that `objCType` says.
            unsafe { self.write(out) };
        }

        #[unsafe(method(getValue:size:))]
        fn _get_sized(&self, out: NonNull<c_void>, size: usize) {
            let _own = emulator_objc::own();
            if size != self.ivars().bytes.len() {
                raise("NSInvalidArgumentException", "-[NSValue getValue:size:]: the value has another size");
            }
            // SAFETY: the caller has room for `size` bytes.
            unsafe { self.write(out) };
        }

        #[unsafe(method(isEqualToValue:))]
        fn _is_equal_to_value(&self, other: &EmulatedValue) -> bool {
            let _own = emulator_objc::own();
            other.ivars() == self.ivars()
        }

        #[unsafe(method(rangeValue))]
        fn _range(&self) -> NSRange {
            let _own = emulator_objc::own();
            let mut range = NSRange::new(0, 0);
            if self.ivars().bytes.len() != size_of::<NSRange>() {
                raise("NSInvalidArgumentException", "-[NSValue rangeValue]: the value is no range");
            }
            // SAFETY: the sizes agree.
            unsafe { self.write(NonNull::from(&mut range).cast()) };
            range
        }
    }
);

impl EmulatedValue {
    /// # Safety
    /// `out` has room for the value.
    unsafe fn write(&self, out: NonNull<c_void>) {
        let bytes = &self.ivars().bytes;
        // SAFETY: promised by the caller.
        unsafe { out.as_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// The bytes and the encoding, for `NSNumber`.
    pub(super) fn contents(&self) -> (&[u8], &CStr) {
        (&self.ivars().bytes, &self.ivars().encoding)
    }
}

pub(super) fn register() {
    EmulatedValue::class();
}

#[cfg(test)]
mod tests {
    use super::size_of_encoded;

    #[test]
    fn sizes_follow_the_rules_for_structs() {
        assert_eq!(size_of_encoded(b"{MTLSize=QQQ}"), Some(24));
        assert_eq!(size_of_encoded(b"{A=c{B=ds}C}"), Some(32));
        assert_eq!(size_of_encoded(b"[3{P=^vc}]"), Some(48));
        assert_eq!(size_of_encoded(b"(U=id)"), None);
        assert_eq!(size_of_encoded(b"ii"), None);
    }
}
