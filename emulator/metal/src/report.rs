//! What the emulator finds wrong once commands run. What it finds wrong in a call is an exception at once.

use std::fmt;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// What kind of mistake a [`Report`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// Two dispatches of a concurrent encoder meet in memory with no barrier between them.
    MissingBarrier,
    /// Two passes or command buffers meet in untracked memory with no fence or event between them.
    MissingFence,
    /// Threads of one dispatch meet in memory unordered.
    Race,
    /// A kernel used an argument to which nothing is bound. Metal's validation says so when it is encoded, because it
    /// knows what the compiled kernel uses.
    UnboundBuffer,
    /// A kernel reached outside the buffers it was given.
    OutOfBounds,
    /// Something was written between the end of a buffer and its guard page.
    Overrun,
    /// `threadgroup_barrier` was not reached by every thread, or at different places.
    DivergentBarrier,
    /// A kernel did not come to its end.
    Stuck,
    /// A resource was freed while a command buffer without retained references still used it.
    FreedResource,
    /// The host asked for the contents of a buffer before it waited for the commands that write it.
    HostAccess,
    /// An encoder was released before `endEncoding`.
    EncoderNotEnded,
    /// A wait for a fence or an event that nothing will ever satisfy.
    NeverSignalled,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its kind.
    pub rule: Rule,
    /// One sentence: who, where, which bytes, and the remedy.
    pub text: String,
}

impl Report {
    /// A report.
    pub fn new(rule: Rule, text: impl Into<String>) -> Self {
        Report { rule, text: text.into() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// Reports, a line each.
pub fn list(reports: &[Report]) -> String {
    reports.iter().map(|report| format!("  {report}\n")).collect()
}

/// `None` while nobody watches.
static COLLECTED: Mutex<Option<Vec<Report>>> = Mutex::new(None);

/// A watch that reads a million equal reports learns nothing from most of them.
const MOST: usize = 10_000;

/// Hands a report to the watch, or to standard error. Returns whether somebody watches.
pub(crate) fn file(report: Report) -> bool {
    match &mut *COLLECTED.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(reports) => {
            if reports.len() < MOST {
                reports.push(report);
            }
            true
        }
        None => {
            // Not eprintln: a test harness would keep it for whichever test happened to start the GPU's thread.
            let _ = writeln!(std::io::stderr(), "metal-emulator: {report}");
            false
        }
    }
}

pub(crate) fn start_collecting() {
    *COLLECTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

pub(crate) fn stop_collecting() {
    *COLLECTED.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

pub(crate) fn collected() -> Vec<Report> {
    COLLECTED.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}
