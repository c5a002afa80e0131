//! `kernels/product.cu`: the matrix product and the LoRA layer, in one launch.

use super::tile::{PRODUCTS, Tile};
use super::{access, input, nothing, output};
use crate::chip::Chip;
use crate::program::{Launch, Program, Source};
use candlewick_core::op::{Format, Operands};
use candlewick_core::{DType, LoraLinear, MatMul, Op};
use candlewick_kernels::Binding;

params! {
    /// As in the kernel.
    struct ProductParams {
        a_row: u64,
        b_row: u64,
        c_row: u64,
        a_batch: [u64; 3],
        b_batch: [u64; 3],
        c_batch: [u64; 3],
        batch: [u32; 3],
        m: u32,
        n: u32,
        k: u32,
        rank: u32,
        steps: u32,
        has_bias: u32,
        alpha: f32,
        beta: f32,
        factor: f32,
    }
}

/// What the kernel is given, but for what depends on the tile.
pub(super) struct Product {
    op: Op,
    dtype: DType,
    a_turned: bool,
    b_turned: bool,
    batches: u64,
    params: ProductParams,
    bindings: [Binding; 6],
}

/// The most blocks along y and z of a grid.
const MOST_BLOCKS: u64 = 65_535;

/// As measured on an H100 with bf16 by graph replays: a launch with its first reads and its last writes, in us.
const LAUNCH: f64 = 1.4;
/// What each further block of a multiprocessor adds to that.
const WAVE: f64 = 1.0;
/// What a multiprocessor takes from the level-two cache, in bytes per us, while few others do; and all together.
const ONE: f64 = 46e3;
const ALL: f64 = 4.1e6;
/// With tiles of 64 rows whose factors go through registers, and with the warpgroup's instruction.
const ONE_LARGE: f64 = 31e3;
const GROUPED: f64 = 48e3;
/// With two warpgroups that wait for each other at every slice.
const GROUPED_LARGE: f64 = 34e3;
/// Operations of cuBLASLt's large products per us, at the clock that the power allows.
const SUSTAINED: f64 = 0.77e9;
/// What a block sends to the others of a cluster of four, in bytes per us.
const SENT: f64 = 28e3;
/// The share of the multiprocessors that clusters of four and more find room on.
const ROOM: f64 = 0.9;

/// Sizes and strides that the kernel's 32-bit numbers and 16-byte copies take.
fn size(size: usize) -> Option<u32> {
    u32::try_from(size).ok().filter(|&size| size < 1 << 30)
}
fn stride(elements: usize) -> Option<u64> {
    elements.is_multiple_of(8).then_some(elements as u64)
}

impl Product {
    /// C = alpha op(A) op(B) + beta C.
    pub(super) fn matmul(op: &MatMul, operands: &Operands) -> Option<Self> {
        let ldb = match (op.b_format, op.trans_b) {
            (Format::Plain, _) => op.ldb,
            (Format::Packed, true) => op.k,
            (Format::Packed, false) => op.n,
        };
        let mut params = ProductParams {
            a_row: stride(op.lda)?,
            b_row: stride(ldb)?,
            c_row: op.ldc as u64,
            batch: [1; 3],
            m: size(op.m)?,
            n: size(op.n)?,
            // As in BLAS, nothing is read that a factor of zero hides.
            k: if op.alpha.get() == 0.0 { 0 } else { size(op.k)? },
            alpha: op.alpha.get(),
            beta: op.beta.get(),
            ..ProductParams::default()
        };
        for i in (0..3).filter(|&i| op.batch.dims[i] != 1) {
            // Sums over a batch are not made here.
            if op.batch.c[i] == 0 {
                return None;
            }
            params.batch[i] = size(op.batch.dims[i])?;
            params.a_batch[i] = stride(op.batch.a[i])?;
            params.b_batch[i] = stride(op.batch.b[i])?;
            params.c_batch[i] = op.batch.c[i] as u64;
        }
        let c = output(operands, 0, access(op.beta.get() != 0.0));
        let none = nothing(c);
        Some(Product {
            op: Op::from(*op),
            dtype: op.dtype,
            a_turned: op.trans_a,
            b_turned: !op.trans_b,
            batches: op.batch.count() as u64,
            params,
            bindings: [input(operands, 0), input(operands, 1), none, none, none, c],
        })
    }

    /// y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ, or added to y.
    pub(super) fn lora(op: &LoraLinear, operands: &Operands) -> Option<Self> {
        let params = ProductParams {
            a_row: stride(op.x_row)?,
            b_row: stride(op.in_features)?,
            c_row: op.y_row as u64,
            batch: [1; 3],
            m: size(op.rows)?,
            n: size(op.out_features)?,
            k: size(op.in_features)?,
            rank: size(op.rank)?,
            has_bias: op.bias.into(),
            alpha: 1.0,
            beta: if op.accumulate { 1.0 } else { 0.0 },
            factor: op.scale.get(),
            ..ProductParams::default()
        };
        let y = output(operands, 0, access(op.accumulate));
        let none = nothing(y);
        let (bias, after) = if op.bias { (input(operands, 2), 3) } else { (none, 2) };
        let (d, e) = (input(operands, after), input(operands, after + 1));
        Some(Product {
            op: Op::from(*op),
            dtype: op.dtype,
            a_turned: false,
            b_turned: false,
            batches: 1,
            params,
            bindings: [input(operands, 0), input(operands, 1), bias, d, e, y],
        })
    }

    fn fits(&self, tile: &Tile, chip: &Chip) -> bool {
        let layouts = (tile.a_turned, tile.b_turned) == (self.a_turned, self.b_turned);
        let rank = (tile.rank > 0) == (self.params.rank > 0) && self.params.rank <= tile.rank;
        let [x, y, z] = self.grid(tile);
        layouts && rank && tile.runs_on(chip) && x < 1 << 31 && y <= MOST_BLOCKS && z <= MOST_BLOCKS
    }

    fn grid(&self, tile: &Tile) -> [u64; 3] {
        let blocks = self.params.n.div_ceil(tile.cols) * tile.cluster;
        [blocks.into(), self.params.m.div_ceil(tile.rows).into(), self.batches]
    }

    /// How long a tile takes, in us: what a multiprocessor's blocks read decides. Within a tenth of most measurements.
    fn estimate(&self, tile: &Tile, chip: &Chip) -> f64 {
        let ProductParams { m, n, k, .. } = self.params;
        let rows = if tile.rows > 16 { tile.rows } else { m.min(tile.rows) };
        let lines = rows + n.min(tile.cols) + tile.rank;
        let bytes = 2.0 * f64::from(lines) * f64::from(k.div_ceil(tile.cluster));
        let blocks = self.grid(tile).iter().product::<u64>() as f64;
        let multiprocessors = f64::from(chip.multiprocessors) * if tile.cluster > 2 { ROOM } else { 1.0 };
        let on_one = (blocks / multiprocessors).ceil() * bytes;
        let reading = match (tile.grouped, tile.rows) {
            (true, 128..) => on_one / GROUPED_LARGE,
            (true, _) => on_one / GROUPED,
            (false, 64..) => on_one / ONE_LARGE,
            (false, _) => (on_one / ONE).max(blocks * bytes / ALL),
        };
        let sums = f64::from(4 * tile.rows * (tile.cols + tile.rank));
        let cluster = match tile.cluster {
            1 => 0.0,
            2 => 0.6,
            _ => 0.4 + sums / SENT,
        };
        // A block that finds no room at once begins when another ends, and fills its pipeline anew.
        let waves = (blocks / multiprocessors).ceil().max(1.0);
        LAUNCH + (waves - 1.0) * WAVE + waves * cluster + reading
    }

    /// The tile that takes the least time, and how much.
    pub(super) fn best(&self, chip: &Chip) -> Option<(&'static Tile, f64)> {
        let fitting = PRODUCTS.iter().filter(|tile| self.fits(tile, chip));
        fitting.map(|tile| (tile, self.estimate(tile, chip))).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// A launch with that tile.
    pub(super) fn program(&self, tile: &'static Tile) -> Program {
        let steps = self.params.k.div_ceil(tile.depth).div_ceil(tile.cluster);
        let params = ProductParams { steps, ..self.params };
        let launch = Launch {
            source: Source::Own(tile.instance(self.dtype)),
            entry: tile.name,
            params: bytemuck::bytes_of(&params).to_vec(),
            maps: Default::default(),
            bindings: self.bindings.into_iter().collect(),
            grid: self.grid(tile).map(|blocks| blocks as u32),
            threads: tile.threads(),
            shared_bytes: tile.shared_bytes(),
            cluster: tile.cluster,
            balanced: false,
        };
        Program { variant: tile.name, launches: vec![launch], workspace_bytes: 0, counts: false, alignment: 16 }
    }

    /// How long cuBLASLt's product takes, in us, with two launches behind it for LoRA's part: as measured there too.
    pub(super) fn by_library(&self) -> f64 {
        let k = f64::from(self.params.k);
        let product = 2.2 + (k * 0.0015).max(self.op.bytes() / ALL) + self.op.flops() / 1.2e9;
        let product = product.max(1.5 + self.op.flops() / SUSTAINED);
        let ProductParams { m, n, rank, .. } = self.params;
        // x is read for h, and y to be added to.
        let again = 2.0 * f64::from(m) * (k + 2.0 * f64::from(n));
        let delta = if rank > 0 { 4.4 + k * 0.0008 + again / ALL } else { 0.0 };
        product + delta
    }
}
