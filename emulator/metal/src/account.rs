//! What a region of the caller's code costs: messages and objects, and what it asked of the GPU.
//!
//! Counted per thread: a region belongs to the thread that runs it. What the emulator does for itself (the messages it
//! sends, the GPU's own thread) is not counted; the objects it makes for the caller are.

use std::cell::Cell;
use std::fmt;
use std::ops::Sub;

/// What a thread has sent, made and asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages, objects, retains, pools.
    pub runtime: emulator_objc::Counts,
    /// What was asked of Metal.
    pub gpu: GpuCounts,
}

/// What was asked of Metal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says what it counts")]
pub struct GpuCounts {
    pub command_buffers: u64,
    pub encoders: u64,
    pub dispatches: u64,
    pub mps_kernels: u64,
    pub blits: u64,
    pub barriers: u64,
    pub fences: u64,
    pub commits: u64,
    pub waits: u64,
    /// Bytes of `setBytes`, copies, and buffers made from bytes.
    pub bytes_copied: u64,
    pub buffers: u64,
    /// Calls that set a pipeline, a buffer, an offset or bytes.
    pub bindings: u64,
    /// Calls of `cblas_sgemm`: products on the CPU.
    pub cpu_products: u64,
}

thread_local! {
    static COUNTS: Cell<GpuCounts> = const { Cell::new(GpuCounts {
        command_buffers: 0, encoders: 0, dispatches: 0, mps_kernels: 0, blits: 0, barriers: 0, fences: 0, commits: 0,
        waits: 0, bytes_copied: 0, buffers: 0, bindings: 0, cpu_products: 0,
    }) };
}

/// What this thread has cost since its start.
pub fn counts() -> Counts {
    Counts { runtime: emulator_objc::counts(), gpu: COUNTS.get() }
}

/// What a piece of code costs, and what it returns.
pub fn region<T>(code: impl FnOnce() -> T) -> (Counts, T) {
    let before = counts();
    let result = code();
    (counts() - before, result)
}

pub(crate) fn count(change: impl FnOnce(&mut GpuCounts)) {
    let mut counts = COUNTS.get();
    change(&mut counts);
    COUNTS.set(counts);
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts { runtime: self.runtime - before.runtime, gpu: self.gpu - before.gpu }
    }
}

impl GpuCounts {
    fn rows(&self) -> [(&'static str, u64); 13] {
        [
            ("command buffers", self.command_buffers),
            ("encoders", self.encoders),
            ("dispatches", self.dispatches),
            ("MPS kernels", self.mps_kernels),
            ("blits", self.blits),
            ("barriers", self.barriers),
            ("fences", self.fences),
            ("commits", self.commits),
            ("waits", self.waits),
            ("bytes copied", self.bytes_copied),
            ("buffers made", self.buffers),
            ("bindings", self.bindings),
            ("products on the CPU", self.cpu_products),
        ]
    }
}

impl Sub for GpuCounts {
    type Output = GpuCounts;

    fn sub(self, before: GpuCounts) -> GpuCounts {
        GpuCounts {
            command_buffers: self.command_buffers - before.command_buffers,
            encoders: self.encoders - before.encoders,
            dispatches: self.dispatches - before.dispatches,
            mps_kernels: self.mps_kernels - before.mps_kernels,
            blits: self.blits - before.blits,
            barriers: self.barriers - before.barriers,
            fences: self.fences - before.fences,
            commits: self.commits - before.commits,
            waits: self.waits - before.waits,
            bytes_copied: self.bytes_copied - before.bytes_copied,
            buffers: self.buffers - before.buffers,
            bindings: self.bindings - before.bindings,
            cpu_products: self.cpu_products - before.cpu_products,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.runtime)?;
        for (name, value) in self.gpu.rows() {
            writeln!(f, "{name:<28}{value:>12}")?;
        }
        Ok(())
    }
}
