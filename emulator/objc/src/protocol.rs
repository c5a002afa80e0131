//! Protocols: lists of methods that a class promises.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_uint};
use std::ptr;
use std::sync::{Mutex, RwLock};

use crate::class::{Class, Kind};
use crate::class_functions::malloc_list;
use crate::loader;
use crate::selector::Sel;

/// A protocol. It is an object, so its class comes first.
#[repr(C)]
pub(crate) struct Protocol {
    isa: &'static Class,
    name: &'static CStr,
    methods: Mutex<Vec<Promise>>,
    adopted: Mutex<Vec<&'static Protocol>>,
}

/// A method that a protocol lists.
struct Promise {
    selector: Sel,
    types: CString,
    required: bool,
    of_instance: bool,
}

/// `struct objc_method_description`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Description {
    name: Option<Sel>,
    types: *const c_char,
}

static PROTOCOL_CLASS: Class = Class::new(c"Protocol", Kind::Permanent, false);
static PROTOCOLS: RwLock<BTreeMap<&'static CStr, &'static Protocol>> = RwLock::new(BTreeMap::new());

impl Protocol {
    pub(crate) fn new(name: &CStr) -> &'static Protocol {
        Box::leak(Box::new(Protocol {
            isa: &PROTOCOL_CLASS,
            name: Box::leak(name.into()),
            methods: Mutex::default(),
            adopted: Mutex::default(),
        }))
    }

    pub(crate) fn register(&'static self) {
        PROTOCOLS.write().expect("never poisoned").entry(self.name).or_insert(self);
    }

    pub(crate) fn promise(&self, selector: Sel, types: &CStr, required: bool, of_instance: bool) {
        let promise = Promise { selector, types: types.to_owned(), required, of_instance };
        self.methods.lock().expect("never poisoned").push(promise);
    }

    /// Whether this is `other` or adopts it, directly or not.
    pub(crate) fn conforms_to(&self, other: &Protocol) -> bool {
        let adopted = self.adopted.lock().expect("never poisoned").clone();
        self.name == other.name || adopted.iter().any(|protocol| protocol.conforms_to(other))
    }

    fn descriptions(&self, required: bool, of_instance: bool) -> Vec<Description> {
        let methods = self.methods.lock().expect("never poisoned");
        let listed = methods.iter().filter(|method| (method.required, method.of_instance) == (required, of_instance));
        listed.map(|method| Description { name: Some(method.selector), types: method.types.as_ptr() }).collect()
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_getProtocol(name: *const c_char) -> Option<&'static Protocol> {
    loader::load();
    // SAFETY: the caller passes a string that ends in NUL.
    PROTOCOLS.read().expect("never poisoned").get(unsafe { CStr::from_ptr(name) }).copied()
}

#[unsafe(no_mangle)]
extern "C" fn objc_copyProtocolList(length: Option<&mut c_uint>) -> *mut &'static Protocol {
    let protocols: Vec<_> = PROTOCOLS.read().expect("never poisoned").values().copied().collect();
    malloc_list(&protocols, length)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn objc_allocateProtocol(name: *const c_char) -> Option<&'static Protocol> {
    // SAFETY: the caller passes a string that ends in NUL.
    let name = unsafe { CStr::from_ptr(name) };
    let taken = PROTOCOLS.read().expect("never poisoned").contains_key(name);
    (!taken).then(|| Protocol::new(name))
}

#[unsafe(no_mangle)]
extern "C" fn objc_registerProtocol(protocol: &'static Protocol) {
    protocol.register();
}

#[unsafe(no_mangle)]
extern "C" fn protocol_getName(protocol: &Protocol) -> *const c_char {
    protocol.name.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn protocol_isEqual(left: Option<&Protocol>, right: Option<&Protocol>) -> u8 {
    u8::from(left.map(|protocol| protocol.name) == right.map(|protocol| protocol.name))
}

#[unsafe(no_mangle)]
extern "C" fn protocol_conformsToProtocol(protocol: Option<&Protocol>, other: Option<&Protocol>) -> u8 {
    u8::from(protocol.zip(other).is_some_and(|(protocol, other)| protocol.conforms_to(other)))
}

#[unsafe(no_mangle)]
extern "C" fn protocol_addProtocol(protocol: &Protocol, addition: &'static Protocol) {
    protocol.adopted.lock().expect("never poisoned").push(addition);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn protocol_addMethodDescription(
    protocol: &Protocol,
    selector: Sel,
    types: *const c_char,
    required: u8,
    of_instance: u8,
) {
    // SAFETY: the caller passes a string that ends in NUL.
    protocol.promise(selector, unsafe { CStr::from_ptr(types) }, required != 0, of_instance != 0);
}

#[unsafe(no_mangle)]
extern "C" fn protocol_copyMethodDescriptionList(
    protocol: &Protocol,
    required: u8,
    of_instance: u8,
    length: Option<&mut c_uint>,
) -> *mut Description {
    malloc_list(&protocol.descriptions(required != 0, of_instance != 0), length)
}

#[unsafe(no_mangle)]
extern "C" fn protocol_getMethodDescription(
    protocol: &Protocol,
    selector: Sel,
    required: u8,
    of_instance: u8,
) -> Description {
    let listed = protocol.descriptions(required != 0, of_instance != 0);
    let found = listed.into_iter().find(|description| description.name == Some(selector));
    found.unwrap_or(Description { name: None, types: ptr::null() })
}

#[unsafe(no_mangle)]
extern "C" fn protocol_copyProtocolList(protocol: &Protocol, length: Option<&mut c_uint>) -> *mut &'static Protocol {
    malloc_list(&protocol.adopted.lock().expect("never poisoned"), length)
}
