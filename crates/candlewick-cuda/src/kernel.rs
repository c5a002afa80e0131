//! A prepared operation.

use crate::memory::Memory;
use crate::ops::Work;
use candlewick_core::backend::{Engine, Packing, Signature};
use candlewick_core::{Error, Op, Result};
use std::sync::Arc;

/// What takes the GPU some 2 us (one H100; bf16 products of 256 rows, columns and terms, softmax of 32 rows of 512).
const BRIEF_BYTES: f64 = 1048576.0;
const BRIEF_FLOPS: f64 = 5e7;

/// A prepared operation.
#[derive(Clone)]
pub struct Kernel(Arc<Prepared>);

struct Prepared {
    stream: u64,
    engine: Engine,
    signature: Signature,
    work: Work,
    /// How often that.
    size: f64,
    /// Its workspaces, which its launches refer to.
    _memory: Vec<Arc<Memory>>,
}

impl Kernel {
    /// Of the stream of that number; with the memory that its launches refer to.
    pub(crate) fn new(
        stream: u64,
        engine: Engine,
        signature: Signature,
        work: Work,
        _memory: Vec<Arc<Memory>>,
    ) -> Self {
        let op = signature.op();
        let size = (op.bytes() / BRIEF_BYTES).max(op.flops() / BRIEF_FLOPS);
        Kernel(Arc::new(Prepared { stream, engine, signature, work, size, _memory }))
    }

    /// The operation.
    pub fn op(&self) -> &Op {
        self.0.signature.op()
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        self.0.engine
    }

    /// Which of the engine's ways it is: the same engine runs other sizes otherwise.
    pub fn variant(&self) -> &'static str {
        self.0.work.variant
    }

    /// How its packed operand lies, if it has one.
    pub fn packing(&self) -> Option<Packing> {
        self.0.signature.packing()
    }

    #[inline]
    pub(crate) fn check_owner(&self, stream: u64) -> Result<()> {
        if self.0.stream == stream { Ok(()) } else { Err(Error::wrong_stream(self.op(), self.0.stream, stream)) }
    }

    #[inline]
    pub(crate) fn signature(&self) -> &Signature {
        &self.0.signature
    }

    #[inline]
    pub(crate) fn work(&self) -> &Work {
        &self.0.work
    }

    /// How much there is to do; 1 takes the GPU some 2 us.
    #[inline]
    pub(crate) fn size(&self) -> f64 {
        self.0.size
    }

    /// The same for its clones alone, while one of them is there.
    #[inline]
    pub(crate) fn identity(&self) -> u64 {
        Arc::as_ptr(&self.0).addr() as u64
    }

    /// Kernels that it launches.
    pub fn dispatches(&self) -> usize {
        self.0.work.launches()
    }
}
