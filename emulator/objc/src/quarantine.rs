//! Where freed memory waits before it is reused, so that a stale pointer to it is noticed.

use std::alloc::{Layout, dealloc};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};

/// How many freed objects and blocks are kept back. More catch older mistakes and take more memory.
const LENGTH: usize = 4096;

static WAITING: Mutex<Waiting> = Mutex::new(Waiting(VecDeque::new()));
static KEEP: LazyLock<AtomicBool> = LazyLock::new(|| {
    let set = std::env::var_os("METAL_EMULATOR_ZOMBIES").is_some_and(|value| !value.is_empty() && value != "0");
    AtomicBool::new(set)
});

struct Waiting(VecDeque<(*mut u8, Layout)>);

// SAFETY: the memory has no owner other than this queue.
unsafe impl Send for Waiting {}

/// Whether the memory of objects freed from now on is never reused. `METAL_EMULATOR_ZOMBIES=1` sets it from the start.
pub fn keep_zombies(keep: bool) {
    KEEP.store(keep, Ordering::Relaxed);
}

/// Takes over freed memory.
///
/// # Safety
/// `memory` was allocated with `layout`, and no one uses it rightfully any more.
pub(crate) unsafe fn put(memory: *mut u8, layout: Layout) {
    if KEEP.load(Ordering::Relaxed) {
        return;
    }
    let mut waiting = WAITING.lock().expect("never poisoned");
    waiting.0.push_back((memory, layout));
    if waiting.0.len() > LENGTH {
        let (oldest, layout) = waiting.0.pop_front().expect("it is longer than LENGTH");
        drop(waiting);
        // SAFETY: as promised when it was put here.
        unsafe { dealloc(oldest, layout) };
    }
}
