//! The loader: one test, because it runs once in a process.

use std::sync::Mutex;
use std::thread;

use emulator_objc::{Counts, counts};
use objc2::rc::Retained;
use objc2::runtime::{AnyClass, ClassBuilder, NSObject};
use objc2::{AnyThread, ClassType, define_class, msg_send, sel};

define_class!(
    // SAFETY: NSObject has no requirements for subclasses.
    #[unsafe(super(NSObject))]
    #[name = "TestEmulated"]
    #[ivars = Retained<NSObject>]
    struct Emulated;
);

static RUNS: Mutex<u32> = Mutex::new(0);

fn loader() {
    *RUNS.lock().expect("never poisoned") += 1;
    // The loader looks classes up itself, and takes its time.
    let class = ClassBuilder::new(c"TestLoaded", NSObject::class()).expect("the name is free");
    thread::sleep(std::time::Duration::from_millis(50));
    class.register();
    Emulated::class();
}

#[test]
fn the_first_lookup_runs_the_loader_once_and_every_thread_waits_for_it() {
    emulator_objc::set_loader(loader);
    let threads: Vec<_> = (0..6).map(|_| thread::spawn(|| AnyClass::get(c"TestLoaded").is_some())).collect();
    assert!(threads.into_iter().all(|thread| thread.join().expect("nothing was raised")));
    assert_eq!(*RUNS.lock().expect("never poisoned"), 1);
    let class = AnyClass::get(c"TestLoaded").expect("it is registered");
    assert!(class.responds_to(sel!(hash)));

    // What an emulated object owns is released by the emulator.
    let this = Emulated::alloc().set_ivars(NSObject::new());
    // SAFETY: `init` of NSObject.
    let object: Retained<Emulated> = unsafe { msg_send![super(this), init] };
    let before = counts();
    drop(object);
    assert_eq!(counts() - before, Counts { releases: 1, objects_freed: 2, ..Counts::default() });
}
