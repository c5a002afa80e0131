//! Which engines each operation has here, and what it becomes on them: one file per operation.

mod attention;
mod lora;
mod matmul;
mod rms_norm;
mod softmax;

use crate::chip::Chip;
use crate::cublaslt::Product;
use crate::memory::{Memory, Shared};
use crate::program;
use crate::runtime::context::Context;
use crate::runtime::driver::SUCCESS;
use crate::runtime::history::History;
use crate::runtime::launch::{Addresses, Launch, submit_all};
use crate::{CUBLASLT, FUSED, MMA, fused, mma};
use candlewick_core::backend::{Engine, Packing};
use candlewick_core::{Error, Op, Result};
use candlewick_kernels::{Alignment, Place};
use cudarc::driver::sys::CUstream;
use std::sync::Arc;

/// Part of a prepared operation.
pub(crate) enum Step {
    /// Own kernels, in order.
    Launches(Vec<Launch>),
    /// A product of cuBLASLt's.
    Product(Box<Product>),
}

impl Step {
    /// Gives it to the driver.
    ///
    /// # Errors
    /// What it or cuBLASLt says.
    #[inline]
    pub(crate) fn submit(
        &self,
        context: &Context,
        stream: CUstream,
        addresses: &Addresses,
        history: &History,
    ) -> Result<()> {
        match self {
            Step::Launches(launches) => match submit_all(launches, context, stream, addresses) {
                SUCCESS => Ok(()),
                code => Err(context.failed(code, "cuLaunchKernel", history)),
            },
            Step::Product(product) => product.submit(context, stream, addresses, history),
        }
    }

    /// Whether it is a single launch of an own kernel.
    pub(crate) fn is_one_launch(&self) -> bool {
        matches!(self, Step::Launches(launches) if launches.len() == 1)
    }

    /// Kernels that it launches, as far as is known: cuBLASLt's are its business.
    fn launches(&self) -> usize {
        match self {
            Step::Launches(launches) => launches.len(),
            Step::Product(_) => 1,
        }
    }
}

/// A prepared operation on one engine.
pub(crate) struct Work {
    /// What this way is called, within its operation and engine.
    pub(crate) variant: &'static str,
    /// For tensors whose addresses are all multiples of so many bytes.
    pub(crate) aligned: Option<(u64, Vec<Step>)>,
    /// For any tensors.
    pub(crate) any: Vec<Step>,
}

impl Work {
    /// Products of cuBLASLt's, which look at the addresses themselves.
    pub(crate) fn products(steps: Vec<Step>) -> Self {
        Work { variant: "products", aligned: None, any: steps }
    }

    /// The steps for tensors at these addresses, whose bits are joined.
    #[inline]
    pub(crate) fn steps(&self, bits: u64) -> &[Step] {
        match &self.aligned {
            Some((alignment, steps)) if bits.is_multiple_of(*alignment) => steps,
            _ => &self.any,
        }
    }

    /// The same, alone.
    pub(crate) fn into_steps(self, bits: u64) -> Vec<Step> {
        match self.aligned {
            Some((alignment, steps)) if bits.is_multiple_of(alignment) => steps,
            _ => self.any,
        }
    }

    /// Kernels that it launches for well-aligned tensors.
    pub(crate) fn launches(&self) -> usize {
        self.steps(0).iter().map(Step::launches).sum()
    }
}

/// What the choice of engines depends on.
#[derive(Clone, Copy)]
pub(crate) struct Here<'a> {
    pub(crate) chip: &'a Chip,
    /// Whether cuBLASLt is there.
    pub(crate) blas: bool,
}

impl Here<'_> {
    fn has_mma(&self, op: &Op) -> bool {
        mma::program(op, self.chip, Alignment::Sixteen).is_some()
    }
}

/// The engines for `op`, in this backend's own order of preference.
pub(crate) fn engines(op: &Op, here: Here<'_>) -> Vec<Engine> {
    match op {
        Op::MatMul(matmul) => matmul::engines(matmul, op, here),
        Op::LoraLinear(_) | Op::LoraLinearBackward(_) | Op::LoraDelta(_) | Op::LoraDeltaBackward(_) => {
            lora::engines(op, here)
        }
        Op::Softmax(_) | Op::SoftmaxBackward(_) => softmax::engines(),
        Op::RmsNorm(_) | Op::RmsNormBackward(_) => rms_norm::engines(),
        Op::Attention(_) | Op::AttentionBackward(_) => attention::engines(op, here),
        // The operations of models have own kernels alone.
        op => fused::engines(op, here.chip),
    }
}

/// What `op` becomes on an engine that it has.
///
/// # Errors
/// What the compiler says, or [`Error::OutOfMemory`].
pub(crate) fn work(op: &Op, engine: Engine, build: &mut Build<'_>) -> Result<Work> {
    match (engine, op) {
        (FUSED, _) => fused::work(op, build),
        (MMA, _) => {
            let find = |alignment| mma::program(op, build.chip(), alignment);
            let aligned = find(Alignment::Sixteen).ok_or_else(|| unlisted(op, MMA, build))?;
            let any = match find(Alignment::Element) {
                Some(program) => program,
                None => fused::program(op, Alignment::Element, build)?,
            };
            fused::works(op, Some(aligned), any, build)
        }
        (CUBLASLT, Op::MatMul(matmul)) => matmul::cublaslt(matmul, build),
        (CUBLASLT, _) => lora::cublaslt(op, build),
        _ => Err(unlisted(op, engine, build)),
    }
}

/// An engine that `engines` does not list was chosen all the same.
pub(crate) fn unlisted(op: &Op, engine: Engine, build: &Build<'_>) -> Error {
    Error::NoEngine {
        op: op.name(),
        wanted: engine.to_string().into(),
        device: build.shared.context.label.as_str().into(),
        descriptor: op.to_string().into(),
        available: "those that `engines` lists".into(),
        remedy: "choose one of these, or none to let the dispatcher choose",
    }
}

/// How the packed operand of `op` lies, if it has one: the same for every engine.
pub(crate) fn packing(op: &Op) -> Option<Packing> {
    candlewick_kernels::packing(op)
}

/// The kernels that pack the frozen operand of `op`: from the first tensor into the second.
///
/// # Errors
/// What the compiler says.
pub(crate) fn pack(op: &Op, build: &Build<'_>) -> Result<Step> {
    let program = candlewick_kernels::pack(op).ok_or_else(|| unlisted(op, FUSED, build))?;
    let place = |place| usize::from(matches!(place, Place::Output(_)));
    fused::launches(&program.into(), 0, place, build)
}

/// What preparing an operation makes: kernels, and memory that it owns.
pub(crate) struct Build<'a> {
    shared: &'a Arc<Shared>,
    /// That every product of cuBLASLt's on the stream shares, once one needs it.
    blas_workspace: &'a mut Option<Arc<Memory>>,
    memory: Vec<Arc<Memory>>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, blas_workspace: &'a mut Option<Arc<Memory>>) -> Self {
        Build { shared, blas_workspace, memory: Vec::new() }
    }

    pub(crate) fn into_memory(self) -> Vec<Arc<Memory>> {
        self.memory
    }

    pub(crate) fn shared(&self) -> &'a Arc<Shared> {
        self.shared
    }

    pub(crate) fn chip(&self) -> &'a Chip {
        &self.shared.chip
    }

    /// The address of memory that the operation owns; none for no bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn workspace(&mut self, bytes: u64) -> Result<u64> {
        if bytes == 0 {
            return Ok(0);
        }
        let memory = self.shared.memory(bytes as usize)?;
        Ok(self.own(memory.into()))
    }

    /// The same, of memory that is zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn zeroed_workspace(&mut self, bytes: u64) -> Result<u64> {
        let memory = self.shared.zeroed(bytes as usize)?;
        Ok(self.own(memory.into()))
    }

    /// The address of memory for cuBLASLt, of so many bytes each time.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn blas_workspace(&mut self, bytes: usize) -> Result<u64> {
        let memory = match &*self.blas_workspace {
            Some(memory) => memory.clone(),
            None => self.blas_workspace.insert(Arc::new(self.shared.memory(bytes)?)).clone(),
        };
        Ok(self.own(memory))
    }

    /// Keeps memory for as long as the operation; its address.
    fn own(&mut self, memory: Arc<Memory>) -> u64 {
        let address = memory.address();
        self.memory.push(memory);
        address
    }

    /// A launch with its kernel.
    ///
    /// # Errors
    /// What the compiler says.
    pub(crate) fn launch(
        &self,
        launch: &program::Launch,
        workspace: u64,
        place: &impl Fn(Place) -> usize,
    ) -> Result<Launch> {
        let function = self.shared.function(launch)?;
        Ok(Launch::new(launch, function, workspace, self.shared.options.dependent_launch, place))
    }
}
