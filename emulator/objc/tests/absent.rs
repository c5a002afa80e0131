//! Classes and methods that are taken away, as an earlier system does not have them, and brought back.

use std::panic::catch_unwind;

use emulator_objc::hide;
use objc2::rc::Retained;
use objc2::runtime::{AnyClass, NSObject, NSObjectProtocol};
use objc2::{AnyThread, define_class, msg_send, sel};

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestNewer"]
    struct Newer;

    // SAFETY: the protocol has no further requirements.
    unsafe impl NSObjectProtocol for Newer {}

    impl Newer {
        #[unsafe(method(answer))]
        fn _answer(&self) -> i32 {
            42
        }
    }
);

fn newer() -> Retained<Newer> {
    // SAFETY: NSObject's `init` takes no arguments.
    unsafe { msg_send![Newer::alloc(), init] }
}

fn answer(object: &Newer) -> i32 {
    // SAFETY: the signature is that of the class.
    unsafe { msg_send![object, answer] }
}

/// One test, as what is hidden is hidden from all threads.
#[test]
fn what_is_hidden_is_not_there_until_it_is_brought_back() {
    let object = newer();
    assert_eq!(answer(&object), 42);

    hide("TestNewer", Some("answer"), true);
    assert!(!object.respondsToSelector(sel!(answer)));
    assert!(catch_unwind(std::panic::AssertUnwindSafe(|| answer(&object))).is_err());
    hide("TestNewer", Some("answer"), false);
    assert_eq!(answer(&object), 42);

    hide("TestNewer", None, true);
    assert!(AnyClass::get(c"TestNewer").is_none());
    assert!(catch_unwind(newer).is_err(), "nothing new is made");
    assert_eq!(answer(&object), 42, "what is there lives on");
    drop(object);
    hide("TestNewer", None, false);
    assert_eq!(answer(&newer()), 42);

    for (class, selector) in [("TestOlder", None), ("TestNewer", Some("question"))] {
        assert!(catch_unwind(|| hide(class, selector, true)).is_err(), "a list of them should not rot");
    }
}
