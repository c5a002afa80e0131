//! `kernels/silu_product.cu` and `kernels/silu_product_backward.cu`: SiLU times up by the product that makes gate and up, and
//! their gradients by the product that makes its own, on Hopper.

use super::ping_pong::{DEPTH, LINE, ROWS, Tile, matrix, part, ping_pong, sizes, staging};
use super::tile::kernel;
use crate::chip::Chip;
use crate::program::Program;
use candlewick_core::{DType, LoraLinear, MatMul, SiluMul};
use candlewick_kernels::{Access, Binding, Memory, Place};

params! {
    /// As in both kernels.
    struct SiluProductParams {
        row: u64,
        y_row: u64,
        m: u32,
        n: u32,
        steps: u32,
        row_tiles: u32,
        col_tiles: u32,
        copied: u32,
        both_copied: u32,
        writes_both: u32,
    }
}

/// Columns of gate that a tile has, and of up.
const COLS: u32 = 64;

pub(super) static FORWARD: Tile = Tile {
    name: "silu_product",
    cols: COLS,
    more: COLS,
    stages: 5,
    own: staging(COLS),
    files: ping_pong!(kernel!("silu.h"), kernel!("silu_product.cu")),
    told: "5",
};
/// Beside the ring: two tiles of gate and two of up.
pub(super) static BACKWARD: Tile = Tile {
    name: "silu_product_backward",
    cols: COLS,
    more: 0,
    stages: 5,
    own: 4 * ROWS * LINE,
    files: ping_pong!(kernel!("silu.h"), kernel!("silu_product_backward.cu")),
    told: "5",
};

/// The layer that makes gate and up, from these columns on, and SiLU times up behind it; `both`: somebody else reads them.
/// For aligned operands: inputs are x and W, outputs what the layer makes, and y.
pub(crate) fn forward(
    layer: &LoraLinear,
    silu: &SiluMul,
    columns: [usize; 2],
    both: bool,
    chip: &Chip,
) -> Option<Program> {
    let [m, n, k] = sizes([layer.rows, silu.cols, layer.in_features], &[layer.x_row, layer.y_row, silu.y_row])?;
    let plain = layer.rank == 0 && !layer.bias && !layer.accumulate && layer.dtype != DType::F32;
    if !plain || !FORWARD.runs_on(chip) {
        return None;
    }
    let (size, row, tile) = ([layer.rows, layer.in_features], layer.x_row, ROWS.min(m));
    let x = matrix(part(Place::Input(0), 0, size, row), layer.dtype, size, row, tile);
    let [of_gate, of_up] = columns.map(|column| {
        let (size, row) = ([silu.cols, layer.in_features], layer.in_features);
        matrix(part(Place::Input(1), column * row, size, row), layer.dtype, size, row, COLS.min(n))
    });
    let params = SiluProductParams {
        y_row: silu.y_row as u64,
        copied: (x.tile + of_gate.tile + of_up.tile) * LINE,
        writes_both: both.into(),
        ..params(layer.y_row, [m, n, k])
    };
    let [gate, up] =
        columns.map(|column| written(part(Place::Output(0), column, [layer.rows, silu.cols], layer.y_row)));
    let y = written(part(Place::Output(1), 0, [silu.rows, silu.cols], silu.y_row));
    let tiles = params.row_tiles * params.col_tiles;
    let (params, maps) = (bytemuck::bytes_of(&params), [x, of_gate, of_up]);
    Some(FORWARD.program(layer.dtype, params, &maps, &[gate, up, y], tiles, chip))
}

/// SiLU's backward behind the product that makes its dy. For aligned operands: inputs are that product's, then gate and up,
/// outputs their gradients.
pub(crate) fn backward(op: &MatMul, silu: &SiluMul, chip: &Chip) -> Option<Program> {
    let [m, n, k] = sizes([op.m, op.n, op.k], &[op.lda, op.ldb, silu.gate_row])?;
    let plain = !op.trans_a && !op.trans_b && (op.alpha.get(), op.beta.get()) == (1.0, 0.0) && op.batch.count() == 1;
    let alike = silu.gate_row == silu.up_row && (silu.rows, silu.cols) == (op.m, op.n) && op.dtype != DType::F32;
    if !(plain && alike && BACKWARD.runs_on(chip)) {
        return None;
    }
    let (whole, tile) = (|place, size, row| part(place, 0, size, row), ROWS.min(m));
    let dy = matrix(whole(Place::Input(0), [op.m, op.k], op.lda), op.dtype, [op.m, op.k], op.lda, tile);
    // What is beyond W is zero: it is multiplied.
    let w = matrix(whole(Place::Input(1), [op.k, op.n], op.ldb), op.dtype, [op.k, op.n], op.ldb, DEPTH);
    let (size, row) = ([silu.rows, silu.cols], silu.gate_row);
    let [gate, up] = [2, 3].map(|i| matrix(whole(Place::Input(i), size, row), op.dtype, size, row, tile));
    let copied = (dy.tile + w.tile) * LINE;
    let params = SiluProductParams { copied, both_copied: 2 * tile * LINE, ..params(row, [m, n, k]) };
    let gradients = [0, 1].map(|i| written(whole(Place::Output(i), size, row)));
    let tiles = params.row_tiles * params.col_tiles;
    Some(BACKWARD.program(op.dtype, bytemuck::bytes_of(&params), &[dy, w, gate, up], &gradients, tiles, chip))
}

fn params(row: usize, [m, n, k]: [u32; 3]) -> SiluProductParams {
    let (row_tiles, col_tiles) = (m.div_ceil(ROWS), n.div_ceil(COLS));
    SiluProductParams { row: row as u64, m, n, steps: k.div_ceil(DEPTH), row_tiles, col_tiles, ..Default::default() }
}

fn written(memory: Memory) -> Binding {
    Binding { access: Access::Write, memory }
}
