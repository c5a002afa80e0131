//! The matrix product: dot products or columns where one side has few rows, else tiles.

use crate::product::{Matrix, Product};
use crate::program::{Alignment, GpuLimits, Memory, Place, Program, size};
use candlewick_core::op::Format;
use candlewick_core::{MatMul, Op};

/// Up to so many rows on one side, the ways for few rows are the better guess.
const FEW: u32 = 32;

/// How `op` can run, the best guess first.
pub(crate) fn forward(op: &MatMul, limits: &GpuLimits, alignment: Alignment) -> Vec<Program> {
    let Some(product) = product(op) else { return Vec::new() };
    let by = |name, run: &dyn Fn(&mut Program) -> Option<()>| {
        let mut program = Program::new(name, op.dtype);
        run(&mut program).map(|()| program)
    };
    if product.elements() == 0 {
        return vec![Program::new("empty", op.dtype)];
    }
    let dots = by("dots", &|program| product.dots(program, limits, alignment));
    let columns = by("columns", &|program| product.columns(program, limits, alignment));
    let tiled = by("tiled", &|program| product.tiled_for(program, limits));
    let tiled_64 = by("tiled_64", &|program| product.tiled(program, 64, 1));
    let tiled_32 = by("tiled_32", &|program| product.tiled(program, 32, 1));
    let few = product.m.min(product.n) <= FEW;
    let ways =
        if few { [dots, columns, tiled, tiled_64, tiled_32] } else { [tiled, tiled_64, tiled_32, dots, columns] };
    ways.into_iter().flatten().collect()
}

fn product(op: &MatMul) -> Option<Product> {
    let operands = Op::from(*op).operands().ok()?;
    let bytes = op.dtype.bytes() as u64;
    let span = |operand: &candlewick_core::op::Operand| bytes * operand.span as u64;
    // A packed operand lies as it did, without gaps between its rows.
    let ldb = match (op.b_format, op.trans_b) {
        (Format::Plain, _) => op.ldb,
        (Format::Packed, true) => op.k,
        (Format::Packed, false) => op.n,
    };
    let b_bytes = match op.b_format {
        Format::Plain => span(&operands.inputs[1]),
        Format::Packed => bytes * op.k as u64 * op.n as u64,
    };
    let a = Memory::whole(Place::Input(0), span(&operands.inputs[0]));
    let b = Memory::whole(Place::Input(1), b_bytes);
    let c = Memory::whole(Place::Output(0), span(&operands.outputs[0]));
    let stored = |memory, row, transposed: bool| {
        let matrix = Matrix::new(memory, row, 1);
        if transposed { matrix.transposed() } else { matrix }
    };
    let mut product = Product::new(
        op.dtype,
        [size(op.m)?, size(op.n)?, size(op.k)?],
        stored(a, op.lda, op.trans_a),
        stored(b, ldb, op.trans_b),
        Matrix::new(c, op.ldc, 1),
    );
    // As in BLAS, nothing is read that a factor of zero hides.
    if op.alpha.get() == 0.0 {
        product.k = 0;
    }
    (product.alpha, product.beta) = (op.alpha.get(), op.beta.get());
    if op.batch.count() == 0 {
        (product.m, product.n) = (0, 0);
        return Some(product);
    }
    for i in 0..3 {
        let count = size(op.batch.dims[i])?;
        let (a, b, c) = (op.batch.a[i] as u64, op.batch.b[i] as u64, op.batch.c[i] as u64);
        // A dimension of one has no second element: its stride means nothing.
        if count == 1 {
            continue;
        }
        if c == 0 {
            (product.sum[i], product.a.sum[i], product.b.sum[i]) = (count, a, b);
        } else {
            (product.batch[i], product.a.batch[i], product.b.batch[i], product.c.batch[i]) = (count, a, b, c);
        }
    }
    Some(product)
}
