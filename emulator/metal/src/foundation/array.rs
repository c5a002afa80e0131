//! `NSArray`.

use std::ptr::{self, NonNull};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSArray, NSCopying, NSFastEnumerationState, NSNotFound, NSRange, NSString};

use super::{enumeration, new_object, raise, string};

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSArray"]
    #[ivars = Vec<Retained<AnyObject>>]
    pub(super) struct EmulatedArray;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedArray {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            other.and_then(|other| other.downcast_ref::<EmulatedArray>()).is_some_and(|other| self.equals(other))
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            self.ivars().len()
        }

        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            let lines: Vec<String> = self.ivars().iter().map(|object| format!("    {}", describe(object))).collect();
            string::from_str(&format!("(\n{}\n)", lines.join(",\n")))
        }
    }

    // SAFETY: an array never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedArray {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedArray {
        #[unsafe(method_id(init))]
        fn _init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            initialise(this, Vec::new())
        }

        #[unsafe(method_id(initWithObjects:count:))]
        fn _init_with_objects(this: Allocated<Self>, objects: *const *mut AnyObject, count: usize) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes that many objects.
            initialise(this, unsafe { retain_all(objects, count) })
        }

        #[unsafe(method_id(array))]
        fn _array() -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(Vec::new())
        }

        #[unsafe(method_id(arrayWithObject:))]
        fn _with_object(object: &AnyObject) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(vec![object.retain()])
        }

        #[unsafe(method_id(arrayWithObjects:count:))]
        fn _with_objects(objects: *const *mut AnyObject, count: usize) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes that many objects.
            new_object(unsafe { retain_all(objects, count) })
        }

        #[unsafe(method(count))]
        fn _count(&self) -> usize {
            self.ivars().len()
        }

        // What these return is not retained, as with Apple: the caller pays for the retain.
        #[unsafe(method(objectAtIndex:))]
        fn _object_at(&self, index: usize) -> *mut AnyObject {
            let _own = emulator_objc::own();
            self.at(index, "objectAtIndex:")
        }

        #[unsafe(method(objectAtIndexedSubscript:))]
        fn _subscript(&self, index: usize) -> *mut AnyObject {
            let _own = emulator_objc::own();
            self.at(index, "objectAtIndexedSubscript:")
        }

        #[unsafe(method(firstObject))]
        fn _first(&self) -> *mut AnyObject {
            self.ivars().first().map_or(ptr::null_mut(), pointer)
        }

        #[unsafe(method(lastObject))]
        fn _last(&self) -> *mut AnyObject {
            self.ivars().last().map_or(ptr::null_mut(), pointer)
        }

        #[unsafe(method(containsObject:))]
        fn _contains(&self, object: &AnyObject) -> bool {
            let _own = emulator_objc::own();
            self.position(object).is_some()
        }

        #[unsafe(method(indexOfObject:))]
        fn _index_of(&self, object: &AnyObject) -> usize {
            let _own = emulator_objc::own();
            self.position(object).unwrap_or(NSNotFound as usize)
        }

        #[unsafe(method(isEqualToArray:))]
        fn _is_equal_to_array(&self, other: &EmulatedArray) -> bool {
            let _own = emulator_objc::own();
            self.equals(other)
        }

        #[unsafe(method_id(arrayByAddingObject:))]
        fn _adding(&self, object: &AnyObject) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(self.ivars().iter().cloned().chain([object.retain()]).collect::<Vec<_>>())
        }

        #[unsafe(method(getObjects:))]
        fn _get_objects(&self, objects: NonNull<*mut AnyObject>) {
            let _own = emulator_objc::own();
            // SAFETY: the caller has room for all objects.
            unsafe { enumeration::write(self.ivars(), objects) };
        }

        #[unsafe(method(getObjects:range:))]
        fn _get_range(&self, objects: NonNull<*mut AnyObject>, range: NSRange) {
            let _own = emulator_objc::own();
            let end = range.location.checked_add(range.length);
            match end.and_then(|end| self.ivars().get(range.location..end)) {
                // SAFETY: the caller has room for the objects of the range.
                Some(chosen) => unsafe { enumeration::write(chosen, objects) },
                None => raise("NSRangeException", &format!("-[NSArray getObjects:range:]: {range:?} beyond the end")),
            }
        }

        #[unsafe(method(countByEnumeratingWithState:objects:count:))]
        fn _enumerate(
            &self,
            state: NonNull<NSFastEnumerationState>,
            _buffer: NonNull<*mut AnyObject>,
            _capacity: usize,
        ) -> usize {
            // SAFETY: the caller passes its state of an enumeration of this array.
            unsafe { enumeration::next(self.ivars(), state) }
        }
    }
);

impl EmulatedArray {
    fn at(&self, index: usize, method: &str) -> *mut AnyObject {
        match self.ivars().get(index) {
            Some(object) => pointer(object),
            None => raise("NSRangeException", &out_of_bounds(method, index, self.ivars().len())),
        }
    }

    fn position(&self, object: &AnyObject) -> Option<usize> {
        self.ivars().iter().position(|other| is_equal(other, object))
    }

    fn equals(&self, other: &EmulatedArray) -> bool {
        let (left, right) = (self.ivars(), other.ivars());
        left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_equal(left, right))
    }
}

/// Apple's words for it.
fn out_of_bounds(method: &str, index: usize, count: usize) -> String {
    match count.checked_sub(1) {
        Some(last) => format!("-[NSArray {method}]: index {index} beyond bounds [0 .. {last}]"),
        None => format!("-[NSArray {method}]: index {index} beyond bounds for empty array"),
    }
}

pub(super) fn pointer(object: &Retained<AnyObject>) -> *mut AnyObject {
    Retained::as_ptr(object).cast_mut()
}

/// What `isEqual:` says.
pub(super) fn is_equal(left: &AnyObject, right: &AnyObject) -> bool {
    // SAFETY: every object has this method of NSObject.
    unsafe { msg_send![left, isEqual: right] }
}

/// What `description` says.
pub(super) fn describe(object: &AnyObject) -> String {
    // SAFETY: every object has this method of NSObject, and it returns a string.
    let text: Retained<NSString> = unsafe { msg_send![object, description] };
    string::text_of(&text).to_owned()
}

/// # Safety
/// `objects` points to `count` objects.
pub(super) unsafe fn retain_all(objects: *const *mut AnyObject, count: usize) -> Vec<Retained<AnyObject>> {
    // SAFETY: promised by the caller.
    let object = |index| unsafe { Retained::retain(*objects.add(index)) };
    let nil =
        |index| raise("NSInvalidArgumentException", &format!("attempt to insert nil object from objects[{index}]"));
    (0..count).map(|index| object(index).unwrap_or_else(|| nil(index))).collect()
}

fn initialise(this: Allocated<EmulatedArray>, objects: Vec<Retained<AnyObject>>) -> Retained<EmulatedArray> {
    // SAFETY: `init` of NSObject.
    unsafe { msg_send![super(this.set_ivars(objects)), init] }
}

pub(super) fn from_objects(objects: Vec<Retained<AnyObject>>) -> Retained<NSArray> {
    // SAFETY: `EmulatedArray` is the class that is registered as `NSArray`.
    unsafe { Retained::cast_unchecked(new_object::<EmulatedArray>(objects)) }
}

pub(super) fn register() {
    EmulatedArray::class();
}
