//! How emulated frameworks come to have their classes registered before anyone looks one up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, ThreadId};

use crate::root;

struct State {
    loaders: Vec<fn()>,
    running_on: Option<ThreadId>,
}

static STATE: Mutex<State> = Mutex::new(State { loaders: Vec::new(), running_on: None });
static FINISHED: Condvar = Condvar::new();
/// Whether a loader waits to be run. Read without a lock at every lookup of a class.
static PENDING: AtomicBool = AtomicBool::new(true);

/// Has `loader` run once, before the next class is looked up. Several frameworks may each set one.
///
/// Call this, and then [`load`], from an `.init_array` constructor. If the loader first ran when some thread looks up
/// a class, it could wait for a `Once` of objc2 that another thread holds while that one waits for the loader.
pub fn set_loader(loader: fn()) {
    STATE.lock().expect("never poisoned").loaders.push(loader);
    PENDING.store(true, Ordering::Release);
}

/// Runs the loaders that were set and did not run yet. Classes they register count as emulated: what freeing their
/// instances takes is not counted as the user's.
pub fn load() {
    if !PENDING.load(Ordering::Acquire) {
        return;
    }
    root::install();
    loop {
        let mut state = STATE.lock().expect("never poisoned");
        match state.running_on {
            // A loader looks up a superclass.
            Some(thread) if thread == thread::current().id() => return,
            Some(_) => {
                drop(FINISHED.wait_while(state, |state| state.running_on.is_some()).expect("never poisoned"));
                continue;
            }
            None => {}
        }
        if state.loaders.is_empty() {
            PENDING.store(false, Ordering::Release);
            return;
        }
        let loader = state.loaders.remove(0);
        state.running_on = Some(thread::current().id());
        drop(state);
        let _finish = Finish;
        loader();
    }
}

/// Ends the run of a loader, also when it panics.
struct Finish;

impl Drop for Finish {
    fn drop(&mut self) {
        STATE.lock().expect("never poisoned").running_on = None;
        FINISHED.notify_all();
    }
}

/// Whether this thread is running a loader right now.
pub(crate) fn is_loading_here() -> bool {
    PENDING.load(Ordering::Acquire) && STATE.lock().expect("never poisoned").running_on == Some(thread::current().id())
}
