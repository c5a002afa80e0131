//! Operations as plain launches, for an encoder that somebody else has open: Candle's, for one.

use crate::ops::{self, Build, Work};
use crate::runtime::dispatch::{Binding, Dispatch, Source};
use crate::runtime::hazard::Access;
use crate::runtime::objects::Pipeline;
use crate::{Device, MSL, SIMDGROUP, TENSOR};
use candlewick_core::backend::{Device as _, Engine, Signature};
use candlewick_core::{Error, Op, Result};
use objc2::rc::Retained;
use objc2_metal::MTLSize;

/// The engines that consist of launches alone.
const OWN: [Engine; 3] = [MSL, SIMDGROUP, TENSOR];

/// An operation as launches, prepared once. It owns no memory: whoever encodes it brings the workspaces.
pub struct Launches {
    /// Whose kernels these are: the first of [`Device::engines`](candlewick_core::backend::Device::engines) that is own.
    pub engine: Engine,
    /// What the tensors must be.
    pub signature: Signature,
    /// For tensors at any offset.
    pub any: Vec<Launch>,
    /// For tensors that all begin at multiples of 16 bytes, where that makes a difference.
    pub sixteen: Option<Vec<Launch>>,
    /// Bytes of each memory that the launches share. They may hold anything before, and need no memory of their own after.
    pub workspaces: Vec<usize>,
}

/// One kernel on one grid.
pub struct Launch {
    /// The kernel.
    pub pipeline: Retained<Pipeline>,
    /// Slot 0 first.
    pub slots: Vec<Slot>,
    /// Bytes for the slot behind the last.
    pub params: Box<[u8]>,
    /// Groups of the grid.
    pub groups: MTLSize,
    /// Threads of a group.
    pub threads: MTLSize,
}

/// What a slot is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Whose memory.
    pub memory: SlotMemory,
    /// Bytes from its start.
    pub offset: usize,
    /// Whether the kernel writes it; it may read it then, too.
    pub writes: bool,
}

/// Whose memory a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotMemory {
    /// A tensor, counted through inputs and then outputs.
    Tensor(usize),
    /// One of [`Launches::workspaces`].
    Workspace(usize),
    /// The kernel does not touch it, but the slot is there: any buffer will do.
    Unused,
}

impl Device {
    /// `op` as launches of own kernels.
    ///
    /// # Errors
    /// A descriptor that contradicts itself, or what the compiler says.
    pub fn launches(&self, op: &Op) -> Result<Launches> {
        let signature = Signature::new(op, ops::packing(op))?;
        // Every operation has kernels in `MSL`.
        let engine = self.engines(op).into_iter().find(|engine| OWN.contains(engine)).unwrap_or(MSL);
        let mut build = Build::new(self.shared());
        let (sixteen, any) = match ops::work(op, engine, &mut build) {
            Ok(Work::Dispatches { sixteen, any }) => (sixteen, any),
            Ok(_) => return Err(ops::unlisted(op, engine)),
            // As in `Stream::prepare`: the system should have the tensor operations, and its compiler does not take them.
            Err(Error::Backend { message, .. }) if engine == TENSOR => {
                self.shared().give_up_tensors(message);
                return self.launches(op);
            }
            Err(error) => return Err(error),
        };
        let mut workspaces = Workspaces::default();
        for dispatch in sixteen.iter().flatten().chain(&any) {
            workspaces.note(dispatch);
        }
        let launch = |dispatches: &[Dispatch]| dispatches.iter().map(|one| workspaces.launch(one, &build)).collect();
        let (sixteen, any) = (sixteen.as_deref().map(launch), launch(&any));
        Ok(Launches { engine, signature, any, sixteen, workspaces: workspaces.sizes() })
    }
}

/// Parts of own memory that launches share. Each gets memory of its own, as others track whole buffers: parts of one
/// buffer would wait for each other.
#[derive(Default)]
struct Workspaces {
    /// Where each begins and ends in the memory that the preparation made.
    ranges: Vec<std::ops::Range<u64>>,
}

impl Workspaces {
    fn note(&mut self, dispatch: &Dispatch) {
        for binding in &dispatch.bindings {
            let Some(start) = workspace(binding, dispatch) else { continue };
            let mut range = start..start + binding.bytes as u64;
            // What overlaps is one part.
            self.ranges.retain(|known| {
                let meets = known.start < range.end && range.start < known.end;
                if meets {
                    range = known.start.min(range.start)..known.end.max(range.end);
                }
                !meets
            });
            self.ranges.push(range);
        }
    }

    fn launch(&self, dispatch: &Dispatch, build: &Build<'_>) -> Launch {
        let params = dispatch.bindings.last().and_then(|last| own(&last.source)).and_then(|at| build.find(at));
        let (number, length) = params.unwrap_or_else(|| unreachable!("parameters are the last slot"));
        // SAFETY: the preparation wrote as many bytes there, and nobody else has the memory.
        let params = unsafe { std::slice::from_raw_parts(build.part(number).pointer(), length) }.into();
        let slots = dispatch.bindings[..dispatch.bindings.len() - 1].iter().map(|binding| {
            let (memory, offset) = match (&binding.source, workspace(binding, dispatch)) {
                (Source::Tensor(index), _) => (SlotMemory::Tensor(*index), binding.offset),
                (_, Some(start)) => self.place(start),
                (_, None) => (SlotMemory::Unused, 0),
            };
            Slot { memory, offset, writes: binding.access == Access::Write }
        });
        let (pipeline, slots) = (Retained::clone(&dispatch.pipeline), slots.collect());
        Launch { pipeline, slots, params, groups: dispatch.groups, threads: dispatch.threads }
    }

    fn place(&self, start: u64) -> (SlotMemory, usize) {
        let number = self.ranges.iter().position(|range| range.contains(&start));
        let number = number.unwrap_or_else(|| unreachable!("every workspace was noted"));
        (SlotMemory::Workspace(number), (start - self.ranges[number].start) as usize)
    }

    fn sizes(&self) -> Vec<usize> {
        self.ranges.iter().map(|range| (range.end - range.start) as usize).collect()
    }
}

fn own(source: &Source) -> Option<u64> {
    match source {
        Source::Own { address, .. } => Some(*address),
        Source::Tensor(_) => None,
    }
}

/// Where a slot's workspace begins; none for tensors, parameters, and the slots that a launch does not use.
fn workspace(binding: &Binding, dispatch: &Dispatch) -> Option<u64> {
    let address = own(&binding.source)?;
    let params = dispatch.bindings.last().and_then(|last| own(&last.source));
    (params != Some(address)).then_some(address + binding.offset as u64)
}
