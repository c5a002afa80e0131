//! Classes made by objc2: methods, variables, inheritance, protocols and what is raised for an unknown selector.

use std::cell::Cell;
use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use emulator_objc::Exception;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{
    AnyClass, AnyObject, Bool, ClassBuilder, NSObject, NSObjectProtocol, ProtocolBuilder, ProtocolObject, Sel,
};
use objc2::{AnyThread, ClassType, DefinedClass, define_class, extern_protocol, ffi, msg_send, sel};

extern_protocol!(
    #[allow(clippy::missing_safety_doc, reason = "the macro writes the trait")]
    unsafe trait Doubling {
        #[unsafe(method(double))]
        fn double(&self) -> i32;
    }
);

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestShape"]
    #[ivars = (Cell<i32>, String)]
    struct Shape;

    // SAFETY: the protocol has no further requirements.
    unsafe impl NSObjectProtocol for Shape {}

    // SAFETY: `double` has the right signature.
    unsafe impl Doubling for Shape {
        #[unsafe(method(double))]
        fn _double(&self) -> i32 {
            2 * self.ivars().0.get()
        }
    }

    impl Shape {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Retained<Self> {
            let this = this.set_ivars((Cell::new(3), "shape".to_owned()));
            // SAFETY: `init` of NSObject.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(sides))]
        fn _sides(&self) -> i32 {
            self.ivars().0.get()
        }

        #[unsafe(method(setSides:))]
        fn _set_sides(&self, sides: i32) {
            self.ivars().0.set(sides);
        }

        #[unsafe(method(defaultSides))]
        fn _default_sides() -> i32 {
            3
        }

        #[unsafe(method(scale:by:))]
        fn _scale(&self, length: f64, factor: f32) -> f64 {
            length * f64::from(factor)
        }
    }
);

define_class!(
    // SAFETY: Shape has no requirements for subclasses.
    #[unsafe(super(Shape))]
    #[name = "TestSquare"]
    #[ivars = Cell<u8>]
    struct Square;

    impl Square {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Retained<Self> {
            let this = this.set_ivars(Cell::new(7));
            // SAFETY: `init` of Shape.
            unsafe { msg_send![super(this), init] }
        }

        #[unsafe(method(sides))]
        fn _sides(&self) -> i32 {
            // SAFETY: the signature of the method above.
            let inherited: i32 = unsafe { msg_send![super(self), sides] };
            inherited + 1
        }
    }
);

fn shape() -> Retained<Shape> {
    // SAFETY: the signature of `init`.
    unsafe { msg_send![Shape::alloc(), init] }
}

fn square() -> Retained<Square> {
    // SAFETY: the signature of `init`.
    unsafe { msg_send![Square::alloc(), init] }
}

fn raised(action: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(action)).expect_err("nothing was raised");
    Exception::from_panic(&*payload).expect("the panic is not an exception").to_string()
}

#[test]
fn methods_take_arguments_and_change_variables() {
    let shape = shape();
    // SAFETY: the signatures above.
    unsafe {
        let _: () = msg_send![&*shape, setSides: 8i32];
        let sides: i32 = msg_send![&*shape, sides];
        let scaled: f64 = msg_send![&*shape, scale: 2.5f64, by: 4.0f32];
        let class_side: i32 = msg_send![Shape::class(), defaultSides];
        assert_eq!((sides, scaled, class_side), (8, 10.0, 3));
    }
    assert_eq!(shape.ivars().1, "shape");
}

#[test]
fn a_subclass_calls_the_superclass_and_has_variables_of_its_own() {
    let square = square();
    // SAFETY: the signature above.
    let sides: i32 = unsafe { msg_send![&*square, sides] };
    assert_eq!(sides, 4);
    assert_eq!(square.ivars().get(), 7);
    assert_eq!((**square).ivars().1, "shape");
    assert!(square.isKindOfClass(Shape::class()));
    assert!(!square.isMemberOfClass(Shape::class()));
    assert_eq!(Square::class().superclass(), Some(Shape::class()));
    assert!(Square::class().instance_size() > Shape::class().instance_size());
}

#[test]
fn a_protocol_object_forwards_to_the_class() {
    let object: Retained<ProtocolObject<dyn Doubling>> = ProtocolObject::from_retained(shape());
    assert_eq!(object.double(), 6);
}

#[test]
fn protocols_can_be_made_adopted_and_asked_for() {
    let mut base = ProtocolBuilder::new(c"TestBase").expect("the name is free");
    base.add_method_description::<(i32,), i32>(sel!(add:), true);
    let base = base.register();
    let mut derived = ProtocolBuilder::new(c"TestDerived").expect("the name is free");
    derived.add_protocol(base);
    let derived = derived.register();
    let mut class = ClassBuilder::new(c"TestAdopter", NSObject::class()).expect("the name is free");
    assert!(class.add_protocol(derived));
    assert!(!class.add_protocol(derived), "a second time");
    let class = class.register();

    assert!(class.conforms_to(derived) && class.conforms_to(base));
    assert!(!NSObject::class().conforms_to(base));
    // SAFETY: the selector is only compared.
    let described = unsafe { ffi::protocol_getMethodDescription(base, sel!(add:), Bool::YES, Bool::YES) };
    assert_eq!(described.name, Some(sel!(add:)));
    assert!(<dyn NSObjectProtocol as objc2::ProtocolType>::protocol().is_some());
    assert!(ProtocolBuilder::new(c"TestBase").is_none());
}

#[test]
fn classes_are_found_by_name_once_registered() {
    assert!(AnyClass::get(c"TestNowhere").is_none());
    let builder = ClassBuilder::new(c"TestFound", NSObject::class()).expect("the name is free");
    assert!(ClassBuilder::new(c"TestFound", NSObject::class()).is_none(), "the name is taken");
    assert!(AnyClass::get(c"TestFound").is_none());
    let class = builder.register();
    assert_eq!(AnyClass::get(c"TestFound"), Some(class));
    assert!(AnyClass::classes().contains(&class));
    assert!(class.metaclass().is_metaclass());
}

#[test]
fn a_method_added_late_replaces_an_inherited_one_that_was_cached() {
    extern "C-unwind" fn answer(_: &AnyObject, _: Sel) -> usize {
        42
    }
    let class = ClassBuilder::new(c"TestLate", NSObject::class()).expect("the name is free").register();
    let subclass = ClassBuilder::new(c"TestLater", class).expect("the name is free").register();
    // SAFETY: `new` has this signature.
    let object: Retained<NSObject> = unsafe { msg_send![subclass, new] };
    let before = NSObjectProtocol::hash(&*object);
    // SAFETY: the function has the signature of `hash`.
    let added = unsafe {
        let imp = std::mem::transmute::<extern "C-unwind" fn(&AnyObject, Sel) -> usize, objc2::runtime::Imp>(answer);
        ffi::class_addMethod(std::ptr::from_ref(class).cast_mut(), sel!(hash), imp, c"Q16@0:8".as_ptr())
    };
    assert!(added.as_bool());
    assert_ne!(before, 42);
    assert_eq!(NSObjectProtocol::hash(&*object), 42);
}

#[test]
fn methods_can_be_listed_with_their_types() {
    let method = Shape::class().instance_method(sel!(scale:by:)).expect("it is defined above");
    assert_eq!(method.arguments_count(), 4);
    assert_eq!(&*method.return_type(), c"d");
    assert_eq!(method.argument_type(3).as_deref(), Some(c"f"));
    assert!(Shape::class().instance_methods().iter().any(|method| method.name() == sel!(setSides:)));
    assert!(!Shape::class().responds_to(sel!(defaultSides)));
}

#[test]
fn an_unknown_selector_raises_an_exception_that_names_class_and_selector() {
    let shape = shape();
    let receiver = Retained::as_ptr(&shape).cast_mut().cast::<AnyObject>();
    // SAFETY: the receiver is an object; nothing is called.
    let message = raised(|| _ = unsafe { ffi::objc_msg_lookup(receiver, sel!(newTextureWithDescriptor:)) });
    let expected = "-[TestShape newTextureWithDescriptor:]: unrecognized selector: not emulated";
    assert_eq!(message, format!("NSInvalidArgumentException: {expected}"));

    let class = std::ptr::from_ref(Shape::class()).cast_mut().cast::<AnyObject>();
    // SAFETY: as above.
    let message = raised(|| _ = unsafe { ffi::objc_msg_lookup(class, sel!(unknown)) });
    assert!(message.contains("+[TestShape unknown]: unrecognized selector"), "{message}");

    let message = raised(|| shape.doesNotRecognizeSelector(sel!(fly)));
    assert!(message.contains("-[TestShape fly]"), "{message}");
}

#[test]
fn copying_an_object_that_cannot_be_copied_names_the_method_that_is_missing() {
    let shape = shape();
    let message = raised(|| {
        // SAFETY: the signature of `copy`.
        let _: Retained<AnyObject> = unsafe { msg_send![&*shape, copy] };
    });
    assert!(message.contains("-[TestShape copyWithZone:]"), "{message}");
}

#[test]
fn another_panic_is_not_an_exception() {
    let payload = catch_unwind(|| panic!("{}: it is not", "surely")).expect_err("it panics");
    assert_eq!(Exception::from_panic(&*payload), None);
}

#[test]
fn a_thrown_object_keeps_its_class_name() {
    let shape = shape();
    let object = Retained::as_ptr(&shape).cast_mut().cast::<AnyObject>();
    // SAFETY: an object may be thrown.
    let message = raised(|| unsafe { ffi::objc_exception_throw(object) });
    assert_eq!(message, "NSGenericException: an object of class TestShape was thrown");
}

#[test]
fn selectors_are_the_same_on_every_thread() {
    fn selector(name: &'static CStr) -> usize {
        // SAFETY: the name ends in NUL.
        let selector = unsafe { ffi::sel_registerName(name.as_ptr()) }.expect("never null");
        // SAFETY: a selector is a pointer.
        unsafe { std::mem::transmute::<Sel, usize>(selector) }
    }
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| selector(c"raceForThis:"))).collect();
    let found: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("it ran")).collect();
    assert!(found.iter().all(|&one| one == selector(c"raceForThis:")));
    assert_ne!(selector(c"raceForThat:"), found[0]);
}
