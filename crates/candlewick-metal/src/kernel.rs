//! Prepared operations.

use crate::memory::{Memory, Shared};
use crate::ops::Work;
use candlewick_core::Op;
use candlewick_core::backend::{Engine, Packing, Signature};
use std::sync::Arc;

/// A prepared operation.
#[derive(Clone)]
pub struct Kernel(pub(crate) Arc<Prepared>);

pub(crate) struct Prepared {
    pub(crate) stream: u64,
    pub(crate) engine: Engine,
    pub(crate) signature: Signature,
    /// Bytes that the operation moves at the least.
    pub(crate) bytes: usize,
    /// Taken when it is dropped.
    pub(crate) work: Option<Work>,
    /// Its workspace and parameters.
    pub(crate) memory: Vec<Memory>,
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Prepared {
    /// Pending work may use the pipelines and the memory.
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.shared.bury(Box::new(work));
        }
        self.memory.clear();
    }
}

impl Kernel {
    /// The operation.
    pub fn op(&self) -> &Op {
        self.0.signature.op()
    }

    /// The engine that runs it.
    pub fn engine(&self) -> Engine {
        self.0.engine
    }

    /// How its packed operand lies, if it has one.
    pub fn packing(&self) -> Option<Packing> {
        self.0.signature.packing()
    }

    /// Kernels that it launches.
    pub fn dispatches(&self) -> usize {
        self.0.work.as_ref().map_or(0, Work::dispatches)
    }
}
