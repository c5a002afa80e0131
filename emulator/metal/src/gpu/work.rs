//! One command as the emulated GPU sees it: what it is bound to, what it does, and which bytes it touched.

use std::ops::Range;
use std::sync::{Arc, Weak};

use super::memory::Memory;
use crate::report::Report;

/// How a command may use a memory, as far as Metal can tell when it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Read only.
    Read,
    /// Written, and perhaps read.
    Write,
}

/// A reference from a command to memory: a strong one, or none where the command buffer keeps no references.
#[derive(Clone)]
pub enum Handle {
    /// The command buffer keeps the memory alive.
    Retained(Arc<Memory>),
    /// The program must; the text names the memory if it did not.
    Unretained(Weak<Memory>, String),
}

impl Handle {
    /// A reference of the kind that the command buffer keeps.
    pub fn new(memory: &Arc<Memory>, retained: bool) -> Self {
        if retained {
            Handle::Retained(memory.clone())
        } else {
            Handle::Unretained(Arc::downgrade(memory), memory.name())
        }
    }

    /// The memory, or its name if it is gone.
    pub fn resolve(&self) -> Result<Arc<Memory>, &str> {
        match self {
            Handle::Retained(memory) => Ok(memory.clone()),
            Handle::Unretained(memory, name) => memory.upgrade().ok_or(name),
        }
    }
}

/// A memory that a command is bound to.
#[derive(Clone)]
pub struct Bound {
    /// The memory.
    pub handle: Handle,
    /// What Metal takes the command to do with it. Orders passes where the memory is tracked.
    pub usage: Usage,
    /// Its identity in hazards: (root, offset in the root).
    pub root: (u64, usize),
    /// Whether Metal tracks its hazards.
    pub tracked: bool,
}

impl Bound {
    /// A memory and what is done with it.
    pub fn new(memory: &Arc<Memory>, usage: Usage, retained: bool) -> Self {
        Bound { handle: Handle::new(memory, retained), usage, root: memory.root(), tracked: memory.tracked() }
    }
}

/// The bytes that a command touched in one memory.
#[derive(Debug, Default)]
pub struct Touched {
    /// Which memory, as an index into [`Work::bound`].
    pub bound: usize,
    /// Bytes read, relative to the memory's start.
    pub reads: Vec<Range<usize>>,
    /// Bytes written.
    pub writes: Vec<Range<usize>>,
    /// Bytes read and written by atomic operations, which commute with those of other commands in themselves.
    pub atomics: Vec<Range<usize>>,
}

/// What a command did.
#[derive(Default)]
pub struct Done {
    /// The bytes it touched.
    pub touched: Vec<Touched>,
    /// What went wrong in it.
    pub reports: Vec<Report>,
}

/// Runs a command over the memories of [`Work::bound`], in their order.
pub type Run = Box<dyn FnOnce(&[Arc<Memory>]) -> Done + Send>;

/// One command: a dispatch, a copy, a fill, an MPS kernel.
pub struct Work {
    /// Names it in reports: the kernel's or the operation's name.
    pub name: String,
    /// Every memory it can reach.
    pub bound: Vec<Bound>,
    /// Does it.
    pub run: Run,
}

/// A part of a memory that a command is known to use when it is encoded (copies, MPS).
#[derive(Clone)]
pub struct Span {
    /// The memory.
    pub memory: Arc<Memory>,
    /// Bytes, relative to its start.
    pub bytes: Vec<Range<usize>>,
    /// What is done with them.
    pub usage: Usage,
}

impl Span {
    /// As what was touched in the memory of this index.
    pub fn touched(self, bound: usize) -> Touched {
        match self.usage {
            Usage::Read => Touched { bound, reads: self.bytes, ..Touched::default() },
            Usage::Write => Touched { bound, writes: self.bytes, ..Touched::default() },
        }
    }
}

impl Work {
    /// A command whose bytes are known beforehand. `run` is given one address per span: that of the span's memory.
    /// A memory that is read and written appears as two spans.
    pub fn known(
        name: impl Into<String>,
        spans: Vec<Span>,
        retained: bool,
        run: impl FnOnce(&[*mut u8]) + Send + 'static,
    ) -> Self {
        let bound = spans.iter().map(|span| Bound::new(&span.memory, span.usage, retained)).collect();
        let touched: Vec<_> = spans.into_iter().enumerate().map(|(bound, span)| span.touched(bound)).collect();
        let run = move |memories: &[Arc<Memory>]| {
            let addresses: Vec<_> = memories.iter().map(|memory| memory.address()).collect();
            run(&addresses);
            Done { touched, reports: Vec::new() }
        };
        Work { name: name.into(), bound, run: Box::new(run) }
    }
}
