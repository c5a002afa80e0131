//! Autorelease pools: a stack of them on every thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::account;
use crate::exception::complain;
use crate::instance::Object;
use crate::retain::give_up;

/// Why an object is autoreleased.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be alive until the pool is emptied.
    Keep,
    /// To be returned by a method: the caller may take it over before it is ever in the pool.
    Return,
}

struct Entry {
    object: *mut Object,
    purpose: Purpose,
    /// Whether the account shows it.
    counted: bool,
}

/// A pool that was pushed and not popped.
struct Open {
    token: usize,
    /// How many entries lie below it.
    start: usize,
}

struct Pools {
    entries: Vec<Entry>,
    open: Vec<Open>,
}

thread_local! {
    static POOLS: RefCell<Pools> = const { RefCell::new(Pools { entries: Vec::new(), open: Vec::new() }) };
}

/// Runs `action` on this thread's pools; a thread that is past its end has none.
fn with_pools<R>(action: impl FnOnce(&mut Pools) -> R) -> Option<R> {
    POOLS.try_with(|pools| action(&mut pools.borrow_mut())).ok()
}

/// Puts an object in the innermost pool of this thread.
///
/// # Safety
/// The object is null, or an object of which the caller gives a reference away.
pub(crate) unsafe fn add(object: *mut Object, purpose: Purpose) {
    // SAFETY: promised by the caller.
    let Some(class) = (unsafe { object.as_ref() }).map(Object::class) else {
        return;
    };
    let kept = with_pools(|pools| {
        let counted = account::autorelease(class, !pools.open.is_empty());
        pools.entries.push(Entry { object, purpose, counted });
    });
    if kept.is_none() {
        account::autorelease(class, false);
    }
}

/// Takes `object` out again if it is the latest one, returned by a method. The caller then owns that reference.
///
/// This is what ARC does when both sides take part, as Apple's frameworks and objc2 do.
pub(crate) fn take_returned(object: *mut Object) -> bool {
    with_pools(|pools| {
        let floor = pools.open.last().map_or(0, |pool| pool.start);
        let has_pool = !pools.open.is_empty();
        if pools.entries.len() <= floor {
            return false;
        }
        let latest = pools.entries.pop_if(|entry| entry.object == object && entry.purpose == Purpose::Return);
        let Some(entry) = latest else { return false };
        if entry.counted {
            // SAFETY: the entry holds a reference, so the object is there.
            account::take_back_autorelease(unsafe { &*object }.class(), has_pool);
        }
        true
    })
    .unwrap_or(false)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleasePoolPush() -> usize {
    static NEXT_TOKEN: AtomicUsize = AtomicUsize::new(1);
    let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
    with_pools(|pools| pools.open.push(Open { token, start: pools.entries.len() }));
    token
}

/// Empties the pool and all pools inside it, then says if there were any inside.
#[unsafe(no_mangle)]
extern "C-unwind" fn objc_autoreleasePoolPop(token: usize) {
    let Some(place) = with_pools(|pools| pools.open.iter().position(|pool| pool.token == token)) else {
        return;
    };
    let Some(place) = place else {
        complain("NSInternalInconsistencyException", "autorelease pool popped twice, or on another thread");
        return;
    };
    while let Some(object) = with_pools(|pools| {
        let start = pools.open[place].start;
        if pools.entries.len() > start { pools.entries.pop() } else { None }
    })
    .flatten()
    {
        // SAFETY: the entry held a reference. What is autoreleased meanwhile is released in turn.
        unsafe { give_up(object.object) };
    }
    let inside = with_pools(|pools| {
        let inside = pools.open.len() - place - 1;
        pools.open.truncate(place);
        inside
    });
    if inside.unwrap_or(0) > 0 {
        complain("NSInternalInconsistencyException", "autorelease pool popped before the pools inside it");
    }
}
