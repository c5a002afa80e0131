//! `NSNumber`: a value that holds one of C's numbers, converted when it is asked for as another.

use std::cmp::Ordering;
use std::ffi::CStr;
use std::ptr::NonNull;

use objc2::rc::Retained;
use objc2::runtime::{AnyObject, NSObjectProtocol};
use objc2::{AnyThread, ClassType, define_class, msg_send};
use objc2_foundation::{NSComparisonResult, NSString};

use super::string;
use super::value::EmulatedValue;

/// What a number holds, in the widest type of its kind.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Real(f64),
}

impl Number {
    fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => left.cmp(&right),
            // Two NaN are equal to NSNumber, and NaN is less than any other number.
            _ => self
                .real()
                .partial_cmp(&other.real())
                .unwrap_or_else(|| other.real().is_nan().cmp(&self.real().is_nan())),
        }
    }

    fn real(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Real(value) => value,
        }
    }

    /// As C converts it: integers wrap, reals are cut off.
    fn integer(self) -> i128 {
        match self {
            Number::Integer(value) => value,
            Number::Real(value) => value as i128,
        }
    }
}

define_class!(
    // SAFETY: EmulatedValue has no requirements for subclasses.
    #[unsafe(super(EmulatedValue))]
    #[name = "NSNumber"]
    pub(super) struct EmulatedNumber;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedNumber {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            let other = other.and_then(|other| other.downcast_ref::<EmulatedNumber>());
            other.is_some_and(|other| self.number().compare(other.number()).is_eq())
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            let _own = emulator_objc::own();
            // Equal numbers of different types have the same hash.
            self.number().real().to_bits() as usize
        }

        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            string::from_str(&self.text())
        }
    }

    impl EmulatedNumber {
        #[unsafe(method_id(numberWithBool:))]
        fn _with_bool(value: bool) -> Retained<Self> {
            make(u8::from(value), c"c")
        }

        #[unsafe(method_id(numberWithChar:))]
        fn _with_char(value: i8) -> Retained<Self> {
            make(value, c"c")
        }

        // NSNumber holds no unsigned type but the widest: the next larger signed type takes the others.
        #[unsafe(method_id(numberWithUnsignedChar:))]
        fn _with_unsigned_char(value: u8) -> Retained<Self> {
            make(i16::from(value), c"s")
        }

        #[unsafe(method_id(numberWithShort:))]
        fn _with_short(value: i16) -> Retained<Self> {
            make(value, c"s")
        }

        #[unsafe(method_id(numberWithUnsignedShort:))]
        fn _with_unsigned_short(value: u16) -> Retained<Self> {
            make(i32::from(value), c"i")
        }

        #[unsafe(method_id(numberWithInt:))]
        fn _with_int(value: i32) -> Retained<Self> {
            make(value, c"i")
        }

        #[unsafe(method_id(numberWithUnsignedInt:))]
        fn _with_unsigned_int(value: u32) -> Retained<Self> {
            make(i64::from(value), c"q")
        }

        #[unsafe(method_id(numberWithLongLong:))]
        fn _with_long_long(value: i64) -> Retained<Self> {
            make(value, c"q")
        }

        #[unsafe(method_id(numberWithUnsignedLongLong:))]
        fn _with_unsigned_long_long(value: u64) -> Retained<Self> {
            make(value, c"Q")
        }

        #[unsafe(method_id(numberWithInteger:))]
        fn _with_integer(value: isize) -> Retained<Self> {
            make(value, c"q")
        }

        #[unsafe(method_id(numberWithUnsignedInteger:))]
        fn _with_unsigned_integer(value: usize) -> Retained<Self> {
            make(value, c"Q")
        }

        #[unsafe(method_id(numberWithFloat:))]
        fn _with_float(value: f32) -> Retained<Self> {
            make(value, c"f")
        }

        #[unsafe(method_id(numberWithDouble:))]
        fn _with_double(value: f64) -> Retained<Self> {
            make(value, c"d")
        }

        #[unsafe(method(boolValue))]
        fn _bool(&self) -> bool {
            self.number().real() != 0.0
        }

        #[unsafe(method(charValue))]
        fn _char(&self) -> i8 {
            self.number().integer() as i8
        }

        #[unsafe(method(unsignedCharValue))]
        fn _unsigned_char(&self) -> u8 {
            self.number().integer() as u8
        }

        #[unsafe(method(shortValue))]
        fn _short(&self) -> i16 {
            self.number().integer() as i16
        }

        #[unsafe(method(unsignedShortValue))]
        fn _unsigned_short(&self) -> u16 {
            self.number().integer() as u16
        }

        #[unsafe(method(intValue))]
        fn _int(&self) -> i32 {
            self.number().integer() as i32
        }

        #[unsafe(method(unsignedIntValue))]
        fn _unsigned_int(&self) -> u32 {
            self.number().integer() as u32
        }

        #[unsafe(method(longLongValue))]
        fn _long_long(&self) -> i64 {
            self.number().integer() as i64
        }

        #[unsafe(method(unsignedLongLongValue))]
        fn _unsigned_long_long(&self) -> u64 {
            self.number().integer() as u64
        }

        #[unsafe(method(integerValue))]
        fn _integer(&self) -> isize {
            self.number().integer() as isize
        }

        #[unsafe(method(unsignedIntegerValue))]
        fn _unsigned_integer(&self) -> usize {
            self.number().integer() as usize
        }

        #[unsafe(method(floatValue))]
        fn _float(&self) -> f32 {
            self.number().real() as f32
        }

        #[unsafe(method(doubleValue))]
        fn _double(&self) -> f64 {
            self.number().real()
        }

        #[unsafe(method_id(stringValue))]
        fn _string(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            string::from_str(&self.text())
        }

        #[unsafe(method(isEqualToNumber:))]
        fn _is_equal_to_number(&self, other: &EmulatedNumber) -> bool {
            self.number().compare(other.number()).is_eq()
        }

        #[unsafe(method(compare:))]
        fn _compare(&self, other: &EmulatedNumber) -> NSComparisonResult {
            match self.number().compare(other.number()) {
                Ordering::Less => NSComparisonResult::Ascending,
                Ordering::Equal => NSComparisonResult::Same,
                Ordering::Greater => NSComparisonResult::Descending,
            }
        }
    }
);

impl EmulatedNumber {
    fn number(&self) -> Number {
        let (bytes, encoding) = self.contents();
        // The bytes have the size that their encoding says, so that the padded words hold the value.
        let mut unsigned = [0; 8];
        unsigned[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(unsigned);
        match encoding.to_bytes() {
            b"f" => Number::Real(f64::from(f32::from_bits(unsigned as u32))),
            b"d" => Number::Real(f64::from_bits(unsigned)),
            b"c" => Number::Integer((unsigned as i8).into()),
            b"s" => Number::Integer((unsigned as i16).into()),
            b"i" => Number::Integer((unsigned as i32).into()),
            b"l" | b"q" => Number::Integer((unsigned as i64).into()),
            _ => Number::Integer(unsigned.into()),
        }
    }

    fn text(&self) -> String {
        match (self.number(), self.contents().1.to_bytes()) {
            (Number::Integer(value), _) => value.to_string(),
            (Number::Real(value), b"f") => (value as f32).to_string(),
            (Number::Real(value), _) => value.to_string(),
        }
    }
}

/// A number that holds `value`, whose type `encoding` is.
fn make<T: Copy>(value: T, encoding: &CStr) -> Retained<EmulatedNumber> {
    let _own = emulator_objc::own();
    let bytes = NonNull::from(&value).cast::<std::ffi::c_void>();
    let encoding = NonNull::from(encoding).cast::<std::ffi::c_char>();
    // SAFETY: the method copies a value of this type and its encoding.
    unsafe { msg_send![EmulatedNumber::alloc(), initWithBytes: bytes, objCType: encoding] }
}

pub(super) fn register() {
    EmulatedNumber::class();
}
