//! The instances of `kernels/warp_specialised.h`: the size of their tiles, and what follows from it.

use crate::chip::Chip;
use crate::mma::tile::{instance, kernel, pitch, runs_on};
use crate::program::Instance;
use candlewick_core::DType;

/// An instance of the kernel, whose header says what the fields mean.
pub(crate) struct Tile {
    /// What the instance, its kernel and its way of running are called.
    pub(crate) name: &'static str,
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    /// The most ranks; 0 where there is no LoRA.
    pub(crate) rank: u32,
    /// The slices that were found to be enough; fewer where there is no room.
    pub(crate) stages: u32,
    /// Blocks along the sum.
    pub(crate) cluster: u32,
    pub(crate) pairs: Pairs,
    /// B is stored [k, n].
    pub(crate) turned: bool,
}

/// Whether two blocks are a cluster that shares what both need; the kernel says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pairs {
    Alone,
    /// Neighbouring columns make h together.
    Beside,
    /// Neighbouring rows take B together; of a LoRA layer, blocks ahead of them make h.
    Stacked,
}

/// Elements of a slice along the sum, and bytes of one of its lines.
pub(super) const DEPTH: u32 = 64;
pub(super) const LINE: u32 = 128;
/// The most shared memory of a block.
const MOST_SHARED: u32 = 227 * 1024;
impl Tile {
    /// Two or four warps for each 32 rows, and the one that copies.
    pub(crate) const fn threads(&self) -> u32 {
        2 * self.rows + 32
    }

    pub(super) const fn slice(&self) -> u32 {
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
        let e = if self.rank > 0 { self.cols * pitch(self.rank) } else { 0 };
        sums + parts * self.whole_h() + e + 16 * stages + 16
    }

    /// Bytes of the h of a row of tiles.
    pub(super) const fn whole_h(&self) -> u32 {
        self.rows / 16 * (self.rank / 8) * 512
    }

    /// Blocks of a cluster.
    pub(crate) const fn blocks(&self) -> u32 {
        match self.pairs {
            Pairs::Alone => self.cluster,
            Pairs::Beside | Pairs::Stacked => 2,
        }
    }

    pub(crate) const fn stages(&self) -> u32 {
        let mut stages = self.stages;
        while stages * self.slice() + self.behind(stages) > MOST_SHARED {
            stages -= 1;
        }
        stages
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    pub(crate) const fn shared_bytes(&self) -> u32 {
        self.stages() * self.slice() + self.behind(self.stages())
    }

    /// What is compiled.
    pub(crate) fn instance(&self, dtype: DType) -> Instance {
        macro_rules! files {
            ($own:literal) => {
                &[
                    kernel!("instructions.h"),
                    kernel!("slices.h"),
                    kernel!("warpgroup.h"),
                    kernel!("tensor_copies.h"),
                    kernel!("warp_specialised.h"),
                    kernel!($own),
                ]
            };
        }
        let files: &'static [(&'static str, &'static str)] = match self.rank {
            0 => files!("warp_specialised_product.cu"),
            _ => files!("warp_specialised_lora_linear.cu"),
        };
        let Tile { rows, cols, rank, cluster, pairs, turned, .. } = *self;
        let pairs = format!("{pairs:?}").to_uppercase();
        let tile = format!("{rows}, {cols}, {rank}, {}, {cluster}, {pairs}, {turned}", self.stages());
        instance(self.name, files, dtype, self.shared_bytes(), tile)
    }

    /// Whether the chip has what it needs.
    pub(crate) fn runs_on(&self, chip: &Chip) -> bool {
        chip.capability == (9, 0) && runs_on(chip, self.blocks(), self.shared_bytes())
    }
}

/// Rows x cols, stages, cluster, pairs; each for these ranks, or for products with B so.
macro_rules! tiles {
    ($($rows:literal x $cols:literal, $stages:literal, $cluster:tt, $pairs:ident, [$($of:tt)*];)*) => {
        &[$($(
            Tile {
                name: concat!(
                    "warp_specialised_", $rows, "x", $cols, tiles!(@cluster $cluster $of), tiles!(@pairs $pairs),
                    tiles!(@of $of)
                ),
                rows: $rows,
                cols: $cols,
                rank: tiles!(@rank $of),
                stages: $stages,
                cluster: $cluster,
                pairs: Pairs::$pairs,
                turned: tiles!(@turned $of),
            },
        )*)*]
    };
    (@pairs Alone) => { "" };
    (@pairs Beside) => { "_beside" };
    (@pairs Stacked) => { "_stacked" };
    (@cluster 2 nn) => { "_by_2" };
    (@cluster 2 nt) => { "_by_2" };
    (@cluster 4 nn) => { "_by_4" };
    (@cluster 4 nt) => { "_by_4" };
    (@cluster $cluster:tt $of:tt) => { "" };
    (@of nn) => { "_nn" };
    (@of nt) => { "_nt" };
    (@of $rank:literal) => { concat!("_r", $rank) };
    (@rank nn) => { 0 };
    (@rank nt) => { 0 };
    (@rank $rank:literal) => { $rank };
    (@turned nn) => { true };
    (@turned $other:tt) => { false };
}

/// Every instance; of equal estimates the first counts. Those of few stages leave room for the next launch's blocks to begin.
/// 256 columns leave registers for 16 ranks.
pub(crate) static TILES: &[Tile] = tiles![
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
    64 x 32, 4, 1, Alone, [nt];
    64 x 32, 4, 2, Alone, [nt];
    64 x 32, 4, 4, Alone, [nt];
    64 x 64, 4, 1, Alone, [nt nn];
    64 x 64, 4, 2, Alone, [nt nn];
    64 x 64, 4, 4, Alone, [nt nn];
    64 x 128, 4, 1, Alone, [nt nn];
    128 x 64, 6, 1, Alone, [nt nn];
    128 x 128, 6, 1, Stacked, [nt nn];
    128 x 128, 6, 1, Alone, [nt nn];
    128 x 144, 5, 1, Alone, [nt];
    128 x 192, 4, 1, Alone, [nt nn];
    128 x 256, 4, 1, Alone, [nt nn];
];
