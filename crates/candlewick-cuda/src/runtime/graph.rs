//! Recorded work: a CUDA graph, submitted as a whole.

use super::context::Context;
use super::driver::{Driver, SUCCESS};
use super::history::{Given, History};
use crate::kernel::Kernel;
use crate::memory::{Memory, Shared};
use crate::stream::Stream;
use candlewick_core::{Error, Result};
use cudarc::driver::sys::{CUgraph, CUgraphExec, CUstream, CUstreamCaptureMode};
use std::ptr::null_mut;
use std::sync::Arc;

/// What a stream was given while it records.
pub(crate) struct Recording {
    /// The stream's, before: what is recorded is not run.
    before: History,
    kernels: Vec<Kernel>,
    memory: Vec<Arc<Memory>>,
}

impl Recording {
    pub(crate) fn add(&mut self, kernel: Kernel, memory: impl Iterator<Item = Arc<Memory>>) {
        self.kernels.push(kernel);
        self.memory.extend(memory);
    }
}

/// Operations that are submitted as one, on the stream that recorded them: their kernels have one workspace each.
///
/// It keeps the buffers alive that it uses; memory of other libraries' is kept by whoever promised to.
pub struct Graph {
    /// Taken when it is dropped.
    recorded: Option<Recorded>,
    /// For errors.
    description: Arc<str>,
    stream: u64,
    operations: usize,
    nodes: usize,
}

struct Recorded {
    executable: Executable,
    _kept: Recording,
}

/// A graph that can be launched. Whoever drops it knows that it does not run.
pub(crate) struct Executable {
    raw: CUgraphExec,
    shared: Arc<Shared>,
}

// SAFETY: a graph's handle is only given back to the driver, by one thread at a time: launching needs the stream.
unsafe impl Send for Executable {}
// SAFETY: nothing is changed through a shared borrow.
unsafe impl Sync for Executable {}

impl Executable {
    /// # Errors
    /// What the driver says.
    pub(crate) fn new(template: &Template<'_>, shared: &Arc<Shared>) -> Result<Self> {
        let mut raw = null_mut();
        // SAFETY: the graph is valid, as is the pointer.
        shared.context.run("cuGraphInstantiate", |driver| unsafe {
            (driver.cuGraphInstantiateWithFlags)(&mut raw, template.0, 0)
        })?;
        Ok(Executable { raw, shared: shared.clone() })
    }

    #[inline]
    pub(crate) fn raw(&self) -> CUgraphExec {
        self.raw
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, after its last run.
        self.shared.context.try_run(|driver| unsafe { (driver.cuGraphExecDestroy)(self.raw) });
    }
}

impl Drop for Graph {
    /// Pending work may use it.
    fn drop(&mut self) {
        if let Some(recorded) = self.recorded.take() {
            let shared = recorded.executable.shared.clone();
            shared.bury(Box::new(recorded));
        }
    }
}

impl Graph {
    /// Operations that were recorded.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Nodes of the graph: launches and copies.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Submits all of it, in order with the stream's work.
    ///
    /// # Errors
    /// Another stream than the one that recorded it, or what the driver says.
    pub fn launch(&self, stream: &mut Stream) -> Result<()> {
        if self.stream != stream.id {
            return Err(Error::WrongOwner {
                op: "graph",
                what: "the graph",
                owner: format!("stream {}", self.stream),
                here: format!("stream {}", stream.id),
                remedy: "launch it on the stream that recorded it",
            });
        }
        stream.check_not_recording("graph")?;
        let Some(Recorded { executable, .. }) = &self.recorded else { unreachable!("it is taken by drop") };
        let shared = &executable.shared;
        shared.context.bind()?;
        stream.history.add(Given::Graph(self.description.clone()));
        // SAFETY: both are valid, and whatever the graph uses is kept.
        let code = unsafe { (shared.context.driver.cuGraphLaunch)(executable.raw, stream.progress.stream()) };
        stream.progress.submit();
        if code == SUCCESS { Ok(()) } else { Err(shared.context.failed(code, "cuGraphLaunch", &stream.history)) }
    }
}

impl Stream {
    /// Records what `run` encodes, without running it. Inside, `prepare` and `encode` are legal; what needs results or
    /// copies from the host is an error.
    ///
    /// # Errors
    /// Those of `run`, and what the driver says.
    pub fn capture(&mut self, run: impl FnOnce(&mut Stream) -> Result<()>) -> Result<Graph> {
        self.check_not_recording("capture")?;
        let shared = self.device.shared().clone();
        let (context, raw) = (&shared.context, self.progress.stream());
        self.progress.set_capturing(true);
        // Whoever has not seen that yet may record an event on the stream; not any more after the heap was locked.
        shared.collect();
        if let Err(error) = begin(context, raw) {
            self.progress.set_capturing(false);
            return Err(error);
        }
        let before = std::mem::replace(&mut self.history, History::new());
        self.recording = Some(Recording { before, kernels: Vec::new(), memory: Vec::new() });
        let guard = Guard(self);
        let done = run(&mut *guard.0);
        let (ended, kept) = guard.0.stop();
        drop(guard);
        let graph = ended.map(|graph| Template(graph, &shared));
        // What failed first says more than that the capture has ended with it.
        done?;
        let graph = graph?;
        let Some(kept) = kept else { unreachable!("it recorded, and `run` cannot end that") };
        let operations = kept.kernels.len();
        let mut nodes = 0;
        let count = |driver: &Driver| {
            // SAFETY: the graph is valid, as is the pointer; no nodes are asked for, only their number.
            unsafe { (driver.cuGraphGetNodes)(graph.0, null_mut(), &mut nodes) }
        };
        context.run("cuGraphGetNodes", count)?;
        let executable = Executable::new(&graph, &shared)?;
        let kinds: Vec<String> = kept.before.kinds().iter().map(|(given, _)| given.to_string()).collect();
        let description = format!("a graph of {operations} operations ({})", kinds.join(", ")).into();
        // Now rather than in the first launch.
        // SAFETY: both are valid.
        context.run("cuGraphUpload", |driver| unsafe { (driver.cuGraphUpload)(executable.raw, raw) })?;
        let recorded = Some(Recorded { executable, _kept: kept });
        let graph = Graph { recorded, description, stream: self.id, operations, nodes };
        self.progress.submit();
        Ok(graph)
    }
}

/// A stream that records. It stops when this goes, by a panic too.
struct Guard<'a>(&'a mut Stream);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.0.recording.is_some() {
            let (ended, _) = self.0.stop();
            let shared = self.0.device.shared();
            drop(ended.map(|graph| Template(graph, shared)));
        }
    }
}

impl Stream {
    /// Ends the recording, whose history is then what was recorded.
    fn stop(&mut self) -> (Result<CUgraph>, Option<Recording>) {
        let ended = end(&self.device.shared().context, self.progress.stream());
        self.progress.set_capturing(false);
        let mut recording = self.recording.take();
        if let Some(recording) = &mut recording {
            std::mem::swap(&mut self.history, &mut recording.before);
        }
        (ended, recording)
    }
}

/// A graph that is destroyed when it goes; executables do not need it.
pub(crate) struct Template<'a>(CUgraph, &'a Shared);

impl<'a> Template<'a> {
    /// What `submit` gives to a stream of this library's own, which has nothing else to do.
    ///
    /// # Errors
    /// That of `submit`, or what the driver says.
    pub(crate) fn record(stream: CUstream, shared: &'a Shared, submit: impl FnOnce() -> Result<()>) -> Result<Self> {
        let context = &shared.context;
        begin(context, stream)?;
        let submitted = submit();
        let ended = end(context, stream).map(|graph| Template(graph, shared));
        submitted.and(ended)
    }
}

/// Relaxed: others may compile and allocate meanwhile, here and on other threads.
fn begin(context: &Context, stream: CUstream) -> Result<()> {
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED as u32;
    // SAFETY: the stream is valid.
    context.run("cuStreamBeginCapture", |driver| unsafe { (driver.cuStreamBeginCapture_v2)(stream, mode) })
}

fn end(context: &Context, stream: CUstream) -> Result<CUgraph> {
    let mut graph = null_mut();
    // SAFETY: the stream records, and the pointer is valid.
    context.run("cuStreamEndCapture", |driver| unsafe { (driver.cuStreamEndCapture)(stream, &mut graph) })?;
    Ok(graph)
}

impl Drop for Template<'_> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it is destroyed once.
            self.1.context.try_run(|driver| unsafe { (driver.cuGraphDestroy)(self.0) });
        }
    }
}
