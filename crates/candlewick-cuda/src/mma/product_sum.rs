//! `kernels/product_sum.cu`: the sum of two or three products in one launch, on Hopper.

use super::ping_pong::{DEPTH, LINE, ROWS, Tile, matrix, part, ping_pong, sizes, staging};
use super::product::Product;
use super::tile::kernel;
use crate::chip::Chip;
use crate::program::{Program, TensorMap};
use candlewick_core::{DType, MatMul, Op};
use candlewick_kernels::{Access, Binding, Place};

/// The most products of a launch.
const MOST: usize = 3;

params! {
    /// As in the kernel.
    struct ProductSumParams {
        c_row: u64,
        m: u32,
        n: u32,
        steps: [u32; 3],
        copied: u32,
        row_tiles: u32,
        col_tiles: u32,
    }
}

const COLS: u32 = 64;

pub(super) static TILE: Tile = Tile {
    name: "product_sum",
    cols: COLS,
    more: 0,
    stages: 7,
    own: staging(COLS),
    files: ping_pong!(kernel!("product_sum.cu")),
    told: "7",
};

/// C = A1 B1 + A2 B2 .. of products that each would be added to the sum of those ahead, for aligned operands, if one launch is
/// the better guess. Inputs are A and B of each.
pub(crate) fn product_sum(ops: &[MatMul], chip: &Chip) -> Option<Program> {
    let first = *ops.first()?;
    let alike = |op: &MatMul| {
        let plain = !op.trans_a && !op.trans_b && op.alpha.get() == 1.0 && op.batch.count() == 1;
        let same = (op.m, op.n, op.ldc, op.dtype) == (first.m, first.n, first.ldc, first.dtype);
        plain && same && sizes([op.m, op.n, op.k], &[op.lda, op.ldb, op.ldc]).is_some()
    };
    if !(2..=MOST).contains(&ops.len()) || first.dtype == DType::F32 || !ops.iter().all(alike) || !TILE.runs_on(chip) {
        return None;
    }
    let (m, n) = (first.m as u32, first.n as u32);
    let (row_tiles, col_tiles) = (m.div_ceil(ROWS), n.div_ceil(COLS));
    let k: usize = ops.iter().map(|op| op.k.next_multiple_of(DEPTH as usize)).sum();
    let apart: Option<f64> = ops.iter().map(by_library).sum();
    let bytes = ops.iter().map(|op| Op::from(*op).bytes()).sum();
    if TILE.estimate(m, col_tiles, u32::try_from(k).ok()?, bytes, chip) >= apart? {
        return None;
    }
    let mut steps = [0; MOST];
    // What is not there is anything.
    let (mut a, mut b) = (Vec::<TensorMap>::new(), Vec::new());
    for (i, op) in ops.iter().enumerate() {
        let of = |place: usize, size, row| part(Place::Input(place as u8), 0, size, row);
        a.push(matrix(of(2 * i, [op.m, op.k], op.lda), op.dtype, [op.m, op.k], op.lda, ROWS.min(m)));
        // What is beyond B is zero: it is multiplied.
        b.push(matrix(of(2 * i + 1, [op.k, op.n], op.ldb), op.dtype, [op.k, op.n], op.ldb, DEPTH));
        steps[i] = (op.k as u32).div_ceil(DEPTH);
    }
    a.resize(MOST, a[0]);
    b.resize(MOST, b[0]);
    let copied = (a[0].tile + DEPTH) * LINE;
    let params = ProductSumParams { c_row: first.ldc as u64, m, n, steps, copied, row_tiles, col_tiles };
    let memory = part(Place::Output(0), 0, [first.m, first.n], first.ldc);
    let maps: Vec<TensorMap> = a.into_iter().chain(b).collect();
    let c = [Binding { access: Access::Write, memory }];
    Some(TILE.program(first.dtype, bytemuck::bytes_of(&params), &maps, &c, row_tiles * col_tiles, chip))
}

fn by_library(op: &MatMul) -> Option<f64> {
    let operands = Op::from(*op).operands().ok()?;
    Some(Product::matmul(op, &operands)?.by_library())
}
