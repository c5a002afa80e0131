//! `MTLCommandBuffer`: steps collected until `commit`, then run by the emulated GPU.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use objc2::rc::Retained;
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2::{DefinedClass, Message, msg_send, sel};
use objc2_foundation::{NSError, NSString};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandBufferError, MTLCommandBufferHandler, MTLCommandBufferStatus,
    MTLCommandQueue, MTLComputeCommandEncoder, MTLDevice, MTLDispatchType, MTLEvent, MTLResidencySet,
};

use super::blit_encoder::BlitEncoder;
use super::class::{Object, assertion, emulated_class, protocol};
use super::compute_encoder::ComputeEncoder;
use super::fence::{EmulatedEvent, Handler, Sendable, keep};
use super::queue::Queue;
use crate::foundation;
use crate::gpu::pass::{Item, Pass, Step, Submission};
use crate::gpu::past::Past;
use crate::gpu::work::{Usage, Work};
use crate::gpu::{observed, scheduler};
use crate::report::{self, Report};
use crate::settings;

/// MTLCommandBuffer.h, MTLCommandBufferErrorDomain.
pub(crate) const ERROR_DOMAIN: &str = "MTLCommandBufferErrorDomain";

type CompletedHandler = Handler<NonNull<ProtocolObject<dyn MTLCommandBuffer>>>;

struct State {
    status: MTLCommandBufferStatus,
    label: String,
    steps: Vec<Step>,
    encoder_open: bool,
    scheduled: Vec<CompletedHandler>,
    completed: Vec<CompletedHandler>,
    error: Option<String>,
    past: Past,
    /// Completed, and every handler has returned: what `waitUntilCompleted` waits for.
    finished: bool,
}

pub(crate) struct CommandBufferIvars {
    queue: Retained<Queue>,
    number: u64,
    retained: bool,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the host knows that it completed. Shared with the memories it writes.
    observed: Arc<AtomicBool>,
    /// Whether it holds one of its queue's places.
    entered: AtomicBool,
}

impl Drop for CommandBufferIvars {
    fn drop(&mut self) {
        if self.entered.load(Ordering::Acquire) {
            self.queue.leave();
        }
    }
}

emulated_class!(
    /// A command buffer.
    pub(crate) struct CommandBuffer, "EmulatedMTLCommandBuffer", CommandBufferIvars, {
        // SAFETY: the methods have the signatures of the protocol.
        unsafe impl MTLCommandBuffer for CommandBuffer {
            #[unsafe(method_id(device))]
            fn device(&self) -> Object<dyn MTLDevice> {
                protocol!(MTLDevice, self.ivars().queue.owner().clone())
            }

            #[unsafe(method_id(commandQueue))]
            fn command_queue(&self) -> Object<dyn MTLCommandQueue> {
                protocol!(MTLCommandQueue, self.ivars().queue.clone())
            }

            #[unsafe(method(retainedReferences))]
            fn retained_references(&self) -> bool {
                self.retained()
            }

            #[unsafe(method_id(label))]
            fn label(&self) -> Option<Retained<NSString>> {
                let _own = emulator_objc::own();
                Some(NSString::from_str(&self.state().label)).filter(|label| !label.is_empty())
            }

            #[unsafe(method(setLabel:))]
            fn set_label(&self, label: Option<&NSString>) {
                let _own = emulator_objc::own();
                let label = label.map(NSString::to_string).unwrap_or_default();
                self.state().label = label;
            }

            #[unsafe(method(enqueue))]
            fn enqueue(&self) {
                let mut state = self.state();
                if state.status != MTLCommandBufferStatus::NotEnqueued {
                    drop(state);
                    assertion("-[MTLCommandBuffer enqueue]", "already enqueued");
                }
                state.status = MTLCommandBufferStatus::Enqueued;
            }

            #[unsafe(method(commit))]
            fn commit(&self) {
                let _own = emulator_objc::own();
                self.submit();
            }

            #[unsafe(method(status))]
            fn status(&self) -> MTLCommandBufferStatus {
                scheduler::look();
                let status = self.state().status;
                if status.0 >= MTLCommandBufferStatus::Completed.0 {
                    self.observe();
                }
                status
            }

            #[unsafe(method_id(error))]
            fn error(&self) -> Option<Retained<NSError>> {
                let _own = emulator_objc::own();
                let text = self.state().error.clone();
                text.map(|text| foundation::error(ERROR_DOMAIN, MTLCommandBufferError::Internal.0 as isize, text))
            }

            #[unsafe(method(waitUntilScheduled))]
            fn wait_until_scheduled(&self) {
                self.must_be_committed("-[MTLCommandBuffer waitUntilScheduled]");
            }

            #[unsafe(method(waitUntilCompleted))]
            fn wait_until_completed(&self) {
                crate::account::count(|counts| counts.waits += 1);
                self.must_be_committed("-[MTLCommandBuffer waitUntilCompleted]");
                scheduler::look();
                let running = |state: &mut State| !state.finished;
                drop(self.ivars().changed.wait_while(self.state(), running).unwrap_or_else(PoisonError::into_inner));
                self.observe();
            }

            #[unsafe(method(addScheduledHandler:))]
            fn add_scheduled_handler(&self, block: MTLCommandBufferHandler) {
                let method = "-[MTLCommandBuffer addScheduledHandler:]";
                self.must_not_be_committed(method);
                // SAFETY: the caller passes a block of this signature.
                let handler = unsafe { keep(method, block) };
                self.state().scheduled.push(handler);
            }

            #[unsafe(method(addCompletedHandler:))]
            fn add_completed_handler(&self, block: MTLCommandBufferHandler) {
                let method = "-[MTLCommandBuffer addCompletedHandler:]";
                self.must_not_be_committed(method);
                // SAFETY: the caller passes a block of this signature.
                let handler = unsafe { keep(method, block) };
                self.state().completed.push(handler);
            }

            /// No time is emulated: this and the next three are always 0.
            #[unsafe(method(GPUStartTime))]
            fn gpu_start_time(&self) -> f64 {
                0.0
            }

            #[unsafe(method(GPUEndTime))]
            fn gpu_end_time(&self) -> f64 {
                0.0
            }

            #[unsafe(method(kernelStartTime))]
            fn kernel_start_time(&self) -> f64 {
                0.0
            }

            #[unsafe(method(kernelEndTime))]
            fn kernel_end_time(&self) -> f64 {
                0.0
            }

            #[unsafe(method_id(computeCommandEncoder))]
            fn compute_encoder(&self) -> Option<Object<dyn MTLComputeCommandEncoder>> {
                Some(protocol!(MTLComputeCommandEncoder, ComputeEncoder::new(self, false)))
            }

            #[unsafe(method_id(computeCommandEncoderWithDispatchType:))]
            fn compute_encoder_of(&self, kind: MTLDispatchType) -> Option<Object<dyn MTLComputeCommandEncoder>> {
                let concurrent = kind == MTLDispatchType::Concurrent;
                Some(protocol!(MTLComputeCommandEncoder, ComputeEncoder::new(self, concurrent)))
            }

            #[unsafe(method_id(blitCommandEncoder))]
            fn blit_encoder(&self) -> Option<Object<dyn MTLBlitCommandEncoder>> {
                Some(protocol!(MTLBlitCommandEncoder, BlitEncoder::new(self)))
            }

            #[unsafe(method(encodeSignalEvent:value:))]
            fn signal_event(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
                self.between_encoders("-[MTLCommandBuffer encodeSignalEvent:value:]");
                let event = EmulatedEvent::of(event).event().clone();
                self.state().steps.push(Step::Signal(event, value));
            }

            #[unsafe(method(encodeWaitForEvent:value:))]
            fn wait_for_event(&self, event: &ProtocolObject<dyn MTLEvent>, value: u64) {
                self.between_encoders("-[MTLCommandBuffer encodeWaitForEvent:value:]");
                if settings::current().drop != settings::Drop::Events {
                    let event = EmulatedEvent::of(event).event().clone();
                    self.state().steps.push(Step::Wait(event, value));
                }
            }

            #[unsafe(method(useResidencySet:))]
            fn use_residency_set(&self, _set: &ProtocolObject<dyn MTLResidencySet>) {}

            #[unsafe(method(pushDebugGroup:))]
            fn push_debug_group(&self, _name: &NSString) {}

            #[unsafe(method(popDebugGroup))]
            fn pop_debug_group(&self) {}
        }
    }
);

impl CommandBuffer {
    pub(crate) fn new(queue: &Queue, retained: bool) -> Retained<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        crate::account::count(|counts| counts.command_buffers += 1);
        queue.enter();
        let state = State {
            status: MTLCommandBufferStatus::NotEnqueued,
            label: String::new(),
            steps: Vec::new(),
            encoder_open: false,
            scheduled: Vec::new(),
            completed: Vec::new(),
            error: None,
            past: Past::default(),
            finished: false,
        };
        Self::make(CommandBufferIvars {
            queue: queue.retain(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            retained,
            state: Mutex::new(state),
            changed: Condvar::new(),
            observed: Arc::new(AtomicBool::new(false)),
            entered: AtomicBool::new(true),
        })
    }

    /// The emulated command buffer, also behind an `MPSCommandBuffer`.
    pub(crate) fn behind(object: &ProtocolObject<dyn MTLCommandBuffer>) -> Retained<Self> {
        let _own = emulator_objc::own();
        let any: &AnyObject = object.as_ref();
        if let Some(this) = any.downcast_ref::<Self>() {
            return this.retain();
        }
        if any.class().responds_to(sel!(rootCommandBuffer)) {
            // SAFETY: MPSCommandBuffer.h: the method returns the command buffer it wraps.
            let root: Retained<ProtocolObject<dyn MTLCommandBuffer>> = unsafe { msg_send![any, rootCommandBuffer] };
            return Self::behind(&root);
        }
        Self::of(object).retain()
    }

    /// Whether it keeps the resources of its commands alive.
    pub(crate) fn retained(&self) -> bool {
        self.ivars().retained
    }

    /// "command buffer 'label'", or its number.
    pub(crate) fn name(&self) -> String {
        let state = self.state();
        if state.label.is_empty() {
            format!("command buffer #{}", self.ivars().number)
        } else {
            format!("command buffer '{}'", state.label)
        }
    }

    /// One command in a pass of its own, as MPS kernels make.
    pub(crate) fn encode_pass(&self, work: Work) {
        self.between_encoders(&format!("-[{} encodeToCommandBuffer:..]", work.name));
        crate::account::count(|counts| counts.encoders += 1);
        self.state().steps.push(Step::Pass(Pass { concurrent: false, items: vec![Item::Work(work)] }));
    }

    pub(crate) fn open_encoder(&self, method: &str) {
        self.between_encoders(method);
        crate::account::count(|counts| counts.encoders += 1);
        self.state().encoder_open = true;
    }

    pub(crate) fn close_encoder(&self, pass: Pass) {
        let mut state = self.state();
        state.encoder_open = false;
        state.steps.push(Step::Pass(pass));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.ivars().state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn between_encoders(&self, method: &str) {
        self.must_not_be_committed(method);
        if self.state().encoder_open {
            assertion(method, "A command encoder is already encoding to this command buffer");
        }
    }

    fn must_not_be_committed(&self, method: &str) {
        if self.state().status.0 >= MTLCommandBufferStatus::Committed.0 {
            assertion(method, format_args!("{} was already committed", self.name()));
        }
    }

    fn must_be_committed(&self, method: &str) {
        if self.state().status.0 < MTLCommandBufferStatus::Committed.0 {
            assertion(method, format_args!("{} was not committed: the wait would never end", self.name()));
        }
    }

    fn submit(&self) {
        let method = "-[MTLCommandBuffer commit]";
        let name = self.name();
        let (steps, scheduled) = {
            let mut state = self.state();
            if state.status.0 >= MTLCommandBufferStatus::Committed.0 {
                drop(state);
                assertion(method, "commit an already committed command buffer");
            }
            if state.encoder_open {
                drop(state);
                assertion(method, "commit command buffer with uncommitted encoder");
            }
            state.status = MTLCommandBufferStatus::Committed;
            (std::mem::take(&mut state.steps), std::mem::take(&mut state.scheduled))
        };
        crate::account::count(|counts| counts.commits += 1);
        note_writers(&steps, &self.ivars().observed);
        for handler in scheduled {
            handler.0.call((NonNull::from(ProtocolObject::from_ref(self)),));
        }
        let this = Sendable(self.retain());
        scheduler::submit(Submission {
            queue: self.ivars().queue.number(),
            name,
            steps,
            known: observed::known(),
            complete: Box::new(move |past, reports| {
                let this = this;
                let Sendable(this) = this;
                this.complete(past, reports);
                // The last reference may be this one: what it frees belongs to no pool of the program.
                objc2::rc::autoreleasepool(|_| drop(this));
            }),
        });
    }

    /// On the GPU's thread, at the end.
    fn complete(&self, past: Past, reports: Vec<Report>) {
        let _own = emulator_objc::own();
        let mut unwatched = String::new();
        for report in reports {
            let text = report.to_string();
            if !report::file(report) && !settings::current().only_print {
                unwatched.push_str(&text);
                unwatched.push('\n');
            }
        }
        let handlers = {
            let mut state = self.state();
            state.past = past;
            std::mem::take(&mut state.completed)
        };
        let status =
            if unwatched.is_empty() { MTLCommandBufferStatus::Completed } else { MTLCommandBufferStatus::Error };
        {
            let mut state = self.state();
            state.status = status;
            if !unwatched.is_empty() {
                state.error = Some(unwatched.trim_end().to_owned());
            }
        }
        if self.ivars().entered.swap(false, Ordering::AcqRel) {
            self.ivars().queue.leave();
        }
        if !handlers.is_empty() {
            self.observe();
        }
        objc2::rc::autoreleasepool(|_| {
            for handler in handlers {
                handler.0.call((NonNull::from(ProtocolObject::from_ref(self)),));
            }
        });
        self.state().finished = true;
        self.ivars().changed.notify_all();
    }

    /// The host has learnt that it completed: later work is ordered after it.
    fn observe(&self) {
        if !self.ivars().observed.swap(true, Ordering::AcqRel) {
            observed::observe(&self.state().past);
        }
    }
}

/// Tells every memory that these steps write whose completion to wait for.
fn note_writers(steps: &[Step], observed: &Arc<AtomicBool>) {
    for step in steps {
        let Step::Pass(pass) = step else { continue };
        for item in &pass.items {
            let Item::Work(work) = item else { continue };
            for bound in work.bound.iter().filter(|bound| bound.usage == Usage::Write) {
                if let Ok(memory) = bound.handle.resolve() {
                    memory.note_writer(observed);
                }
            }
        }
    }
}
