//! What nobody holds any more, but pending work may still use.
//!
//! Whoever drops memory or a kernel has submitted its last use before. It is therefore enough to keep what is dropped
//! until every stream has passed what it had been given by then: nothing is noted per operation, and a drop calls no
//! driver. Later, when memory is wanted, one event per stream asks how far that is.

use super::arena::Part;
use super::completion::{Event, Progress};
use super::context::Context;
use super::driver::SUCCESS;
use std::any::Any;
use std::sync::Arc;

/// Something that was dropped.
pub(crate) enum Dropped {
    /// Memory, for the arena.
    Memory(Part),
    /// Objects: graphs and what they use.
    #[expect(dead_code, reason = "kept alive, never looked at")]
    Objects(Box<dyn Any + Send>),
}

struct Grave {
    dropped: Dropped,
    /// What must have completed: streams and how many of their operations.
    before: Vec<(Arc<Progress>, u64)>,
}

struct Watched {
    progress: Arc<Progress>,
    event: Event,
    /// How many operations lie before the event, where it was recorded and has not been seen.
    fence: Option<u64>,
}

/// What waits for streams, and the streams.
#[derive(Default)]
pub(crate) struct Graveyard {
    streams: Vec<Watched>,
    graves: Vec<Grave>,
}

impl Graveyard {
    /// A new stream: what is dropped from now on waits for it too.
    pub(crate) fn add_stream(&mut self, progress: Arc<Progress>, event: Event) {
        self.streams.push(Watched { progress, event, fence: None });
    }

    /// A stream whose work is all done. Its event is returned.
    pub(crate) fn remove_stream(&mut self, progress: &Arc<Progress>) -> Option<Event> {
        let at = self.streams.iter().position(|watched| Arc::ptr_eq(&watched.progress, progress))?;
        Some(self.streams.swap_remove(at).event)
    }

    /// Keeps `dropped` until nothing can use it, or returns it where nothing can.
    pub(crate) fn bury(&mut self, dropped: Dropped) -> Option<Dropped> {
        let pending = self.streams.iter().map(|watched| &watched.progress).filter(|progress| !progress.is_idle());
        let before: Vec<_> = pending.map(|progress| (progress.clone(), progress.submitted())).collect();
        if before.is_empty() {
            return Some(dropped);
        }
        self.graves.push(Grave { dropped, before });
        None
    }

    /// What nothing can use any more.
    pub(crate) fn exhume(&mut self, context: &Context) -> Vec<Dropped> {
        if self.graves.is_empty() {
            return Vec::new();
        }
        for watched in &mut self.streams {
            let waits = |grave: &Grave| {
                let mine = |(progress, count): &(Arc<Progress>, u64)| {
                    Arc::ptr_eq(progress, &watched.progress) && !progress.has_completed(*count)
                };
                grave.before.iter().any(mine)
            };
            if self.graves.iter().any(waits) {
                watched.look(context);
            }
        }
        // On a lost context nothing runs any more.
        let lost = context.is_lost();
        let done =
            |grave: &mut Grave| lost || grave.before.iter().all(|(progress, count)| progress.has_completed(*count));
        self.graves.extract_if(.., done).map(|grave| grave.dropped).collect()
    }

    /// The streams that something waits for.
    pub(crate) fn awaited(&self) -> Vec<Arc<Progress>> {
        let mut streams: Vec<Arc<Progress>> = Vec::new();
        for (progress, count) in self.graves.iter().flat_map(|grave| &grave.before) {
            if !progress.has_completed(*count) && !streams.iter().any(|stream| Arc::ptr_eq(stream, progress)) {
                streams.push(progress.clone());
            }
        }
        streams
    }
}

impl Watched {
    /// Asks the event how far the stream is, and records it anew where there is more to know. Errors are for whoever waits
    /// for the stream. Another thread's own stream is for that thread to look at.
    fn look(&mut self, context: &Context) {
        if !self.progress.is_reachable() || context.bind().is_err() {
            return;
        }
        if let Some(count) = self.fence {
            // SAFETY: the event is valid.
            match unsafe { (context.driver.cuEventQuery)(self.event.raw()) } {
                SUCCESS => self.progress.complete(count),
                // Not yet; or an error, which its owner will meet too, and knows what may have caused it.
                _ => return,
            }
            self.fence = None;
        }
        let count = self.progress.submitted();
        if self.progress.has_completed(count) || is_recording(context, &self.progress) {
            return;
        }
        // SAFETY: the event and the stream are valid.
        if unsafe { (context.driver.cuEventRecord)(self.event.raw(), self.progress.stream()) } == SUCCESS {
            self.fence = Some(count);
        }
    }
}

/// Whether a stream records what it is given: an event would be recorded too.
pub(crate) fn is_recording(context: &Context, progress: &Progress) -> bool {
    if progress.is_capturing() {
        return true;
    }
    if !progress.is_given() {
        return false;
    }
    let mut status = 0;
    // SAFETY: the stream is valid, as is the pointer.
    let code = unsafe { (context.driver.cuStreamIsCapturing)(progress.stream(), &mut status) };
    code != SUCCESS || status != 0
}
