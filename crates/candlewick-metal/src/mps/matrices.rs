//! MPS's views of memory, kept by place and layout: made when a kernel first meets a tensor there.

use crate::runtime::dispatch::Place;
use crate::runtime::hazard::Access;
use candlewick_core::cache::{Cache, CacheCounters};
use objc2::AnyThread;
use objc2::rc::{Retained, autoreleasepool};
use objc2_foundation::NSArray;
use objc2_metal_performance_shaders::{MPSDataType, MPSMatrix, MPSMatrixDescriptor, MPSNDArray};
use std::ops::Range;

/// How the matrices of a batch lie, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) matrices: usize,
    pub(super) row_bytes: usize,
    pub(super) matrix_bytes: usize,
    pub(super) data_type: MPSDataType,
}

impl Layout {
    /// From the first byte to the last.
    pub(super) fn bytes(&self, element: usize) -> u64 {
        let rows = (self.matrices - 1) * self.matrix_bytes + (self.rows - 1) * self.row_bytes;
        (rows + self.columns * element) as u64
    }

    pub(super) fn descriptor(&self) -> Retained<MPSMatrixDescriptor> {
        let Layout { rows, columns, matrices, row_bytes, matrix_bytes, data_type } = *self;
        // SAFETY: plain numbers; they were checked when the kernel was prepared.
        unsafe {
            MPSMatrixDescriptor::matrixDescriptorWithRows_columns_matrices_rowBytes_matrixBytes_dataType(
                rows,
                columns,
                matrices,
                row_bytes,
                matrix_bytes,
                data_type,
            )
        }
    }

    /// A matrix, or a batch, at a place.
    pub(super) fn matrix(&self, place: Place<'_>, descriptor: &MPSMatrixDescriptor) -> Retained<MPSMatrix> {
        let buffer = place.block.buffer();
        // SAFETY: the buffer holds the matrix: the tensor's length was compared with the operation's span.
        unsafe { MPSMatrix::initWithBuffer_offset_descriptor(MPSMatrix::alloc(), buffer, place.offset, descriptor) }
    }
}

/// Which bytes of a place a matrix is, for hazards.
pub(super) fn access(place: Place<'_>, bytes: u64, access: Access) -> (Range<u64>, Access) {
    (place.address()..place.address() + bytes, access)
}

/// The arrays of one product.
pub(super) struct Arrays {
    pub(super) sources: Retained<NSArray<MPSNDArray>>,
    pub(super) destination: Retained<MPSNDArray>,
}

fn sum(a: CacheCounters, b: CacheCounters) -> CacheCounters {
    CacheCounters { hits: a.hits + b.hits, misses: a.misses + b.misses, evictions: a.evictions + b.evictions }
}

/// A place, for as long as the process runs.
type Spot = (u64, usize);

fn spot(place: Place<'_>) -> Spot {
    (place.block.id(), place.offset)
}

/// The views of a stream. They keep their buffers alive, and are let go when memory goes back to the system.
pub(crate) struct Matrices {
    descriptors: Cache<Layout, Retained<MPSMatrixDescriptor>>,
    matrices: Cache<(Spot, Layout), Retained<MPSMatrix>>,
    arrays: Cache<(u64, [Spot; 3]), Arrays>,
    generation: u64,
    before: [CacheCounters; 2],
}

impl Matrices {
    const MOST: usize = 4096;

    pub(crate) fn new(generation: u64) -> Self {
        Matrices {
            descriptors: Cache::new(Self::MOST),
            matrices: Cache::new(Self::MOST),
            arrays: Cache::new(Self::MOST),
            generation,
            before: Default::default(),
        }
    }

    /// What its caches have done: matrices and arrays, descriptors.
    pub(crate) fn counters(&self) -> [CacheCounters; 2] {
        let views = sum(self.matrices.counters(), self.arrays.counters());
        [sum(self.before[0], views), sum(self.before[1], self.descriptors.counters())]
    }

    /// Lets every view go where memory went back to the system since the last call.
    #[inline]
    pub(crate) fn refresh(&mut self, generation: u64) {
        if self.generation != generation {
            let before = self.counters();
            *self = Matrices { before, ..Matrices::new(generation) };
        }
    }

    /// The descriptor of a layout.
    pub(super) fn descriptor(&mut self, layout: &Layout) -> &MPSMatrixDescriptor {
        if self.descriptors.get(layout).is_none() {
            self.descriptors.insert(*layout, autoreleasepool(|_| layout.descriptor()));
        }
        self.descriptors.get(layout).expect("it is there")
    }

    /// The matrix at a place. The next 4000 calls do not free it.
    #[inline]
    pub(super) fn matrix(&mut self, place: Place<'_>, layout: &Layout) -> *const MPSMatrix {
        let key = (spot(place), *layout);
        if let Some(matrix) = self.matrices.get(&key) {
            return Retained::as_ptr(matrix);
        }
        let matrix = autoreleasepool(|_| layout.matrix(place, self.descriptor(layout)));
        let pointer = Retained::as_ptr(&matrix);
        self.matrices.insert(key, matrix);
        pointer
    }

    /// The arrays of a product at places, made by `make` where they are not there.
    #[inline]
    pub(super) fn arrays(&mut self, product: u64, places: [Place<'_>; 3], make: impl FnOnce() -> Arrays) -> &Arrays {
        let key = (product, places.map(spot));
        if self.arrays.get(&key).is_none() {
            self.arrays.insert(key, autoreleasepool(|_| make()));
        }
        self.arrays.get(&key).expect("it is there")
    }
}
