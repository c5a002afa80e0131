//! Apple's GPU as a device.

use crate::limits::{CommitLimits, cores_of_chip};
use crate::memory::{Newer, Shared};
use crate::runtime::arena::Arena;
use crate::runtime::objects::{DEVICE, Sendable, macos};
use crate::{Buffer, Stream, mps, ops, tensor};
use candlewick_core::backend::{self, DeviceInfo, Engine, Limits};
use candlewick_core::cache::CacheCounters;
use candlewick_core::dispatch::{Decision, DispatchTable, in_order};
use candlewick_core::{DType, Error, Op, Result};
use candlewick_kernels::GpuLimits;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLCreateSystemDefaultDevice, MTLDevice, MTLGPUFamily, MTLResidencySetDescriptor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Own kernels that CUDA shares, from `candlewick-kernels`.
pub const MSL: Engine = Engine::new(DEVICE, "msl");
/// Own products on simdgroup matrices.
pub const SIMDGROUP: Engine = Engine::new(DEVICE, "simdgroup");
/// `MPSMatrixMultiplication` and `MPSMatrixSoftMax`. The open encoder ends before each and is opened again after.
pub const MPS: Engine = Engine::new(DEVICE, "mps");
/// `MPSNDArrayMatrixMultiplication`, inside the open encoder. macOS 15 and later.
pub const MPS_NDARRAY: Engine = Engine::new(DEVICE, "mps-ndarray");
/// Own products by Metal 4's tensor operations: f16 and bf16. M5 and later, macOS 26.2 and later.
pub const TENSOR: Engine = Engine::new(DEVICE, "tensor");
/// `cblas_sgemm` of Accelerate, on the CPU, where nothing was encoded since the stream's last wait; else as the engine that
/// comes next. f32.
pub const ACCELERATE: Engine = Engine::new(DEVICE, "accelerate");
/// `MPSMatrixMultiplication` as naive code calls it: everything made anew and waited for. By name only, to be compared
/// with.
pub const NAIVE_MPS: Engine = Engine::new(DEVICE, "naive-mps");

/// What can be chosen when a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When a command buffer is full. `None`: what suits the chip.
    pub commit: Option<CommitLimits>,
    /// Bytes of a Metal buffer that tensors are cut from. Larger tensors have one of their own; with 0 every tensor has,
    /// so that Metal's validation sees where each ends.
    pub block_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { commit: None, block_bytes: 32 << 20 }
    }
}

/// The system's GPU: a cheap handle.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    table: Arc<DispatchTable>,
    commit: CommitLimits,
}

impl Device {
    /// The system's default GPU.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where there is none, or one that is too old.
    pub fn open() -> Result<Self> {
        Self::with_options(Options::default())
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn with_options(options: Options) -> Result<Self> {
        autoreleasepool(|_| Self::from_metal(MTLCreateSystemDefaultDevice().ok_or_else(crate::absent)?, options))
    }

    /// A device that somebody else has opened: the buffers of both are buffers of one GPU.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for one that is too old.
    pub fn from_metal(metal: Retained<ProtocolObject<dyn MTLDevice>>, options: Options) -> Result<Self> {
        autoreleasepool(|_| {
            if !metal.hasUnifiedMemory() || !metal.supportsFamily(MTLGPUFamily::Apple7) {
                let reason = format!("{} is no Apple silicon: M1 or later is needed", metal.name());
                return Err(Error::NoDevice { wanted: DEVICE.into(), reason });
            }
            let chip = match macos(14, 0) {
                true => metal.architecture().name().to_string(),
                false => metal.name().to_string(),
            };
            let residency = if macos(15, 0) {
                let descriptor = MTLResidencySetDescriptor::new();
                // SAFETY: a residency set is changed under the lock of the device's memory alone.
                metal.newResidencySetWithDescriptor_error(&descriptor).ok().map(|set| unsafe { Sendable::new(set) })
            } else {
                None
            };
            let another = |set: &Sendable<Retained<_>>| {
                // SAFETY: as above.
                unsafe { Sendable::new(Retained::clone(set)) }
            };
            // SAFETY: devices are safe from several threads (MTLDevice is Send and Sync in the typed crate).
            let [metal, for_arena] = [metal.clone(), metal].map(|metal| unsafe { Sendable::new(metal) });
            let arena = Arena::new(for_arena, residency.as_ref().map(another), options.block_bytes);
            let commit = options.commit.unwrap_or_else(|| CommitLimits::of_chip(&chip));
            let gpu = GpuLimits::apple(cores_of_chip(&chip));
            let newer = Newer { ndarray: mps::ndarray_is_offered(), tensor: tensor::is_offered(&metal) };
            let shared = Shared::new(metal, residency, arena, gpu, newer);
            Ok(Device { shared: Arc::new(shared), table: Arc::default(), commit })
        })
    }

    /// The same device with measurements to choose engines by.
    pub fn with_table(self, table: DispatchTable) -> Self {
        Device { table: Arc::new(table), ..self }
    }

    /// The same device with another number of operations in a command buffer, for streams made from now on.
    pub fn with_operations_per_command_buffer(self, operations: usize) -> Self {
        Device { commit: CommitLimits { operations: operations.max(1), ..self.commit }, ..self }
    }

    /// The engine that `prepare` takes for `op`, and why.
    pub fn decide(&self, op: &Op) -> Option<Decision> {
        self.table.choose(op, &ops::engines(op, self.shared.newer()))
    }

    /// Why [`TENSOR`] is not offered on a GPU that should have it: what Apple's compiler said of its kernels, when the
    /// first product tried them. The products went to other engines.
    pub fn tensor_failure(&self) -> Option<&str> {
        self.shared.no_tensors()
    }

    /// Bytes of memory taken from the system.
    pub fn allocated_bytes(&self) -> usize {
        self.shared.bytes()
    }

    /// Hits, misses and evictions of the cache of pipeline states.
    pub fn pipeline_counters(&self) -> CacheCounters {
        self.shared.pipeline_counters()
    }

    /// How many operations a command buffer holds.
    pub fn operations_per_command_buffer(&self) -> usize {
        self.commit.operations.max(1)
    }

    pub(crate) fn commit_limits(&self) -> CommitLimits {
        self.commit
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn buffer(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        let bytes = elements.checked_mul(dtype.bytes()).filter(|&bytes| bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or_else(|| Error::OutOfMemory { device: DEVICE.into(), bytes: usize::MAX })?;
        Ok(Buffer::new(self.shared.memory(bytes)?, dtype, elements, None))
    }
}

impl backend::Device for Device {
    type Buffer = Buffer;
    type Stream = Stream;

    fn info(&self) -> DeviceInfo {
        autoreleasepool(|_| {
            let metal = self.shared.metal();
            let yes = |yes: bool| if yes { "yes" } else { "no" }.to_string();
            DeviceInfo {
                id: DEVICE.into(),
                name: metal.name().to_string(),
                facts: vec![
                    ("memory for the GPU, MiB", (metal.recommendedMaxWorkingSetSize() >> 20).to_string()),
                    ("operations per command buffer", self.commit.operations.to_string()),
                    ("residency set", yes(self.shared.residency().is_some())),
                    ("tensor operations", yes(self.shared.newer().tensor)),
                ],
                asynchronous: true,
                engines: ops::all(self.shared.newer()),
            }
        })
    }

    fn engines(&self, op: &Op) -> Vec<Engine> {
        in_order(&self.table, op, ops::engines(op, self.shared.newer()))
    }

    fn alloc(&self, dtype: DType, elements: usize) -> Result<Buffer> {
        let buffer = self.buffer(dtype, elements)?;
        buffer.clear();
        Ok(buffer)
    }

    fn stream(&self) -> Result<Stream> {
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        Stream::new(self.clone(), STREAMS.fetch_add(1, Ordering::Relaxed))
    }

    fn measure_limits(&self, _threads: usize) -> Result<Limits> {
        crate::measure::limits(self)
    }
}
