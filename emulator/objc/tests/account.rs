//! The account: exact counts for known sequences.

use std::thread;

use emulator_objc::{Counts, alive, autoreleased_without_pool, counts, messages_by_method, own};
use objc2::rc::{Allocated, Retained, autoreleasepool};
use objc2::runtime::{AnyObject, NSObject, NSObjectProtocol};
use objc2::{AnyThread, ClassType, Message, define_class, ffi, msg_send};

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestFactory"]
    struct Factory;

    // SAFETY: the protocol has no further requirements.
    unsafe impl NSObjectProtocol for Factory {}

    impl Factory {
        /// Like an emulated method: its own work is not counted.
        #[unsafe(method_id(product))]
        fn _product(&self) -> Retained<NSObject> {
            let _own = own();
            let product = NSObject::new();
            drop(product.clone());
            product
        }
    }
);

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestLeaked"]
    struct Leaked;
);

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestOwner"]
    #[ivars = Retained<NSObject>]
    struct Owner;
);

impl Factory {
    fn new() -> Retained<Self> {
        let this = Self::alloc().set_ivars(());
        // SAFETY: `init` of NSObject.
        unsafe { msg_send![super(this), init] }
    }
}

/// What `action` costs on this thread.
fn cost<R>(action: impl FnOnce() -> R) -> (Counts, R) {
    let before = counts();
    let result = action();
    (counts() - before, result)
}

fn find(list: &[(String, u64)], name: &str) -> u64 {
    list.iter().find(|(other, _)| other == name).map_or(0, |(_, number)| *number)
}

#[test]
fn making_copying_and_freeing_an_object() {
    drop(Factory::new());
    // `alloc`, and `init` of the superclass.
    let (made, object) = cost(Factory::new);
    assert_eq!(made, Counts { messages: 2, objects_made: 1, ..Counts::default() });
    let (copied, second) = cost(|| object.clone());
    assert_eq!(copied, Counts { retains: 1, ..Counts::default() });
    let (freed, ()) = cost(|| drop((object, second)));
    assert_eq!(freed, Counts { releases: 2, objects_freed: 1, ..Counts::default() });
}

#[test]
fn what_a_method_does_itself_is_not_counted_and_its_result_is_handed_over() {
    let factory = Factory::new();
    autoreleasepool(|_| {
        let (spent, product) = cost(|| {
            // SAFETY: the signature above.
            let product: Retained<NSObject> = unsafe { msg_send![&*factory, product] };
            product
        });
        assert_eq!(spent, Counts { messages: 1, objects_made: 1, ..Counts::default() });
        assert_eq!(product.retainCount(), 1);
    });
}

#[test]
fn a_result_that_is_not_retained_stays_in_the_pool() {
    let factory = Factory::new();
    let (spent, ()) = cost(|| {
        autoreleasepool(|_| {
            // SAFETY: the signature above.
            let product: *mut NSObject = unsafe { msg_send![&*factory, product] };
            assert!(!product.is_null());
        })
    });
    let expected = Counts { messages: 1, autoreleases: 1, objects_made: 1, objects_freed: 1, ..Counts::default() };
    assert_eq!(spent, expected);
}

#[test]
fn an_autorelease_without_a_pool_is_a_leak() {
    thread::spawn(|| {
        let (spent, ()) = cost(|| {
            // SAFETY: the reference is given away.
            unsafe {
                let object: Allocated<Leaked> = Leaked::alloc();
                let object: Retained<Leaked> = msg_send![super(object.set_ivars(())), init];
                ffi::objc_autorelease(Retained::into_raw(object).cast::<AnyObject>());
            }
        });
        assert_eq!((spent.autoreleases, spent.autoreleases_without_pool, spent.objects_freed), (1, 1, 0));
    })
    .join()
    .expect("the thread ran");
    assert_eq!(find(&autoreleased_without_pool(), "TestLeaked"), 1);
    assert_eq!(find(&alive(), "TestLeaked"), 1);
}

#[test]
fn freeing_an_object_releases_what_it_owns() {
    let object = NSObject::new();
    let this = Owner::alloc().set_ivars(object);
    // SAFETY: `init` of NSObject.
    let owner: Retained<Owner> = unsafe { msg_send![super(this), init] };
    let (spent, ()) = cost(|| drop(owner));
    assert_eq!(spent, Counts { releases: 2, objects_freed: 2, ..Counts::default() });
}

#[test]
fn nothing_is_counted_in_an_own_scope_but_objects() {
    let (spent, ()) = cost(|| {
        let _outer = own();
        drop(own());
        drop(NSObject::new().retain());
    });
    assert_eq!(spent, Counts { objects_made: 1, objects_freed: 1, ..Counts::default() });
}

#[test]
fn the_process_knows_objects_by_class_and_messages_by_method() {
    define_class!(
        // SAFETY: NSObject has no requirements for subclasses.
        #[unsafe(super(NSObject))]
        #[name = "TestListed"]
        struct Listed;

        impl Listed {
            #[unsafe(method(ping))]
            fn _ping(&self) {}

            #[unsafe(method(pong))]
            fn _pong() {}
        }
    );
    let make = || -> Retained<Listed> {
        // SAFETY: `init` of NSObject.
        unsafe { msg_send![super(Listed::alloc().set_ivars(())), init] }
    };
    let objects = [make(), make(), make()];
    for object in &objects {
        // SAFETY: the signatures above.
        unsafe {
            let _: () = msg_send![&**object, ping];
            let _own = own();
            let _: () = msg_send![Listed::class(), pong];
        }
    }
    // SAFETY: as above.
    let _: () = unsafe { msg_send![Listed::class(), pong] };
    assert_eq!(find(&alive(), "TestListed"), 3);
    drop(objects);
    assert_eq!(find(&alive(), "TestListed"), 0);
    let messages = messages_by_method();
    assert_eq!(find(&messages, "-[TestListed ping]"), 3);
    assert_eq!(find(&messages, "+[TestListed pong]"), 1);
    assert!(messages.is_sorted_by(|a, b| a.1 >= b.1));
}

#[test]
fn another_thread_has_counts_of_its_own() {
    let (spent, inside) = cost(|| thread::spawn(|| cost(Factory::new).0).join().expect("the thread ran"));
    assert_eq!(spent, Counts::default());
    assert_eq!(inside.objects_made, 1);
}

#[test]
fn counts_print_as_a_table() {
    let counts = Counts { messages: 1204, retains: 7, ..Counts::default() };
    let text = counts.to_string();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("messages                     1204"));
    assert_eq!(lines.next(), Some("retains                         7"));
    assert_eq!(lines.count(), 6);
}
