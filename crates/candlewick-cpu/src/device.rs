//! The CPU as a device.

use crate::pool::Pool;
use crate::simd::Isa;
use crate::{Buffer, Stream};
use candlewick_core::backend::{self, DeviceInfo, Engine, Limits};
use candlewick_core::dispatch::{Decision, DispatchTable, in_order};
use candlewick_core::{DType, Op, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The f64 reference as an engine: slow, for comparison. Its `encode` allocates.
pub const REFERENCE: Engine = Engine::new("cpu", "reference");

/// The engine that runs own kernels compiled for an instruction set.
pub const fn engine_of(isa: Isa) -> Engine {
    Engine::new("cpu", isa.name())
}

/// The CPU: a number of threads and a dispatch table.
#[derive(Clone)]
pub struct Device {
    pub(crate) pool: &'static Pool,
    pub(crate) threads: usize,
    table: Arc<DispatchTable>,
}

impl Device {
    /// All cores that the process may use, or as many as `CANDLEWICK_THREADS` says.
    pub fn new() -> Self {
        Self::with_threads(usize::MAX)
    }

    /// At most `threads` threads per operation, the caller's included; one means that only the caller's thread works.
    pub fn with_threads(threads: usize) -> Self {
        let pool = Pool::global();
        Device { pool, threads: threads.clamp(1, pool.threads()), table: Arc::default() }
    }

    /// The same device with measurements to choose engines by.
    pub fn with_table(self, table: DispatchTable) -> Self {
        Device { table: Arc::new(table), ..self }
    }

    /// Threads per operation, at most.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The engine that `prepare` takes for `op`, and why.
    pub fn decide(&self, op: &Op) -> Option<Decision> {
        let mut candidates = candidates(op);
        if is_packed(op) {
            candidates.truncate(1);
        }
        self.table.choose(op, &candidates)
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether one of its operands was packed. It lies as one engine reads it, and is read at every number of rows: measurements
/// of some of them must not choose another engine, whose panels are others.
fn is_packed(op: &Op) -> bool {
    op.packed_factor().is_some()
}

/// The engines for `op`, in this backend's own order of preference.
fn candidates(op: &Op) -> Vec<Engine> {
    let mut isas: Vec<Isa> = Isa::available().collect();
    isas.reverse();
    if !crate::ops::multiplies_bytes(op) {
        // These change products of bytes only.
        isas.retain(|isa| !matches!(isa, Isa::NeonDot | Isa::AvxVnni | Isa::Avx512Vnni));
    }
    if op.dtype() != DType::BF16 || !crate::ops::multiplies(op) {
        // These change products of bf16 only.
        isas.retain(|isa| !matches!(isa, Isa::Avx512Bf16 | Isa::Amx));
    } else if let Some(at) = isas.iter().position(|&isa| isa == Isa::Avx512Bf16)
        && !crate::limits::pairs_pay()
    {
        // Not every processor is fast at pairs: plain AVX-512 comes first, then.
        isas.swap(at, at + 1);
    }
    let mut engines: Vec<Engine> = isas.into_iter().map(engine_of).collect();
    if !is_packed(op) {
        engines.push(REFERENCE);
    }
    engines
}

impl backend::Device for Device {
    type Buffer = Buffer;
    type Stream = Stream;

    fn info(&self) -> DeviceInfo {
        let isas: Vec<&str> = Isa::available().map(Isa::name).collect();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        DeviceInfo {
            id: "cpu".into(),
            name: processor_name(),
            facts: vec![
                ("cores", cores.to_string()),
                ("threads per operation", self.threads.to_string()),
                ("instruction sets", isas.join(", ")),
            ],
            asynchronous: false,
            engines: Isa::available().map(engine_of).chain([REFERENCE]).collect(),
        }
    }

    fn engines(&self, op: &Op) -> Vec<Engine> {
        let candidates = candidates(op);
        if is_packed(op) { candidates } else { in_order(&self.table, op, candidates) }
    }

    fn alloc(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        Buffer::new(dtype, elements)
    }

    fn stream(&self) -> Result<Stream> {
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        Ok(Stream::new(self.clone(), STREAMS.fetch_add(1, Ordering::Relaxed)))
    }

    fn measure_limits(&self, threads: usize) -> Result<Limits> {
        Ok(crate::limits::measure(self.pool, threads.clamp(1, self.threads)))
    }
}

/// What the processor calls itself.
fn processor_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick_core::backend::Device as _;
    use candlewick_core::{LoraLinear, Softmax};

    #[test]
    fn measurements_choose_an_engine_but_not_for_what_was_packed() {
        let plain = Op::from(LoraLinear::new(4, 32, 16, 4, 1.0, DType::F32));
        let packed = Op::from(LoraLinear::new(4, 32, 16, 4, 1.0, DType::F32).packed());
        let softmax = Op::from(Softmax::new(4, 32, DType::F32));
        let mut table = DispatchTable::new();
        for op in [plain, packed, softmax] {
            let engines = candidates(&op);
            engines.iter().enumerate().for_each(|(nth, &engine)| table.record(&op, engine, 100.0 - nth as f32 * 10.0));
        }
        let device = Device::new().with_table(table);
        for op in [plain, softmax] {
            let last = candidates(&op).last().copied();
            assert_eq!(device.engines(&op).first().copied(), last, "{op}: the fastest");
            assert_eq!(device.decide(&op).map(|decision| decision.engine), last);
        }
        assert_eq!(device.engines(&packed), candidates(&packed), "one engine for every number of rows");
        assert_eq!(device.decide(&packed).map(|decision| decision.engine), candidates(&packed).first().copied());
    }
}
