//! `kernels/lora_backward.cu`: LoRA's backward in two launches, alone or behind the product dy W.

use super::tile::{SUMS, instance, kernel, runs_on};
use super::{access, input, output};
use crate::chip::Chip;
use crate::program::{Instance, Launch, Program, Source};
use candlewick_core::op::Operands;
use candlewick_core::{DType, LoraDelta, LoraLinear};
use candlewick_kernels::{Access, Binding, Memory, Place};

params! {
    /// As in the kernels.
    struct LoraBackwardParams {
        x_row: u64,
        y_row: u64,
        rows: u32,
        ins: u32,
        outs: u32,
        adds_dx: u32,
        factor: f32,
        unused: u32,
    }
}

/// An instance of the kernel of h and dh.
pub(super) struct Hidden {
    pub(super) name: &'static str,
    rows: u32,
    rank: u32,
}

/// An instance of the kernel of dA, dB and dx.
pub(super) struct Gradients {
    pub(super) name: &'static str,
    rank: u32,
    cols: u32,
    pub(super) cluster: u32,
}

/// As `WARPS` in the kernels.
const WARPS: u32 = 8;
pub(super) const THREADS: u32 = 32 * WARPS;
/// Of a block that makes a part of dx.
const DX_ROWS: u32 = 16 * WARPS;
const DX_COLS: u32 = 64;
/// Up to so many rows a column's sum is left to one block.
const MOST_ROWS_OF_BLOCK: u32 = 2048;

impl Hidden {
    pub(super) const fn shared_bytes(&self) -> u32 {
        WARPS * (self.rows / 16) * (self.rank / 8) * SUMS
    }

    pub(super) fn instance(&self, dtype: DType) -> Instance {
        pass(self.name, dtype, self.shared_bytes(), format!("HIDDEN, {}, {}", self.rows, self.rank))
    }

    /// With 16 rows a block where that is no more than two blocks a multiprocessor, which both read D anew.
    fn find(rows: u32, rank: u32, chip: &Chip) -> Option<&'static Self> {
        let few = 2 * rows.div_ceil(16) <= 2 * chip.multiprocessors;
        HIDDEN.iter().find(|tile| tile.rank == rank && tile.rows == if few { 16 } else { 32 })
    }
}

impl Gradients {
    pub(super) const fn shared_bytes(&self) -> u32 {
        let tiles = (self.cols / 16) * (self.rank / 8);
        let gathered = if self.cluster > 1 { tiles.div_ceil(self.cluster) * self.cluster } else { 0 };
        (WARPS * tiles + gathered) * SUMS
    }

    pub(super) fn instance(&self, dtype: DType) -> Instance {
        let Gradients { rank, cols, cluster, .. } = *self;
        pass(self.name, dtype, self.shared_bytes(), format!("GRADIENTS, {rank}, {cols}, {WARPS}, {cluster}"))
    }

    fn find(rows: u32, rank: u32, chip: &Chip) -> Option<&'static Self> {
        let fits = |tile: &&Gradients| tile.rank == rank && runs_on(chip, tile.cluster, tile.shared_bytes());
        let cols = if rows <= MOST_ROWS_OF_BLOCK { 32 } else { 64 };
        let mut fitting = GRADIENTS.iter().filter(fits);
        let first = fitting.next()?;
        Some(if first.cols == cols { first } else { fitting.next().unwrap_or(first) })
    }

    /// Blocks that sum columns of so many, a multiple of the cluster, and those of dx behind them.
    fn blocks(&self, rows: u32, ins: u32, outs: u32) -> Option<u32> {
        let sums = u64::from(ins.div_ceil(self.cols) + outs.div_ceil(self.cols));
        let dx = u64::from(rows.div_ceil(DX_ROWS)) * u64::from(ins.div_ceil(DX_COLS));
        let blocks = (sums + dx.div_ceil(self.cluster.into())) * u64::from(self.cluster);
        u32::try_from(blocks).ok().filter(|&blocks| blocks < 1 << 31)
    }
}

/// Every instance. Gradients of a rank: for few rows first.
pub(super) static HIDDEN: &[Hidden] = &[
    Hidden { name: "lora_hidden_16_r8", rows: 16, rank: 8 },
    Hidden { name: "lora_hidden_32_r8", rows: 32, rank: 8 },
    Hidden { name: "lora_hidden_16_r16", rows: 16, rank: 16 },
    Hidden { name: "lora_hidden_32_r16", rows: 32, rank: 16 },
    Hidden { name: "lora_hidden_16_r32", rows: 16, rank: 32 },
    Hidden { name: "lora_hidden_32_r32", rows: 32, rank: 32 },
];
pub(super) static GRADIENTS: &[Gradients] = &[
    Gradients { name: "lora_gradients_32_r8", rank: 8, cols: 32, cluster: 1 },
    Gradients { name: "lora_gradients_64_r8", rank: 8, cols: 64, cluster: 4 },
    Gradients { name: "lora_gradients_32_r16", rank: 16, cols: 32, cluster: 1 },
    Gradients { name: "lora_gradients_64_r16", rank: 16, cols: 64, cluster: 4 },
    Gradients { name: "lora_gradients_32_r32", rank: 32, cols: 32, cluster: 2 },
];

fn pass(name: &'static str, dtype: DType, shared_bytes: u32, tile: String) -> Instance {
    static FILES: &[(&str, &str)] = &[kernel!("instructions.h"), kernel!("slices.h"), kernel!("lora_backward.cu")];
    instance(name, FILES, dtype, shared_bytes, tile)
}

/// The delta's backward.
pub(super) fn delta(op: &LoraDelta, operands: &Operands, chip: &Chip) -> Option<Program> {
    let [x, a, b, dy] = [0, 1, 2, 3].map(|index| input(operands, index));
    program(op, [x, a, b, dy], operands, false, chip)
}

/// What is left of the layer's backward when dx is dy W: dx += dh A, da and db.
pub(super) fn behind_product(op: &LoraLinear, operands: &Operands, chip: &Chip) -> Option<Program> {
    let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
    let delta = LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype);
    let [x, a, b, dy] = [0, 2, 3, 4].map(|index| input(operands, index));
    program(&LoraDelta { x_row, y_row, ..delta }, [x, a, b, dy], operands, true, chip)
}

fn program(op: &LoraDelta, inputs: [Binding; 4], operands: &Operands, adds_dx: bool, chip: &Chip) -> Option<Program> {
    let size = |size: usize| u32::try_from(size).ok().filter(|&size| size < 1 << 30);
    let (rows, ins, outs, rank) = (size(op.rows)?, size(op.in_features)?, size(op.out_features)?, size(op.rank)?);
    let aligned = [op.in_features, op.out_features, op.x_row, op.y_row].iter().all(|size| size.is_multiple_of(8));
    let (hidden, gradients) = (Hidden::find(rows, rank, chip)?, Gradients::find(rows, rank, chip)?);
    if !aligned || op.dtype != DType::BF16 || !runs_on(chip, 1, hidden.shared_bytes()) {
        return None;
    }
    let params = LoraBackwardParams {
        x_row: op.x_row as u64,
        y_row: op.y_row as u64,
        rows,
        ins,
        outs,
        adds_dx: adds_dx.into(),
        factor: op.scale.get(),
        unused: 0,
    };
    // h, then dh: whole tiles of rows.
    let bytes = u64::from(rows.div_ceil(hidden.rows) * hidden.rows) * u64::from(rank) * op.dtype.bytes() as u64;
    let own = |index: u64, access| Binding {
        memory: Memory { place: Place::Workspace, offset: index * bytes, bytes },
        access,
    };
    let [x, a, b, dy] = inputs;
    let [dx, da, db] = [access(adds_dx), Access::Write, Access::Write];
    let [dx, da, db] = [output(operands, 0, dx), output(operands, 1, da), output(operands, 2, db)];
    let launch = |source: Instance, entry, bindings: &[Binding], grid, shared_bytes, cluster| Launch {
        source: Source::Own(source),
        entry,
        params: bytemuck::bytes_of(&params).to_vec(),
        maps: Default::default(),
        bindings: bindings.iter().copied().collect(),
        grid,
        threads: THREADS,
        shared_bytes,
        cluster,
    };
    let first = launch(
        hidden.instance(op.dtype),
        hidden.name,
        &[x, a, b, dy, own(0, Access::Write), own(1, Access::Write)],
        [rows.div_ceil(hidden.rows), 2, 1],
        hidden.shared_bytes(),
        1,
    );
    let second = launch(
        gradients.instance(op.dtype),
        gradients.name,
        &[x, a, dy, own(0, Access::Read), own(1, Access::Read), dx, da, db],
        [gradients.blocks(rows, ins, outs)?, 1, 1],
        gradients.shared_bytes(),
        gradients.cluster,
    );
    Some(Program { variant: "fragments", launches: vec![first, second], workspace_bytes: 2 * bytes, alignment: 16 })
}
