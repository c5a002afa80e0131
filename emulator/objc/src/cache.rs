//! The cache of a class: which method a selector leads to, read without a lock.
//!
//! A table of open addresses that only ever gains entries. When it is two thirds full, a larger copy takes its place;
//! the old one stays allocated, because another thread may still be reading it.

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::method::Method;
use crate::selector::Sel;

/// One slot: the selector is written last, so that whoever sees it also sees the method.
#[derive(Default)]
struct Slot {
    selector: AtomicUsize,
    method: AtomicPtr<Method>,
}

struct Table {
    slots: Box<[Slot]>,
    used: AtomicUsize,
}

impl Table {
    fn with_capacity(slots: usize) -> Table {
        Table { slots: (0..slots).map(|_| Slot::default()).collect(), used: AtomicUsize::new(0) }
    }

    /// The slot that holds `selector`, or else the empty one where it belongs.
    fn slot(&self, selector: Sel) -> &Slot {
        let mask = self.slots.len() - 1;
        let mut at = (selector.address() >> 3).wrapping_mul(0x9e37_79b9) >> 4 & mask;
        loop {
            let slot = &self.slots[at];
            let holds = slot.selector.load(Ordering::Acquire);
            if holds == selector.address() || holds == 0 {
                return slot;
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an entry. Only one thread may do so at a time.
    fn insert(&self, selector: Sel, method: &'static Method) {
        let slot = self.slot(selector);
        let fresh = slot.selector.load(Ordering::Relaxed) == 0;
        slot.method.store(ptr::from_ref(method).cast_mut(), Ordering::Relaxed);
        slot.selector.store(selector.address(), Ordering::Release);
        self.used.fetch_add(usize::from(fresh), Ordering::Relaxed);
    }
}

/// The methods that a class was asked for so far, inherited ones included.
pub(crate) struct Cache {
    table: AtomicPtr<Table>,
    writers: Mutex<()>,
}

impl Cache {
    pub(crate) const fn new() -> Cache {
        Cache { table: AtomicPtr::new(ptr::null_mut()), writers: Mutex::new(()) }
    }

    fn table(&self) -> Option<&'static Table> {
        // SAFETY: a table that was ever stored here is leaked and thus stays valid.
        unsafe { self.table.load(Ordering::Acquire).as_ref() }
    }

    #[inline]
    pub(crate) fn get(&self, selector: Sel) -> Option<&'static Method> {
        let slot = self.table()?.slot(selector);
        if slot.selector.load(Ordering::Acquire) == 0 {
            return None;
        }
        // SAFETY: methods are leaked, and a slot with a selector has a method.
        unsafe { slot.method.load(Ordering::Relaxed).as_ref() }
    }

    /// Remembers what `find` returns, unless the cache was emptied while it searched.
    pub(crate) fn fill(
        &self,
        selector: Sel,
        find: impl FnOnce() -> Option<&'static Method>,
    ) -> Option<&'static Method> {
        let _writer = self.writers.lock().expect("never poisoned");
        let method = find()?;
        let table = match self.table() {
            Some(table) if table.used.load(Ordering::Relaxed) * 3 < table.slots.len() * 2 => table,
            Some(full) => self.replace(full.slots.len() * 2, &full.slots),
            None => self.replace(16, &[]),
        };
        table.insert(selector, method);
        Some(method)
    }

    fn replace(&self, capacity: usize, entries: &'static [Slot]) -> &'static Table {
        let table: &'static Table = Box::leak(Box::new(Table::with_capacity(capacity)));
        for entry in entries {
            let selector = entry.selector.load(Ordering::Relaxed);
            if selector != 0 {
                // SAFETY: as in `get`.
                let method: &'static Method = unsafe { &*entry.method.load(Ordering::Relaxed) };
                table.insert(method.selector, method);
            }
        }
        self.table.store(ptr::from_ref(table).cast_mut(), Ordering::Release);
        table
    }

    /// Forgets everything: a method was added to this class or to one above it.
    pub(crate) fn clear(&self) {
        let _writer = self.writers.lock().expect("never poisoned");
        self.table.store(ptr::null_mut(), Ordering::Release);
    }
}
