//! `kernels/warp_specialised.cu`: the LoRA layer on Hopper, in one launch.

use super::tile::{instance, kernel, pitch, runs_on};
use super::{input, output};
use crate::chip::Chip;
use crate::program::{Instance, Launch, Program, Source, TensorMap};
use candlewick_core::op::Operands;
use candlewick_core::{DType, LoraLinear, Op};
use candlewick_kernels::{Access, Binding, Memory, Place};

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

/// An instance of the kernel, whose header says what the fields mean.
pub(super) struct Tile {
    /// What the instance, its kernel and its way of running are called.
    pub(super) name: &'static str,
    pub(super) rows: u32,
    pub(super) cols: u32,
    /// The most ranks.
    pub(super) rank: u32,
    /// The slices that were found to be enough; fewer where there is no room.
    pub(super) stages: u32,
    /// Blocks along the sum.
    pub(super) cluster: u32,
    pub(super) pairs: Pairs,
}

/// Whether two blocks are a cluster that shares what both need; the kernel says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pairs {
    Alone,
    /// Neighbouring columns make h together.
    Beside,
    /// Neighbouring rows take W together; blocks ahead of them make h.
    Stacked,
}

/// Elements of a slice along the sum, and bytes of one of its lines.
const DEPTH: u32 = 64;
const LINE: u32 = 128;
/// As `Ahead` in the kernel: the most rows of tiles, and the bytes ahead of h.
const MOST_ROWS_OF_TILES: u32 = 128;
const NUMBERS: u32 = 8 * MOST_ROWS_OF_TILES;
/// The most shared memory of a block.
const MOST_SHARED: u32 = 227 * 1024;

/// As measured on an H100 with bf16 by graph replays, in us: a launch with its first reads, what each further block of a
/// multiprocessor adds, and what a cluster does.
const LAUNCH: f64 = 1.45;
const WAVE: f64 = 1.0;
const CLUSTER: f64 = 0.3;
/// What a multiprocessor takes from the level-two cache, in bytes per us; what all take of bytes that differ; and what
/// all write.
const ONE: f64 = 104e3;
const ALL: f64 = 4.1e6;
const WRITTEN: f64 = 2.0e6;
/// Operations of a multiprocessor's tensor cores per us; and from start to end, at the clock that the power allows.
const PEAK: f64 = 7.2e6;
const SUSTAINED: f64 = 5.0e6;
/// Lines beyond a matrix that are made zero, per us of all multiprocessors: as if they all came from one place.
const MISSING: f64 = 27e3;

impl Tile {
    /// Two or four warps for each 32 rows, and the one that copies.
    pub(super) const fn threads(&self) -> u32 {
        2 * self.rows + 32
    }

    const fn slice(&self) -> u32 {
        (self.rows + self.cols + self.rank) * LINE
    }

    /// What is behind the ring: partial sums and h, E, barriers.
    const fn behind(&self, stages: u32) -> u32 {
        let warps = self.rows / 16;
        let sums = (self.cluster - 1) * warps * (self.cols / 8 / self.cluster) * 512;
        let parts = match self.pairs {
            Pairs::Alone => self.cluster - 1,
            Pairs::Beside | Pairs::Stacked => 1,
        };
        sums + parts * self.whole_h() + self.cols * pitch(self.rank) + 16 * stages + 16
    }

    /// Bytes of the h of a row of tiles.
    const fn whole_h(&self) -> u32 {
        self.rows / 16 * (self.rank / 8) * 512
    }

    /// Blocks of a cluster.
    pub(super) const fn blocks(&self) -> u32 {
        match self.pairs {
            Pairs::Alone => self.cluster,
            Pairs::Beside | Pairs::Stacked => 2,
        }
    }

    pub(super) const fn stages(&self) -> u32 {
        let mut stages = self.stages;
        while stages * self.slice() + self.behind(stages) > MOST_SHARED {
            stages -= 1;
        }
        stages
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    pub(super) const fn shared_bytes(&self) -> u32 {
        self.stages() * self.slice() + self.behind(self.stages())
    }

    /// What is compiled.
    pub(super) fn instance(&self, dtype: DType) -> Instance {
        static FILES: &[(&str, &str)] = &[
            kernel!("instructions.h"),
            kernel!("slices.h"),
            kernel!("warpgroup.h"),
            kernel!("tensor_copies.h"),
            kernel!("warp_specialised.cu"),
        ];
        let Tile { rows, cols, rank, cluster, pairs, .. } = *self;
        let pairs = format!("{pairs:?}").to_uppercase();
        let tile = format!("{rows}, {cols}, {rank}, {}, {cluster}, {pairs}", self.stages());
        instance(self.name, FILES, dtype, self.shared_bytes(), tile)
    }

    /// Whether the chip has what it needs.
    pub(super) fn runs_on(&self, chip: &Chip) -> bool {
        chip.capability == (9, 0) && runs_on(chip, self.blocks(), self.shared_bytes())
    }
}

/// What the kernel is given, but for what depends on the tile.
pub(super) struct Layer {
    op: LoraLinear,
    m: u32,
    n: u32,
    k: u32,
    rank: u32,
    bindings: [Binding; 5],
}

impl Layer {
    /// y = x Wᵀ + scale (x Aᵀ) Bᵀ. A bias, or what is in y, is added by other engines.
    pub(super) fn new(op: &LoraLinear, operands: &Operands) -> Option<Self> {
        let size = |size: usize| u32::try_from(size).ok().filter(|size| (1..1 << 30).contains(size));
        // Lines begin at multiples of 16 bytes, and columns are written eight at a time.
        if op.bias || op.accumulate {
            return None;
        }
        if ![op.in_features, op.out_features, op.x_row, op.y_row].iter().all(|size| size.is_multiple_of(8)) {
            return None;
        }
        let [x, w, d, e] = [0, 1, 2, 3].map(|index| input(operands, index));
        Some(Layer {
            op: *op,
            m: size(op.rows)?,
            n: size(op.out_features)?,
            k: size(op.in_features)?,
            rank: size(op.rank)?,
            bindings: [x, w, d, e, output(operands, 0, Access::Write)],
        })
    }

    fn grid(&self, tile: &Tile) -> [u32; 3] {
        let (m_tiles, n_tiles) = (self.m.div_ceil(tile.rows), self.n.div_ceil(tile.cols));
        match tile.pairs {
            Pairs::Alone | Pairs::Beside => [n_tiles * tile.cluster, m_tiles, 1],
            Pairs::Stacked => [m_tiles * (n_tiles + 1), 1, 1],
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
        self.rank <= tile.rank && paired && m_tiles <= 65_535
    }

    /// Lines of a slice that are copied: where there are fewer than a tile has, those beyond may hold anything, as no
    /// result depends on them. (To have them made zero takes far longer than to read them.)
    fn lines(&self, tile: &Tile) -> [u32; 3] {
        [self.m.min(tile.rows), self.n.min(tile.cols), self.rank]
    }

    /// How long a tile takes, in us. Within a tenth of most measurements where the tile is the best one, and a fifth of
    /// all but few.
    fn estimate(&self, tile: &Tile, chip: &Chip) -> f64 {
        let (m_tiles, n_tiles) = (self.m.div_ceil(tile.rows), self.n.div_ceil(tile.cols));
        let (steps, chip) = (self.k.div_ceil(DEPTH), f64::from(chip.multiprocessors));
        let blocks = self.grid(tile).map(f64::from).iter().product::<f64>();
        let on_one = (blocks / chip).ceil();
        let block_steps = f64::from(steps.div_ceil(tile.cluster));
        let reading = on_one * f64::from(tile.slice()) * block_steps / ONE;
        let of_rank = match tile.pairs {
            Pairs::Alone => tile.rank,
            Pairs::Beside => tile.rank / 2,
            Pairs::Stacked => 0,
        };
        let operations = 2.0 * f64::from(tile.rows * (tile.cols + of_rank) * DEPTH) * block_steps;
        let multiplying = on_one * operations / PEAK;
        let all = Op::from(self.op).bytes() / ALL;
        let writing = 2.0 * f64::from(self.m) * f64::from(self.n) / WRITTEN;
        let cluster = if tile.blocks() > 1 { on_one * CLUSTER } else { 0.0 };
        // Where there is one tile, its copies are as small as the matrix.
        let beyond = |tiles: u32, each: u32, size: u32| f64::from(if tiles > 1 { tiles * each - size } else { 0 });
        let rows = beyond(m_tiles, tile.rows, self.m) * f64::from(n_tiles);
        let cols = beyond(n_tiles, tile.cols, self.n) * f64::from(m_tiles);
        let missing = (rows + cols) * f64::from(steps) / MISSING;
        let time = cluster + reading.max(multiplying).max(all) + missing + writing;
        LAUNCH + (on_one - 1.0) * WAVE + time.max(blocks / chip * operations / SUSTAINED)
    }

    /// The tile that takes the least time, and how much.
    pub(super) fn best(&self, chip: &Chip) -> Option<(&'static Tile, f64)> {
        let fitting = TILES.iter().filter(|tile| self.fits(tile) && tile.runs_on(chip));
        fitting.map(|tile| (tile, self.estimate(tile, chip))).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// A launch with that tile.
    pub(super) fn program(&self, tile: &'static Tile) -> Program {
        let [x, w, d, e, y] = self.bindings;
        let Layer { op, m, n, k, rank, .. } = *self;
        let lines = self.lines(tile);
        let params = WarpSpecialisedParams {
            c_row: op.y_row as u64,
            m,
            n,
            rank,
            steps: k.div_ceil(DEPTH),
            copied: lines.iter().sum::<u32>() * LINE,
            factor: op.scale.get(),
        };
        let map = |binding, lines: u32, stride: usize, tile| TensorMap {
            binding,
            dtype: op.dtype,
            columns: k.into(),
            lines: lines.into(),
            stride: stride as u64,
            tile,
        };
        let maps = [
            map(x, m, op.x_row, lines[0]),
            map(w, n, op.in_features, if tile.pairs == Pairs::Stacked { lines[1] / 2 } else { lines[1] }),
            map(d, rank, op.in_features, lines[2]),
        ];
        let workspace_bytes = match tile.pairs {
            Pairs::Alone | Pairs::Beside => 0,
            Pairs::Stacked => u64::from(NUMBERS + m.div_ceil(tile.rows) * tile.whole_h()),
        };
        let hidden = Memory { place: Place::Workspace, offset: 0, bytes: workspace_bytes };
        let hidden = Binding { access: Access::ReadWrite, memory: hidden };
        let launch = Launch {
            source: Source::Own(tile.instance(op.dtype)),
            entry: tile.name,
            params: bytemuck::bytes_of(&params).to_vec(),
            maps: maps.into_iter().collect(),
            bindings: [e, y, hidden].into_iter().collect(),
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

/// Rows x cols, stages, cluster, pairs; each for these ranks.
macro_rules! tiles {
    ($($rows:literal x $cols:literal, $stages:literal, $cluster:literal, $pairs:ident, [$($rank:literal)*];)*) => {
        &[$($(
            Tile {
                name: tiles!(@ $rows, $cols, $rank, $pairs),
                rows: $rows,
                cols: $cols,
                rank: $rank,
                stages: $stages,
                cluster: $cluster,
                pairs: Pairs::$pairs,
            },
        )*)*]
    };
    (@ $rows:literal, $cols:literal, $rank:literal, Alone) => {
        concat!("warp_specialised_", $rows, "x", $cols, "_r", $rank)
    };
    (@ $rows:literal, $cols:literal, $rank:literal, Beside) => {
        concat!("warp_specialised_", $rows, "x", $cols, "_beside_r", $rank)
    };
    (@ $rows:literal, $cols:literal, $rank:literal, Stacked) => {
        concat!("warp_specialised_", $rows, "x", $cols, "_stacked_r", $rank)
    };
}

/// Every instance. Those of few stages leave room for the next launch's blocks to begin. 256 columns leave registers for 16
/// ranks.
pub(super) static TILES: &[Tile] = tiles![
    64 x 24, 6, 1, Alone, [8 16 32 64];
    64 x 32, 4, 2, Alone, [8 16 32 64];
    64 x 64, 4, 2, Alone, [8 16 32 64];
    64 x 96, 4, 1, Alone, [8 16 32 64];
    128 x 64, 4, 2, Alone, [8 16 32 64];
    128 x 64, 6, 1, Beside, [8 16 32 64];
    128 x 96, 6, 1, Alone, [8 16 32 64];
    128 x 128, 6, 1, Alone, [8 16 32 64];
    128 x 128, 6, 1, Stacked, [8 16 32 64];
    128 x 144, 5, 1, Alone, [8 16 32 64];
    128 x 192, 4, 1, Alone, [8 16 32 64];
    128 x 256, 4, 1, Beside, [8 16];
];
