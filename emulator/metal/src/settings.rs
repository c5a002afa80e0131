//! How the emulator behaves, and watching what it finds.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::account::{self, Counts};
use crate::gpu::scheduler;
use crate::report::{self, Report};
use crate::systems;

/// What new buffers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// 0xFF in every byte: a NaN in f32, f16 and bf16, so that what a kernel does not write shows. Metal promises no
    /// contents.
    #[default]
    Nan,
    /// Zeros, for programs known to rely on them.
    Zero,
}

impl Fill {
    /// The byte written.
    pub fn byte(self) -> u8 {
        match self {
            Fill::Nan => 0xFF,
            Fill::Zero => 0,
        }
    }
}

/// Synchronisation that the emulator pretends not to have seen. A test suite that still passes proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drop {
    /// Nothing is dropped.
    #[default]
    Nothing,
    /// Every `memoryBarrier..` of a concurrent encoder.
    Barriers,
    /// The n-th of them, counted from 0 since the watch began.
    Barrier(u64),
    /// Every `waitForFence:`.
    Fences,
    /// The n-th of them.
    Fence(u64),
    /// Every `encodeWaitForEvent:value:`, as far as ordering is concerned.
    Events,
}

/// How the emulator behaves. Read from the environment at start, replaced by [`watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// 0: what Metal leaves unordered runs in the order it was encoded in. Anything else draws an order from this
    /// seed: unordered dispatches, passes and command buffers, threadgroups, lanes between barriers.
    /// (`METAL_EMULATOR_SEED`)
    pub seed: u64,
    /// What new buffers hold. (`METAL_EMULATOR_FILL=zero`)
    pub fill: Fill,
    /// Synchronisation to ignore. (`METAL_EMULATOR_DROP=barriers`, `barrier:3`, `fences`, `fence:0`, `events`)
    pub drop: Drop,
    /// Whether sources pass `msl-check` before they are compiled. (`METAL_EMULATOR_CHECK=0` switches it off)
    pub check_sources: bool,
    /// Whether MPS products with beta = 0 read their result matrix all the same, so that a NaN in it leaks.
    /// (`METAL_EMULATOR_MPS_BETA_ZERO_READS=1`)
    pub mps_beta_zero_reads: bool,
    /// Whether a report that nobody watches is printed and no more, where it would fail its command buffer.
    /// (`METAL_EMULATOR_REPORTS=print`)
    pub only_print: bool,
    /// Sources with this word do not compile: how a program goes on without a kernel that Apple's compiler might refuse.
    pub refused_word: Option<&'static str>,
    /// The macOS that is emulated, major and minor: newer classes and methods are not there, newer versions of the
    /// language are refused, of those that `systems.rs` lists. (`METAL_EMULATOR_MACOS=13.0`)
    pub macos: (u32, u32),
    /// The newest `MTLGPUFamily::Apple..` of the GPU: 7 is the M1, 10 the M5 with its tensor operations.
    /// (`METAL_EMULATOR_FAMILY=10`)
    pub family: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            seed: 0,
            fill: Fill::Nan,
            drop: Drop::Nothing,
            check_sources: true,
            mps_beta_zero_reads: false,
            only_print: false,
            refused_word: None,
            macos: (15, 0),
            family: 7,
        }
    }
}

impl Settings {
    /// The default with another seed.
    pub fn seeded(seed: u64) -> Self {
        Settings { seed, ..Settings::default() }
    }

    /// What the environment says: the variables that the fields name.
    pub fn from_environment() -> Self {
        let read = |name: &str| std::env::var(format!("METAL_EMULATOR_{name}")).ok();
        Settings {
            seed: read("SEED").and_then(|text| text.parse().ok()).unwrap_or(0),
            fill: if read("FILL").as_deref() == Some("zero") { Fill::Zero } else { Fill::Nan },
            drop: read("DROP").map_or(Drop::Nothing, |text| Drop::parse(&text)),
            check_sources: read("CHECK").as_deref() != Some("0"),
            mps_beta_zero_reads: read("MPS_BETA_ZERO_READS").as_deref() == Some("1"),
            only_print: read("REPORTS").as_deref() == Some("print"),
            refused_word: None,
            macos: read("MACOS").and_then(|text| systems::parse(&text)).unwrap_or(Settings::default().macos),
            family: read("FAMILY").and_then(|text| text.parse().ok()).unwrap_or(Settings::default().family),
        }
    }
}

impl Drop {
    fn parse(text: &str) -> Self {
        let (kind, number) = text.split_once(':').unwrap_or((text, ""));
        match (kind, number.parse()) {
            ("barrier", Ok(n)) => Drop::Barrier(n),
            ("fence", Ok(n)) => Drop::Fence(n),
            ("barriers", _) => Drop::Barriers,
            ("fences", _) => Drop::Fences,
            ("events", _) => Drop::Events,
            _ => panic!("METAL_EMULATOR_DROP={text}: barriers, barrier:N, fences, fence:N or events"),
        }
    }
}

fn cell() -> &'static RwLock<Settings> {
    static CELL: OnceLock<RwLock<Settings>> = OnceLock::new();
    CELL.get_or_init(|| RwLock::new(Settings::from_environment()))
}

/// The settings in force.
pub fn current() -> Settings {
    *cell().read().unwrap_or_else(PoisonError::into_inner)
}

/// Puts other settings in force; returns those before.
fn replace(settings: Settings) -> Settings {
    let before = std::mem::replace(&mut *cell().write().unwrap_or_else(PoisonError::into_inner), settings);
    if before.macos != settings.macos {
        systems::apply(settings.macos);
    }
    before
}

/// Sole use of the emulator with settings of one's own, and the reports of what it found meanwhile.
///
/// Where nobody watches, a report goes to standard error and fails the command buffer it belongs to.
pub struct Watch {
    before: Settings,
    counts: Counts,
    _alone: MutexGuard<'static, ()>,
}

/// Starts a [`Watch`]; waits for another one of this process to end.
pub fn watch(settings: Settings) -> Watch {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    scheduler::drain();
    let before = replace(settings);
    scheduler::restart_counting();
    report::start_collecting();
    Watch { before, counts: account::counts(), _alone: alone }
}

impl Watch {
    /// Everything found until now, once the GPU is idle.
    pub fn reports(&self) -> Vec<Report> {
        scheduler::drain();
        report::collected()
    }

    /// What this thread has cost since the watch began.
    pub fn counts(&self) -> Counts {
        account::counts() - self.counts
    }

    /// Panics with the list of what was found, if anything was.
    pub fn assert_clean(&self) {
        let reports = self.reports();
        assert!(reports.is_empty(), "{} reports:\n{}", reports.len(), report::list(&reports));
    }

    /// Panics unless something was found under this rule.
    pub fn assert_found(&self, rule: report::Rule) {
        let reports = self.reports();
        let found = reports.iter().any(|report| report.rule == rule);
        assert!(found, "no report of {rule:?} among {}:\n{}", reports.len(), report::list(&reports));
    }
}

impl std::ops::Drop for Watch {
    fn drop(&mut self) {
        scheduler::drain();
        replace(self.before);
        report::stop_collecting();
    }
}
