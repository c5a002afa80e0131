//! The command buffer and the encoder that are open: where every command of a stream goes.
//!
//! One concurrent compute encoder stays open across operations. Its commands run in any order except across barriers,
//! and a barrier goes in only where two commands meet in memory. What crosses encoders is ordered by a fence, as all
//! memory is untracked; Metal Performance Shaders that open an encoder of their own wait for no fence, so around them it
//! is an event.

use super::completion::Progress;
use super::dispatch::{Dispatch, MOST_BINDINGS, Places, Source};
use super::hazard::{Access, Hazards};
use super::objects::{
    CommandBuffer, ComputeEncoder, DEVICE, Event, Fence, MetalBuffer, MetalDevice, Pipeline, Queue, ResidencySet, some,
};
use crate::limits::CommitLimits;
use arrayvec::ArrayVec;
use candlewick_core::{Error, Result};
use objc2::rc::{Retained, autoreleasepool};
use objc2_foundation::NSRange;
use objc2_metal::{
    MTLBarrierScope, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue,
    MTLComputeCommandEncoder, MTLDevice, MTLDispatchType,
};
use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bytes that a command reads and writes.
pub(crate) type Accesses = ArrayVec<(Range<u64>, Access), MOST_BINDINGS>;

/// What the next pass has to come after. `Nothing` without an open command buffer: everything was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Nothing,
    /// A compute encoder, which raised the fence at its end, in the command buffer of this number.
    Encoder(u64),
    /// A pass of MPS in the command buffer that is open.
    Mps,
    /// A pass of MPS in the command buffer of this number, which was committed.
    MpsCommitted(u64),
}

/// A committed command buffer.
struct Flying {
    number: u64,
    commands: Retained<CommandBuffer>,
    operations: usize,
    last: &'static str,
}

/// Everything of a stream that Metal knows of.
pub(crate) struct Encoder {
    queue: Retained<Queue>,
    progress: Arc<Progress>,
    fence: Retained<Fence>,
    /// Orders passes around those of MPS.
    order: Retained<Event>,
    ordered: u64,
    commands: Option<Retained<CommandBuffer>>,
    compute: Option<Retained<ComputeEncoder>>,
    pipeline: *const Pipeline,
    before: Before,
    hazards: Hazards,
    limits: CommitLimits,
    operations: usize,
    bytes: usize,
    last: &'static str,
    flying: VecDeque<Flying>,
    failed: Option<Error>,
}

impl Encoder {
    /// How long a command buffer may be done, by the event, without saying so itself. Its error, if it has one, comes
    /// with its status.
    const SETTLE: Duration = Duration::from_micros(200);

    pub(crate) fn new(device: &MetalDevice, residency: Option<&ResidencySet>, limits: CommitLimits) -> Result<Self> {
        let queue = some("command queue", device.newCommandQueue())?;
        if let Some(residency) = residency {
            queue.addResidencySet(residency);
        }
        Ok(Encoder {
            queue,
            progress: Arc::new(Progress::new(device)?),
            fence: some("fence", device.newFence())?,
            order: some("event", device.newEvent())?,
            ordered: 0,
            commands: None,
            compute: None,
            pipeline: std::ptr::null(),
            before: Before::Nothing,
            hazards: Hazards::new(),
            limits,
            operations: 0,
            bytes: 0,
            last: "nothing",
            flying: VecDeque::new(),
            failed: None,
        })
    }

    /// Replaces the limits, and returns those before.
    pub(crate) fn set_limits(&mut self, limits: CommitLimits) -> CommitLimits {
        std::mem::replace(&mut self.limits, limits)
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Whether nothing is open or on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.commands.is_none() && self.progress.is_idle()
    }

    /// Whether nothing was encoded since the last wait: known from the calls alone, whatever the GPU has done by now.
    #[inline]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.commands.is_none() && self.before == Before::Nothing
    }

    /// Encodes a kernel: at most four messages.
    #[inline]
    pub(crate) fn dispatch(&mut self, dispatch: &Dispatch, places: &Places<'_>) -> Result<()> {
        let mut buffers = [std::ptr::null::<MetalBuffer>(); MOST_BINDINGS];
        let mut offsets = [0usize; MOST_BINDINGS];
        let mut accesses = Accesses::new();
        for (slot, binding) in dispatch.bindings.iter().enumerate() {
            let address;
            (buffers[slot], offsets[slot], address) = match &binding.source {
                Source::Tensor(index) => {
                    let place = &places[*index];
                    (std::ptr::from_ref(place.block.buffer()), place.offset, place.address())
                }
                Source::Own { buffer, offset, address } => (*buffer, *offset, *address),
            };
            offsets[slot] += binding.offset;
            if binding.bytes > 0 {
                let start = address + binding.offset as u64;
                accesses.push((start..start + binding.bytes as u64, binding.access));
            }
        }
        self.open_compute()?;
        self.order_in_encoder(&accesses);
        let Some(compute) = &self.compute else { unreachable!("it was opened") };
        let pipeline: *const Pipeline = &raw const **dispatch.pipeline;
        if self.pipeline != pipeline {
            compute.setComputePipelineState(&dispatch.pipeline);
            self.pipeline = pipeline;
        }
        let range = NSRange { location: 0, length: dispatch.bindings.len() };
        let (buffers, offsets) = (NonNull::from(&buffers[0]), NonNull::from(&offsets[0]));
        // SAFETY: both arrays are as long as the range, and every buffer is kept until the command buffer completes: by
        // its owner while it is borrowed, by the device's graveyard after that.
        unsafe { compute.setBuffers_offsets_withRange(buffers.cast(), offsets, range) };
        compute.dispatchThreadgroups_threadsPerThreadgroup(dispatch.groups, dispatch.threads);
        Ok(())
    }

    /// Lets `encode` encode a command of its own into the open encoder. The caller has an autorelease pool.
    pub(crate) fn inside(
        &mut self,
        accesses: &Accesses,
        encode: impl FnOnce(&ComputeEncoder, &CommandBuffer),
    ) -> Result<()> {
        self.open_compute()?;
        self.order_in_encoder(accesses);
        let (Some(compute), Some(commands)) = (&self.compute, &self.commands) else { unreachable!("both were opened") };
        encode(compute, commands);
        // Whatever it set, it is not what was set here.
        self.pipeline = std::ptr::null();
        Ok(())
    }

    /// Lets `encode` encode a pass of its own into the command buffer: the open encoder ends first. The caller has an
    /// autorelease pool.
    pub(crate) fn outside(&mut self, accesses: &Accesses, encode: impl FnOnce(&CommandBuffer)) -> Result<()> {
        self.open_commands()?;
        let within = self.compute.take().inspect(|compute| compute.endEncoding()).is_some();
        let Some(commands) = &self.commands else { unreachable!("it was opened") };
        let meets = self.before == Before::Mps && self.hazards.meet(accesses);
        if within || meets {
            self.ordered += 1;
            commands.encodeSignalEvent_value(&self.order, self.ordered);
            commands.encodeWaitForEvent_value(&self.order, self.ordered);
            self.hazards.clear();
        } else if let Before::Encoder(number) | Before::MpsCommitted(number) = self.before {
            commands.encodeWaitForEvent_value(event(&self.progress), number);
            self.hazards.clear();
        }
        self.hazards.note(accesses);
        encode(commands);
        self.before = Before::Mps;
        Ok(())
    }

    /// An operation is encoded. Commits where enough is.
    #[inline]
    pub(crate) fn operation_done(&mut self, name: &'static str, bytes: usize) {
        self.last = name;
        self.operations += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.operations >= self.limits.operations || self.bytes >= self.limits.bytes {
            self.commit();
        }
    }

    /// Submits what is pending.
    pub(crate) fn commit(&mut self) {
        let (operations, last) = (std::mem::take(&mut self.operations), self.last);
        self.bytes = 0;
        let Some(commands) = self.commands.take() else { return };
        let number = self.progress.opened();
        if let Some(compute) = self.compute.take() {
            compute.updateFence(&self.fence);
            compute.endEncoding();
            self.before = Before::Encoder(number);
        } else if self.before == Before::Mps {
            self.before = Before::MpsCommitted(number);
        }
        self.pipeline = std::ptr::null();
        self.hazards.clear();
        commands.encodeSignalEvent_value(event(&self.progress), number);
        commands.commit();
        self.flying.push_back(Flying { number, commands, operations, last });
        self.land();
    }

    /// Returns when everything is done.
    ///
    /// # Errors
    /// The first error of a command buffer since the last wait.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.commit();
        if let Some(last) = self.flying.back()
            && !self.progress.spin_until(last.number)
        {
            last.commands.waitUntilCompleted();
        }
        while let Some(flying) = self.flying.pop_front() {
            settle(&flying.commands);
            self.end(&flying);
            self.progress.is_done(flying.number);
        }
        self.before = Before::Nothing;
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Forgets the command buffers that are done, oldest first, and keeps the first error.
    fn land(&mut self) {
        while let Some(flying) = self.flying.front()
            && is_final(flying.commands.status())
        {
            let Some(flying) = self.flying.pop_front() else { return };
            self.end(&flying);
        }
    }

    /// A command buffer is done: its error, if it has one, is kept for the next who waits.
    fn end(&mut self, flying: &Flying) {
        if flying.commands.status() != MTLCommandBufferStatus::Error {
            return;
        }
        let text = autoreleasepool(|_| flying.commands.error().map(|error| error.localizedDescription().to_string()));
        let Flying { number, operations, last, .. } = flying;
        let text = text.unwrap_or_else(|| "no reason given".into());
        let message = format!("command buffer {number} of {operations} operations, the last {last}, failed: {text}");
        self.failed.get_or_insert(Error::Backend { device: DEVICE.into(), message });
    }

    /// Opens a command buffer where none is.
    pub(crate) fn open_commands(&mut self) -> Result<()> {
        if self.commands.is_none() {
            // Objects that come autoreleased are released here, not when the thread's own pool ends.
            let commands = autoreleasepool(|_| self.queue.commandBufferWithUnretainedReferences());
            self.commands = Some(some("command buffer", commands)?);
            self.progress.open();
        }
        Ok(())
    }

    #[inline]
    fn open_compute(&mut self) -> Result<()> {
        if self.compute.is_some() { Ok(()) } else { self.open_new_compute() }
    }

    #[cold]
    fn open_new_compute(&mut self) -> Result<()> {
        self.open_commands()?;
        let Some(commands) = &self.commands else { unreachable!("it was opened") };
        match self.before {
            Before::Nothing | Before::Encoder(_) => {}
            Before::Mps => {
                self.ordered += 1;
                commands.encodeSignalEvent_value(&self.order, self.ordered);
                commands.encodeWaitForEvent_value(&self.order, self.ordered);
            }
            Before::MpsCommitted(number) => commands.encodeWaitForEvent_value(event(&self.progress), number),
        }
        let compute = autoreleasepool(|_| commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent));
        let compute = some("compute encoder", compute)?;
        if matches!(self.before, Before::Encoder(_)) {
            compute.waitForFence(&self.fence);
        }
        self.compute = Some(compute);
        self.pipeline = std::ptr::null();
        self.before = Before::Nothing;
        self.hazards.clear();
        Ok(())
    }

    /// A barrier, where a command with these accesses needs one.
    #[inline]
    fn order_in_encoder(&mut self, accesses: &Accesses) {
        if self.hazards.meet(accesses) {
            if let Some(compute) = &self.compute {
                compute.memoryBarrierWithScope(MTLBarrierScope::Buffers);
            }
            self.hazards.clear();
        }
        self.hazards.note(accesses);
    }
}

impl Drop for Encoder {
    /// Waits: what pending work uses dies with the stream.
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.wait();
    }
}

fn event(progress: &Progress) -> &Event {
    progress.event().as_ref()
}

fn is_final(status: MTLCommandBufferStatus) -> bool {
    status == MTLCommandBufferStatus::Completed || status == MTLCommandBufferStatus::Error
}

/// Returns once the status is final, which it nearly is: the GPU has raised the event.
fn settle(commands: &CommandBuffer) {
    let start = Instant::now();
    while !is_final(commands.status()) {
        if start.elapsed() > Encoder::SETTLE {
            commands.waitUntilCompleted();
            return;
        }
        std::hint::spin_loop();
    }
}
