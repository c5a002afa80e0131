//! Prepares operations and runs them in order.

use crate::backends::{on_both, on_each, on_each_input, on_each_output};
use crate::{Buffer, CacheCounters, Element, Engine, Error, Input, Op, Output, Result};
use arrayvec::ArrayVec;
#[cfg(any(metal, cuda))]
use candlewick_core::backend::{self, Argument as _};
use candlewick_core::backend::{Packing, Stream as _};
use candlewick_cpu as cpu;
#[cfg(cuda)]
use candlewick_cuda as cuda;
use candlewick_empty as empty;
#[cfg(metal)]
use candlewick_metal as metal;
#[cfg(any(metal, cuda))]
use half::{bf16, f16};

/// An ordered queue of work on one device. A thread that wants to submit has a stream of its own.
#[allow(clippy::large_enum_variant, reason = "a stream is made once, and seldom moves")]
#[non_exhaustive]
pub enum Stream {
    /// On the CPU.
    Cpu(cpu::Stream),
    /// On the device that does nothing.
    Empty(empty::Stream),
    /// On Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Stream),
    /// On an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Stream),
}

/// A prepared operation: a cheap handle, valid on the stream that prepared it.
#[derive(Clone)]
#[non_exhaustive]
pub enum Kernel {
    /// For the CPU.
    Cpu(cpu::Kernel),
    /// For the device that does nothing.
    Empty(empty::Kernel),
    /// For Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Kernel),
    /// For an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Kernel),
}

/// More arguments than any operation has.
const MAX_ARGUMENTS: usize = 8;

impl Kernel {
    /// The operation.
    pub fn op(&self) -> &Op {
        on_each!(Kernel, self, kernel => kernel.op())
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        on_each!(Kernel, self, kernel => kernel.engine())
    }

    /// How its packed operand lies, if it has one.
    pub fn packing(&self) -> Option<Packing> {
        on_each!(Kernel, self, kernel => kernel.packing())
    }

    /// Host threads that it runs on, the caller's included.
    pub fn threads(&self) -> usize {
        match self {
            Kernel::Cpu(kernel) => kernel.threads(),
            _ => 1,
        }
    }
}

impl Stream {
    /// Does everything dear for `op`, on the engine that the dispatcher chooses. Cached by the descriptor.
    ///
    /// # Errors
    /// A descriptor that contradicts itself.
    pub fn prepare(&mut self, op: impl Into<Op>) -> Result<Kernel> {
        self.prepare_op(&op.into(), None)
    }

    /// As [`Stream::prepare`], on one engine.
    ///
    /// # Errors
    /// A descriptor that contradicts itself, or no such engine for it here.
    pub fn prepare_with(&mut self, op: impl Into<Op>, engine: Engine) -> Result<Kernel> {
        self.prepare_op(&op.into(), Some(engine))
    }

    fn prepare_op(&mut self, op: &Op, engine: Option<Engine>) -> Result<Kernel> {
        on_each!(Stream => Kernel, self, stream => stream.prepare(op, engine))
    }

    /// Submits a prepared operation; arguments come in the order of [`Op::operands`]. The caller's slices are legal on the
    /// CPU; a GPU reads and writes [`Buffer`]s.
    ///
    /// # Errors
    /// Arguments that are not what the operation was prepared for; nothing is written then.
    #[inline]
    pub fn encode(&mut self, kernel: &Kernel, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        let (read, written) = (inputs.len(), outputs.len());
        if read > MAX_ARGUMENTS || written > MAX_ARGUMENTS {
            return Err(too_many(kernel, read, written));
        }
        match (self, kernel) {
            (Stream::Cpu(stream), Kernel::Cpu(kernel)) => {
                let inputs = gather(inputs.iter().map(|input| match input {
                    Input::Host(input) => Some(*input),
                    _ => None,
                }));
                let outputs = gather(outputs.iter_mut().map(|output| match output {
                    Output::Host(output) => Some(output.reborrow()),
                    _ => None,
                }));
                let (Some(inputs), Some(mut outputs)) = (inputs, outputs) else {
                    return Err(elsewhere(kernel.op(), "cpu"));
                };
                stream.encode(kernel, &inputs, &mut outputs)
            }
            (Stream::Empty(stream), Kernel::Empty(kernel)) => {
                // Arguments of any device will do where nothing is read.
                let inputs: ArrayVec<empty::Input<'_>, MAX_ARGUMENTS> =
                    inputs.iter().map(|input| on_each_input!(input, input => empty::Input::of(input))).collect();
                let mut outputs: ArrayVec<empty::Output<'_>, MAX_ARGUMENTS> =
                    outputs.iter().map(|output| on_each_output!(output, output => empty::Output::of(output))).collect();
                stream.encode(kernel, &inputs, &mut outputs)
            }
            #[cfg(metal)]
            (Stream::Metal(stream), Kernel::Metal(kernel)) => {
                let inputs = gather(inputs.iter().map(|input| match input {
                    Input::Metal(input) => Some(*input),
                    _ => None,
                }));
                let outputs = gather(outputs.iter_mut().map(|output| match output {
                    Output::Metal(output) => Some(output.reborrow()),
                    _ => None,
                }));
                let (Some(inputs), Some(mut outputs)) = (inputs, outputs) else {
                    return Err(elsewhere(kernel.op(), "metal"));
                };
                stream.encode(kernel, &inputs, &mut outputs)
            }
            #[cfg(cuda)]
            (Stream::Cuda(stream), Kernel::Cuda(kernel)) => {
                let inputs = gather(inputs.iter().map(|input| match input {
                    Input::Cuda(input) => Some(*input),
                    _ => None,
                }));
                let outputs = gather(outputs.iter_mut().map(|output| match output {
                    Output::Cuda(output) => Some(output.reborrow()),
                    _ => None,
                }));
                let (Some(inputs), Some(mut outputs)) = (inputs, outputs) else {
                    return Err(elsewhere(kernel.op(), "cuda"));
                };
                stream.encode(kernel, &inputs, &mut outputs)
            }
            (stream, kernel) => Err(elsewhere(kernel.op(), stream.device_name())),
        }
    }

    /// Prepares, which costs a look-up after the first time, and encodes.
    ///
    /// # Errors
    /// Those of both.
    pub fn run(&mut self, op: impl Into<Op>, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        let kernel = self.prepare(op)?;
        self.encode(&kernel, inputs, outputs)
    }

    /// Brings the frozen operand of a kernel with a packed operand into the order that the kernel reads. The result
    /// serves every kernel of the same operation, engine and sizes, whatever its rows.
    ///
    /// # Errors
    /// A kernel without a packed operand, or a source that is not the plain operand.
    pub fn pack(&mut self, kernel: &Kernel, plain: Input<'_>) -> Result<Buffer> {
        match (self, kernel, plain) {
            (Stream::Cpu(stream), Kernel::Cpu(kernel), Input::Host(plain)) => {
                stream.pack(kernel, plain).map(Buffer::Cpu)
            }
            (Stream::Empty(stream), Kernel::Empty(kernel), plain) => {
                let plain = on_each_input!(&plain, plain => empty::Input::of(plain));
                stream.pack(kernel, plain).map(Buffer::Empty)
            }
            #[cfg(metal)]
            (Stream::Metal(stream), Kernel::Metal(kernel), Input::Metal(plain)) => {
                stream.pack(kernel, plain).map(Buffer::Metal)
            }
            #[cfg(metal)]
            (Stream::Metal(stream), Kernel::Metal(kernel), Input::Host(plain)) => {
                let copy = upload(kernel.op(), &stream.device().clone(), stream, plain)?;
                stream.pack(kernel, (&copy).into()).map(Buffer::Metal)
            }
            #[cfg(cuda)]
            (Stream::Cuda(stream), Kernel::Cuda(kernel), Input::Cuda(plain)) => {
                stream.pack(kernel, plain).map(Buffer::Cuda)
            }
            #[cfg(cuda)]
            (Stream::Cuda(stream), Kernel::Cuda(kernel), Input::Host(plain)) => {
                let copy = upload(kernel.op(), &stream.device().clone(), stream, plain)?;
                stream.pack(kernel, (&copy).into()).map(Buffer::Cuda)
            }
            (stream, kernel, _) => Err(elsewhere(kernel.op(), stream.device_name())),
        }
    }

    /// Copies numbers into a buffer, in order with the stream's work.
    ///
    /// # Errors
    /// Another dtype or length than the buffer's, or a buffer of another device.
    pub fn write<T: Element>(&mut self, buffer: &mut Buffer, from: &[T]) -> Result<()> {
        let here = self.device_name();
        on_both!(self, buffer, (stream, buffer) => stream.write(buffer, from), Err(wrong_device("write", here)))
    }

    /// Waits for the stream's work, then copies a buffer's numbers out.
    ///
    /// # Errors
    /// Another dtype or length than the buffer's, a buffer of another device, and whatever failed since the last wait.
    pub fn read<T: Element>(&mut self, buffer: &Buffer, to: &mut [T]) -> Result<()> {
        let here = self.device_name();
        on_both!(self, buffer, (stream, buffer) => stream.read(buffer, to), Err(wrong_device("read", here)))
    }

    /// Submits what is pending, and returns.
    ///
    /// # Errors
    /// What the driver says.
    pub fn flush(&mut self) -> Result<()> {
        on_each!(Stream, self, stream => stream.flush())
    }

    /// Returns when all work of the stream is done.
    ///
    /// # Errors
    /// Whatever failed since the last wait.
    pub fn wait(&mut self) -> Result<()> {
        on_each!(Stream, self, stream => stream.wait())
    }

    /// Hits, misses and evictions of the cache of prepared kernels.
    pub fn cache_counters(&self) -> CacheCounters {
        on_each!(Stream, self, stream => stream.cache_counters())
    }

    pub(crate) fn device_name(&self) -> &'static str {
        match self {
            Stream::Cpu(_) => "cpu",
            Stream::Empty(_) => "empty",
            #[cfg(metal)]
            Stream::Metal(_) => "metal",
            #[cfg(cuda)]
            Stream::Cuda(_) => "cuda",
        }
    }
}

/// All of them, or nothing where one lies elsewhere.
#[inline]
fn gather<T>(arguments: impl Iterator<Item = Option<T>>) -> Option<ArrayVec<T, MAX_ARGUMENTS>> {
    let mut gathered = ArrayVec::new();
    for argument in arguments {
        gathered.push(argument?);
    }
    Some(gathered)
}

/// A device's copy of the caller's numbers.
#[cfg(any(metal, cuda))]
fn upload<D: backend::Device>(op: &Op, device: &D, stream: &mut D::Stream, from: cpu::Input<'_>) -> Result<D::Buffer> {
    let mut copy = device.alloc(from.dtype(), from.elements())?;
    if let Some(from) = from.as_slice::<f32>() {
        stream.write(&mut copy, from)?;
    } else if let Some(from) = from.as_slice::<f16>() {
        stream.write(&mut copy, from)?;
    } else if let Some(from) = from.as_slice::<bf16>() {
        stream.write(&mut copy, from)?;
    } else {
        // A slice of numbers is of one of these; what remains is a buffer that the CPU has packed.
        let (expected, found) = ("not packed".into(), from.packing().map_or_else(String::new, |it| it.to_string()));
        return Err(Error::Format { op: op.name(), operand: "the packed operand", expected, found });
    }
    Ok(copy)
}

#[cold]
fn elsewhere(op: &Op, here: &'static str) -> Error {
    Error::WrongOwner {
        op: op.name(),
        what: "the kernel or an argument",
        owner: "another device, or the caller's own memory".into(),
        here: here.into(),
        remedy: "prepare, allocate and encode on one device; bring numbers to a GPU with `Stream::write`",
    }
}

#[cold]
fn wrong_device(op: &'static str, here: &'static str) -> Error {
    Error::WrongOwner {
        op,
        what: "the buffer",
        owner: "another device".into(),
        here: here.into(),
        remedy: "allocate it on the stream's device",
    }
}

#[cold]
fn too_many(kernel: &Kernel, inputs: usize, outputs: usize) -> Error {
    let (role, found) = if inputs > MAX_ARGUMENTS { ("inputs", inputs) } else { ("outputs", outputs) };
    let operands =
        kernel.op().operands().map(|operands| if role == "inputs" { operands.inputs } else { operands.outputs });
    let operands = operands.unwrap_or_default();
    let names: Vec<&str> = operands.iter().map(|operand| operand.name).collect();
    Error::ArgumentCount { op: kernel.op().name(), role, expected: operands.len(), found, names: names.join(", ") }
}
