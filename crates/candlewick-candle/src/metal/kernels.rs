//! Prepared operations: what each thread has used on each GPU.

use super::gpu::{self, Gpu};
use crate::engine::Choices;
use crate::error::Result;
use candle_core::MetalDevice;
use candle_metal_kernels::metal::ComputePipeline;
use candlewick::Op;
use candlewick_core::backend::Signature;
use candlewick_core::cache::Cache;
use candlewick_metal::{Launch, Launches, Slot};
use objc2_metal::MTLSize;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// An operation, ready to be put into an encoder of Candle's.
pub(super) struct Kernel {
    pub(super) signature: Signature,
    any: Vec<Dispatch>,
    sixteen: Option<Vec<Dispatch>>,
    /// Bytes of each memory that the dispatches share.
    pub(super) workspaces: Vec<usize>,
}

/// One kernel on one grid.
pub(super) struct Dispatch {
    pub(super) pipeline: ComputePipeline,
    pub(super) slots: Vec<Slot>,
    pub(super) params: Box<[u8]>,
    pub(super) groups: MTLSize,
    pub(super) threads: MTLSize,
}

impl Kernel {
    /// What to encode, given whether every tensor begins at a multiple of 16 bytes.
    pub(super) fn dispatches(&self, sixteen: bool) -> &[Dispatch] {
        self.sixteen.as_ref().filter(|_| sixteen).unwrap_or(&self.any)
    }
}

impl From<Launches> for Kernel {
    fn from(launches: Launches) -> Self {
        let dispatch = |Launch { pipeline, slots, params, groups, threads }| {
            let pipeline = ComputePipeline::new(pipeline);
            Dispatch { pipeline, slots, params, groups, threads }
        };
        let Launches { signature, any, sixteen, workspaces, .. } = launches;
        let all = |launches: Vec<Launch>| launches.into_iter().map(dispatch).collect();
        Kernel { signature, any: all(any), sixteen: sixteen.map(all), workspaces }
    }
}

/// Operations that a thread keeps prepared, per GPU.
const MOST: usize = 1024;

/// A GPU by its address, and a thread's kernels and choices there.
struct Prepared {
    address: usize,
    gpu: Arc<Gpu>,
    kernels: Cache<Op, Rc<Kernel>>,
    choices: Choices,
}

thread_local! {
    static PREPARED: RefCell<Vec<Prepared>> = const { RefCell::new(Vec::new()) };
}

/// The operation, prepared on the GPU of a device: no lock and no string, once the calling thread has used it.
///
/// # Errors
/// A descriptor that contradicts itself, or what the compiler says.
pub(super) fn get(device: &MetalDevice, op: &Op) -> Result<Rc<Kernel>> {
    with(device, |Prepared { gpu, kernels, .. }| {
        if let Some(kernel) = kernels.get(op) {
            return Ok(kernel.clone());
        }
        let kernel = Rc::new(Kernel::from(gpu.device().launches(op)?));
        kernels.insert(*op, kernel.clone());
        Ok(kernel)
    })
}

/// Whether Candle's own is known to be faster for `op`.
///
/// # Errors
/// A GPU that is too old.
pub(crate) fn candle_pays(device: &MetalDevice, op: &Op) -> Result<bool> {
    with(device, |prepared| Ok(prepared.choices.candle_pays(op)))
}

fn with<T>(device: &MetalDevice, work: impl FnOnce(&mut Prepared) -> Result<T>) -> Result<T> {
    let address = std::ptr::from_ref(gpu::raw(device)).addr();
    PREPARED.with_borrow_mut(|gpus| {
        let at = match gpus.iter().position(|known| known.address == address) {
            Some(at) => at,
            None => {
                let gpu = gpu::of(device)?;
                let choices = Choices::new(gpu.measured());
                gpus.push(Prepared { address, gpu, kernels: Cache::new(MOST), choices });
                gpus.len() - 1
            }
        };
        work(&mut gpus[at])
    })
}
