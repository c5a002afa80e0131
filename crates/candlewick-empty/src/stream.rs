//! Checks every operation and drops it.

use crate::{Buffer, Device, Input, NOTHING, Output};
use candlewick_core::backend::{self, Argument, Engine, Packing, Signature};
use candlewick_core::cache::{Cache, CacheCounters};
use candlewick_core::tape::{self, Step};
use candlewick_core::{DType, Element, Error, Op, Result};
use std::sync::Arc;

/// A queue that holds nothing.
#[derive(Debug)]
pub struct Stream {
    id: u64,
    kernels: Cache<Op, Kernel>,
    encoded: u64,
}

/// A prepared operation.
#[derive(Clone, Debug)]
pub struct Kernel(Arc<Prepared>);

/// Memory that is not there: its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory(usize);

/// A recorded sequence: how many operations it has.
#[derive(Debug)]
pub struct Tape(u64);

#[derive(Debug)]
struct Prepared {
    stream: u64,
    signature: Signature,
}

impl Stream {
    const KERNELS: usize = 1024;

    pub(crate) fn new(id: u64) -> Self {
        Stream { id, kernels: Cache::new(Self::KERNELS), encoded: 0 }
    }

    /// How many operations were encoded.
    pub fn encoded(&self) -> u64 {
        self.encoded
    }

    /// Hits, misses and evictions of the cache of prepared kernels.
    pub fn cache_counters(&self) -> CacheCounters {
        self.kernels.counters()
    }
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
        NOTHING
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
        if let Some(wanted) = engine.filter(|&engine| engine != NOTHING) {
            return Err(Error::NoEngine {
                op: op.name(),
                wanted: wanted.to_string().into(),
                device: "empty".into(),
                descriptor: op.to_string().into(),
                available: NOTHING.to_string().into(),
                remedy: "leave the engine to the dispatcher",
            });
        }
        if let Some(kernel) = self.kernels.get(op) {
            return Ok(kernel.clone());
        }
        let packing = op.packed_factor().map(|factor| Packing {
            k: factor.k,
            n: factor.n,
            panel: 1,
            interleave: 1,
            transposed: factor.transposed,
            dtype: if factor.quant.is_some() { DType::U8 } else { op.dtype() },
            quant: factor.quant,
        });
        let kernel = Kernel(Arc::new(Prepared { stream: self.id, signature: Signature::new(op, packing)? }));
        self.kernels.insert(*op, kernel.clone());
        Ok(kernel)
    }

    #[inline]
    fn encode(&mut self, kernel: &Kernel, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        if kernel.0.stream != self.id {
            return Err(Error::wrong_stream(kernel.op(), kernel.0.stream, self.id));
        }
        kernel.0.signature.check(inputs, outputs)?;
        self.encoded += 1;
        Ok(())
    }

    fn pack(&mut self, kernel: &Kernel, plain: Input<'_>) -> Result<Buffer> {
        let (packing, _) = kernel.0.signature.check_pack(&plain)?;
        Ok(Buffer { dtype: packing.dtype, elements: plain.elements(), packing: Some(packing) })
    }

    fn write<T: Element>(&mut self, _: &mut Buffer, _: &[T]) -> Result<()> {
        Ok(())
    }

    fn read<T: Element>(&mut self, _: &Buffer, _: &mut [T]) -> Result<()> {
        Ok(())
    }

    fn memory(&mut self, bytes: usize) -> Result<Memory> {
        Ok(Memory(bytes))
    }

    fn adopt(&mut self, buffer: Buffer) -> Memory {
        Memory(buffer.elements() * buffer.dtype().bytes())
    }

    fn store<T: Element>(&mut self, _: &Memory, _: usize, _: &[T]) -> Result<()> {
        Ok(())
    }

    fn load<T: Element>(&mut self, _: &Memory, _: usize, _: &mut [T]) -> Result<()> {
        Ok(())
    }

    fn record(&mut self, memories: &[Memory], steps: Vec<Step<Kernel>>) -> Result<Tape> {
        let sizes: Vec<usize> = memories.iter().map(|memory| memory.0).collect();
        for step in &steps {
            if step.kernel.0.stream != self.id {
                return Err(Error::wrong_stream(step.kernel.op(), step.kernel.0.stream, self.id));
            }
            tape::check(&step.kernel.0.signature, step, &sizes)?;
        }
        Ok(Tape(steps.len() as u64))
    }

    fn replay(&mut self, tape: &mut Tape) -> Result<()> {
        self.encoded += tape.0;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        Ok(())
    }
}
