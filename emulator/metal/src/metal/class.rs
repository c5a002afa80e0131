//! Defining the classes of the emulated framework.

/// Defines an Objective-C class `$objc` over `$ivars`, subclass of `NSObject`, with `make` and checks of identity.
macro_rules! emulated_class {
    ($(#[$doc:meta])* $vis:vis struct $name:ident, $objc:literal, $ivars:ty, { $($body:tt)* }) => {
        objc2::define_class!(
            // SAFETY: NSObject has no requirements on subclasses, and no method here breaks retain and release.
            #[unsafe(super(objc2::runtime::NSObject))]
            #[name = $objc]
            #[ivars = $ivars]
            $(#[$doc])*
            $vis struct $name;

            $($body)*
        );

        // SAFETY: NSObject, the superclass, conforms.
        unsafe impl objc2::runtime::NSObjectProtocol for $name {}

        #[allow(dead_code, reason = "some classes are made by `init` alone, and some are never passed back")]
        impl $name {
            pub(crate) fn make(ivars: $ivars) -> objc2::rc::Retained<Self> {
                crate::foundation::new_object::<Self>(ivars)
            }

            /// The emulated object behind an object of the typed crates; raises if it is of another class.
            pub(crate) fn of<T: ?Sized + objc2::Message>(object: &T) -> &Self {
                let _own = emulator_objc::own();
                let object: *const T = object;
                // SAFETY: every `T: Message` is an Objective-C object, and AnyObject stands for any of them.
                let any = unsafe { &*object.cast::<objc2::runtime::AnyObject>() };
                match any.downcast_ref::<Self>() {
                    Some(this) => this,
                    None => crate::foundation::raise(
                        "NSInvalidArgumentException",
                        &format!("an object of class {} where an {} is needed", any.class().name().to_string_lossy(), $objc),
                    ),
                }
            }
        }
    };
}

/// A typed protocol object around an emulated object.
macro_rules! protocol {
    ($protocol:ident, $object:expr) => {
        objc2::runtime::ProtocolObject::<dyn $protocol>::from_retained($object)
    };
}

pub(crate) use {emulated_class, protocol};

/// A retained object known by its protocol.
pub(crate) type Object<P> = objc2::rc::Retained<objc2::runtime::ProtocolObject<P>>;

/// A validation failure in Metal's words: `-[Class selector]: failed assertion ..`.
pub(crate) fn assertion(method: &str, what: impl std::fmt::Display) -> ! {
    crate::foundation::raise("MTLValidation", &format!("{method}: failed assertion `{what}'"))
}
