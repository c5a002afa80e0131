//! A kernel with everything that does not change from call to call: prepared once, encoded often.

use super::arena::Block;
use super::hazard::Access;
use super::objects::{MetalBuffer, Pipeline, Sendable};
use arrayvec::ArrayVec;
use objc2::rc::Retained;
use objc2_metal::MTLSize;

/// The most buffers of a kernel, its parameters included.
pub(crate) const MOST_BINDINGS: usize = candlewick_kernels::MAX_BINDINGS + 1;
/// The most tensors of an operation.
pub(crate) const MOST_TENSORS: usize = 10;

/// Where a tensor is, in a call.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) block: &'a Block,
    pub(crate) offset: usize,
}

impl Place<'_> {
    /// The name of its first byte, for hazards.
    #[inline]
    pub(crate) fn address(&self) -> u64 {
        self.block.address() + self.offset as u64
    }
}

/// The tensors of a call, inputs first.
pub(crate) type Places<'a> = ArrayVec<Place<'a>, MOST_TENSORS>;

/// What a slot is given.
pub(crate) enum Source {
    /// A tensor of the call, by its place among inputs and outputs.
    Tensor(usize),
    /// Memory of the prepared kernel: its workspace or its parameters, which outlive it.
    Own { buffer: *const MetalBuffer, offset: usize, address: u64 },
}

/// A slot.
pub(crate) struct Binding {
    pub(crate) source: Source,
    pub(crate) access: Access,
    /// From the start of the source to what the kernel is given.
    pub(crate) offset: usize,
    /// How many bytes it touches from there on. None for what nobody writes.
    pub(crate) bytes: usize,
}

/// A kernel ready to be encoded.
pub(crate) struct Dispatch {
    pub(crate) pipeline: Sendable<Retained<Pipeline>>,
    /// Slot 0 first.
    pub(crate) bindings: ArrayVec<Binding, MOST_BINDINGS>,
    pub(crate) groups: MTLSize,
    pub(crate) threads: MTLSize,
}

// SAFETY: the pointers of `Source::Own` are to Metal buffers, which are safe from several threads and owned by the
// prepared kernel that owns this.
unsafe impl Send for Dispatch {}
// SAFETY: as above.
unsafe impl Sync for Dispatch {}

/// A one-dimensional size.
pub(crate) const fn line(width: usize) -> MTLSize {
    MTLSize { width, height: 1, depth: 1 }
}
