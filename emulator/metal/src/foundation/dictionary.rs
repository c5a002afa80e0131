//! `NSDictionary`, of few entries: they are searched one by one.

use std::ptr::{self, NonNull};

use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol, NSZone};
use objc2::{ClassType, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSArray, NSCopying, NSDictionary, NSFastEnumerationState, NSString};

use super::array::{describe, from_objects, is_equal, pointer, retain_all};
use super::{enumeration, new_object, string};

/// Keys and values in the order in which they were given.
#[derive(Default)]
pub(super) struct Entries {
    keys: Vec<Retained<AnyObject>>,
    values: Vec<Retained<AnyObject>>,
}

impl Entries {
    fn get(&self, key: &AnyObject) -> Option<&Retained<AnyObject>> {
        self.keys.iter().position(|other| is_equal(other, key)).map(|at| &self.values[at])
    }

    /// Copies the keys, as NSDictionary does. The last of two equal keys counts.
    fn collect(keys: Vec<Retained<AnyObject>>, values: Vec<Retained<AnyObject>>) -> Entries {
        let mut entries = Entries::default();
        for (key, value) in keys.into_iter().zip(values) {
            // SAFETY: the keys of a dictionary implement `NSCopying`.
            let key: Retained<AnyObject> = unsafe { msg_send![&*key, copy] };
            match entries.keys.iter().position(|other| is_equal(other, &key)) {
                Some(at) => entries.values[at] = value,
                None => {
                    entries.keys.push(key);
                    entries.values.push(value);
                }
            }
        }
        entries
    }

    fn equals(&self, other: &Entries) -> bool {
        let same = |(key, value): (&Retained<AnyObject>, &Retained<AnyObject>)| {
            other.get(key).is_some_and(|other| is_equal(other, value))
        };
        self.keys.len() == other.keys.len() && self.keys.iter().zip(&self.values).all(same)
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "NSDictionary"]
    #[ivars = Entries]
    pub(super) struct EmulatedDictionary;

    // SAFETY: NSObject implements the protocol.
    unsafe impl NSObjectProtocol for EmulatedDictionary {
        #[unsafe(method(isEqual:))]
        fn _is_equal(&self, other: Option<&AnyObject>) -> bool {
            let _own = emulator_objc::own();
            let other = other.and_then(|other| other.downcast_ref::<EmulatedDictionary>());
            other.is_some_and(|other| self.ivars().equals(other.ivars()))
        }

        #[unsafe(method(hash))]
        fn _hash(&self) -> usize {
            self.ivars().keys.len()
        }

        #[unsafe(method_id(description))]
        fn _description(&self) -> Retained<NSString> {
            let _own = emulator_objc::own();
            let Entries { keys, values } = self.ivars();
            let entries = keys.iter().zip(values);
            let lines: String = entries.map(|(key, value)| format!("    {} = {};\n", describe(key), describe(value))).collect();
            string::from_str(&format!("{{\n{lines}}}"))
        }
    }

    // SAFETY: a dictionary never changes, so it is its own copy.
    unsafe impl NSCopying for EmulatedDictionary {
        #[unsafe(method_id(copyWithZone:))]
        fn _copy_with_zone(&self, _zone: *mut NSZone) -> Retained<Self> {
            let _own = emulator_objc::own();
            self.retain()
        }
    }

    impl EmulatedDictionary {
        #[unsafe(method_id(init))]
        fn _init(this: Allocated<Self>) -> Retained<Self> {
            let _own = emulator_objc::own();
            initialise(this, Entries::default())
        }

        #[unsafe(method_id(initWithObjects:forKeys:count:))]
        fn _init_with_objects(
            this: Allocated<Self>,
            objects: *const *mut AnyObject,
            keys: *const *mut AnyObject,
            count: usize,
        ) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes that many keys and objects.
            let (keys, objects) = unsafe { (retain_all(keys, count), retain_all(objects, count)) };
            initialise(this, Entries::collect(keys, objects))
        }

        #[unsafe(method_id(dictionary))]
        fn _dictionary() -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(Entries::default())
        }

        #[unsafe(method_id(dictionaryWithObject:forKey:))]
        fn _with_object(object: &AnyObject, key: &AnyObject) -> Retained<Self> {
            let _own = emulator_objc::own();
            new_object(Entries::collect(vec![key.retain()], vec![object.retain()]))
        }

        #[unsafe(method_id(dictionaryWithObjects:forKeys:count:))]
        fn _with_objects(
            objects: *const *mut AnyObject,
            keys: *const *mut AnyObject,
            count: usize,
        ) -> Retained<Self> {
            let _own = emulator_objc::own();
            // SAFETY: the caller passes that many keys and objects.
            let (keys, objects) = unsafe { (retain_all(keys, count), retain_all(objects, count)) };
            new_object(Entries::collect(keys, objects))
        }

        #[unsafe(method(count))]
        fn _count(&self) -> usize {
            self.ivars().keys.len()
        }

        #[unsafe(method(objectForKey:))]
        fn _object(&self, key: &AnyObject) -> *mut AnyObject {
            let _own = emulator_objc::own();
            self.ivars().get(key).map_or(ptr::null_mut(), pointer)
        }

        #[unsafe(method(objectForKeyedSubscript:))]
        fn _subscript(&self, key: &AnyObject) -> *mut AnyObject {
            let _own = emulator_objc::own();
            self.ivars().get(key).map_or(ptr::null_mut(), pointer)
        }

        #[unsafe(method_id(allKeys))]
        fn _all_keys(&self) -> Retained<NSArray> {
            let _own = emulator_objc::own();
            from_objects(self.ivars().keys.clone())
        }

        #[unsafe(method_id(allValues))]
        fn _all_values(&self) -> Retained<NSArray> {
            let _own = emulator_objc::own();
            from_objects(self.ivars().values.clone())
        }

        #[unsafe(method(getObjects:andKeys:))]
        fn _get(&self, objects: *mut *mut AnyObject, keys: *mut *mut AnyObject) {
            let _own = emulator_objc::own();
            for (all, out) in [(&self.ivars().values, objects), (&self.ivars().keys, keys)] {
                if let Some(out) = NonNull::new(out) {
                    // SAFETY: the caller has room for all of them.
                    unsafe { enumeration::write(all, out) };
                }
            }
        }

        #[unsafe(method(isEqualToDictionary:))]
        fn _is_equal_to_dictionary(&self, other: &EmulatedDictionary) -> bool {
            let _own = emulator_objc::own();
            self.ivars().equals(other.ivars())
        }

        #[unsafe(method(countByEnumeratingWithState:objects:count:))]
        fn _enumerate(
            &self,
            state: NonNull<NSFastEnumerationState>,
            _buffer: NonNull<*mut AnyObject>,
            _capacity: usize,
        ) -> usize {
            // SAFETY: the caller passes its state of an enumeration of this dictionary.
            unsafe { enumeration::next(&self.ivars().keys, state) }
        }
    }
);

fn initialise(this: Allocated<EmulatedDictionary>, entries: Entries) -> Retained<EmulatedDictionary> {
    // SAFETY: `init` of NSObject.
    unsafe { msg_send![super(this.set_ivars(entries)), init] }
}

/// A dictionary of strings.
pub(super) fn of_strings(entries: &[(&NSString, &NSString)]) -> Retained<NSDictionary<NSString, AnyObject>> {
    let object = |string: &NSString| -> Retained<AnyObject> { string.retain().into() };
    let keys = entries.iter().map(|(key, _)| object(key)).collect();
    let values = entries.iter().map(|(_, value)| object(value)).collect();
    let dictionary = new_object::<EmulatedDictionary>(Entries { keys, values });
    // SAFETY: `EmulatedDictionary` is the class that is registered as `NSDictionary`; the keys are strings.
    unsafe { Retained::cast_unchecked(dictionary) }
}

pub(super) fn register() {
    EmulatedDictionary::class();
}
