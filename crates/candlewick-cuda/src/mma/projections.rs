//! `kernels/projections.cu`: up to three LoRA layers of one x in one launch on Hopper, some of them turned by their rows'
//! positions.

use super::ping_pong::{DEPTH, LINE, ROWS, Tile, matrix, part, ping_pong, sizes, staging};
use super::product::Product;
use super::tile::{kernel, pitch};
use super::{Kept, nothing, on_hopper, turns_halves, whole};
use crate::chip::Chip;
use crate::program::{Program, TensorMap};
use candlewick_core::{DType, LoraLinear, Op, Rope};
use candlewick_kernels::{Access, Binding, Memory, Place};

/// The most layers of a launch.
pub(crate) const MOST_LAYERS: usize = 3;

params! {
    /// As in the kernel.
    struct Of {
        y_row: u64,
        n: u32,
        rank: u32,
        first: u32,
        turned: u32,
        copied: u32,
        factor: f32,
        kept: u32,
        unused: u32,
        hidden: u64,
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct ProjectionsParams {
    of: [Of; MOST_LAYERS],
    m: u32,
    steps: u32,
    row_tiles: u32,
    col_tiles: u32,
}

/// A layer, whose rank may be 0, and what turns the heads that it makes.
#[derive(Clone, Copy)]
pub(crate) struct Projection {
    pub(crate) layer: LoraLinear,
    pub(crate) rope: Option<Rope>,
    /// Whether h is left for the backward: how it lies there, and the layer's number in that.
    pub(crate) kept: Option<(Kept, usize)>,
}

impl Projection {
    fn fits(&self) -> bool {
        let LoraLinear { rows, out_features, in_features, x_row, y_row, bias, accumulate, .. } = self.layer;
        let turned = self.rope.is_none_or(|rope| {
            turns_halves(&rope) && (rope.rows, rope.heads * rope.head, rope.x_row) == (rows, out_features, y_row)
        });
        !bias && !accumulate && turned && sizes([rows, out_features, in_features], &[x_row, self.y_row()]).is_some()
    }

    fn y_row(&self) -> usize {
        self.rope.map_or(self.layer.y_row, |rope| rope.y_row)
    }
}

/// What rotation takes by itself, in us: on an H100 q and k of 4 x 256 tokens took 3.6, most of it a launch.
const ROPE: f64 = 3.0;

/// The layers in one launch, for aligned operands, if that is the better guess. Its inputs are x, then W, A and B of each of
/// three layers, the positions and the frequencies; its outputs what each makes; its workspace the backward's, where h is kept.
pub(crate) fn projections(of: &[Projection], chip: &Chip) -> Option<Program> {
    let first = of.first()?.layer;
    let alike = |op: &LoraLinear| {
        (op.rows, op.in_features, op.x_row, op.dtype) == (first.rows, first.in_features, first.x_row, first.dtype)
    };
    let rope = of.iter().find_map(|of| of.rope);
    let fits = |of: &Projection| {
        let same_head = of.rope.is_none_or(|its| rope.is_some_and(|rope| rope.head == its.head));
        of.fits() && alike(&of.layer) && same_head
    };
    if of.len() > MOST_LAYERS || first.dtype == DType::F32 || !of.iter().all(fits) {
        return None;
    }
    let rank = of.iter().map(|of| of.layer.rank).max()?;
    let fitting = TILES.iter().filter(|tile| {
        let head = rope.is_none_or(|rope| rope.head == tile.cols as usize);
        head && rank <= tile.more as usize && tile.runs_on(chip)
    });
    let time = |tile: &Tile| {
        let bytes = of.iter().map(|of| Op::from(of.layer).bytes()).sum();
        tile.estimate(first.rows as u32, col_tiles(of, tile), first.in_features as u32, bytes, chip)
    };
    let (tile, time) = fitting.map(|tile| (tile, time(tile))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    let apart: Option<f64> = of.iter().map(|of| alone(&of.layer, chip)).sum();
    let better = time < apart? + if rope.is_some() { ROPE } else { 0.0 };
    better.then(|| program(of, rope, tile, chip))
}

fn col_tiles(of: &[Projection], tile: &Tile) -> u32 {
    of.iter().map(|of| (of.layer.out_features as u32).div_ceil(tile.cols)).sum()
}

/// How long a layer takes by itself, in us.
fn alone(op: &LoraLinear, chip: &Chip) -> Option<f64> {
    let operands = Op::from(*op).operands().ok()?;
    let library = Product::lora(op, &operands)?.by_library();
    let own = on_hopper(&Op::from(*op), &operands, chip);
    Some(own.map_or(library, |(_, _, time)| time.min(library)))
}

fn program(layers: &[Projection], rope: Option<Rope>, tile: &'static Tile, chip: &Chip) -> Program {
    let LoraLinear { rows, in_features: ins, x_row, dtype, .. } = layers[0].layer;
    let x = matrix(part(Place::Input(0), 0, [rows, ins], x_row), dtype, [rows, ins], x_row, ROWS.min(rows as u32));
    let read = |memory| Binding { access: Access::Read, memory };
    let none = nothing(x.binding);
    let (mut w, mut a) = ([x; MOST_LAYERS], [x; MOST_LAYERS]);
    let (mut b, mut y) = ([none; MOST_LAYERS], [none; MOST_LAYERS]);
    let row_tiles = (rows as u32).div_ceil(ROWS);
    let (steps, col_tiles) = ((ins as u32).div_ceil(DEPTH), col_tiles(layers, tile));
    let beyond = Of { first: u32::MAX, ..Of::default() };
    let mut params = ProjectionsParams { of: [beyond; MOST_LAYERS], m: rows as u32, steps, row_tiles, col_tiles };
    let mut next = 0;
    for (i, projection) in layers.iter().enumerate() {
        let LoraLinear { out_features: outs, rank, scale, .. } = projection.layer;
        let input = |j: usize| Place::Input((1 + 3 * i + j) as u8);
        // Lines beyond a matrix may hold anything, as no result depends on them: they are not copied.
        let of_input = |j: usize, lines: usize, most: u32| -> TensorMap {
            matrix(part(input(j), 0, [lines, ins], ins), dtype, [lines, ins], ins, most.min(lines as u32))
        };
        w[i] = of_input(0, outs, tile.cols);
        if rank > 0 {
            a[i] = of_input(1, rank, tile.more);
            b[i] = read(part(input(2), 0, [outs, rank], rank));
        }
        let written = part(Place::Output(i as u8), 0, [rows, outs], projection.y_row());
        y[i] = Binding { access: Access::Write, memory: written };
        params.of[i] = Of {
            y_row: projection.y_row() as u64,
            n: outs as u32,
            rank: rank as u32,
            first: next,
            turned: projection.rope.is_some().into(),
            copied: (x.tile + w[i].tile + rank as u32) * LINE,
            factor: scale.get(),
            kept: projection.kept.map_or(0, |(kept, _)| kept.rows),
            hidden: projection.kept.map_or(0, |(kept, number)| number as u64 * kept.apart),
            unused: 0,
        };
        next += (outs as u32).div_ceil(tile.cols);
    }
    let tables = match rope.and_then(|rope| Op::Rope(rope).operands().ok()) {
        None => [none; 2],
        Some(of) => [1, 2].map(|i| read(whole(Place::Input((3 * MOST_LAYERS + i) as u8), &of.inputs[i]))),
    };
    let maps: Vec<TensorMap> = [x].into_iter().chain(w).chain(a).collect();
    let bytes = layers.iter().find_map(|layer| layer.kept).map_or(0, |(kept, _)| kept.bytes);
    let hidden = Memory { place: Place::Workspace, offset: 0, bytes };
    let hidden = Binding { access: Access::Write, memory: hidden };
    let bindings: Vec<Binding> = b.into_iter().chain(y).chain(tables).chain([hidden]).collect();
    let program = tile.program(dtype, bytemuck::bytes_of(&params), &maps, &bindings, row_tiles * col_tiles, chip);
    Program { workspace_bytes: bytes, ..program }
}

static FILES: &[(&str, &str)] =
    ping_pong!(candlewick_kernels::ANGLES, kernel!("rotation.h"), kernel!("projections.cu"));

macro_rules! tile {
    ($cols:literal, $rank:literal, $stages:literal) => {
        Tile {
            name: concat!("projections_", $cols, "_r", $rank),
            cols: $cols,
            more: $rank,
            stages: $stages,
            own: staging($cols) + 2 * $cols * pitch($rank),
            files: FILES,
            told: concat!($cols, ", ", $rank, ", ", $stages),
        }
    };
}

/// Every instance. Layers that are turned take the one whose columns are a head.
pub(super) static TILES: &[Tile] = &[
    tile!(64, 8, 6),
    tile!(64, 16, 6),
    tile!(64, 32, 6),
    tile!(64, 64, 5),
    tile!(128, 8, 4),
    tile!(128, 16, 4),
    tile!(128, 32, 4),
];
