//! How far a stream is: a number per operation, and a wait that spins briefly before it sleeps.

use super::context::Context;
use super::driver::{NOT_READY, SUCCESS};
use super::history::History;
use candlewick_core::Result;
use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// What other threads may know of a stream.
pub(crate) struct Progress {
    stream: CUstream,
    /// Whether others submit to it too.
    given: bool,
    /// Where the handle means another stream on every thread: the one whose stream it is.
    thread: Option<ThreadId>,
    /// Operations whose launches the driver has.
    submitted: AtomicU64,
    /// Of these, how many are known to have ended.
    completed: AtomicU64,
    /// Whether what is submitted is recorded, not run.
    capturing: AtomicBool,
}

// SAFETY: a stream's handle is only given back to the driver, whose functions are safe from several threads.
unsafe impl Send for Progress {}
// SAFETY: as above.
unsafe impl Sync for Progress {}

/// `CU_STREAM_PER_THREAD` of cuda.h: the calling thread's own stream.
const PER_THREAD: usize = 2;

impl Progress {
    pub(crate) fn new(stream: CUstream, given: bool) -> Self {
        let thread = (stream.addr() == PER_THREAD).then(|| thread::current().id());
        Progress {
            stream,
            given,
            thread,
            submitted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            capturing: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) fn stream(&self) -> CUstream {
        self.stream
    }

    pub(crate) fn is_given(&self) -> bool {
        self.given
    }

    /// Whether the stream's handle means the stream on this thread.
    pub(crate) fn is_reachable(&self) -> bool {
        self.thread.is_none_or(|thread| thread == thread::current().id())
    }

    /// The driver has everything of an operation. Only the stream's owner calls it, after the launches: whoever reads the
    /// number and records an event then knows what lies before the event.
    #[inline]
    pub(crate) fn submit(&self) {
        self.submitted.store(self.submitted.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    pub(crate) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    pub(crate) fn complete(&self, count: u64) {
        self.completed.fetch_max(count, Ordering::AcqRel);
    }

    pub(crate) fn has_completed(&self, count: u64) -> bool {
        self.completed.load(Ordering::Acquire) >= count
    }

    /// Whether nothing is pending, as far as is known; asks nobody.
    pub(crate) fn is_idle(&self) -> bool {
        self.has_completed(self.submitted())
    }

    pub(crate) fn set_capturing(&self, capturing: bool) {
        self.capturing.store(capturing, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Acquire)
    }
}

/// An event without times.
pub(crate) struct Event(CUevent);

// SAFETY: as for streams.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// A new event. Whoever waits for it sleeps.
    ///
    /// # Errors
    /// What the driver says.
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let flags = CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32 | CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid.
        context.run("cuEventCreate", |driver| unsafe { (driver.cuEventCreate)(&mut event, flags) })?;
        Ok(Event(event))
    }

    pub(crate) fn raw(&self) -> CUevent {
        self.0
    }

    /// # Errors
    /// What the driver says.
    pub(crate) fn record(&self, context: &Context, stream: CUstream) -> Result<()> {
        // SAFETY: both are valid.
        context.run("cuEventRecord", |driver| unsafe { (driver.cuEventRecord)(self.0, stream) })
    }

    pub(crate) fn destroy(&self, context: &Context) {
        // SAFETY: it is destroyed once, by its owner; a pending event is legal to destroy.
        context.try_run(|driver| unsafe { (driver.cuEventDestroy_v2)(self.0) });
    }
}

/// How a stream waits.
pub(crate) struct Pace {
    /// How long it looks.
    spin: Duration,
    /// How long the last wait took that was more than that. Steps of a training, or tokens, take alike.
    last: Duration,
}

impl Pace {
    pub(crate) fn new(spin: Duration) -> Self {
        Pace { spin, last: Duration::ZERO }
    }
}

/// Naps are so short, of the longest spin, or of what has passed: work that ends early is seen so much late.
const OF_SPIN: u32 = 4;
const OF_PASSED: u32 = 64;

/// Waits until a stream's work is done: looks for a while first, the GPU's own part of a small operation. Then it naps until
/// shortly before the last wait's end, and looks again; and where nothing has come by then, sleeps. A thread that sleeps is
/// woken some twenty microseconds late, one that looks burns a core.
///
/// # Errors
/// What failed on the stream, with the operations that may have.
pub(crate) fn wait(
    context: &Context,
    stream: CUstream,
    event: &Event,
    pace: &mut Pace,
    history: &History,
) -> Result<()> {
    context.bind()?;
    let driver = context.driver;
    let start = Instant::now();
    // Who never looks does not nap either.
    let Pace { spin, last } = *pace;
    let expected = if spin.is_zero() { Duration::ZERO } else { last };
    loop {
        // SAFETY: the stream is valid.
        match unsafe { (driver.cuStreamQuery)(stream) } {
            SUCCESS => {
                if start.elapsed() > spin {
                    pace.last = start.elapsed();
                }
                return Ok(());
            }
            NOT_READY => {}
            code => return Err(context.failed(code, "cuStreamQuery", history)),
        }
        let passed = start.elapsed();
        if passed < spin {
            std::hint::spin_loop();
        } else if passed + spin / 2 < expected {
            thread::sleep((spin / OF_SPIN).max(passed / OF_PASSED));
        } else if passed >= expected + spin / 2 || expected.is_zero() {
            break;
        } else {
            std::hint::spin_loop();
        }
    }
    // SAFETY: the event and the stream are valid.
    let code = unsafe { (driver.cuEventRecord)(event.raw(), stream) };
    if code != SUCCESS {
        return Err(context.failed(code, "cuEventRecord", history));
    }
    // SAFETY: as above.
    match unsafe { (driver.cuEventSynchronize)(event.raw()) } {
        SUCCESS => {
            pace.last = start.elapsed();
            Ok(())
        }
        code => Err(context.failed(code, "cuEventSynchronize", history)),
    }
}
