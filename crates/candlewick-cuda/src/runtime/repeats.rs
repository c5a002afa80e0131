//! Operations that come again with the same tensors: their launches as a graph of their own.
//!
//! The driver takes a graph sooner than a launch. An empty kernel on one H100 (driver 580.159, medians, two machines) took the host
//! 2.0 us as a graph and 3.4 to 4.0 as a launch; to its end as seen by a thread that looks, 6.2 to 6.9 and 9.0 to 9.6. A launch that
//! depends on the one before overlaps with it, which graphs do not: `Stream::takes_graphs` says what comes this way.

use super::completion::Progress;
use super::graph::{Executable, Template};
use super::graveyard::is_recording;
use super::history::History;
use super::launch::Addresses;
use crate::kernel::Kernel;
use crate::memory::{Handle, Shared, new_stream};
use crate::ops::Step;
use candlewick_core::Result;
use cudarc::driver::sys::CUgraphExec;
use std::sync::Arc;

/// Places for graphs. Each operation with its tensors has one, which it may share with others.
const PLACES: usize = 256;

/// So many others have to ask in a row before a graph makes room.
const PATIENCE: u32 = 16;

/// What a stream was given before, and the graphs of what came again.
pub(crate) struct Repeats {
    places: Box<[Place]>,
    /// Records, and runs nothing.
    recorder: Option<Handle>,
}

#[derive(Default)]
struct Place {
    /// Of whom it is; zero: of nobody.
    key: u64,
    graph: Option<Box<Repeat>>,
    /// Whether the driver would not record it.
    refused: bool,
    /// How many others have asked since it was last wanted.
    others: u32,
}

struct Repeat {
    executable: Executable,
    /// Its workspaces are the launches'.
    kernel: Kernel,
    addresses: Addresses,
}

/// A number for a kernel with its tensors, as good as different for others; never zero.
fn key(kernel: &Kernel, addresses: &Addresses) -> u64 {
    let mix = |key: u64, number: u64| (key.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    addresses.iter().fold(mix(1, kernel.identity()), |key, &address| mix(key, address)) | 1
}

impl Repeats {
    pub(crate) fn new() -> Self {
        Repeats { places: (0..PLACES).map(|_| Place::default()).collect(), recorder: None }
    }

    /// The graph of a kernel's steps with tensors at these addresses, from the second time on that it is wanted; none where
    /// the stream is being recorded, which is asked last.
    #[inline]
    pub(crate) fn graph(
        &mut self,
        kernel: &Kernel,
        steps: &[Step],
        addresses: &Addresses,
        shared: &Arc<Shared>,
        progress: &Progress,
    ) -> Option<CUgraphExec> {
        let key = key(kernel, addresses);
        let place = &mut self.places[(key >> 32) as usize % PLACES];
        if place.key != key {
            place.replace(key, shared);
            return None;
        }
        place.others = 0;
        if progress.is_given() && is_recording(&shared.context, progress) {
            return None;
        }
        match &place.graph {
            // Numbers may be equal by chance.
            Some(repeat) if repeat.kernel.identity() != kernel.identity() || repeat.addresses != *addresses => None,
            Some(repeat) => Some(repeat.executable.raw()),
            None if place.refused => None,
            None => {
                let executable = record(&mut self.recorder, steps, addresses, shared);
                place.refused = executable.is_err();
                let repeat =
                    Repeat { executable: executable.ok()?, kernel: kernel.clone(), addresses: addresses.clone() };
                Some(place.graph.insert(Box::new(repeat)).executable.raw())
            }
        }
    }

    /// Nothing of it is pending any more.
    pub(crate) fn destroy(&mut self, shared: &Shared) {
        self.places = Box::default();
        if let Some(Handle(recorder)) = self.recorder.take() {
            // SAFETY: it is this one's own, and never had any work.
            shared.context.try_run(|driver| unsafe { (driver.cuStreamDestroy_v2)(recorder) });
        }
    }
}

impl Place {
    /// Somebody else was here for the first time.
    fn replace(&mut self, key: u64, shared: &Shared) {
        self.others += 1;
        if self.graph.is_some() && self.others < PATIENCE {
            return;
        }
        let graph = std::mem::replace(self, Place { key, ..Place::default() }).graph;
        if let Some(graph) = graph {
            shared.bury(graph);
        }
    }
}

/// Records steps on a stream that nobody else has.
///
/// # Errors
/// What the driver says: it may refuse, and then has run nothing.
#[cold]
fn record(
    recorder: &mut Option<Handle>,
    steps: &[Step],
    addresses: &Addresses,
    shared: &Arc<Shared>,
) -> Result<Executable> {
    let context = &shared.context;
    let stream = match recorder {
        Some(stream) => stream.0,
        None => recorder.insert(Handle(new_stream(context)?)).0,
    };
    let nothing_before = History::new();
    let submit = || steps.iter().try_for_each(|step| step.submit(context, stream, addresses, &nothing_before));
    Executable::new(&Template::record(stream, shared, submit)?, shared)
}
