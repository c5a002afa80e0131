//! `NSObject`: the class that all others inherit from, and the protocol of the same name.
//!
//! The encodings are those of objc2's GNUstep path: `BOOL` is `C`, `NSUInteger` is `Q`.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::{Once, OnceLock};

use crate::account;
use crate::class::{self, Class};
use crate::class_functions::class_addProtocol;
use crate::exception::raise;
use crate::instance::{Object, class_createInstance, object_dispose};
use crate::message::{objc_msg_lookup, send, unrecognized};
use crate::method::Imp;
use crate::pool;
use crate::protocol::Protocol;
use crate::retain::{objc_autorelease, objc_release, objc_retain, retain_count};
use crate::selector::Sel;

/// The selector of `dealloc`.
pub(crate) fn dealloc_selector() -> Sel {
    static DEALLOC: OnceLock<Sel> = OnceLock::new();
    *DEALLOC.get_or_init(|| Sel::named(c"dealloc"))
}

/// One row: a name, the encoding of its types and its code.
type Row = (&'static CStr, &'static CStr, *const ());

/// Registers `NSObject`. Only the first call does anything.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let root = class::allocate(None, c"NSObject").expect("this is the first class");
        let protocol = Protocol::new(c"NSObject");
        for (name, types, code) in promised() {
            add(root, (name, types, code));
            protocol.promise(Sel::named(name), types, name != c"debugDescription", true);
        }
        instance_methods().into_iter().for_each(|row| add(root, row));
        class_methods().into_iter().for_each(|row| add(root.isa(), row));
        protocol.register();
        class_addProtocol(root, protocol);
        class::register(root);
    });
}

fn add(class: &'static Class, (name, types, code): Row) {
    // SAFETY: the tables below hold functions only.
    let imp = unsafe { std::mem::transmute::<*const (), Imp>(code) };
    let added = class.add_method(Sel::named(name), imp, types);
    assert!(added, "{name:?} is listed once");
}

/// The instance methods that the protocol `NSObject` promises.
fn promised() -> [Row; 17] {
    [
        (c"isEqual:", c"C24@0:8@16", is_equal as *const ()),
        (c"hash", c"Q16@0:8", hash as *const ()),
        (c"self", c"@16@0:8", itself as *const ()),
        (c"class", c"#16@0:8", class_of as *const ()),
        (c"superclass", c"#16@0:8", superclass_of as *const ()),
        (c"isKindOfClass:", c"C24@0:8#16", is_kind_of as *const ()),
        (c"isMemberOfClass:", c"C24@0:8#16", is_member_of as *const ()),
        (c"respondsToSelector:", c"C24@0:8:16", responds as *const ()),
        (c"conformsToProtocol:", c"C24@0:8@16", conforms as *const ()),
        (c"isProxy", c"C16@0:8", is_proxy as *const ()),
        (c"retain", c"@16@0:8", retain as *const ()),
        (c"release", c"v16@0:8", release as *const ()),
        (c"autorelease", c"@16@0:8", autorelease as *const ()),
        (c"retainCount", c"Q16@0:8", retain_count_of as *const ()),
        (c"zone", c"^{_NSZone=}16@0:8", zone as *const ()),
        (c"description", c"@16@0:8", description as *const ()),
        (c"debugDescription", c"@16@0:8", description as *const ()),
    ]
}

fn instance_methods() -> [Row; 5] {
    [
        (c"init", c"@16@0:8", itself as *const ()),
        (c"dealloc", c"v16@0:8", dealloc as *const ()),
        (c"copy", c"@16@0:8", copy as *const ()),
        (c"mutableCopy", c"@16@0:8", mutable_copy as *const ()),
        (c"doesNotRecognizeSelector:", c"v24@0:8:16", does_not_recognize as *const ()),
    ]
}

fn class_methods() -> [Row; 9] {
    [
        (c"alloc", c"@16@0:8", alloc as *const ()),
        (c"allocWithZone:", c"@24@0:8^{_NSZone=}16", alloc as *const ()),
        (c"new", c"@16@0:8", new as *const ()),
        (c"class", c"#16@0:8", itself as *const ()),
        (c"superclass", c"#16@0:8", superclass_of_class as *const ()),
        (c"isSubclassOfClass:", c"C24@0:8#16", is_subclass_of as *const ()),
        (c"instancesRespondToSelector:", c"C24@0:8:16", instances_respond as *const ()),
        (c"conformsToProtocol:", c"C24@0:8@16", instances_conform as *const ()),
        (c"description", c"@16@0:8", class_description as *const ()),
    ]
}

extern "C-unwind" fn alloc(class: &'static Class, _: Sel) -> *mut Object {
    class_createInstance(Some(class), 0)
}

unsafe extern "C-unwind" fn new(class: &'static Class, _: Sel) -> *mut Object {
    let class = ptr::from_ref(class).cast_mut().cast::<Object>();
    // SAFETY: both methods take no arguments and return an object.
    unsafe { send(send(class, Sel::named(c"alloc")), Sel::named(c"init")) }
}

extern "C-unwind" fn itself(object: *mut Object, _: Sel) -> *mut Object {
    object
}

extern "C-unwind" fn class_of(object: &Object, _: Sel) -> &'static Class {
    object.class()
}

extern "C-unwind" fn superclass_of(object: &Object, _: Sel) -> Option<&'static Class> {
    object.class().superclass()
}

extern "C-unwind" fn superclass_of_class(class: &'static Class, _: Sel) -> Option<&'static Class> {
    class.superclass()
}

fn inherits(class: &'static Class, ancestor: &Class) -> bool {
    class.ancestry().any(|class| ptr::eq(class, ancestor))
}

extern "C-unwind" fn is_kind_of(object: &Object, _: Sel, class: &Class) -> u8 {
    u8::from(inherits(object.class(), class))
}

extern "C-unwind" fn is_member_of(object: &Object, _: Sel, class: &Class) -> u8 {
    u8::from(ptr::eq(object.class(), class))
}

extern "C-unwind" fn is_subclass_of(class: &'static Class, _: Sel, ancestor: &Class) -> u8 {
    u8::from(inherits(class, ancestor))
}

extern "C-unwind" fn responds(object: &Object, _: Sel, selector: Sel) -> u8 {
    u8::from(object.class().method(selector).is_some())
}

extern "C-unwind" fn instances_respond(class: &'static Class, _: Sel, selector: Sel) -> u8 {
    u8::from(class.method(selector).is_some())
}

extern "C-unwind" fn conforms(object: &Object, selector: Sel, protocol: &'static Protocol) -> u8 {
    instances_conform(object.class(), selector, protocol)
}

extern "C-unwind" fn instances_conform(class: &'static Class, _: Sel, protocol: &'static Protocol) -> u8 {
    u8::from(class.ancestry().any(|class| class.adopts(protocol)))
}

extern "C-unwind" fn is_equal(object: *mut Object, _: Sel, other: *mut Object) -> u8 {
    u8::from(object == other)
}

extern "C-unwind" fn hash(object: *mut Object, _: Sel) -> usize {
    object.addr() >> 4
}

extern "C-unwind" fn is_proxy(_: *mut Object, _: Sel) -> u8 {
    0
}

extern "C-unwind" fn zone(_: *mut Object, _: Sel) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C-unwind" fn retain(object: *mut Object, _: Sel) -> *mut Object {
    // SAFETY: the receiver of a message is an object.
    unsafe { objc_retain(object) }
}

unsafe extern "C-unwind" fn release(object: *mut Object, _: Sel) {
    // SAFETY: the sender owns the reference that it gives up.
    unsafe { objc_release(object) }
}

unsafe extern "C-unwind" fn autorelease(object: *mut Object, _: Sel) -> *mut Object {
    // SAFETY: the sender owns the reference that it gives up.
    unsafe { objc_autorelease(object) }
}

unsafe extern "C-unwind" fn retain_count_of(object: *mut Object, _: Sel) -> usize {
    // SAFETY: the receiver of a message is an object.
    unsafe { retain_count(object) }
}

unsafe extern "C-unwind" fn dealloc(object: *mut Object, _: Sel) {
    // SAFETY: only the last release sends this message, or a subclass's `dealloc` that was sent it.
    unsafe { object_dispose(object) };
}

/// Sends a message whose only argument is a null zone.
unsafe fn send_with_zone(object: *mut Object, selector: Sel) -> *mut Object {
    let _own = account::own();
    // SAFETY: this is the signature of `copyWithZone:` and `mutableCopyWithZone:`.
    unsafe {
        let imp = objc_msg_lookup(object, selector);
        std::mem::transmute::<Imp, unsafe extern "C-unwind" fn(*mut Object, Sel, *mut c_void) -> *mut Object>(imp)(
            object,
            selector,
            ptr::null_mut(),
        )
    }
}

unsafe extern "C-unwind" fn copy(object: *mut Object, _: Sel) -> *mut Object {
    // SAFETY: the receiver of a message is an object.
    unsafe { send_with_zone(object, Sel::named(c"copyWithZone:")) }
}

unsafe extern "C-unwind" fn mutable_copy(object: *mut Object, _: Sel) -> *mut Object {
    // SAFETY: the receiver of a message is an object.
    unsafe { send_with_zone(object, Sel::named(c"mutableCopyWithZone:")) }
}

extern "C-unwind" fn does_not_recognize(object: &Object, _: Sel, selector: Sel) {
    unrecognized(object.class(), selector)
}

extern "C-unwind" fn description(object: &Object, _: Sel) -> *mut Object {
    string(&format!("<{}: {object:p}>", object.class().name().to_string_lossy()))
}

extern "C-unwind" fn class_description(class: &'static Class, _: Sel) -> *mut Object {
    string(&class.name().to_string_lossy())
}

/// An autoreleased `NSString`, which someone else must have registered.
fn string(text: &str) -> *mut Object {
    const UTF8: i32 = 4;
    let Some(class) = class::lookup(c"NSString") else {
        raise("NSInternalInconsistencyException", "no class NSString is registered");
    };
    let _own = account::own();
    let selector = Sel::named(c"initWithBytes:length:encoding:");
    type Init = unsafe extern "C-unwind" fn(*mut Object, Sel, *const u8, usize, i32) -> *mut Object;
    // SAFETY: this is the signature of that method in objc2's GNUstep path, and the text outlives the call.
    unsafe {
        let allocated = send(ptr::from_ref(class).cast_mut().cast(), Sel::named(c"alloc"));
        let init = std::mem::transmute::<Imp, Init>(objc_msg_lookup(allocated, selector));
        let string = init(allocated, selector, text.as_ptr(), text.len(), UTF8);
        pool::add(string, pool::Purpose::Return);
        string
    }
}
