//! `kernels/lora_backward.cu`: LoRA's backward in two launches, alone or behind the product dy W; of two layers at once where
//! they read the same x.

use super::access;
use super::tile::{SUMS, instance, kernel, runs_on};
use crate::chip::Chip;
use crate::program::{Instance, Launch, Program, Source};
use arrayvec::ArrayVec;
use candlewick_core::{DType, LoraDelta, LoraLinear, Op};
use candlewick_kernels::{Access, Binding, Memory, Place};

params! {
    /// As in the kernels.
    struct LoraBackwardParams {
        x_row: u64,
        y_row: [u64; 2],
        hidden: u64,
        rows: u32,
        ins: u32,
        outs: [u32; 2],
        factor: [f32; 2],
        layers: u32,
        adds_dx: u32,
        kept: u32,
        unused: u32,
    }
}

/// How h, then dh, of each layer lie in the workspace of their backward, where their forward may have left h.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    /// In whole tiles: those beyond the layers' are zero.
    pub(crate) rows: u32,
    /// Elements from h of a layer to that of the next.
    pub(crate) apart: u64,
    /// Of the workspace.
    pub(crate) bytes: u64,
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

    /// Blocks that sum columns of layers with so many outputs, a multiple of the cluster, and those of dx behind them.
    fn blocks(&self, rows: u32, ins: u32, outs: impl Iterator<Item = u32>) -> Option<u32> {
        let sums: u64 = outs.map(|outs| u64::from(ins.div_ceil(self.cols) + outs.div_ceil(self.cols))).sum();
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
    static FILES: &[(&str, &str)] =
        &[kernel!("instructions.h"), kernel!("slices.h"), kernel!("lora_hidden.h"), kernel!("lora_backward.cu")];
    instance(name, FILES, dtype, shared_bytes, tile)
}

/// The delta's backward.
pub(super) fn delta(op: &LoraDelta, chip: &Chip) -> Option<Program> {
    program(&[*op], false, false, chip)
}

/// What is left of the backwards of one layer, or of two that read the same x, when dx is the sum of their dy W:
/// dx += dh A, da and db. Inputs of the program are x, then A, B and dy of each layer; outputs dx, then da and db of each.
/// `kept`: h is in the workspace.
pub(super) fn behind_products(ops: &[LoraLinear], kept: bool, chip: &Chip) -> Option<Program> {
    program(&deltas(ops), true, kept, chip)
}

/// How h of such layers lies, if there is a program for their backward.
pub(super) fn kept(ops: &[LoraLinear], chip: &Chip) -> Option<Kept> {
    let deltas = deltas(ops);
    program(&deltas, true, true, chip)?;
    kept_by(&deltas, chip)
}

fn kept_by(layers: &[LoraDelta], chip: &Chip) -> Option<Kept> {
    let op = layers.first()?;
    let (rows, rank) = (u32::try_from(op.rows).ok()?, u32::try_from(op.rank).ok()?);
    let rows = rows.checked_next_multiple_of(Hidden::find(rows, rank, chip)?.rows)?;
    let apart = 2 * u64::from(rows) * u64::from(rank);
    Some(Kept { rows, apart, bytes: apart * (layers.len() * op.dtype.bytes()) as u64 })
}

fn deltas(ops: &[LoraLinear]) -> ArrayVec<LoraDelta, MOST_LAYERS> {
    let delta = |op: &LoraLinear| {
        let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
        LoraDelta { x_row, y_row, ..LoraDelta::new(rows, in_features, out_features, rank, scale.get(), dtype) }
    };
    ops.iter().map(delta).collect()
}

/// The same memory under another name.
fn named(binding: Binding, place: Place) -> Binding {
    Binding { memory: Memory { place, ..binding.memory }, ..binding }
}

/// Layers that go together, at most.
const MOST_LAYERS: usize = 2;

fn program(layers: &[LoraDelta], adds_dx: bool, kept: bool, chip: &Chip) -> Option<Program> {
    let size = |size: usize| u32::try_from(size).ok().filter(|&size| size < 1 << 30);
    let op = layers.first()?;
    let (rows, ins, rank) = (size(op.rows)?, size(op.in_features)?, size(op.rank)?);
    let shared = |op: &LoraDelta| (op.rows, op.in_features, op.rank, op.x_row, op.dtype);
    let (hidden, gradients) = (Hidden::find(rows, rank, chip)?, Gradients::find(rows, rank, chip)?);
    let Kept { apart, bytes: workspace_bytes, .. } = kept_by(layers, chip)?;
    let mut params = LoraBackwardParams {
        x_row: op.x_row as u64,
        hidden: apart,
        rows,
        ins,
        layers: layers.len() as u32,
        adds_dx: adds_dx.into(),
        kept: kept.into(),
        ..LoraBackwardParams::default()
    };
    let mut all = Vec::with_capacity(layers.len());
    for (i, layer) in layers.iter().enumerate() {
        let operands = super::operands(&Op::LoraDeltaBackward(*layer))?;
        let aligned = [layer.in_features, layer.out_features, layer.x_row, layer.y_row];
        if shared(layer) != shared(op) || !aligned.iter().all(|size| size.is_multiple_of(8)) {
            return None;
        }
        (params.y_row[i], params.outs[i]) = (layer.y_row as u64, size(layer.out_features)?);
        params.factor[i] = layer.scale.get();
        all.push(operands);
    }
    if op.dtype != DType::BF16 || !runs_on(chip, 1, hidden.shared_bytes()) {
        return None;
    }
    let none = Binding { memory: Memory { place: Place::Workspace, offset: 0, bytes: 0 }, access: Access::Read };
    // Of a layer: its own operand, under the number that it has in the program.
    let input = |layer: usize, of: usize| {
        let number = if of == 0 { 0 } else { 3 * layer + of };
        all.get(layer).map_or(none, |operands| named(super::input(operands, of), Place::Input(number as u8)))
    };
    let output = |layer: usize, of: usize, access| {
        let number = if of == 0 { 0 } else { 2 * layer + of };
        let place = Place::Output(number as u8);
        all.get(layer).map_or(none, |operands| named(super::output(operands, of, access), place))
    };
    // All h, and all dh, which begin behind the first h.
    let bytes = apart / 2 * op.dtype.bytes() as u64;
    let own = |index: u64, access| Binding {
        memory: Memory { place: Place::Workspace, offset: index * bytes, bytes: workspace_bytes - bytes },
        access,
    };
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
        balanced: false,
    };
    let [x, dx] = [input(0, 0), output(0, 0, access(adds_dx))];
    let of = |layer: usize| [1, 2, 3].map(|of| input(layer, of));
    let ([a0, b0, dy0], [a1, b1, dy1]) = (of(0), of(1));
    let [da0, db0, da1, db1] = [(0, 1), (0, 2), (1, 1), (1, 2)].map(|(layer, of)| output(layer, of, Access::Write));
    let first = launch(
        hidden.instance(op.dtype),
        hidden.name,
        &[x, a0, b0, dy0, a1, b1, dy1, own(0, Access::Write), own(1, Access::Write)],
        [rows.div_ceil(hidden.rows), if kept { 1 } else { 2 } * layers.len() as u32, 1],
        hidden.shared_bytes(),
        1,
    );
    let outs = params.outs.into_iter().take(layers.len());
    let second = launch(
        gradients.instance(op.dtype),
        gradients.name,
        &[x, a0, dy0, a1, dy1, own(0, Access::Read), own(1, Access::Read), dx, da0, db0, da1, db1],
        [gradients.blocks(rows, ins, outs)?, 1, 1],
        gradients.shared_bytes(),
        gradients.cluster,
    );
    Some(Program { variant: "fragments", launches: vec![first, second], workspace_bytes, counts: false, alignment: 16 })
}
