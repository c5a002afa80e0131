//! What a region of the caller's code costs in messages, retains and objects.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Sub;
use std::sync::atomic::Ordering;

use crate::class::{self, Class};

/// What one thread did. Subtract two of these to learn what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages sent, those to a superclass's method included. objc2's `alloc` is one, where on a Mac it is a call to
    /// `objc_alloc`.
    pub messages: u64,
    /// References taken to objects.
    pub retains: u64,
    /// References given up. Those that an autorelease pool gives up are not among them.
    pub releases: u64,
    /// Objects put in an autorelease pool. An object that a method returns and its caller retains at once is handed
    /// over without: neither an autorelease nor a retain.
    pub autoreleases: u64,
    /// Of the autoreleases, those that found no pool on this thread: the object is never freed.
    pub autoreleases_without_pool: u64,
    /// Objects made, by whomever.
    pub objects_made: u64,
    /// Objects freed, by whomever.
    pub objects_freed: u64,
    /// Blocks copied from the stack to the heap.
    pub blocks_copied: u64,
}

impl Counts {
    fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("messages", self.messages),
            ("retains", self.retains),
            ("releases", self.releases),
            ("autoreleases", self.autoreleases),
            ("autoreleases without a pool", self.autoreleases_without_pool),
            ("objects made", self.objects_made),
            ("objects freed", self.objects_freed),
            ("blocks copied", self.blocks_copied),
        ]
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts {
            messages: self.messages - earlier.messages,
            retains: self.retains - earlier.retains,
            releases: self.releases - earlier.releases,
            // An object that was handed over is taken out of these two again, at times in a later region.
            autoreleases: self.autoreleases.saturating_sub(earlier.autoreleases),
            autoreleases_without_pool: self.autoreleases_without_pool.saturating_sub(earlier.autoreleases_without_pool),
            objects_made: self.objects_made - earlier.objects_made,
            objects_freed: self.objects_freed - earlier.objects_freed,
            blocks_copied: self.blocks_copied - earlier.blocks_copied,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let name_width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let count_width = rows.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
        for (at, (name, count)) in rows.iter().enumerate() {
            let end = if at + 1 < rows.len() { "\n" } else { "" };
            write!(f, "{name:<name_width$}  {count:>count_width$}{end}")?;
        }
        Ok(())
    }
}

struct Tally {
    counts: Cell<Counts>,
    /// How many guards are open.
    own: Cell<u32>,
}

thread_local! {
    static TALLY: Tally = const { Tally { counts: Cell::new(ZERO), own: Cell::new(0) } };
}

const ZERO: Counts = Counts {
    messages: 0,
    retains: 0,
    releases: 0,
    autoreleases: 0,
    autoreleases_without_pool: 0,
    objects_made: 0,
    objects_freed: 0,
    blocks_copied: 0,
};

/// What this thread did since it started.
pub fn counts() -> Counts {
    TALLY.with(|tally| tally.counts.get())
}

/// While it lives, what this thread does is the emulator's own work: messages, retains, releases and autoreleases are
/// not counted. Objects made, objects freed and blocks copied are.
#[derive(Debug)]
#[must_use = "the scope ends when this is dropped"]
pub struct Own {
    /// It belongs to the thread that opened it.
    _thread: PhantomData<*const ()>,
}

/// Opens a scope in which this thread does the emulator's own work. Every emulated method begins with it, because a
/// runtime that only looks methods up cannot know when one returns.
pub fn own() -> Own {
    TALLY.with(|tally| tally.own.set(tally.own.get() + 1));
    Own { _thread: PhantomData }
}

impl Drop for Own {
    fn drop(&mut self) {
        TALLY.with(|tally| tally.own.set(tally.own.get() - 1));
    }
}

/// Changes the counts, unless this is the emulator's own work; says whether it did.
#[inline]
fn count(change: impl FnOnce(&mut Counts)) -> bool {
    TALLY.with(|tally| {
        let counted = tally.own.get() == 0;
        if counted {
            let mut counts = tally.counts.get();
            change(&mut counts);
            tally.counts.set(counts);
        }
        counted
    })
}

/// Changes the counts, whoever's work it is.
fn count_always(change: impl FnOnce(&mut Counts)) {
    TALLY.with(|tally| {
        let mut counts = tally.counts.get();
        change(&mut counts);
        tally.counts.set(counts);
    });
}

#[inline]
pub(crate) fn message() -> bool {
    count(|counts| counts.messages += 1)
}

#[inline]
pub(crate) fn retain() {
    count(|counts| counts.retains += 1);
}

#[inline]
pub(crate) fn release() {
    count(|counts| counts.releases += 1);
}

/// Says whether the autorelease counts, so that it can be taken back.
pub(crate) fn autorelease(class: &Class, has_pool: bool) -> bool {
    count(|counts| {
        counts.autoreleases += 1;
        if !has_pool {
            counts.autoreleases_without_pool += 1;
            class.autoreleased_without_pool.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// The object of the latest autorelease was handed over to the caller instead.
pub(crate) fn take_back_autorelease(class: &Class, had_pool: bool) {
    count_always(|counts| {
        counts.autoreleases -= 1;
        if !had_pool {
            counts.autoreleases_without_pool -= 1;
            class.autoreleased_without_pool.fetch_sub(1, Ordering::Relaxed);
        }
    });
}

pub(crate) fn made(class: &Class) {
    class.alive.fetch_add(1, Ordering::Relaxed);
    count_always(|counts| counts.objects_made += 1);
}

pub(crate) fn freed(class: &Class) {
    class.alive.fetch_sub(1, Ordering::Relaxed);
    count_always(|counts| counts.objects_freed += 1);
}

pub(crate) fn block_copied() {
    count_always(|counts| counts.blocks_copied += 1);
}

/// The objects alive in the process, by class, in the order of their names.
pub fn alive() -> Vec<(String, u64)> {
    by_class(|class| class.alive.load(Ordering::Relaxed))
}

/// The objects in the process that were autoreleased on a thread without a pool, by class: they are never freed.
pub fn autoreleased_without_pool() -> Vec<(String, u64)> {
    by_class(|class| class.autoreleased_without_pool.load(Ordering::Relaxed))
}

fn by_class(number: impl Fn(&Class) -> u64) -> Vec<(String, u64)> {
    let named = |class: &'static Class| (class.name().to_string_lossy().into_owned(), number(class));
    class::all().into_iter().map(named).filter(|(_, number)| *number > 0).collect()
}

/// The messages sent in the process, by the method they led to (`-[Class selector]`), the most frequent first.
pub fn messages_by_method() -> Vec<(String, u64)> {
    let mut methods = Vec::new();
    for class in class::all().into_iter().flat_map(|class| [class, class.isa()]) {
        for method in class.own_methods() {
            methods.push((class.method_name(method.selector), method.sent.load(Ordering::Relaxed)));
        }
    }
    methods.retain(|(_, sent)| *sent > 0);
    methods.sort_by(|(a, a_sent), (b, b_sent)| b_sent.cmp(a_sent).then_with(|| a.cmp(b)));
    methods
}
