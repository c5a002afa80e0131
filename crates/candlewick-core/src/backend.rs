//! The contract between callers and backends. Every backend crate has this shape:
//! `device.rs`, `stream.rs`, `buffer.rs`, and `ops/` with one file per operation.
//!
//! # What a backend promises
//! 1. **Prepare once, encode often.** [`Stream::prepare`] does everything dear: it checks the descriptor, chooses the
//!    engine, compiles, looks up, makes objects, reserves workspace. It is cached by the descriptor, in a bounded cache
//!    with counters. [`Stream::encode`] then checks its arguments against the prepared [`Signature`] and submits:
//!    it allocates nothing, makes no object and no string, takes no lock, looks nothing up and does not wait. One exception:
//!    for a kernel that comes again with the same tensors a backend may make, once, what it is submitted by from then on, and
//!    find it by their addresses.
//! 2. **Order.** Work of one stream happens in the order of its `encode` calls, as far as anyone can see. Streams are
//!    independent of each other: a caller that moves data between them waits in between.
//! 3. **Nothing waits unless the caller asks.** [`Stream::read`] and [`Stream::wait`] wait; [`Stream::flush`] submits
//!    what is pending and returns. A backend without a queue of its own (the CPU) runs the work inside `encode`.
//! 4. **Errors.** A wrong descriptor is an error of `prepare`, a wrong argument one of `encode`, and both name the
//!    operation. What fails later, on the device, is the error of the next call that waits.
//! 5. **Results.** Every engine agrees with [`crate::reference`] within [`Op::error_bound`], accumulates in f32, and
//!    passes NaN and infinities through as IEEE 754 says. An output that is not accumulated into is written whole and
//!    never read.
//! 6. **Empty operands** are legal: an empty output is left alone, an empty sum is zero.
//!
//! # What a caller promises
//! Nothing that the types do not check: inputs are borrowed shared and outputs exclusively while `encode` runs, and
//! buffers whose work is pending are kept alive by the backend.
//!
//! # What later parts build on this, without changing it
//! A recorded plan is a list of (kernel, places) that one stream keeps as a tape, in memory laid out beforehand; a gradient
//! is another list of operations. A Metal or CUDA backend makes `Input` a buffer and an offset, the CPU makes it a slice.

#[cfg(doc)]
use crate::Error;
pub use crate::signature::{Signature, check_copy};
use crate::tape::Step;
use crate::{DType, Element, Op, Quant, Result};
use std::fmt;

/// One way to run an operation: a backend's name and the way's, printed `cpu/avx512`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Engine {
    backend: &'static str,
    name: &'static str,
}

impl Engine {
    /// For backends, which declare theirs as constants.
    pub const fn new(backend: &'static str, name: &'static str) -> Self {
        Engine { backend, name }
    }

    /// `cpu`, `metal`, ..
    pub const fn backend(self) -> &'static str {
        self.backend
    }

    /// The part after the slash.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.backend, self.name))
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What users type: `cpu`, `cuda:0`, `metal`.
    pub id: String,
    /// What the hardware calls itself.
    pub name: String,
    /// Facts for people, as name and value: cores, instruction sets, memory.
    pub facts: Vec<(&'static str, String)>,
    /// Whether `encode` returns before the work is done. Where it does not, enqueuing an operation is running it.
    pub asynchronous: bool,
    /// Every engine that this device offers for some operation.
    pub engines: Vec<Engine>,
}

/// The rates that nothing on a device exceeds, as measured there: what a time is compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Host threads that took part, on a CPU.
    pub threads: usize,
    /// Floating-point operations per second by dtype of the operands, a multiply-add counted as two.
    pub flops: [(DType, f64); 3],
    /// Bytes per second against the size of the data in bytes, smallest first: what fits a cache is read faster.
    pub bandwidth: Vec<(f64, f64)>,
    /// Seconds to start work without content and to see that it is done: what waking the threads costs.
    pub wake: f64,
}

impl Limits {
    /// The least seconds that `op` can take: for its arithmetic or for its data, whichever is longer.
    pub fn seconds(&self, op: &Op) -> f64 {
        let rate = self.flops.iter().find(|(dtype, _)| *dtype == op.dtype()).map_or(f64::INFINITY, |(_, rate)| *rate);
        (op.flops() / rate).max(op.bytes() / self.bandwidth_at(op.bytes()))
    }

    /// Bytes per second for data of `bytes`: of the largest measured size that is not larger, so that it is a bound.
    pub fn bandwidth_at(&self, bytes: f64) -> f64 {
        let smaller = self.bandwidth.iter().rfind(|(size, _)| *size <= bytes).or(self.bandwidth.first());
        smaller.map_or(f64::INFINITY, |(_, rate)| *rate)
    }
}

/// A device of a backend: a cheap handle, shared by threads.
pub trait Device: Clone + Send + Sync + Sized + 'static {
    /// Memory of the device with a dtype and a length. Dropping it while work is pending is allowed.
    type Buffer: Argument + Send + Sync;
    /// An ordered queue of work.
    type Stream: Stream<Device = Self>;

    /// What the device is.
    fn info(&self) -> DeviceInfo;

    /// The engines that can run `op` here, the one that `prepare` would choose first.
    fn engines(&self, op: &Op) -> Vec<Engine>;

    /// Memory for `elements` numbers, all zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn alloc(&self, dtype: DType, elements: usize) -> Result<Self::Buffer>;

    /// A new stream.
    ///
    /// # Errors
    /// What the driver says.
    fn stream(&self) -> Result<Self::Stream>;

    /// Measures the device's limits now, with at most `threads` host threads where those do the work. Takes up to a
    /// second.
    ///
    /// # Errors
    /// What the driver says.
    fn measure_limits(&self, threads: usize) -> Result<Limits>;
}

/// An ordered queue of work on one device. Not shared: a thread that wants to submit has a stream of its own.
pub trait Stream: Send {
    /// Its device.
    type Device: Device<Stream = Self>;
    /// A prepared operation: a cheap handle, valid on the stream that prepared it.
    type Kernel: Clone;
    /// A tensor that is read, borrowed for `'a`.
    type Input<'a>: Argument + Copy;
    /// A tensor that is written, borrowed for `'a`.
    type Output<'a>: Argument;
    /// Memory that this stream alone reaches: a handle.
    type Memory: Clone + Send;
    /// A recorded sequence, which keeps its memories and kernels.
    type Tape: Send;

    /// Does everything dear for `op`, on the engine that the dispatch table chooses, or on `engine`.
    ///
    /// # Errors
    /// A descriptor that contradicts itself, or no such engine for it here.
    fn prepare(&mut self, op: &Op, engine: Option<Engine>) -> Result<Self::Kernel>;

    /// Submits a prepared operation. Arguments come in the order of [`Op::operands`].
    ///
    /// # Errors
    /// Arguments that are not what the operation was prepared for; nothing is written then.
    fn encode(
        &mut self,
        kernel: &Self::Kernel,
        inputs: &[Self::Input<'_>],
        outputs: &mut [Self::Output<'_>],
    ) -> Result<()>;

    /// Brings the frozen operand of a kernel with a [`crate::op::Format::Packed`] operand into the order that the
    /// kernel reads. The result serves every kernel of the same operation, engine and sizes, whatever its rows.
    ///
    /// # Errors
    /// A kernel without a packed operand, or a source that is not the plain operand.
    fn pack(&mut self, kernel: &Self::Kernel, plain: Self::Input<'_>) -> Result<<Self::Device as Device>::Buffer>;

    /// Copies numbers into a buffer, in order with the stream's work.
    ///
    /// # Errors
    /// Another dtype or length than the buffer's.
    fn write<T: Element>(&mut self, buffer: &mut <Self::Device as Device>::Buffer, from: &[T]) -> Result<()>;

    /// Waits for the stream's work, then copies a buffer's numbers out.
    ///
    /// # Errors
    /// Another dtype or length than the buffer's, and whatever failed since the last wait.
    fn read<T: Element>(&mut self, buffer: &<Self::Device as Device>::Buffer, to: &mut [T]) -> Result<()>;

    /// Zeroed memory for tapes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn memory(&mut self, bytes: usize) -> Result<Self::Memory>;

    /// A buffer, from [`Stream::pack`] mostly, as memory for tapes.
    fn adopt(&mut self, buffer: <Self::Device as Device>::Buffer) -> Self::Memory;

    /// Copies numbers into a memory from byte `offset` on, in order with the stream's work.
    ///
    /// # Errors
    /// A range that leaves the memory, or a memory of another stream.
    fn store<T: Element>(&mut self, memory: &Self::Memory, offset: usize, from: &[T]) -> Result<()>;

    /// Waits for the stream's work, then copies numbers out of a memory from byte `offset` on.
    ///
    /// # Errors
    /// A range that leaves the memory, a memory of another stream, and whatever failed since the last wait.
    fn load<T: Element>(&mut self, memory: &Self::Memory, offset: usize, to: &mut [T]) -> Result<()>;

    /// Makes a sequence ready to be replayed; `memories` are what its places name by number.
    ///
    /// # Errors
    /// Those of [`crate::tape::check`], kernels or memories of another stream.
    fn record(&mut self, memories: &[Self::Memory], steps: Vec<Step<Self::Kernel>>) -> Result<Self::Tape>;

    /// Submits a recorded sequence whole, in order with the stream's other work, and does not wait.
    ///
    /// # Errors
    /// A tape of another stream, what the driver says.
    fn replay(&mut self, tape: &mut Self::Tape) -> Result<()>;

    /// Submits what is pending, and returns.
    ///
    /// # Errors
    /// What the driver says.
    fn flush(&mut self) -> Result<()>;

    /// Returns when all work of the stream is done.
    ///
    /// # Errors
    /// Whatever failed since the last wait.
    fn wait(&mut self) -> Result<()>;
}

/// What `encode` can see of a tensor before it touches it.
pub trait Argument {
    /// The dtype of its elements.
    fn dtype(&self) -> DType;
    /// Elements from its first to the end of its memory.
    fn elements(&self) -> usize;
    /// How it was packed, if it was.
    fn packing(&self) -> Option<Packing>;
}

/// Makes [`Argument`]s of types that hold the three facts in fields, their own or those of a field:
/// `arguments!(Buffer => |it| it, Output<'_> => |it| it.0)`.
#[macro_export]
macro_rules! arguments {
    ($($type:ty => |$it:ident| $fields:expr),* $(,)?) => {$(
        impl $crate::backend::Argument for $type {
            #[inline]
            fn dtype(&self) -> $crate::DType {
                let $it = self;
                $fields.dtype
            }
            #[inline]
            fn elements(&self) -> usize {
                let $it = self;
                $fields.elements
            }
            #[inline]
            fn packing(&self) -> Option<$crate::backend::Packing> {
                let $it = self;
                $fields.packing
            }
        }
    )*};
}

/// The order of a packed [k, n] operand: two packings are interchangeable exactly where they are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    /// Rows: the length of the sum.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Columns of a panel.
    pub panel: usize,
    /// How many successive k lie side by side, 2 for instructions that multiply pairs.
    pub interleave: usize,
    /// Whether the plain operand was stored [n, k]: a square W packed for a forward is not W packed for a backward.
    pub transposed: bool,
    /// Of the elements; of quantised blocks U8.
    pub dtype: DType,
    /// The format of quantised blocks.
    pub quant: Option<Quant>,
}

impl Packing {
    /// Elements of the plain operand, which are bytes of quantised blocks: a packed one has as many at least.
    pub fn elements(&self) -> usize {
        self.quant.map_or(self.k, |format| format.row_bytes(self.k)).saturating_mul(self.n)
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quant {
            Some(format) => write!(f, "{format} ")?,
            None => write!(f, "{} ", self.dtype)?,
        }
        write!(f, "[{}, {}] packed in panels of {}", self.k, self.n, self.panel)?;
        if self.interleave > 1 {
            write!(f, ", {} interleaved", self.interleave)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MatMul, Softmax};

    #[test]
    fn the_slower_of_arithmetic_and_data_is_the_limit() {
        let flops = DType::ALL.map(|dtype| (dtype, 100e9));
        let limits = Limits { threads: 1, flops, bandwidth: vec![(1e3, 100e9), (1e6, 10e9)], wake: 0.0 };
        assert_eq!(limits.bandwidth_at(10.0), 100e9);
        assert_eq!(limits.bandwidth_at(999e3), 100e9);
        assert_eq!(limits.bandwidth_at(1e6), 10e9);
        let product = Op::from(MatMul::new(512, 512, 512, DType::F32));
        assert_eq!(limits.seconds(&product), product.flops() / 100e9);
        let rows = Op::from(Softmax::new(512, 512, DType::F32));
        assert_eq!(limits.seconds(&rows), rows.bytes() / 10e9);
    }
}
