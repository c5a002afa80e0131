//! What compute and blit encoders have in common: a pass that is being filled.

use std::sync::{Mutex, MutexGuard, PoisonError};

use objc2::Message;
use objc2::rc::Retained;

use super::class::assertion;
use super::command_buffer::CommandBuffer;
use crate::gpu::pass::{Item, Pass};
use crate::gpu::scheduler;
use crate::gpu::work::Work;
use crate::report::{self, Report, Rule};

struct Inner {
    label: String,
    items: Vec<Item>,
    ended: bool,
    updated_fences: Vec<u64>,
    debug_groups: usize,
}

/// A pass that is being filled.
pub(crate) struct Encoding {
    class: &'static str,
    command_buffer: Retained<CommandBuffer>,
    concurrent: bool,
    inner: Mutex<Inner>,
}

impl Encoding {
    /// Opens an encoder on a command buffer.
    pub(crate) fn open(class: &'static str, command_buffer: &CommandBuffer, concurrent: bool) -> Self {
        command_buffer.open_encoder(&format!("-[{class} initWithCommandBuffer:]"));
        let inner = Inner {
            label: String::new(),
            items: Vec::new(),
            ended: false,
            updated_fences: Vec::new(),
            debug_groups: 0,
        };
        Encoding { class, command_buffer: command_buffer.retain(), concurrent, inner: Mutex::new(inner) }
    }

    pub(crate) fn command_buffer(&self) -> &CommandBuffer {
        &self.command_buffer
    }

    pub(crate) fn is_concurrent(&self) -> bool {
        self.concurrent
    }

    /// Raises if the encoder has ended.
    pub(crate) fn must_be_open(&self, selector: &str) {
        if self.inner().ended {
            self.fail(selector, "encoding after endEncoding");
        }
    }

    pub(crate) fn fail(&self, selector: &str, what: impl std::fmt::Display) -> ! {
        assertion(&format!("-[{} {selector}]", self.class), what)
    }

    pub(crate) fn label(&self) -> String {
        self.inner().label.clone()
    }

    pub(crate) fn set_label(&self, label: String) {
        self.inner().label = label;
    }

    pub(crate) fn push_work(&self, selector: &str, work: Work) {
        self.must_be_open(selector);
        self.inner().items.push(Item::Work(work));
    }

    pub(crate) fn barrier(&self, selector: &str, roots: Option<Vec<u64>>) {
        self.must_be_open(selector);
        crate::account::count(|counts| counts.barriers += 1);
        if !scheduler::drops_barrier() {
            self.inner().items.push(Item::Barrier(roots.map(Into::into)));
        }
    }

    pub(crate) fn update_fence(&self, fence: u64) {
        self.must_be_open("updateFence:");
        crate::account::count(|counts| counts.fences += 1);
        let mut inner = self.inner();
        inner.updated_fences.push(fence);
        inner.items.push(Item::UpdateFence(fence));
    }

    pub(crate) fn wait_for_fence(&self, fence: u64) {
        self.must_be_open("waitForFence:");
        crate::account::count(|counts| counts.fences += 1);
        // MTLComputeCommandEncoder.h: drivers may update at the end of an encoder and wait at its beginning.
        if self.inner().updated_fences.contains(&fence) {
            self.fail("waitForFence:", "the fence was already updated by this encoder");
        }
        if !scheduler::drops_fence() {
            self.inner().items.push(Item::WaitForFence(fence));
        }
    }

    pub(crate) fn push_debug_group(&self) {
        self.inner().debug_groups += 1;
    }

    pub(crate) fn pop_debug_group(&self) {
        if self.inner().debug_groups == 0 {
            self.fail("popDebugGroup", "no debug group is open");
        }
        self.inner().debug_groups -= 1;
    }

    pub(crate) fn end(&self) {
        self.must_be_open("endEncoding");
        let pass = {
            let mut inner = self.inner();
            inner.ended = true;
            Pass { concurrent: self.concurrent, items: std::mem::take(&mut inner.items) }
        };
        self.command_buffer.close_encoder(pass);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        if !self.inner().ended && !std::thread::panicking() {
            let text = format!("{} of {} released without endEncoding", self.class, self.command_buffer.name());
            report::file(Report::new(Rule::EncoderNotEnded, text));
        }
    }
}
