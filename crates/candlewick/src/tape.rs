//! Recorded sequences on a stream: what a [`Plan`](crate::Plan) is made of.

use crate::backends::on_each;
use crate::{Buffer, Element, Error, Kernel, Result, Stream};
use candlewick_core::backend::Stream as _;
use candlewick_core::tape::Step;
use candlewick_cpu as cpu;
#[cfg(cuda)]
use candlewick_cuda as cuda;
use candlewick_empty as empty;
#[cfg(metal)]
use candlewick_metal as metal;

/// Memory that one stream alone reaches: a handle.
#[derive(Clone)]
#[non_exhaustive]
pub enum Memory {
    /// Of the CPU.
    Cpu(cpu::Memory),
    /// Of the device that does nothing.
    Empty(empty::Memory),
    /// Of Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Memory),
    /// Of an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Memory),
}

/// A recorded sequence, replayed by the stream that recorded it.
#[allow(clippy::large_enum_variant, reason = "a tape is made once, and seldom moves")]
#[non_exhaustive]
pub enum Tape {
    /// On the CPU.
    Cpu(cpu::Tape),
    /// On the device that does nothing.
    Empty(empty::Tape),
    /// On Apple's GPU.
    #[cfg(metal)]
    Metal(metal::Tape),
    /// Of an NVIDIA GPU.
    #[cfg(cuda)]
    Cuda(cuda::Tape),
}

/// Runs an expression on a stream and another value, which must be of one backend.
macro_rules! with_same {
    ($stream:expr, $enum:ident, $value:expr, ($s:ident, $v:ident) => $body:expr, $otherwise:expr) => {
        match ($stream, $value) {
            (Stream::Cpu($s), $enum::Cpu($v)) => $body,
            (Stream::Empty($s), $enum::Empty($v)) => $body,
            #[cfg(metal)]
            (Stream::Metal($s), $enum::Metal($v)) => $body,
            #[cfg(cuda)]
            (Stream::Cuda($s), $enum::Cuda($v)) => $body,
            _ => $otherwise,
        }
    };
}

/// The backend's own values of a slice of enums, or nothing where one is of another backend.
macro_rules! all_of {
    ($values:expr, $enum:ident::$variant:ident) => {
        $values
            .map(|value| match value {
                $enum::$variant(value) => Some(value.clone()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
    };
}

impl Stream {
    /// Zeroed memory for tapes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn memory(&mut self, bytes: usize) -> Result<Memory> {
        on_each!(Stream => Memory, self, stream => stream.memory(bytes))
    }

    /// A buffer, from [`Stream::pack`] mostly, as memory for tapes.
    ///
    /// # Errors
    /// A buffer of another device.
    pub fn adopt(&mut self, buffer: Buffer) -> Result<Memory> {
        let here = self.device_name();
        match (self, buffer) {
            (Stream::Cpu(stream), Buffer::Cpu(buffer)) => Ok(Memory::Cpu(stream.adopt(buffer))),
            (Stream::Empty(stream), Buffer::Empty(buffer)) => Ok(Memory::Empty(stream.adopt(buffer))),
            #[cfg(metal)]
            (Stream::Metal(stream), Buffer::Metal(buffer)) => Ok(Memory::Metal(stream.adopt(buffer))),
            #[cfg(cuda)]
            (Stream::Cuda(stream), Buffer::Cuda(buffer)) => Ok(Memory::Cuda(stream.adopt(buffer))),
            _ => Err(foreign("adopt", "the buffer", here)),
        }
    }

    /// Copies numbers into a memory from byte `offset` on, in order with the stream's work.
    ///
    /// # Errors
    /// A range that leaves the memory, or a memory of another stream.
    pub fn store<T: Element>(&mut self, memory: &Memory, offset: usize, from: &[T]) -> Result<()> {
        let here = self.device_name();
        with_same!(self, Memory, memory, (stream, memory) => stream.store(memory, offset, from), Err(foreign("store", "the memory", here)))
    }

    /// Waits for the stream's work, then copies numbers out of a memory from byte `offset` on.
    ///
    /// # Errors
    /// A range that leaves the memory, a memory of another stream, and whatever failed since the last wait.
    pub fn load<T: Element>(&mut self, memory: &Memory, offset: usize, to: &mut [T]) -> Result<()> {
        let here = self.device_name();
        with_same!(self, Memory, memory, (stream, memory) => stream.load(memory, offset, to), Err(foreign("load", "the memory", here)))
    }

    /// Makes a sequence ready to be replayed; `memories` are what its places name by number.
    ///
    /// # Errors
    /// Those of [`candlewick_core::tape::check`], kernels or memories of another stream.
    pub fn record(&mut self, memories: &[Memory], steps: &[Step<Kernel>]) -> Result<Tape> {
        let here = self.device_name();
        let (kernels, memories) = (|| steps.iter().map(|step| &step.kernel), memories.iter());
        let recorded = match self {
            Stream::Cpu(stream) => (all_of!(memories, Memory::Cpu))
                .zip(all_of!(kernels(), Kernel::Cpu))
                .map(|(memories, kernels)| stream.record(&memories, zip(kernels, steps)).map(Tape::Cpu)),
            Stream::Empty(stream) => (all_of!(memories, Memory::Empty))
                .zip(all_of!(kernels(), Kernel::Empty))
                .map(|(memories, kernels)| stream.record(&memories, zip(kernels, steps)).map(Tape::Empty)),
            #[cfg(metal)]
            Stream::Metal(stream) => (all_of!(memories, Memory::Metal))
                .zip(all_of!(kernels(), Kernel::Metal))
                .map(|(memories, kernels)| stream.record(&memories, zip(kernels, steps)).map(Tape::Metal)),
            #[cfg(cuda)]
            Stream::Cuda(stream) => (all_of!(memories, Memory::Cuda))
                .zip(all_of!(kernels(), Kernel::Cuda))
                .map(|(memories, kernels)| stream.record(&memories, zip(kernels, steps)).map(Tape::Cuda)),
        };
        recorded.unwrap_or_else(|| Err(foreign("record", "a kernel or a memory", here)))
    }

    /// Submits a recorded sequence whole, in order with the stream's other work, and does not wait.
    ///
    /// # Errors
    /// A tape of another stream, what the driver says.
    #[inline]
    pub fn replay(&mut self, tape: &mut Tape) -> Result<()> {
        let here = self.device_name();
        with_same!(self, Tape, tape, (stream, tape) => stream.replay(tape), Err(foreign("replay", "the tape", here)))
    }
}

/// The steps with a backend's own kernels.
fn zip<K>(kernels: Vec<K>, steps: &[Step<Kernel>]) -> Vec<Step<K>> {
    let step = |(kernel, step): (K, &Step<Kernel>)| Step {
        kernel,
        inputs: step.inputs.clone(),
        outputs: step.outputs.clone(),
        until: step.until.clone(),
    };
    kernels.into_iter().zip(steps).map(step).collect()
}

#[cold]
fn foreign(op: &'static str, what: &'static str, here: &'static str) -> Error {
    Error::WrongOwner {
        op,
        what,
        owner: "another device".into(),
        here: here.into(),
        remedy: "make it on the same stream",
    }
}
