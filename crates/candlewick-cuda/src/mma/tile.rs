//! The instances of the kernels: the size of their tiles, and what follows from it.

use crate::chip::Chip;
use crate::program::Instance;
use candlewick_core::DType;

/// An instance of `kernels/product.cu`, whose header says what the fields mean.
pub(super) struct Tile {
    /// What the instance, its kernel and its way of running are called.
    pub(super) name: &'static str,
    pub(super) rows: u32,
    pub(super) cols: u32,
    /// The most ranks; 0 where there is no LoRA.
    pub(super) rank: u32,
    /// Along m, n and the sum.
    pub(super) warps: [u32; 3],
    pub(super) depth: u32,
    pub(super) stages: u32,
    /// Blocks along the sum.
    pub(super) cluster: u32,
    /// A is stored [k, m].
    pub(super) a_turned: bool,
    /// B is stored [k, n].
    pub(super) b_turned: bool,
    /// By the warpgroup's instruction.
    pub(super) grouped: bool,
}

/// An instance of `kernels/delta.cu`.
pub(super) struct DeltaTile {
    /// What the instance, its kernel and its way of running are called.
    pub(super) name: &'static str,
    pub(super) rows: u32,
    pub(super) rank: u32,
    pub(super) depth: u32,
    pub(super) stages: u32,
    pub(super) cluster: u32,
}

/// What the kernels call `pitch`.
pub(super) const fn pitch(elements: u32) -> u32 {
    2 * elements + 16
}

pub(super) const fn max(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

/// The most shared memory of a block on the chips from sm_90 on; the kernels know it too.
const MOST_SHARED: u32 = 227 * 1024;
/// Bytes of a tile of 16 x 8 sums.
pub(super) const SUMS: u32 = 512;

/// A file, with its text.
macro_rules! kernel {
    ($name:literal) => {
        (concat!("kernels/", $name), include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/", $name)))
    };
}
pub(super) use kernel;

pub(super) fn instance(
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    dtype: DType,
    shared_bytes: u32,
    tile: String,
) -> Instance {
    let macros = vec![
        ("NAME", name.to_owned()),
        ("ELEMENT", dtype.to_string()),
        ("SHARED_BYTES", shared_bytes.to_string()),
        ("TILE", tile),
    ];
    Instance { name, files, macros }
}

impl Tile {
    pub(super) const fn threads(&self) -> u32 {
        32 * self.warps[0] * self.warps[1] * self.warps[2]
    }

    /// As the kernel's `SHARED`: compiling an instance fails where the two differ.
    pub(super) const fn shared_bytes(&self) -> u32 {
        let Tile { rows, cols, rank, depth, stages, cluster, .. } = *self;
        let along = if self.grouped { 128 } else { pitch(depth) };
        let a = if self.a_turned { depth * pitch(rows) } else { rows * along };
        let b = if self.b_turned { depth * pitch(cols) } else { (cols + rank) * along };
        let ring = stages * (a + b);
        let (m_tiles, n_tiles, rank_tiles) = (rows / 16, cols / 8, rank / 8);
        let sums = self.warps[2] * m_tiles * (n_tiles + rank_tiles) * SUMS;
        let owners_m = if cluster < m_tiles { cluster } else { m_tiles };
        let owned = m_tiles / owners_m * (n_tiles / (cluster / owners_m) + rank_tiles);
        let cluster_sums = if cluster > 1 { cluster * owned * SUMS } else { 0 };
        let e = if rank > 0 { cols * pitch(rank) } else { 0 };
        let apart = max(ring, sums) + cluster_sums + e <= MOST_SHARED;
        let gathered = if apart { max(ring, sums) } else { sums };
        max(gathered + cluster_sums, ring) + e
    }

    /// What is compiled.
    pub(super) fn instance(&self, dtype: DType) -> Instance {
        static FILES: &[(&str, &str)] =
            &[kernel!("instructions.h"), kernel!("slices.h"), kernel!("warpgroup.h"), kernel!("product.cu")];
        let Tile { rows, cols, rank, warps: [m, n, k], depth, stages, cluster, a_turned, b_turned, grouped, .. } =
            *self;
        let tile = format!(
            "{rows}, {cols}, {rank}, {m}, {n}, {k}, {depth}, {stages}, {cluster}, {a_turned}, {b_turned}, {grouped}"
        );
        instance(self.name, FILES, dtype, self.shared_bytes(), tile)
    }

    /// Whether the chip has what it needs.
    pub(super) fn runs_on(&self, chip: &Chip) -> bool {
        runs_on(chip, self.cluster, self.shared_bytes()) && (!self.grouped || chip.capability == (9, 0))
    }
}

impl DeltaTile {
    /// As `WARPS` in the kernel.
    const WARPS: u32 = 16;

    pub(super) const fn threads(&self) -> u32 {
        32 * Self::WARPS
    }

    /// As the kernel's `SHARED`.
    pub(super) const fn shared_bytes(&self) -> u32 {
        let tiles = self.rows / 16 * (self.rank / 8);
        let ring = self.stages * (self.rows + self.rank) * pitch(self.depth);
        max(ring, Self::WARPS * tiles * SUMS) + self.cluster * tiles * SUMS
    }

    /// What is compiled.
    pub(super) fn instance(&self, dtype: DType) -> Instance {
        static FILES: &[(&str, &str)] = &[kernel!("instructions.h"), kernel!("slices.h"), kernel!("delta.cu")];
        let DeltaTile { rows, rank, depth, stages, cluster, .. } = *self;
        let tile = format!("{rows}, {rank}, {depth}, {stages}, {cluster}");
        instance(self.name, FILES, dtype, self.shared_bytes(), tile)
    }

    /// Whether the chip has what it needs.
    pub(super) fn runs_on(&self, chip: &Chip) -> bool {
        runs_on(chip, self.cluster, self.shared_bytes())
    }
}

pub(super) fn runs_on(chip: &Chip, cluster: u32, shared_bytes: u32) -> bool {
    let oldest = if cluster > 1 { (9, 0) } else { (8, 0) };
    chip.capability >= oldest && shared_bytes <= chip.shared_bytes
}

/// Name; rows x cols + rank; warps along m, n and the sum; depth x stages; cluster.
macro_rules! product {
    ($name:literal, $rows:literal x $cols:literal + $rank:literal, $warps:expr, $depth:literal x $stages:literal,
     $cluster:literal) => {
        product!($name, $rows x $cols + $rank, $warps, $depth x $stages, $cluster, false, false, false)
    };
    ($name:literal, $rows:literal x $cols:literal + $rank:literal, $warps:expr, $depth:literal x $stages:literal,
     $cluster:literal, $a_turned:literal, $b_turned:literal, $grouped:literal) => {
        Tile {
            name: $name,
            rows: $rows,
            cols: $cols,
            rank: $rank,
            warps: $warps,
            depth: $depth,
            stages: $stages,
            cluster: $cluster,
            a_turned: $a_turned,
            b_turned: $b_turned,
            grouped: $grouped,
        }
    };
}

/// Name, rows, rank, depth x stages, cluster.
macro_rules! delta {
    ($name:literal, $rows:literal, $rank:literal, $depth:literal x $stages:literal, $cluster:literal) => {
        DeltaTile { name: $name, rows: $rows, rank: $rank, depth: $depth, stages: $stages, cluster: $cluster }
    };
}

/// Every instance of `kernels/product.cu`.
pub(super) static PRODUCTS: &[Tile] = &[
    // LoRA layers. Few rows, or a short sum: everything is under way at once.
    product!("lora_16x16_r8", 16 x 16 + 8, [1, 1, 8], 128 x 5, 1),
    product!("lora_16x16_r16", 16 x 16 + 16, [1, 1, 8], 128 x 5, 1),
    product!("lora_32x32_r8", 32 x 32 + 8, [1, 1, 8], 128 x 5, 1),
    product!("lora_32x32_r16", 32 x 32 + 16, [1, 1, 8], 128 x 4, 1),
    product!("lora_32x32_r32", 32 x 32 + 32, [1, 1, 8], 128 x 4, 1),
    product!("lora_32x32_r64", 32 x 32 + 64, [1, 1, 8], 128 x 4, 1),
    // Few rows, a long sum: columns enough that reading x and D again for each block costs little.
    product!("lora_16x64_r16", 16 x 64 + 16, [1, 2, 4], 64 x 6, 2),
    product!("lora_16x64_r32", 16 x 64 + 32, [1, 2, 4], 64 x 6, 2),
    product!("lora_16x64_r64", 16 x 64 + 64, [1, 2, 4], 64 x 6, 2),
    // More rows: larger tiles on the warpgroup's instruction, the sum cut among two or four blocks.
    product!("lora_64x32_r16", 64 x 32 + 16, [4, 1, 2], 64 x 6, 2, false, false, true),
    product!("lora_64x64_r16_quarters", 64 x 64 + 16, [4, 1, 1], 64 x 5, 4, false, false, true),
    product!("lora_64x64_r16", 64 x 64 + 16, [4, 1, 2], 64 x 6, 2, false, false, true),
    product!("lora_64x96_r16_quarters", 64 x 96 + 16, [4, 1, 2], 64 x 5, 4, false, false, true),
    product!("lora_64x128_r16", 64 x 128 + 16, [4, 1, 2], 64 x 5, 2, false, false, true),
    // Many rows, and as many blocks as multiprocessors, or two or three times as many.
    product!("lora_64x72_r16", 64 x 72 + 16, [4, 1, 2], 64 x 6, 1, false, false, true),
    product!("lora_64x96_r16", 64 x 96 + 16, [4, 1, 2], 64 x 4, 1, false, false, true),
    product!("lora_128x144_r16", 128 x 144 + 16, [8, 1, 1], 64 x 5, 1, false, false, true),
    product!("lora_64x64_r32", 64 x 64 + 32, [4, 1, 2], 64 x 5, 2, false, false, true),
    product!("lora_64x64_r64", 64 x 64 + 64, [4, 1, 2], 64 x 5, 2, false, false, true),
    // The same where there is no such instruction.
    product!("lora_64x64_r16_mma", 64 x 64 + 16, [2, 2, 2], 64 x 5, 2),
    product!("lora_64x64_r32_mma", 64 x 64 + 32, [2, 2, 2], 64 x 5, 2),
    product!("lora_64x64_r64_mma", 64 x 64 + 64, [2, 2, 2], 64 x 4, 2),
    // Matrix products, by the layouts of their factors.
    product!("product_16x32_nn", 16 x 32 + 0, [1, 1, 4], 128 x 3, 1, false, true, false),
    product!("product_32x32_nn", 32 x 32 + 0, [1, 1, 4], 128 x 3, 1, false, true, false),
    product!("product_64x64_nn", 64 x 64 + 0, [2, 2, 2], 64 x 5, 2, false, true, false),
    product!("product_16x32_nt", 16 x 32 + 0, [1, 1, 8], 128 x 6, 1, false, false, false),
    product!("product_32x32_nt", 32 x 32 + 0, [1, 1, 4], 64 x 4, 1, false, false, false),
    product!("product_64x64_nt", 64 x 64 + 0, [4, 1, 2], 64 x 6, 1, false, false, true),
    product!("product_64x64_nt_mma", 64 x 64 + 0, [2, 2, 2], 64 x 5, 2, false, false, false),
    product!("product_16x32_tn", 16 x 32 + 0, [1, 1, 4], 128 x 3, 1, true, true, false),
    product!("product_32x32_tn", 32 x 32 + 0, [1, 1, 4], 128 x 3, 1, true, true, false),
    product!("product_64x64_tn", 64 x 64 + 0, [2, 2, 2], 64 x 5, 2, true, true, false),
    product!("product_32x32_tt", 32 x 32 + 0, [1, 1, 4], 128 x 3, 1, true, false, false),
];

/// Every instance of `kernels/delta.cu`.
pub(super) static DELTAS: &[DeltaTile] = &[
    delta!("delta_r8", 16, 8, 256 x 3, 4),
    delta!("delta_r16", 16, 16, 256 x 3, 4),
    delta!("delta_r32", 16, 32, 256 x 3, 4),
    delta!("delta_r64", 16, 64, 256 x 3, 4),
];
