//! References, pools, weak references, and what is raised when they are misused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use emulator_objc::Exception;
use objc2::rc::{Retained, Weak, autoreleasepool};
use objc2::runtime::{AnyClass, AnyObject, NSObject, NSObjectProtocol};
use objc2::{AnyThread, ClassType, define_class, ffi, msg_send};

/// Adds one to a number when it is dropped.
struct Witness(Arc<AtomicUsize>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestWitnessed"]
    #[ivars = Witness]
    struct Witnessed;

    // SAFETY: the protocol has no further requirements.
    unsafe impl NSObjectProtocol for Witnessed {}
);

impl Witnessed {
    fn new(freed: &Arc<AtomicUsize>) -> Retained<Self> {
        let this = Self::alloc().set_ivars(Witness(freed.clone()));
        // SAFETY: `init` of NSObject.
        unsafe { msg_send![super(this), init] }
    }
}

/// Gives the reference away to the innermost pool.
fn autorelease(object: Retained<Witnessed>) {
    let _ = Retained::autorelease_ptr(object);
}

fn raw(object: &Witnessed) -> *mut AnyObject {
    std::ptr::from_ref(object).cast_mut().cast()
}

fn raised(action: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(action)).expect_err("nothing was raised");
    Exception::from_panic(&*payload).expect("the panic is not an exception").to_string()
}

#[test]
fn the_last_release_frees_the_object_and_its_variables() {
    let freed = Arc::new(AtomicUsize::new(0));
    let object = Witnessed::new(&freed);
    assert_eq!(object.retainCount(), 1);
    let second = object.clone();
    assert_eq!(object.retainCount(), 2);
    drop(object);
    assert_eq!(freed.load(Ordering::SeqCst), 0);
    drop(second);
    assert_eq!(freed.load(Ordering::SeqCst), 1);
}

#[test]
fn an_object_that_was_not_initialised_is_freed_without_its_variables() {
    let freed = Arc::new(AtomicUsize::new(0));
    drop(Witnessed::alloc());
    assert_eq!(freed.load(Ordering::SeqCst), 0);
}

#[test]
fn pools_nest() {
    let freed = Arc::new(AtomicUsize::new(0));
    let count = || freed.load(Ordering::SeqCst);
    autoreleasepool(|_| {
        autorelease(Witnessed::new(&freed));
        autoreleasepool(|_| {
            autorelease(Witnessed::new(&freed));
            autorelease(Witnessed::new(&freed));
            assert_eq!(count(), 0);
        });
        assert_eq!(count(), 2);
    });
    assert_eq!(count(), 3);
}

#[test]
fn every_thread_has_pools_of_its_own() {
    let freed = Arc::new(AtomicUsize::new(0));
    autoreleasepool(|_| {
        autorelease(Witnessed::new(&freed));
        let elsewhere = freed.clone();
        let other = thread::spawn(move || autoreleasepool(|_| autorelease(Witnessed::new(&elsewhere))));
        other.join().expect("it ran");
        assert_eq!(freed.load(Ordering::SeqCst), 1);
    });
    assert_eq!(freed.load(Ordering::SeqCst), 2);
}

#[test]
fn pools_popped_out_of_order_are_reported_and_emptied() {
    let freed = Arc::new(AtomicUsize::new(0));
    // SAFETY: what is wrong here is what this tests; the runtime checks the tokens.
    unsafe {
        let outer = ffi::objc_autoreleasePoolPush();
        let inner = ffi::objc_autoreleasePoolPush();
        ffi::objc_autorelease(Retained::into_raw(Witnessed::new(&freed)).cast());
        let message = raised(|| ffi::objc_autoreleasePoolPop(outer));
        assert!(message.contains("popped before the pools inside it"), "{message}");
        assert_eq!(freed.load(Ordering::SeqCst), 1);
        let message = raised(|| ffi::objc_autoreleasePoolPop(inner));
        assert!(message.contains("popped twice"), "{message}");
    }
}

#[test]
fn a_weak_reference_ends_with_its_object() {
    let freed = Arc::new(AtomicUsize::new(0));
    let object = Witnessed::new(&freed);
    let weak = Weak::from_retained(&object);
    let copy = weak.clone();
    let other = Weak::from_retained(&Witnessed::new(&freed));
    assert!(other.load().is_none());
    let strong = weak.load().expect("the object is alive");
    assert_eq!(strong.retainCount(), 2);
    drop(strong);
    drop(weak);
    drop(object);
    assert!(copy.load().is_none());
    assert!(Weak::<Witnessed>::default().load().is_none());
    assert_eq!(freed.load(Ordering::SeqCst), 2);
}

#[test]
fn weak_references_race_with_the_last_release() {
    let freed = Arc::new(AtomicUsize::new(0));
    for _ in 0..2000 {
        let object = Witnessed::new(&freed);
        let weak = Weak::from_retained(&object);
        thread::scope(|scope| {
            let loader = scope.spawn(|| (0..4).filter(|_| weak.load().is_some()).count());
            drop(object);
            loader.join().expect("nothing was raised");
        });
        assert!(weak.load().is_none());
    }
    assert_eq!(freed.load(Ordering::SeqCst), 2000);
}

#[test]
fn use_after_the_last_release_is_caught_by_name() {
    let freed = Arc::new(AtomicUsize::new(0));
    let object = raw(&Witnessed::new(&freed));
    // SAFETY: what is wrong here is what this tests; the runtime keeps freed objects recognisable for a while.
    unsafe {
        let message = raised(|| ffi::objc_release(object));
        assert!(message.contains("release of a freed object of class TestWitnessed"), "{message}");
        let message = raised(|| _ = ffi::objc_retain(object));
        assert!(message.contains("retain of a freed object of class TestWitnessed"), "{message}");
        let message = raised(|| _ = ffi::objc_msg_lookup(object, objc2::sel!(hash)));
        assert!(message.contains("-[TestWitnessed hash]: message sent to a freed object"), "{message}");
        // With debug assertions objc2 asks for the method first.
        let message = raised(|| {
            let _: usize = msg_send![object, hash];
        });
        assert!(message.contains("-[TestWitnessed hash]: message sent to a freed object"), "{message}");
    }
    assert_eq!(freed.load(Ordering::SeqCst), 1);
}

#[test]
fn zombies_are_never_reused() {
    let freed = Arc::new(AtomicUsize::new(0));
    emulator_objc::keep_zombies(true);
    let object = raw(&Witnessed::new(&freed));
    emulator_objc::keep_zombies(false);
    // More are freed than the runtime keeps back otherwise, then as many made.
    drop((0..10_000).map(|_| Witnessed::new(&freed)).collect::<Vec<_>>());
    let others: Vec<_> = (0..10_000).map(|_| Witnessed::new(&freed)).collect();
    assert!(others.iter().all(|other| raw(other) != object));
    // SAFETY: the memory of this object was kept.
    let message = raised(|| unsafe { ffi::objc_release(object) });
    assert!(message.contains("class TestWitnessed"), "{message}");
}

#[test]
fn threads_retain_release_and_look_up_at_once() {
    const ROUNDS: usize = 20_000;
    let freed = Arc::new(AtomicUsize::new(0));
    let object = Witnessed::new(&freed);
    let failures: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                // The Witness is an Arc and thus may be shared, which objc2 sees.
                let object = object.clone();
                scope.spawn(move || {
                    (0..ROUNDS)
                        .filter(|_| {
                            let copy = object.clone();
                            let kind = copy.isKindOfClass(NSObject::class());
                            !kind || AnyClass::get(c"TestWitnessed").is_none()
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("nothing was raised")).sum()
    });
    assert_eq!(failures, 0);
    assert_eq!(object.retainCount(), 1);
    drop(object);
    assert_eq!(freed.load(Ordering::SeqCst), 1);
}

#[test]
fn a_class_can_be_retained_and_never_goes_away() {
    let class = NSObject::class();
    // SAFETY: a class is an object.
    unsafe {
        let class = std::ptr::from_ref(class).cast_mut().cast::<AnyObject>();
        ffi::objc_release(ffi::objc_retain(class));
        ffi::objc_release(class);
    }
    assert_eq!(NSObject::new().retainCount(), 1);
}
