//! Runs prepared operations inside `encode`, on the calling thread and the pool.

use crate::ops::{self, Call, Program};
use crate::pool::{Pool, Workers};
use crate::simd::Isa;
use crate::tape::{Memory, Tape};
use crate::{Buffer, Device, Input, Output, REFERENCE, engine_of};
use candlewick_core::backend::{self, Argument as _, Device as _, Engine, Packing, Signature, check_copy};
use candlewick_core::cache::{Cache, CacheCounters};
use candlewick_core::tape::Step;
use candlewick_core::{DType, Element, Error, Op, Result};
use std::sync::Arc;

/// A queue that is always empty: `encode` returns when the work is done.
pub struct Stream {
    device: Device,
    id: u64,
    kernels: Cache<(Op, Option<Engine>), Kernel>,
    workspace: Buffer,
}

/// A prepared operation.
#[derive(Clone)]
pub struct Kernel(Arc<Prepared>);

struct Prepared {
    stream: u64,
    engine: Engine,
    signature: Signature,
    program: Box<dyn Program>,
}

impl Kernel {
    /// The operation.
    pub fn op(&self) -> &Op {
        self.0.signature.op()
    }

    /// How its packed operand lies, if it has one.
    pub fn packing(&self) -> Option<Packing> {
        self.0.signature.packing()
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        self.0.engine
    }

    /// Threads that it runs on, the caller's included.
    pub fn threads(&self) -> usize {
        self.0.program.threads()
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.0.signature
    }

    /// f32 that [`Kernel::run`] needs.
    pub(crate) fn workspace(&self) -> usize {
        self.0.program.workspace()
    }

    /// # Safety
    /// The arguments fit the signature, and the workspace is as large as [`Kernel::workspace`] says.
    #[inline]
    pub(crate) unsafe fn run(
        &self,
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        workspace: *mut f32,
        pool: &dyn Workers,
    ) {
        // SAFETY: the caller's promises are passed on.
        unsafe { self.0.program.run(&mut Call { inputs, outputs, workspace, pool }) };
    }
}

impl Stream {
    const KERNELS: usize = 1024;

    pub(crate) fn new(device: Device, id: u64) -> Self {
        let workspace = Buffer::new(DType::F32, 0).expect("nothing is allocated");
        Stream { device, id, kernels: Cache::new(Self::KERNELS), workspace }
    }

    /// Hits, misses and evictions of the cache of prepared kernels.
    pub fn cache_counters(&self) -> CacheCounters {
        self.kernels.counters()
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn check_kernel(&self, kernel: &Kernel) -> Result<()> {
        if kernel.0.stream == self.id {
            return Ok(());
        }
        Err(Error::wrong_stream(kernel.op(), kernel.0.stream, self.id))
    }

    pub(crate) fn pool(&self) -> &'static Pool {
        self.device.pool
    }

    pub(crate) fn threads(&self) -> usize {
        self.device.threads
    }

    /// As large as any kernel or tape of this stream asked for.
    pub(crate) fn workspace_pointer(&mut self) -> *mut f32 {
        self.workspace.pointer_mut().cast()
    }

    /// At least so many f32.
    pub(crate) fn reserve_workspace(&mut self, needed: usize) -> Result<()> {
        if needed > self.workspace.elements() {
            self.workspace = Buffer::new(DType::F32, needed)?;
        }
        Ok(())
    }

    fn build(&self, op: &Op, engine: Option<Engine>) -> Result<Kernel> {
        // First of all, so that a contradiction is reported as such, whatever engines there are.
        op.operands()?;
        let candidates = self.device.engines(op);
        let chosen = match engine {
            None => candidates.first().copied(),
            Some(wanted) => candidates.iter().copied().find(|&candidate| candidate == wanted),
        };
        let Some(engine) = chosen else { return Err(Error::no_engine(op, engine, "cpu", &candidates)) };
        let program: Box<dyn Program> = if engine == REFERENCE {
            Box::new(ops::reference::Reference::new(op))
        } else {
            let isa = Isa::available().find(|&isa| engine_of(isa) == engine).expect("candidates are available");
            let kernels = crate::kernels::kernels(isa).expect("available instruction sets have kernels");
            ops::program(op, kernels, self.device.threads)
        };
        let signature = Signature::new(op, program.packing())?;
        Ok(Kernel(Arc::new(Prepared { stream: self.id, engine, signature, program })))
    }
}

impl backend::Stream for Stream {
    type Device = Device;
    type Kernel = Kernel;
    type Input<'a> = Input<'a>;
    type Output<'a> = Output<'a>;
    type Memory = Memory;
    type Tape = Tape;

    fn prepare(&mut self, op: &Op, engine: Option<Engine>) -> Result<Kernel> {
        let key = (*op, engine);
        if let Some(kernel) = self.kernels.get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = self.build(op, engine)?;
        self.reserve_workspace(kernel.workspace())?;
        self.kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    #[inline]
    fn encode(&mut self, kernel: &Kernel, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        self.check_kernel(kernel)?;
        kernel.0.signature.check(inputs, outputs)?;
        let pool = self.pool();
        // SAFETY: the arguments were just checked; `prepare` on this stream made the workspace large enough.
        unsafe { kernel.run(inputs, outputs, self.workspace_pointer(), pool) };
        Ok(())
    }

    fn pack(&mut self, kernel: &Kernel, plain: Input<'_>) -> Result<Buffer> {
        let (packing, factor) = kernel.0.signature.check_pack(&plain)?;
        let mut packed = Buffer::new(packing.dtype, ops::packed_elements(&packing))?;
        // SAFETY: the source holds the whole plain operand, and the target has room for every panel.
        unsafe { kernel.0.program.pack(&factor, plain, packed.pointer_mut(), self.device.pool) };
        packed.set_packing(packing);
        Ok(packed)
    }

    fn write<T: Element>(&mut self, buffer: &mut Buffer, from: &[T]) -> Result<()> {
        check_copy::<T>("write", buffer, from.len())?;
        if let Some(to) = buffer.as_mut_slice::<T>() {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn read<T: Element>(&mut self, buffer: &Buffer, to: &mut [T]) -> Result<()> {
        check_copy::<T>("read", buffer, to.len())?;
        if let Some(from) = buffer.as_slice::<T>() {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    fn memory(&mut self, bytes: usize) -> Result<Memory> {
        Memory::zeroed(bytes, self.id)
    }

    fn adopt(&mut self, buffer: Buffer) -> Memory {
        Memory::new(buffer, self.id)
    }

    fn store<T: Element>(&mut self, memory: &Memory, offset: usize, from: &[T]) -> Result<()> {
        self.store_numbers(memory, offset, from)
    }

    fn load<T: Element>(&mut self, memory: &Memory, offset: usize, to: &mut [T]) -> Result<()> {
        self.load_numbers(memory, offset, to)
    }

    fn record(&mut self, memories: &[Memory], steps: Vec<Step<Kernel>>) -> Result<Tape> {
        self.record_steps(memories, steps)
    }

    fn replay(&mut self, tape: &mut Tape) -> Result<()> {
        self.replay_tape(tape)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        Ok(())
    }
}
