//! Which engines each operation has here, and what it becomes on them: one file per operation.

mod lora;
mod matmul;
mod rms_norm;
mod softmax;

use crate::memory::{Memory, Newer, Shared};
use crate::runtime::arena::Part;
use crate::runtime::dispatch::{Binding, Dispatch, MOST_BINDINGS, Source, line};
use crate::runtime::hazard::Access;
use crate::runtime::pipeline::Entry;
use crate::{ACCELERATE, MPS, MPS_NDARRAY, MSL, SIMDGROUP, TENSOR, accelerate, mps, msl};
use arrayvec::ArrayVec;
use candlewick_core::backend::{Engine, Packing};
use candlewick_core::{Error, Op, Result};
use candlewick_kernels::GpuLimits;
use objc2_metal::{MTLComputePipelineState, MTLSize};
use std::sync::Arc;

/// Every engine that `prepare` chooses from, and takes by name.
pub(crate) fn all(newer: Newer) -> Vec<Engine> {
    let mut engines = vec![MSL, SIMDGROUP, MPS, MPS_NDARRAY, TENSOR, ACCELERATE];
    engines.retain(|&engine| (engine != MPS_NDARRAY || newer.ndarray) && (engine != TENSOR || newer.tensor));
    engines
}

/// A prepared operation on one engine.
pub(crate) enum Work {
    /// Own kernels: for tensors at multiples of 16 bytes, where that makes a difference, and for any.
    Dispatches { sixteen: Option<Vec<Dispatch>>, any: Vec<Dispatch> },
    /// MPS kernels, in order.
    Mps(Vec<mps::Step>),
    /// Everything made anew.
    Naive(mps::NaiveProduct),
    /// On the CPU where nothing is pending, else on the GPU.
    Cpu(Vec<accelerate::Product>, Box<Work>),
}

// SAFETY: MPS kernel objects are used by the stream that made them alone, by one thread at a time; dropping them is safe
// on any thread. Pointers are to memory that the prepared kernel owns.
unsafe impl Send for Work {}
// SAFETY: the objects are reached through the stream's exclusive borrow alone.
unsafe impl Sync for Work {}

impl Work {
    /// Kernels that it launches, as far as is known: MPS's own are its business.
    pub(crate) fn dispatches(&self) -> usize {
        match self {
            Work::Dispatches { any, .. } => any.len(),
            Work::Mps(steps) => steps.len(),
            Work::Naive(_) => 1,
            Work::Cpu(_, gpu) => gpu.dispatches(),
        }
    }
}

/// The engines for `op`, in this backend's own order of preference.
pub(crate) fn engines(op: &Op, newer: Newer) -> Vec<Engine> {
    match op {
        Op::MatMul(op) => matmul::engines(op, newer),
        Op::Softmax(op) => softmax::engines(op),
        Op::LoraLinear(op) => lora::linear_engines(op),
        Op::LoraLinearBackward(op) => lora::backward_engines(op),
        Op::LoraDelta(op) => lora::delta_engines(op),
        Op::LoraDeltaBackward(op) => lora::delta_backward_engines(op),
        Op::SoftmaxBackward(_) | Op::RmsNorm(_) | Op::RmsNormBackward(_) => rms_norm::engines(),
        // The operations of models have own kernels alone.
        op => msl::engines(op),
    }
}

/// Whether `metal/naive-mps` runs it.
pub(crate) fn has_naive_mps(op: &Op) -> bool {
    matches!(op, Op::MatMul(op) if mps::runs_matmul(op))
}

/// What `op` becomes on an engine that it has.
///
/// # Errors
/// What the compiler says, or [`Error::OutOfMemory`].
pub(crate) fn work(op: &Op, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match engine {
        MSL => return msl::work(op, build),
        ACCELERATE => return cpu_work(op, build),
        _ => {}
    }
    match op {
        Op::MatMul(op) => matmul::work(op, engine, build),
        Op::Softmax(op) => softmax::work(op, engine, build),
        Op::LoraLinear(op) => lora::linear_work(op, engine, build),
        Op::LoraLinearBackward(op) => lora::backward_work(op, engine, build),
        Op::LoraDelta(op) => lora::delta_work(op, engine, build),
        Op::LoraDeltaBackward(op) => lora::delta_backward_work(op, engine, build),
        _ => Err(unlisted(op, engine)),
    }
}

/// Products on the CPU, and the same operation for the GPU: on the engine that comes first without this one.
fn cpu_work(op: &Op, build: &mut Build<'_>) -> Result<Work> {
    let products = match op {
        Op::MatMul(op) => accelerate::matmul(op),
        Op::LoraLinear(op) => accelerate::lora_linear(op, build)?,
        Op::LoraDelta(op) => accelerate::lora_delta(op, build)?,
        _ => return Err(unlisted(op, ACCELERATE)),
    };
    let gpu = engines(op, build.shared().newer()).into_iter().find(|&engine| engine != ACCELERATE).unwrap_or(MSL);
    Ok(Work::Cpu(products, Box::new(work(op, gpu, build)?)))
}

/// An engine that `engines` does not list was chosen all the same.
pub(crate) fn unlisted(op: &Op, engine: Engine) -> Error {
    Error::NoEngine {
        op: op.name(),
        wanted: engine.to_string().into(),
        device: "metal".into(),
        descriptor: op.to_string().into(),
        available: "those that `engines` lists".into(),
        remedy: "choose one of these, or none to let the dispatcher choose",
    }
}

/// How the packed operand of `op` lies, if it has one: the same for every engine.
pub(crate) fn packing(op: &Op) -> Option<Packing> {
    candlewick_kernels::packing(op)
}

/// The kernels that pack the frozen operand of `op`: from the first tensor into the second.
///
/// # Errors
/// What the compiler says.
pub(crate) fn pack(op: &Op, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
    let program = candlewick_kernels::pack(op).ok_or_else(|| unlisted(op, MSL))?;
    msl::dispatches(&program, 1, None, build)
}

/// What preparing an operation makes: pipelines, and memory that its kernels own.
pub(crate) struct Build<'a> {
    shared: &'a Arc<Shared>,
    memory: Vec<Memory>,
    /// As asked for: the memory is a little more.
    bytes: Vec<usize>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> Self {
        Build { shared, memory: Vec::new(), bytes: Vec::new() }
    }

    pub(crate) fn into_memory(self) -> Vec<Memory> {
        self.memory
    }

    pub(crate) fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }

    pub(crate) fn gpu(&self) -> GpuLimits {
        self.shared.gpu
    }

    /// Memory that the kernel owns, by a number for [`Build::owned`].
    pub(crate) fn own(&mut self, bytes: usize) -> Result<usize> {
        self.memory.push(self.shared.memory(bytes)?);
        self.bytes.push(bytes);
        Ok(self.memory.len() - 1)
    }

    /// Own memory, by its number.
    pub(crate) fn part(&self, memory: usize) -> &Part {
        self.memory[memory].part()
    }

    /// Which own memory begins at an address, and how many bytes were asked for.
    pub(crate) fn find(&self, address: u64) -> Option<(usize, usize)> {
        let number = self.memory.iter().position(|memory| memory.part().pointer() as u64 == address)?;
        Some((number, self.bytes[number]))
    }

    /// A slot for own memory.
    pub(crate) fn owned(&self, memory: usize, access: Access, bytes: usize) -> Binding {
        let part = self.part(memory);
        let source = Source::Own {
            buffer: std::ptr::from_ref(part.block.buffer()),
            offset: part.offset,
            address: part.pointer() as u64,
        };
        Binding { source, access, offset: 0, bytes }
    }

    /// A slot for a tensor of the call, by its place among inputs and outputs.
    pub(crate) fn tensor(index: usize, access: Access, bytes: usize) -> Binding {
        Binding { source: Source::Tensor(index), access, offset: 0, bytes }
    }

    /// A slot that a launch does not use.
    pub(crate) fn unused() -> Binding {
        Self::tensor(0, Access::Read, 0)
    }

    /// A kernel whose parameters, in memory, follow its last slot: one message fewer per call than `setBytes`.
    pub(crate) fn dispatch(
        &mut self,
        entry: Entry,
        bindings: impl IntoIterator<Item = Binding>,
        params: &[u8],
        groups: MTLSize,
        threads: usize,
    ) -> Result<Dispatch> {
        let pipeline = self.shared.pipeline(entry)?;
        debug_assert!(threads <= pipeline.maxTotalThreadsPerThreadgroup(), "{entry:?}");
        let mut bindings: ArrayVec<Binding, MOST_BINDINGS> = bindings.into_iter().collect();
        let own = self.own(params.len())?;
        let pointer = self.memory[own].part().pointer();
        // SAFETY: the part is that long, and nobody else has it.
        unsafe { std::ptr::copy_nonoverlapping(params.as_ptr(), pointer, params.len()) };
        let params = || self.owned(own, Access::Read, 0);
        // A slot that a launch does not use is given memory that is there, and aligned for anything.
        bindings.iter_mut().filter(|binding| binding.bytes == 0).for_each(|binding| *binding = params());
        bindings.push(params());
        Ok(Dispatch { pipeline, bindings, groups, threads: line(threads) })
    }
}
