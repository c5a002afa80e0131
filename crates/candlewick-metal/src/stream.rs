//! Prepares operations, and encodes them into the command buffer that is open.

use crate::device::Device;
use crate::kernel::{Kernel, Prepared};
use crate::limits::CommitLimits;
use crate::mps::Stage;
use crate::ops::{self, Build, Work};
use crate::runtime::dispatch::{MOST_TENSORS, Place, Places};
use crate::runtime::encoder::{Accesses, Encoder};
use crate::runtime::hazard::Access;
use crate::runtime::objects::{CommandBuffer, DEVICE};
use crate::{Buffer, Input, NAIVE_MPS, Output, TENSOR, mps, tape};
use candlewick_core::backend::{self, Argument as _, Device as _, Engine, Signature, check_copy};
use candlewick_core::cache::{Cache, CacheCounters};
use candlewick_core::dispatch::first_that_builds;
use candlewick_core::tape::Step;
use candlewick_core::{Element, Error, Op, Result};
use objc2::rc::autoreleasepool;
use objc2_metal::{MTLBlitCommandEncoder, MTLCommandBuffer, MTLCommandEncoder};
use std::sync::Arc;

/// A queue of work on the GPU.
///
/// Dropping it waits for its work; buffers and kernels may be dropped before. Metal takes 64 command buffers that are not
/// complete (MTLDevice.h, `newCommandQueue`): whoever is further ahead waits inside `encode` for one.
pub struct Stream {
    device: Device,
    id: u64,
    kernels: Cache<(Op, Option<Engine>), Kernel>,
    matrices: mps::Matrices,
    encoder: Encoder,
    /// Operations that ran on the CPU.
    on_cpu: u64,
}

// SAFETY: a stream is used by one thread at a time, and Metal's command buffers and encoders are bound to no thread, only
// not safe from several at once.
unsafe impl Send for Stream {}

/// What to do about several.
const ONE_DEVICE: &str = "open the device once, and use clones of it";

/// What a stream and its caches have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Prepared kernels, by operation and engine. MPS kernel objects are part of them.
    pub kernels: CacheCounters,
    /// Matrices and arrays of MPS, by buffer, offset and layout.
    pub matrices: CacheCounters,
    /// Descriptors of MPS, by layout.
    pub descriptors: CacheCounters,
    /// Operations of the engine `metal/accelerate` that found nothing pending, and ran on the CPU.
    pub on_cpu: u64,
}

impl Stream {
    const KERNELS: usize = 1024;

    pub(crate) fn new(device: Device, id: u64) -> Result<Self> {
        let shared = device.shared();
        let encoder = Encoder::new(shared.metal(), shared.residency(), device.commit_limits())?;
        shared.add_stream(encoder.progress().clone());
        let matrices = mps::Matrices::new(shared.generation());
        Ok(Stream { device, id, kernels: Cache::new(Self::KERNELS), matrices, encoder, on_cpu: 0 })
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Hits, misses and evictions of the cache of prepared kernels.
    pub fn cache_counters(&self) -> CacheCounters {
        self.kernels.counters()
    }

    /// Hits, misses and evictions of all its caches.
    pub fn counters(&self) -> Counters {
        let [matrices, descriptors] = self.matrices.counters();
        Counters { kernels: self.kernels.counters(), matrices, descriptors, on_cpu: self.on_cpu }
    }

    /// Lets go of MPS's views of memory that somebody gave back. They go by themselves when the next operation of MPS
    /// comes; a stream that rests would keep them.
    pub fn release_views(&mut self) {
        autoreleasepool(|_| self.matrices.refresh(self.device.shared().generation()));
    }

    /// Makes MPS's views of these tensors, which `encode` makes where it first meets them: for `anatomy`.
    pub(crate) fn make_views(
        &mut self,
        kernel: &Kernel,
        inputs: &[Input<'_>],
        output: &Output<'_>,
        stage: Stage,
    ) -> Result<()> {
        kernel.0.signature.check(inputs, std::slice::from_ref(output))?;
        let places: Places<'_> = inputs.iter().chain([output.as_input()]).map(Input::place).collect();
        if let Some(Work::Mps(steps)) = &kernel.0.work {
            self.matrices.refresh(kernel.0.shared.generation());
            steps.iter().for_each(|step| step.make_views(&mut self.matrices, &places, stage));
        }
        Ok(())
    }

    /// Opens a command buffer, which `encode` opens where none is: for `anatomy`.
    pub(crate) fn open(&mut self) -> Result<()> {
        self.encoder.open_commands()
    }

    fn build(&self, op: &Op, engine: Option<Engine>) -> Result<Kernel> {
        // First of all, so that a contradiction is reported as such, whatever engines there are.
        let packing = ops::packing(op);
        let signature = Signature::new(op, packing)?;
        let candidates = self.device.engines(op);
        let candidates = match engine {
            None => candidates,
            Some(NAIVE_MPS) if ops::has_naive_mps(op) => vec![NAIVE_MPS],
            Some(wanted) if wanted != NAIVE_MPS && candidates.contains(&wanted) => vec![wanted],
            Some(_) => return Err(Error::no_engine(op, engine, DEVICE, &candidates)),
        };
        let shared = self.device.shared();
        let (engine, (work, memory)) = first_that_builds(op, &candidates, |candidate| {
            let mut build = Build::new(shared);
            let work = ops::work(op, candidate, &mut build);
            // The system should have the tensor operations, and its compiler does not take them: nobody tries again.
            if let (Err(Error::Backend { message, .. }), TENSOR, None) = (&work, candidate, engine) {
                shared.give_up_tensors(message.clone());
            }
            Ok((work?, build.into_memory()))
        })?;
        Ok(Kernel(Arc::new(Prepared {
            stream: self.id,
            engine,
            signature,
            bytes: op.bytes() as usize,
            work: Some(work),
            memory,
            shared: shared.clone(),
        })))
    }

    /// Encodes a kernel whose arguments were compared.
    pub(crate) fn encode_on_gpu(&mut self, kernel: &Kernel, places: &Places<'_>) -> Result<()> {
        let prepared = &*kernel.0;
        let work = match &prepared.work {
            Some(Work::Cpu(_, gpu)) => gpu,
            Some(work) => work,
            None => unreachable!("it is taken when nobody has the kernel"),
        };
        match work {
            Work::Cpu(..) => unreachable!("the GPU's part is for the GPU"),
            Work::Dispatches { sixteen, any } => {
                let aligned = places.iter().all(|place| place.offset.is_multiple_of(16));
                let dispatches = if aligned { sixteen.as_ref().unwrap_or(any) } else { any };
                for dispatch in dispatches {
                    self.encoder.dispatch(dispatch, places)?;
                }
            }
            Work::Mps(steps) => {
                self.matrices.refresh(prepared.shared.generation());
                // MPS makes objects of its own.
                autoreleasepool(|_| {
                    steps.iter().try_for_each(|step| step.encode(&mut self.encoder, &mut self.matrices, places))
                })?;
            }
            Work::Naive(product) => {
                if places.iter().any(|place| place.block.contents().is_null()) {
                    return Err(crate::borrow::unreachable_by_cpu(kernel.op()));
                }
                self.encoder.wait()?;
                product.run_cleared(prepared.shared.metal(), places)?;
            }
        }
        self.encoder.operation_done(kernel.op().name(), prepared.bytes);
        Ok(())
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Replaces the limits, and returns those before.
    pub(crate) fn set_commit_limits(&mut self, limits: CommitLimits) -> CommitLimits {
        self.encoder.set_limits(limits)
    }

    pub(crate) fn commit(&mut self) {
        self.encoder.commit();
    }

    /// Copies memory in order with the stream's work.
    fn copy(&mut self, from: Place<'_>, to: Place<'_>, bytes: usize) -> Result<()> {
        let range = |address: u64| address..address + bytes as u64;
        let accesses: Accesses =
            [(range(from.address()), Access::Read), (range(to.address()), Access::Write)].into_iter().collect();
        let encode = |commands: &CommandBuffer| {
            let Some(blit) = commands.blitCommandEncoder() else { return };
            // SAFETY: both parts are that long, and are kept until the command buffer completes.
            unsafe {
                blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                    from.block.buffer(),
                    from.offset,
                    to.block.buffer(),
                    to.offset,
                    bytes,
                );
            }
            blit.endEncoding();
        };
        autoreleasepool(|_| self.encoder.outside(&accesses, encode))?;
        self.encoder.operation_done("write", bytes);
        Ok(())
    }

    fn check_copy<T: Element>(&self, op: &'static str, buffer: &Buffer, elements: usize) -> Result<()> {
        let here = self.device.shared().id();
        if buffer.device() != here {
            return Err(Error::WrongOwner {
                op,
                what: "the buffer",
                owner: format!("metal device {} of this process", buffer.device()),
                here: format!("metal device {here}"),
                remedy: ONE_DEVICE,
            });
        }
        check_copy::<T>(op, buffer, elements)
    }

    #[cold]
    fn wrong_device(&self, op: &Op, inputs: &[Input<'_>], outputs: &[Output<'_>], signature: &Signature) -> Error {
        let here = self.device.shared().id();
        let operands = signature.inputs().iter().chain(signature.outputs());
        let arguments = inputs.iter().chain(outputs.iter().map(Output::as_input));
        let wrong = operands.zip(arguments).find(|(_, argument)| argument.device() != here);
        let (what, owner) = wrong.map_or(("an argument", here), |(operand, input)| (operand.name, input.device()));
        Error::WrongOwner {
            op: op.name(),
            what,
            owner: format!("metal device {owner} of this process"),
            here: format!("metal device {here}"),
            remedy: ONE_DEVICE,
        }
    }
}

impl backend::Stream for Stream {
    type Device = Device;
    type Kernel = Kernel;
    type Input<'a> = Input<'a>;
    type Output<'a> = Output<'a>;
    type Memory = tape::Memory;
    type Tape = tape::Tape;

    fn prepare(&mut self, op: &Op, engine: Option<Engine>) -> Result<Kernel> {
        let key = (*op, engine);
        if let Some(kernel) = self.kernels.get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = self.build(op, engine)?;
        self.kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    #[inline]
    fn encode(&mut self, kernel: &Kernel, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        let prepared = &*kernel.0;
        if prepared.stream != self.id {
            return Err(Error::wrong_stream(kernel.op(), prepared.stream, self.id));
        }
        prepared.signature.check(inputs, outputs)?;
        debug_assert!(inputs.len() + outputs.len() <= MOST_TENSORS);
        let here = prepared.shared.id();
        let mut places = Places::new();
        for argument in inputs.iter().chain(outputs.iter().map(Output::as_input)) {
            if argument.device() != here {
                return Err(self.wrong_device(kernel.op(), inputs, outputs, &prepared.signature));
            }
            places.push(argument.place());
        }
        // Others may have work of theirs pending on a foreign buffer, and the CPU may not reach it.
        if let Some(Work::Cpu(products, _)) = &prepared.work
            && self.encoder.is_waited_for()
            && places.iter().all(|place| !place.block.contents().is_null())
        {
            // SAFETY: the signature was compared, outputs are borrowed alone, and nothing of this stream is pending;
            // whoever moves data between streams has waited for the other.
            products.iter().for_each(|product| unsafe { product.run(&places) });
            self.on_cpu += 1;
            return Ok(());
        }
        self.encode_on_gpu(kernel, &places)
    }

    fn memory(&mut self, bytes: usize) -> Result<tape::Memory> {
        let memory = self.device.shared().memory(bytes)?;
        let memory = tape::Memory::new(memory, bytes, self.id);
        // SAFETY: it is that long, and nobody has it yet.
        unsafe { memory.pointer(0).write_bytes(0, bytes) };
        Ok(memory)
    }

    fn adopt(&mut self, buffer: Buffer) -> tape::Memory {
        let bytes = buffer.elements() * buffer.dtype().bytes();
        tape::Memory::new(buffer.into_memory(), bytes, self.id)
    }

    fn store<T: Element>(&mut self, memory: &tape::Memory, offset: usize, from: &[T]) -> Result<()> {
        memory.check::<T>("store", self.id, offset, from.len())?;
        if self.encoder.is_idle() {
            // SAFETY: the memory is as long from there on, and nothing of the GPU's is pending.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), memory.pointer(offset).cast(), from.len()) };
            return Ok(());
        }
        if from.is_empty() {
            return Ok(());
        }
        let mut staged = self.device.buffer(T::DTYPE, from.len())?;
        staged.fill_from(from);
        self.copy(staged.place(), memory.place(offset), size_of_val(from))
    }

    fn load<T: Element>(&mut self, memory: &tape::Memory, offset: usize, to: &mut [T]) -> Result<()> {
        memory.check::<T>("load", self.id, offset, to.len())?;
        self.wait()?;
        // SAFETY: the memory is as long from there on, nothing is pending, and every bit pattern is a number.
        unsafe { std::ptr::copy_nonoverlapping(memory.pointer(offset).cast(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn record(&mut self, memories: &[tape::Memory], steps: Vec<Step<Kernel>>) -> Result<tape::Tape> {
        self.record_steps(memories, steps)
    }

    fn replay(&mut self, tape: &mut tape::Tape) -> Result<()> {
        self.replay_tape(tape)
    }

    fn pack(&mut self, kernel: &Kernel, plain: Input<'_>) -> Result<Buffer> {
        let op = *kernel.op();
        let (packing, _) = kernel.0.signature.check_pack(&plain)?;
        if plain.device() != self.device.shared().id() {
            return Err(self.wrong_device(&op, &[plain], &[], &kernel.0.signature));
        }
        let elements = packing.elements();
        let memory = self.device.shared().memory(elements * packing.dtype.bytes())?;
        let packed = Buffer::new(memory, packing.dtype, elements, Some(packing));
        let mut build = Build::new(self.device.shared());
        let dispatches = ops::pack(&op, &mut build)?;
        {
            let places: Places<'_> = [plain.place(), packed.place()].into_iter().collect();
            for dispatch in &dispatches {
                self.encoder.dispatch(dispatch, &places)?;
            }
        }
        self.encoder.operation_done("pack", 2 * elements * packing.dtype.bytes());
        // They are done with when the command buffer is; so is their memory, in `build`.
        self.device.shared().bury(Box::new(dispatches));
        Ok(packed)
    }

    fn write<T: Element>(&mut self, buffer: &mut Buffer, from: &[T]) -> Result<()> {
        self.check_copy::<T>("write", buffer, from.len())?;
        if self.encoder.is_idle() {
            buffer.fill_from(from);
            return Ok(());
        }
        if from.is_empty() {
            return Ok(());
        }
        // Pending work may read or write the buffer: the numbers wait elsewhere for their turn.
        let mut staged = self.device.buffer(T::DTYPE, from.len())?;
        staged.fill_from(from);
        self.copy(staged.place(), buffer.place(), size_of_val(from))
    }

    fn read<T: Element>(&mut self, buffer: &Buffer, to: &mut [T]) -> Result<()> {
        self.check_copy::<T>("read", buffer, to.len())?;
        self.wait()?;
        buffer.copy_to(to);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.encoder.commit();
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        let done = self.encoder.wait();
        self.device.shared().collect();
        done
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.encoder.wait();
        self.device.shared().remove_stream(self.encoder.progress());
    }
}
