//! `kernels/warp_specialised.h`: the product and the LoRA layer on Hopper, in one launch.

mod tile;

use super::{input, nothing, output};
use crate::chip::Chip;
use crate::program::{Launch, MOST_MAPS, MOST_POINTERS, Program, Source, TensorMap};
use arrayvec::ArrayVec;
use candlewick_core::op::{Format, Operands};
use candlewick_core::{LoraLinear, MatMul, Op};
use candlewick_kernels::{Access, Binding, Memory, Place};
use tile::{DEPTH, LINE};
pub(super) use tile::{Pairs, TILES, Tile};

params! {
    /// As in the kernel.
    struct WarpSpecialisedParams {
        c_row: u64,
        m: u32,
        n: u32,
        rank: u32,
        steps: u32,
        copied: u32,
        factor: f32,
    }
}

/// As `Ahead` in the kernel: the most rows of tiles, and the bytes ahead of h.
const MOST_ROWS_OF_TILES: u32 = 128;
const NUMBERS: u32 = 8 * MOST_ROWS_OF_TILES;

/// As measured on an H100 with bf16 by graph replays, in us and bytes per us.
struct Measured {
    /// A launch with its first reads, and what a cluster adds.
    launch: f64,
    cluster: f64,
    /// What a multiprocessor takes from the level-two cache, and what all take of bytes that differ.
    one: f64,
    all: f64,
    /// How long a slice is under way; of layers, nothing that was measured needs it.
    way: f64,
}
const OF_PRODUCTS: Measured = Measured { launch: 1.3, cluster: 0.5, one: 140e3, all: 5e6, way: 0.6 };
const OF_LAYERS: Measured = Measured { launch: 1.45, cluster: 0.3, one: 104e3, all: 4.1e6, way: 0.0 };
/// What each further block of a multiprocessor adds, in us.
const WAVE: f64 = 1.0;
/// What all write, in bytes per us.
const WRITTEN: f64 = 2.0e6;
/// Operations of a multiprocessor's tensor cores per us; and from start to end, at the clock that the power allows.
const PEAK: f64 = 7.2e6;
const SUSTAINED: f64 = 5.0e6;
/// Lines beyond a matrix that are made zero, per us of all multiprocessors: as if they all came from one place.
const MISSING: f64 = 27e3;

/// What the kernel is given, but for what depends on the tile.
pub(super) struct Product {
    op: Op,
    m: u32,
    n: u32,
    k: u32,
    rank: u32,
    b_turned: bool,
    /// Elements from row to row.
    a_row: usize,
    b_row: usize,
    c_row: usize,
    factor: f32,
    /// A, B, D, E, C.
    bindings: [Binding; 5],
}

/// A number of lines or columns, of which there is one at least.
fn size(size: usize) -> Option<u32> {
    u32::try_from(size).ok().filter(|size| (1..1 << 30).contains(size))
}

/// Lines begin at multiples of 16 bytes, and columns are written eight at a time.
fn aligned(sizes: &[usize]) -> bool {
    sizes.iter().all(|size| size.is_multiple_of(8))
}

impl Product {
    /// C = A op(B), of one matrix A, as it is stored. A factor, or what is in C, is left to other engines.
    pub(super) fn matmul(op: &MatMul, operands: &Operands) -> Option<Self> {
        let plain = op.alpha.get() == 1.0 && op.beta.get() == 0.0 && op.batch.count() == 1 && !op.trans_a;
        let b_row = match (op.b_format, op.trans_b) {
            (Format::Plain, _) => op.ldb,
            (Format::Packed, true) => op.k,
            (Format::Packed, false) => op.n,
        };
        if !plain || !aligned(&[op.k, op.n, op.lda, b_row, op.ldc]) {
            return None;
        }
        let c = output(operands, 0, Access::Write);
        Some(Product {
            op: Op::from(*op),
            m: size(op.m)?,
            n: size(op.n)?,
            k: size(op.k)?,
            rank: 0,
            b_turned: !op.trans_b,
            a_row: op.lda,
            b_row,
            c_row: op.ldc,
            factor: 0.0,
            bindings: [input(operands, 0), input(operands, 1), nothing(c), nothing(c), c],
        })
    }

    /// y = x Wᵀ + scale (x Aᵀ) Bᵀ. A bias, or what is in y, is added by other engines.
    pub(super) fn lora(op: &LoraLinear, operands: &Operands) -> Option<Self> {
        if op.bias || op.accumulate || !aligned(&[op.in_features, op.out_features, op.x_row, op.y_row]) {
            return None;
        }
        let [x, w, d, e] = [0, 1, 2, 3].map(|index| input(operands, index));
        Some(Product {
            op: Op::from(*op),
            m: size(op.rows)?,
            n: size(op.out_features)?,
            k: size(op.in_features)?,
            rank: size(op.rank)?,
            b_turned: false,
            a_row: op.x_row,
            b_row: op.in_features,
            c_row: op.y_row,
            factor: op.scale.get(),
            bindings: [x, w, d, e, output(operands, 0, Access::Write)],
        })
    }

    fn grid(&self, tile: &Tile) -> [u32; 3] {
        let (m_tiles, n_tiles) = (self.m.div_ceil(tile.rows), self.n.div_ceil(tile.cols));
        match tile.pairs {
            Pairs::Alone | Pairs::Beside => [n_tiles * tile.cluster, m_tiles, 1],
            Pairs::Stacked => [m_tiles * (n_tiles + u32::from(tile.rank > 0)), 1, 1],
        }
    }

    /// Whether it may have that tile: every block of a pair has one.
    pub(super) fn fits(&self, tile: &Tile) -> bool {
        let m_tiles = self.m.div_ceil(tile.rows);
        let paired = match tile.pairs {
            Pairs::Alone => true,
            Pairs::Beside => self.n.div_ceil(tile.cols).is_multiple_of(2),
            Pairs::Stacked => m_tiles.is_multiple_of(2) && m_tiles <= MOST_ROWS_OF_TILES && self.n >= tile.cols,
        };
        let alike = (self.rank > 0, self.b_turned) == (tile.rank > 0, tile.turned);
        alike && self.rank <= tile.rank && paired && m_tiles <= 65_535
    }

    /// Lines of a slice that are copied: where there are fewer than a tile has, those beyond may hold anything, as no
    /// result depends on them. (To have them made zero takes far longer than to read them.)
    fn lines(&self, tile: &Tile) -> [u32; 3] {
        // What lies beyond the sum is multiplied: it has to be zero.
        let of_b = if self.b_turned { tile.cols } else { self.n.min(tile.cols) };
        [self.m.min(tile.rows), of_b, self.rank]
    }

    /// How long a tile takes, in us. Within a tenth of most measurements where the tile is the best one, and a fifth of
    /// all but few.
    fn estimate(&self, tile: &Tile, chip: &Chip) -> f64 {
        let (m_tiles, n_tiles) = (self.m.div_ceil(tile.rows), self.n.div_ceil(tile.cols));
        let Measured { launch, cluster, one, all, way } = if tile.rank > 0 { OF_LAYERS } else { OF_PRODUCTS };
        let (steps, chip) = (self.k.div_ceil(DEPTH), f64::from(chip.multiprocessors));
        let blocks = self.grid(tile).map(f64::from).iter().product::<f64>();
        let on_one = (blocks / chip).ceil();
        let block_steps = f64::from(steps.div_ceil(tile.cluster));
        let reading = on_one * f64::from(tile.slice()) * block_steps / one;
        let of_rank = match tile.pairs {
            Pairs::Alone => tile.rank,
            Pairs::Beside => tile.rank / 2,
            Pairs::Stacked => 0,
        };
        let operations = 2.0 * f64::from(tile.rows * (tile.cols + of_rank) * DEPTH) * block_steps;
        let waiting = on_one * block_steps / f64::from(tile.stages()) * way;
        let multiplying = on_one * operations / PEAK;
        let all = self.op.bytes() / all;
        let writing = 2.0 * f64::from(self.m) * f64::from(self.n) / WRITTEN;
        let cluster = if tile.blocks() > 1 { on_one * cluster } else { 0.0 };
        // Where there is one tile, its copies are as small as the matrix.
        let beyond = |tiles: u32, each: u32, size: u32| f64::from(if tiles > 1 { tiles * each - size } else { 0 });
        let rows = beyond(m_tiles, tile.rows, self.m) * f64::from(n_tiles);
        let cols = beyond(n_tiles, tile.cols, self.n) * f64::from(m_tiles);
        let along =
            if self.b_turned { f64::from(steps * DEPTH - self.k) * (blocks * f64::from(tile.cols / 64)) } else { 0.0 };
        let missing = ((rows + cols) * f64::from(steps) + along) / MISSING;
        let time = cluster + reading.max(multiplying).max(all).max(waiting) + missing + writing;
        launch + (on_one - 1.0) * WAVE + time.max(blocks / chip * operations / SUSTAINED)
    }

    /// The tile that takes the least time, and how much.
    pub(super) fn best(&self, chip: &Chip) -> Option<(&'static Tile, f64)> {
        let fitting = TILES.iter().filter(|tile| self.fits(tile) && tile.runs_on(chip));
        fitting.map(|tile| (tile, self.estimate(tile, chip))).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// A launch with that tile.
    pub(super) fn program(&self, tile: &'static Tile) -> Program {
        let [a, b, d, e, c] = self.bindings;
        let Product { m, n, k, rank, factor, .. } = *self;
        let dtype = self.op.dtype();
        let lines = self.lines(tile);
        let params = WarpSpecialisedParams {
            c_row: self.c_row as u64,
            m,
            n,
            rank,
            steps: k.div_ceil(DEPTH),
            copied: lines.iter().sum::<u32>() * LINE,
            factor,
        };
        let map = |binding, [lines, columns]: [u32; 2], stride: usize, tile| TensorMap {
            binding,
            dtype,
            columns: columns.into(),
            lines: lines.into(),
            stride: stride as u64,
            tile,
        };
        let of_b = match tile.pairs {
            _ if self.b_turned => map(b, [k, n], self.b_row, DEPTH),
            Pairs::Stacked => map(b, [n, k], self.b_row, lines[1] / 2),
            Pairs::Alone | Pairs::Beside => map(b, [n, k], self.b_row, lines[1]),
        };
        let mut maps: ArrayVec<_, MOST_MAPS> = [map(a, [m, k], self.a_row, lines[0]), of_b].into_iter().collect();
        let mut bindings: ArrayVec<_, MOST_POINTERS> = ArrayVec::new();
        let mut workspace_bytes = 0;
        if rank == 0 {
            bindings.push(c);
        } else {
            maps.push(map(d, [rank, k], k as usize, lines[2]));
            if tile.pairs == Pairs::Stacked {
                workspace_bytes = u64::from(NUMBERS + m.div_ceil(tile.rows) * tile.whole_h());
            }
            let hidden = Memory { place: Place::Workspace, offset: 0, bytes: workspace_bytes };
            bindings.extend([e, c, Binding { access: Access::ReadWrite, memory: hidden }]);
        }
        let launch = Launch {
            source: Source::Own(tile.instance(dtype)),
            entry: tile.name,
            params: bytemuck::bytes_of(&params).to_vec(),
            maps,
            bindings,
            grid: self.grid(tile),
            threads: tile.threads(),
            shared_bytes: tile.shared_bytes(),
            cluster: tile.blocks(),
            balanced: false,
        };
        Program {
            variant: tile.name,
            launches: vec![launch],
            workspace_bytes,
            counts: workspace_bytes > 0,
            alignment: 16,
        }
    }
}
