//! `NSString`: text in UTF-8, which may contain NUL.
//!
//! objc2's GNUstep path passes a string encoding as an `int`; the methods here do the same, and only know UTF-8.

use std::cmp::Ordering;
use std::ffi::{CStr, c_char, c_void};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSComparisonResult, NSCopying, NSString};

use super::{new_object, raise};

/// `NSUTF8StringEncoding` and `NSASCIIStringEncoding`.
const UTF8: i32 = 4;
const ASCII: i32 = 1;

/// Text that ends in NUL for those who ask for a C string.
pub(super) struct Text(Box<str>);

impl Text {
    fn new(text: &str) -> Text {
        Text(format!("{text}\0").into())
    }

    fn as_str(&self) -> &str {
        &self.0[..self.0.len() - 1]
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses, and text needs no thread.
    #[unsafe(super(NSObject))]
    #[name = "NSString"]
    #[ivars = Text]
    pub(super) struct EmulatedString;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedString {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            other.and_then(|other| other.downcast_ref::<EmulatedString>()).is_some_and(|other| other.text() == self.text())
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            let _own = emulator_objc::own();
            // FNV-1a, as good as any: Apple does not say which.
            self.text().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: usize, byte| {
                (hash ^ usize::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
        }

        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    // SAFETY: a string never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedString {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedString {
        #[unsafe(method_id(init))]
        fn _init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            initialise(this, "")
        }

        #[unsafe(method_id(string))]
        fn _string() -> Retained<Self> {
            let _own = emulator_objc::own();
            make("")
        }

        #[unsafe(method_id(initWithBytes:length:encoding:))]
        fn _init_with_bytes(
            this: Allocated<Self>,
            bytes: *const c_void,
            length: usize,
            encoding: i32,
        ) -> Option<Retained<Self>> {
            let _own = emulator_objc::own();
            require_known(encoding, "initWithBytes:length:encoding:");
            let bytes: &[u8] = match length {
                0 => &[],
                // SAFETY: the caller promises that many bytes.
                _ => unsafe { std::slice::from_raw_parts(bytes.cast(), length) },
            };
            // Bytes that are no UTF-8 make no string, as with Apple.
            std::str::from_utf8(bytes).ok().map(|text| initialise(this, text))
        }

        #[unsafe(method_id(initWithUTF8String:))]
        fn _init_with_utf8(this: Allocated<Self>, text: *const c_char) -> Option<Retained<Self>> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes a string that ends in NUL.
            unsafe { CStr::from_ptr(text) }.to_str().ok().map(|text| initialise(this, text))
        }

        #[unsafe(method_id(stringWithUTF8String:))]
        fn _string_with_utf8(text: *const c_char) -> Option<Retained<Self>> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes a string that ends in NUL.
            unsafe { CStr::from_ptr(text) }.to_str().ok().map(make)
        }

        #[unsafe(method(UTF8String))]
        fn _utf8(&self) -> *const c_char {
            self.ivars().0.as_ptr().cast()
        }

        #[unsafe(method(lengthOfBytesUsingEncoding:))]
        fn _byte_length(&self, encoding: i32) -> usize {
            let _own = emulator_objc::own();
            require_known(encoding, "lengthOfBytesUsingEncoding:");
            self.text().len()
        }

        #[unsafe(method(length))]
        fn _length(&self) -> usize {
            let _own = emulator_objc::own();
            self.text().encode_utf16().count()
        }

        #[unsafe(method(characterAtIndex:))]
        fn _character(&self, index: usize) -> u16 {
            let _own = emulator_objc::own();
            match self.text().encode_utf16().nth(index) {
                Some(unit) => unit,
                None => raise("NSRangeException", "-[NSString characterAtIndex:]: Range or index out of bounds"),
            }
        }

        #[unsafe(method(isEqualToString:))]
        fn _is_equal_to_string(&self, other: &EmulatedString) -> bool {
            let _own = emulator_objc::own();
            self.text() == other.text()
        }

        #[unsafe(method(compare:))]
        fn _compare(&self, other: &EmulatedString) -> NSComparisonResult {
            let _own = emulator_objc::own();
            match self.text().encode_utf16().cmp(other.text().encode_utf16()) {
                Ordering::Less => NSComparisonResult::Ascending,
                Ordering::Equal => NSComparisonResult::Same,
                Ordering::Greater => NSComparisonResult::Descending,
            }
        }

        #[unsafe(method(hasPrefix:))]
        fn _has_prefix(&self, prefix: &EmulatedString) -> bool {
            let _own = emulator_objc::own();
            self.text().starts_with(prefix.text())
        }

        #[unsafe(method(hasSuffix:))]
        fn _has_suffix(&self, suffix: &EmulatedString) -> bool {
            let _own = emulator_objc::own();
            self.text().ends_with(suffix.text())
        }

        #[unsafe(method(containsString:))]
        fn _contains(&self, other: &EmulatedString) -> bool {
            let _own = emulator_objc::own();
            self.text().contains(other.text())
        }

        #[unsafe(method_id(stringByAppendingString:))]
        fn _appending(&self, other: &EmulatedString) -> Retained<Self> {
            let _own = emulator_objc::own();
            make(&format!("{}{}", self.text(), other.text()))
        }
    }
);

impl EmulatedString {
    pub(super) fn text(&self) -> &str {
        self.ivars().as_str()
    }
}

fn require_known(encoding: i32, method: &str) {
    if encoding != UTF8 && encoding != ASCII {
        raise("NSInvalidArgumentException", &format!("-[NSString {method}]: encoding {encoding}: not emulated"));
    }
}

fn initialise(this: Allocated<EmulatedString>, text: &str) -> Retained<EmulatedString> {
    // SAFETY: `init` of NSObject.
    unsafe { msg_send![super(this.set_ivars(Text::new(text))), init] }
}

fn make(text: &str) -> Retained<EmulatedString> {
    new_object(Text::new(text))
}

/// A new `NSString`, made by the emulator.
pub(super) fn from_str(text: &str) -> Retained<NSString> {
    // SAFETY: `EmulatedString` is the class that is registered as `NSString`.
    unsafe { Retained::cast_unchecked(make(text)) }
}

/// The text of any `NSString`: there is no other class of strings.
pub(super) fn text_of(string: &NSString) -> &str {
    // SAFETY: as in `from_str`.
    unsafe { &*std::ptr::from_ref(string).cast::<EmulatedString>() }.text()
}

pub(super) fn register() {
    EmulatedString::class();
}
