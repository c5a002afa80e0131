//! `kernels/ping_pong.h`: products by tiles of 128 rows, two warpgroups by turns, on Hopper.

use super::tile::{instance, pitch};
use crate::chip::Chip;
use crate::program::{Launch, Program, Source, TensorMap};
use candlewick_core::DType;
use candlewick_kernels::{Access, Binding, Memory, Place};

/// Threads of a block: two warpgroups that multiply, and one that copies.
pub(super) const THREADS: u32 = 384;
pub(super) const ROWS: u32 = 128;
/// Elements of a slice along the sum, and bytes of one of its lines.
pub(super) const DEPTH: u32 = 64;
pub(super) const LINE: u32 = 128;

/// What stands ahead of a kernel's own files.
macro_rules! ping_pong {
    ($($file:expr),*) => {
        &[
            kernel!("instructions.h"),
            kernel!("slices.h"),
            kernel!("warpgroup.h"),
            kernel!("tensor_copies.h"),
            kernel!("ping_pong.h"),
            $($file),*
        ]
    };
}
pub(super) use ping_pong;

/// An instance of a kernel.
pub(super) struct Tile {
    /// What the instance, its kernel and its way of running are called.
    pub(super) name: &'static str,
    /// Columns, and of another matrix that come out of the same instructions.
    pub(super) cols: u32,
    pub(super) more: u32,
    pub(super) stages: u32,
    /// Bytes of shared memory that the kernel has for itself.
    pub(super) own: u32,
    /// Its files, and what they are told besides.
    pub(super) files: &'static [(&'static str, &'static str)],
    pub(super) told: &'static str,
}

/// What the kernels call `STAGING`, of all warps.
pub(super) const fn staging(cols: u32) -> u32 {
    8 * 16 * pitch(cols)
}

/// As measured on an H100 with bf16: us for a launch, the first slices and the last tile's end; what a multiprocessor takes
/// from the level-two cache, in bytes per us; operations of its tensor cores per us, at the clock that the power allows; and
/// bytes that all read and write per us.
const ENDS: f64 = 3.0;
const ONE: f64 = 104e3;
const PEAK: f64 = 6.0e6;
const ALL: f64 = 2.6e6;

impl Tile {
    const fn slice(&self) -> u32 {
        (ROWS + self.cols + self.more) * LINE
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    pub(super) const fn shared_bytes(&self) -> u32 {
        self.stages * self.slice() + self.own + 16 * self.stages + 48
    }

    pub(super) fn runs_on(&self, chip: &Chip) -> bool {
        chip.capability == (9, 0) && self.shared_bytes() <= chip.shared_bytes
    }

    /// How long a launch takes, in us, of so many rows and tiles of columns, along a sum of `k`, that reads and writes so many
    /// bytes in all.
    pub(super) fn estimate(&self, rows: u32, col_tiles: u32, k: u32, bytes: f64, chip: &Chip) -> f64 {
        let tiles = f64::from(rows.div_ceil(ROWS)) * f64::from(col_tiles);
        let (turns, steps) = ((tiles / f64::from(chip.multiprocessors)).ceil(), f64::from(k.div_ceil(DEPTH)));
        let reading = f64::from(self.slice()) / ONE;
        let multiplying = 2.0 * f64::from(ROWS * (self.cols + self.more) * DEPTH) / PEAK;
        ENDS + (turns * steps * reading.max(multiplying)).max(bytes / ALL)
    }

    /// A launch of so many tiles.
    pub(super) fn program(
        &'static self,
        dtype: DType,
        params: &[u8],
        maps: &[TensorMap],
        bindings: &[Binding],
        tiles: u32,
        chip: &Chip,
    ) -> Program {
        let launch = Launch {
            source: Source::Own(instance(self.name, self.files, dtype, self.shared_bytes(), self.told.to_owned())),
            entry: self.name,
            params: params.to_vec(),
            maps: maps.iter().copied().collect(),
            bindings: bindings.iter().copied().collect(),
            grid: [tiles.min(chip.multiprocessors), 1, 1],
            threads: THREADS,
            shared_bytes: self.shared_bytes(),
            cluster: 1,
            balanced: false,
        };
        Program { variant: self.name, launches: vec![launch], workspace_bytes: 0, counts: false, alignment: 16 }
    }
}

/// Rows, columns and the length of the sum, where they and the elements from row to row suit copies of 16 bytes.
pub(super) fn sizes(sizes: [usize; 3], rows: &[usize]) -> Option<[u32; 3]> {
    let fits = sizes.iter().all(|size| (1..1 << 30).contains(size));
    let aligned = sizes[1..].iter().chain(rows).all(|size| size.is_multiple_of(8));
    (fits && aligned).then(|| sizes.map(|size| size as u32))
}

/// So many lines of a matrix of 16-bit elements, from an element on.
pub(super) fn part(place: Place, first: usize, [lines, columns]: [usize; 2], row: usize) -> Memory {
    let bytes = if lines == 0 { 0 } else { 2 * ((lines - 1) * row + columns) as u64 };
    Memory { place, offset: 2 * first as u64, bytes }
}

/// Such a matrix, of which so many lines are copied at a time.
pub(super) fn matrix(memory: Memory, dtype: DType, [lines, columns]: [usize; 2], row: usize, tile: u32) -> TensorMap {
    let binding = Binding { access: Access::Read, memory };
    TensorMap { binding, dtype, columns: columns as u64, lines: lines as u64, stride: row as u64, tile }
}
