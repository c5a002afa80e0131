//! How far a stream is: a number per command buffer, and an event that the GPU raises to it.

use super::objects::{MetalDevice, Sendable, SharedEvent, some};
use candlewick_core::Result;
use objc2::rc::Retained;
use objc2_metal::{MTLDevice, MTLSharedEvent};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What other threads may know of a stream.
pub(crate) struct Progress {
    event: Sendable<Retained<SharedEvent>>,
    /// The number of the command buffer that was opened last.
    opened: AtomicU64,
    /// The highest value of the event that was seen.
    seen: AtomicU64,
}

impl Progress {
    /// How long a waiting thread looks at the event before it goes to sleep: the GPU's own part of a small operation. A
    /// thread that sleeps is woken tens of microseconds late.
    const SPIN: Duration = Duration::from_micros(50);

    pub(crate) fn new(device: &MetalDevice) -> Result<Self> {
        let event = some("shared event", device.newSharedEvent())?;
        // SAFETY: events are safe from several threads (MTLEvent is Send and Sync in the typed crate).
        let event = unsafe { Sendable::new(event) };
        Ok(Progress { event, opened: AtomicU64::new(0), seen: AtomicU64::new(0) })
    }

    pub(crate) fn event(&self) -> &SharedEvent {
        &self.event
    }

    /// The number of a new command buffer.
    pub(crate) fn open(&self) -> u64 {
        // Whoever drops something that this stream used has synchronised with its thread since.
        self.opened.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The number of the command buffer that was opened last.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// Asks the event.
    pub(crate) fn look(&self) -> u64 {
        let value = self.event.signaledValue();
        self.seen.fetch_max(value, Ordering::AcqRel).max(value)
    }

    /// Whether a command buffer was seen to have completed; asks nobody.
    pub(crate) fn has_completed(&self, value: u64) -> bool {
        self.seen.load(Ordering::Acquire) >= value
    }

    /// Whether everything that was opened has completed. Asks the event where that is not known.
    pub(crate) fn is_idle(&self) -> bool {
        let opened = self.opened();
        self.has_completed(opened) || self.look() >= opened
    }

    /// Looks at the event for a while. Returns whether it got there.
    pub(crate) fn spin_until(&self, value: u64) -> bool {
        let start = Instant::now();
        while self.look() < value {
            if start.elapsed() > Self::SPIN {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }

    /// A command buffer is done, whatever the event says: one that failed may not have raised it.
    pub(crate) fn is_done(&self, value: u64) {
        if self.look() < value {
            self.event.setSignaledValue(value);
            self.look();
        }
    }
}
