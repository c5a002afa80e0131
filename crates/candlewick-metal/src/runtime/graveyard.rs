//! What nobody holds any more, but pending work may still use.
//!
//! Command buffers keep no references (that would cost two messages per argument), so something has to. Whoever drops
//! memory or a kernel has encoded its last use before. It is therefore enough to keep what is dropped until every stream
//! has completed the command buffer that it was filling at that time: nothing is counted or noted per operation.

use super::arena::Part;
use super::completion::Progress;
use std::any::Any;
use std::sync::Arc;

/// Something that was dropped.
pub(crate) enum Dropped {
    /// Memory, for the arena.
    Memory(Part),
    /// Objects: pipelines, MPS kernels.
    #[expect(dead_code, reason = "kept alive, never looked at")]
    Objects(Box<dyn Any + Send>),
}

struct Grave {
    dropped: Dropped,
    /// What must have completed: streams and values.
    before: Vec<(Arc<Progress>, u64)>,
}

/// What waits for streams, and the streams.
#[derive(Default)]
pub(crate) struct Graveyard {
    streams: Vec<Arc<Progress>>,
    graves: Vec<Grave>,
}

impl Graveyard {
    /// A new stream: what is dropped from now on waits for it too.
    pub(crate) fn add_stream(&mut self, stream: Arc<Progress>) {
        self.streams.push(stream);
    }

    /// A stream whose work is all done.
    pub(crate) fn remove_stream(&mut self, stream: &Arc<Progress>) {
        self.streams.retain(|other| !Arc::ptr_eq(other, stream));
    }

    /// Keeps `dropped` until nothing can use it, or returns it where nothing can.
    pub(crate) fn bury(&mut self, dropped: Dropped) -> Option<Dropped> {
        let pending = |stream: &&Arc<Progress>| !stream.is_idle();
        let before: Vec<_> =
            self.streams.iter().filter(pending).map(|stream| (stream.clone(), stream.opened())).collect();
        if before.is_empty() {
            return Some(dropped);
        }
        self.graves.push(Grave { dropped, before });
        None
    }

    /// What nothing can use any more.
    pub(crate) fn exhume(&mut self) -> Vec<Dropped> {
        if self.graves.is_empty() {
            return Vec::new();
        }
        // One message per stream.
        for stream in &self.streams {
            stream.look();
        }
        let done = |grave: &mut Grave| grave.before.iter().all(|(stream, value)| stream.has_completed(*value));
        self.graves.extract_if(.., done).map(|grave| grave.dropped).collect()
    }
}
