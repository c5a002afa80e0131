//! Prepares operations, and gives them to the driver.

use crate::device::Device;
use crate::kernel::Kernel;
use crate::memory::{Memory, new_stream};
use crate::ops::{self, Build, Step};
use crate::runtime::completion::{self, Event, Progress};
use crate::runtime::driver::SUCCESS;
use crate::runtime::graph::Recording;
use crate::runtime::history::{Given, History};
use crate::runtime::launch::{Addresses, MOST_TENSORS};
use crate::runtime::repeats::Repeats;
use crate::runtime::staging::Staging;
use crate::{Buffer, Input, Output, tape};
use candlewick_core::backend::{self, Device as _, Engine, Signature, check_copy};
use candlewick_core::cache::{Cache, CacheCounters};
use candlewick_core::dispatch::first_that_builds;
use candlewick_core::tape as tape_core;
use candlewick_core::{DType, Element, Error, Op, Result};
use cudarc::driver::sys::CUstream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A queue of work on the GPU: a CUDA stream.
///
/// Dropping it waits for its work; buffers, kernels and graphs may be dropped before.
pub struct Stream {
    pub(crate) device: Device,
    pub(crate) id: u64,
    pub(crate) progress: Arc<Progress>,
    pub(crate) history: History,
    pub(crate) recording: Option<Recording>,
    kernels: Cache<(Op, Option<Engine>), Kernel>,
    event: Event,
    pace: completion::Pace,
    staging: Staging,
    repeats: Repeats,
    pub(crate) blas_workspace: Option<Arc<Memory>>,
}

/// Up to this size the host takes longer to launch a kernel (3.1 to 3.4 us on an H100's host; a graph 2.1) than the GPU takes for
/// it, with the 1.1 us behind a graph that nothing overlaps with.
const BRIEF: f64 = 1.0;
/// The same for whoever has work of his own for each operation: Candle's tensors take the host some 5 us. Nobody knows whether a
/// stream of theirs is idle. As graphs, softmax of 4096x4096 one behind the other took 30 us there instead of 26.6.
const BRIEF_FOR_OTHERS: f64 = 8.0;

/// What to do about several devices.
const ONE_DEVICE: &str = "open the device once, and use clones of it";

impl Stream {
    const KERNELS: usize = 1024;

    /// A stream of its own.
    pub(crate) fn new(device: Device) -> Result<Self> {
        let stream = new_stream(&device.shared().context)?;
        Self::build(device, stream, false)
    }

    /// On a stream of the caller's.
    pub(crate) fn on(device: Device, stream: CUstream) -> Result<Self> {
        Self::build(device, stream, true)
    }

    fn build(device: Device, stream: CUstream, given: bool) -> Result<Self> {
        static STREAMS: AtomicU64 = AtomicU64::new(0);
        let shared = device.shared();
        let (event, fence) = (Event::new(&shared.context)?, Event::new(&shared.context)?);
        let pace = completion::Pace::new(shared.options.spin);
        let progress = Arc::new(Progress::new(stream, given));
        shared.add_stream(progress.clone(), fence);
        Ok(Stream {
            device,
            id: STREAMS.fetch_add(1, Ordering::Relaxed),
            progress,
            history: History::new(),
            recording: None,
            kernels: Cache::new(Self::KERNELS),
            event,
            pace,
            staging: Staging::new(),
            repeats: Repeats::new(),
            blas_workspace: None,
        })
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Hits, misses and evictions of the cache of prepared kernels.
    pub fn cache_counters(&self) -> CacheCounters {
        self.kernels.counters()
    }

    fn build_kernel(&mut self, op: &Op, wanted: Option<Engine>) -> Result<Kernel> {
        // First of all, so that a contradiction is reported as such, whatever engines there are.
        let signature = Signature::new(op, ops::packing(op))?;
        let mut candidates = self.device.engines(op);
        if let Some(wanted) = wanted {
            if !candidates.contains(&wanted) {
                let label = &self.device.shared().context.label;
                return Err(Error::no_engine(op, Some(wanted), label, &candidates));
            }
            candidates = vec![wanted];
        }
        let shared = self.device.shared().clone();
        let workspace = &mut self.blas_workspace;
        let (engine, (work, memory)) = first_that_builds(op, &candidates, |engine| {
            let mut build = Build::new(&shared, workspace);
            let work = ops::work(op, engine, &mut build)?;
            Ok((work, build.into_memory()))
        })?;
        Ok(Kernel::new(self.id, engine, signature, work, memory))
    }

    fn check_copy<T: Element>(&self, op: &'static str, buffer: &Buffer, elements: usize) -> Result<()> {
        self.check_not_recording(op)?;
        let here = self.device.shared().id();
        if buffer.device() != here {
            return Err(Error::WrongOwner {
                op,
                what: "the buffer",
                owner: format!("cuda device {} of this process", buffer.device()),
                here: format!("cuda device {here}"),
                remedy: ONE_DEVICE,
            });
        }
        check_copy::<T>(op, buffer, elements)
    }

    /// What needs the stream to run is refused while it records.
    pub(crate) fn check_not_recording(&self, call: &'static str) -> Result<()> {
        if self.recording.is_none() {
            return Ok(());
        }
        let device = self.device.shared().context.label.clone();
        let message = format!("{call}: the stream records a graph and runs nothing: call it before or after");
        Err(Error::Backend { device, message })
    }

    /// Makes the context current. Where it was lost, the operations since the last wait may be why.
    #[inline]
    pub(crate) fn bind(&self) -> Result<()> {
        let context = &self.device.shared().context;
        if context.is_lost() {
            return Err(context.lost(&self.history));
        }
        if self.progress.is_given() { context.rebind() } else { context.bind() }
    }

    /// Whether these steps of a kernel are better off as a graph, if they come again: not what is to be recorded, nor a launch
    /// that may overlap with work ahead of it and is so long that the host waits for the GPU, not the GPU for the host.
    #[inline]
    fn takes_graphs(&self, kernel: &Kernel, steps: &[Step]) -> bool {
        let brief = match self.progress.is_given() {
            true => BRIEF_FOR_OTHERS,
            false if self.progress.is_idle() => f64::INFINITY,
            false => BRIEF,
        };
        let overlaps = kernel.size() > brief && matches!(steps, [step] if step.is_one_launch());
        self.device.shared().options.repeats_as_graphs && self.recording.is_none() && !overlaps
    }

    /// Everything that was submitted is done, if that is how it ends.
    fn finish(&mut self) -> Result<()> {
        self.bind()?;
        let shared = self.device.shared();
        let count = self.progress.submitted();
        if self.progress.is_given() || !self.progress.has_completed(count) {
            completion::wait(&shared.context, self.progress.stream(), &self.event, &mut self.pace, &self.history)?;
            self.progress.complete(count);
            self.staging.is_idle();
        }
        self.history.clear();
        Ok(())
    }

    /// Copies numbers to an address of the device's, in order with the stream's work.
    fn write_at<T: Element>(&mut self, address: u64, from: &[T]) -> Result<()> {
        self.history.add(Given::Copy("write"));
        // SAFETY: every element type is plain numbers without gaps.
        let bytes = unsafe { std::slice::from_raw_parts(from.as_ptr().cast::<u8>(), size_of_val(from)) };
        let context = &self.device.shared().context;
        let done = self.staging.write(context, self.progress.stream(), address, bytes);
        self.progress.submit();
        done
    }

    /// Waits, then copies numbers from an address of the device's.
    fn read_at<T: Element>(&mut self, address: u64, to: &mut [T]) -> Result<()> {
        // SAFETY: every element type is plain numbers without gaps, and every pattern of bits is one.
        let bytes = unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), size_of_val(to)) };
        let context = &self.device.shared().context;
        let (stream, event, history) = (self.progress.stream(), &self.event, &self.history);
        let pace = &mut self.pace;
        let wait = || completion::wait(context, stream, event, &mut *pace, history);
        self.progress.submit();
        self.staging.read(context, stream, address, bytes, wait)?;
        backend::Stream::wait(self)
    }

    /// Copies memory of the device's, in order with the stream's work.
    pub(crate) fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.history.add(Given::Copy("copy"));
        let stream = self.progress.stream();
        // SAFETY: the callers' memory is as long, and is kept until the stream has passed this.
        let done = self
            .device
            .shared()
            .context
            .run("cuMemcpyDtoDAsync", |driver| unsafe { (driver.cuMemcpyDtoDAsync_v2)(to, from, bytes, stream) });
        self.progress.submit();
        done
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
            owner: format!("cuda device {owner} of this process"),
            here: format!("cuda device {here}"),
            remedy: ONE_DEVICE,
        }
    }

    /// A recorded graph keeps what it uses.
    #[cold]
    fn record(&mut self, kernel: &Kernel, inputs: &[Input<'_>], outputs: &[Output<'_>]) {
        let Some(recording) = &mut self.recording else { return };
        let memory = inputs.iter().chain(outputs.iter().map(Output::as_input)).filter_map(Input::memory);
        recording.add(kernel.clone(), memory.cloned());
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
        let kernel = self.build_kernel(op, engine)?;
        self.kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    #[inline]
    fn encode(&mut self, kernel: &Kernel, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        kernel.check_owner(self.id)?;
        kernel.signature().check(inputs, outputs)?;
        debug_assert!(inputs.len() + outputs.len() <= MOST_TENSORS);
        let shared = self.device.shared();
        let here = shared.id();
        let (mut addresses, mut bits) = (Addresses::new(), 0);
        for argument in inputs.iter().chain(outputs.iter().map(Output::as_input)) {
            if argument.device() != here {
                return Err(self.wrong_device(kernel.op(), inputs, outputs, kernel.signature()));
            }
            bits |= argument.address();
            addresses.push(argument.address());
        }
        let context = &shared.context;
        self.bind()?;
        self.history.add(Given::Op(kernel.op().name(), kernel.engine()));
        let stream = self.progress.stream();
        let steps = kernel.work().steps(bits);
        let graph = if self.takes_graphs(kernel, steps) {
            self.repeats.graph(kernel, steps, &addresses, shared, &self.progress)
        } else {
            None
        };
        let done = match graph {
            // SAFETY: both are valid, and it was recorded for these tensors.
            Some(graph) => match unsafe { (context.driver.cuGraphLaunch)(graph, stream) } {
                SUCCESS => Ok(()),
                code => Err(context.failed(code, "cuGraphLaunch", &self.history)),
            },
            None => steps.iter().try_for_each(|step| step.submit(context, stream, &addresses, &self.history)),
        };
        if self.recording.is_some() {
            self.record(kernel, inputs, outputs);
        } else {
            self.progress.submit();
        }
        done
    }

    fn pack(&mut self, kernel: &Kernel, plain: Input<'_>) -> Result<Buffer> {
        let op = *kernel.op();
        self.check_not_recording("pack")?;
        let (packing, _) = kernel.signature().check_pack(&plain)?;
        let shared = self.device.shared().clone();
        if plain.device() != shared.id() {
            return Err(self.wrong_device(&op, &[plain], &[], kernel.signature()));
        }
        let elements = packing.elements();
        let memory = shared.memory(elements * packing.dtype.bytes())?;
        let packed = Buffer::new(memory, packing.dtype, elements, Some(packing));
        let step: Step = ops::pack(&op, &Build::new(&shared, &mut self.blas_workspace))?;
        let addresses: Addresses = [plain.address(), packed.address()].into_iter().collect();
        shared.context.bind()?;
        self.history.add(Given::Op("pack", crate::FUSED));
        let done = step.submit(&shared.context, self.progress.stream(), &addresses, &self.history);
        self.progress.submit();
        done.map(|()| packed)
    }

    fn write<T: Element>(&mut self, buffer: &mut Buffer, from: &[T]) -> Result<()> {
        self.check_copy::<T>("write", buffer, from.len())?;
        self.write_at(buffer.address(), from)
    }

    fn read<T: Element>(&mut self, buffer: &Buffer, to: &mut [T]) -> Result<()> {
        self.check_copy::<T>("read", buffer, to.len())?;
        self.read_at(buffer.address(), to)
    }

    fn memory(&mut self, bytes: usize) -> Result<tape::Memory> {
        let buffer = self.device.alloc(DType::U8, bytes)?;
        Ok(tape::Memory::new(buffer, self.id))
    }

    fn adopt(&mut self, buffer: Buffer) -> tape::Memory {
        tape::Memory::new(buffer, self.id)
    }

    fn store<T: Element>(&mut self, memory: &tape::Memory, offset: usize, from: &[T]) -> Result<()> {
        self.check_not_recording("store")?;
        let address = memory.part::<T>("store", self.id, offset, from.len())?;
        self.write_at(address, from)
    }

    fn load<T: Element>(&mut self, memory: &tape::Memory, offset: usize, to: &mut [T]) -> Result<()> {
        self.check_not_recording("load")?;
        let address = memory.part::<T>("load", self.id, offset, to.len())?;
        self.read_at(address, to)
    }

    fn record(&mut self, memories: &[tape::Memory], steps: Vec<tape_core::Step<Kernel>>) -> Result<tape::Tape> {
        self.record_steps(memories, steps)
    }

    fn replay(&mut self, tape: &mut tape::Tape) -> Result<()> {
        self.replay_tape(tape)
    }

    fn flush(&mut self) -> Result<()> {
        // The driver has everything already.
        self.bind()
    }

    fn wait(&mut self) -> Result<()> {
        self.check_not_recording("wait")?;
        let done = self.finish();
        self.device.shared().collect();
        done
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.finish();
        self.progress.complete(self.progress.submitted());
        let shared = self.device.shared();
        shared.remove_stream(&self.progress);
        self.staging.destroy(&shared.context);
        self.repeats.destroy(shared);
        self.event.destroy(&shared.context);
        if !self.progress.is_given() {
            // SAFETY: it is this one's own, and its work is done.
            shared.context.try_run(|driver| unsafe { (driver.cuStreamDestroy_v2)(self.progress.stream()) });
        }
        shared.collect();
    }
}
