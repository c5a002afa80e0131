//! What a committed command buffer consists of.

use std::sync::Arc;

use super::event::Event;
use super::past::Past;
use super::work::Work;
use crate::report::Report;

/// One entry of an encoder.
pub enum Item {
    /// A command.
    Work(Work),
    /// `memoryBarrierWithScope:`, or `memoryBarrierWithResources:count:` with the roots of those resources.
    Barrier(Option<Arc<[u64]>>),
    /// `updateFence:`, by the fence's number.
    UpdateFence(u64),
    /// `waitForFence:`.
    WaitForFence(u64),
}

/// What one encoder encoded.
pub struct Pass {
    /// Whether its commands are unordered between barriers (`MTLDispatchTypeConcurrent`).
    pub concurrent: bool,
    /// In the order of encoding.
    pub items: Vec<Item>,
}

/// One step of a command buffer.
pub enum Step {
    /// A pass.
    Pass(Pass),
    /// `encodeSignalEvent:value:`.
    Signal(Arc<Event>, u64),
    /// `encodeWaitForEvent:value:`.
    Wait(Arc<Event>, u64),
}

/// A committed command buffer.
pub struct Submission {
    /// The queue's number. Passes of one queue are ordered by tracked resources, and complete in order.
    pub queue: u64,
    /// Names the command buffer in reports.
    pub name: String,
    /// What it does.
    pub steps: Vec<Step>,
    /// Everything whose completion the host had observed when it committed.
    pub known: Past,
    /// Called on the GPU's thread at the end, with all that lies before it and what was found in it.
    pub complete: Box<dyn FnOnce(Past, Vec<Report>) + Send>,
}
