//! Prepares operations and runs them in order.

use crate::{Buffer, CacheCounters, Element, Engine, Error, Input, Op, Output, Result};
use arrayvec::ArrayVec;
use candlewick_core::backend::Stream as _;
use candlewick_cpu as cpu;
use candlewick_empty as empty;

/// An ordered queue of work on one device. A thread that wants to submit has a stream of its own.
#[non_exhaustive]
pub enum Stream {
    /// On the CPU.
    Cpu(cpu::Stream),
    /// On the device that does nothing.
    Empty(empty::Stream),
}

/// A prepared operation: a cheap handle, valid on the stream that prepared it.
#[derive(Clone)]
#[non_exhaustive]
pub enum Kernel {
    /// For the CPU.
    Cpu(cpu::Kernel),
    /// For the device that does nothing.
    Empty(empty::Kernel),
}

/// More arguments than any operation has.
const MAX_ARGUMENTS: usize = 8;

impl Kernel {
    /// The operation.
    pub fn op(&self) -> &Op {
        match self {
            Kernel::Cpu(kernel) => kernel.op(),
            Kernel::Empty(kernel) => kernel.op(),
        }
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        match self {
            Kernel::Cpu(kernel) => kernel.engine(),
            Kernel::Empty(kernel) => kernel.engine(),
        }
    }

    /// Host threads that it runs on, the caller's included.
    pub fn threads(&self) -> usize {
        match self {
            Kernel::Cpu(kernel) => kernel.threads(),
            Kernel::Empty(_) => 1,
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
        match self {
            Stream::Cpu(stream) => stream.prepare(op, engine).map(Kernel::Cpu),
            Stream::Empty(stream) => stream.prepare(op, engine).map(Kernel::Empty),
        }
    }

    /// Submits a prepared operation; arguments come in the order of [`Op::operands`].
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
                let mut host_inputs = ArrayVec::<cpu::Input<'_>, MAX_ARGUMENTS>::new();
                for input in inputs {
                    let Input::Host(input) = input else { return Err(elsewhere(kernel.op(), "cpu")) };
                    host_inputs.push(*input);
                }
                let mut host_outputs = ArrayVec::<cpu::Output<'_>, MAX_ARGUMENTS>::new();
                for output in outputs {
                    let Output::Host(output) = output else { return Err(elsewhere(kernel.op(), "cpu")) };
                    host_outputs.push(output.reborrow());
                }
                stream.encode(kernel, &host_inputs, &mut host_outputs)
            }
            (Stream::Empty(stream), Kernel::Empty(kernel)) => {
                let inputs: ArrayVec<empty::Input<'_>, MAX_ARGUMENTS> = (inputs.iter())
                    .map(|input| match input {
                        Input::Host(input) => empty::Input::of(input),
                        Input::Empty(input) => *input,
                    })
                    .collect();
                let mut outputs: ArrayVec<empty::Output<'_>, MAX_ARGUMENTS> = (outputs.iter())
                    .map(|output| match output {
                        Output::Host(output) => empty::Output::of(output),
                        Output::Empty(output) => empty::Output::of(output),
                    })
                    .collect();
                stream.encode(kernel, &inputs, &mut outputs)
            }
            (Stream::Cpu(_), kernel) => Err(elsewhere(kernel.op(), "cpu")),
            (Stream::Empty(_), kernel) => Err(elsewhere(kernel.op(), "empty")),
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
            (Stream::Empty(stream), Kernel::Empty(kernel), Input::Empty(plain)) => {
                stream.pack(kernel, plain).map(Buffer::Empty)
            }
            (Stream::Empty(stream), Kernel::Empty(kernel), Input::Host(plain)) => {
                stream.pack(kernel, empty::Input::of(&plain)).map(Buffer::Empty)
            }
            (Stream::Cpu(_), kernel, _) => Err(elsewhere(kernel.op(), "cpu")),
            (Stream::Empty(_), kernel, _) => Err(elsewhere(kernel.op(), "empty")),
        }
    }

    /// Copies numbers into a buffer, in order with the stream's work.
    ///
    /// # Errors
    /// Another dtype or length than the buffer's, or a buffer of another device.
    pub fn write<T: Element>(&mut self, buffer: &mut Buffer, from: &[T]) -> Result<()> {
        match (self, buffer) {
            (Stream::Cpu(stream), Buffer::Cpu(buffer)) => stream.write(buffer, from),
            (Stream::Empty(stream), Buffer::Empty(buffer)) => stream.write(buffer, from),
            (stream, _) => Err(wrong_device("write", stream)),
        }
    }

    /// Waits for the stream's work, then copies a buffer's numbers out.
    ///
    /// # Errors
    /// Another dtype or length than the buffer's, a buffer of another device, and whatever failed since the last wait.
    pub fn read<T: Element>(&mut self, buffer: &Buffer, to: &mut [T]) -> Result<()> {
        match (self, buffer) {
            (Stream::Cpu(stream), Buffer::Cpu(buffer)) => stream.read(buffer, to),
            (Stream::Empty(stream), Buffer::Empty(buffer)) => stream.read(buffer, to),
            (stream, _) => Err(wrong_device("read", stream)),
        }
    }

    /// Submits what is pending, and returns.
    ///
    /// # Errors
    /// What the driver says.
    pub fn flush(&mut self) -> Result<()> {
        match self {
            Stream::Cpu(stream) => stream.flush(),
            Stream::Empty(stream) => stream.flush(),
        }
    }

    /// Returns when all work of the stream is done.
    ///
    /// # Errors
    /// Whatever failed since the last wait.
    pub fn wait(&mut self) -> Result<()> {
        match self {
            Stream::Cpu(stream) => stream.wait(),
            Stream::Empty(stream) => stream.wait(),
        }
    }

    /// Hits, misses and evictions of the cache of prepared kernels.
    pub fn cache_counters(&self) -> CacheCounters {
        match self {
            Stream::Cpu(stream) => stream.cache_counters(),
            Stream::Empty(stream) => stream.cache_counters(),
        }
    }

    fn device_name(&self) -> &'static str {
        match self {
            Stream::Cpu(_) => "cpu",
            Stream::Empty(_) => "empty",
        }
    }
}

#[cold]
fn elsewhere(op: &Op, here: &'static str) -> Error {
    Error::WrongOwner {
        op: op.name(),
        what: "the kernel or an argument",
        owner: "another device".into(),
        here: here.into(),
        remedy: "prepare, allocate and encode on one device",
    }
}

#[cold]
fn wrong_device(op: &'static str, stream: &Stream) -> Error {
    Error::WrongOwner {
        op,
        what: "the buffer",
        owner: "another device".into(),
        here: stream.device_name().into(),
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
